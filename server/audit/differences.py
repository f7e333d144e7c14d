"""What differs between two states, field by field: the path, and what stood there before and after.

Where many entries of a mapping or a list changed at once, they are counted and the first few are named.
"""

from __future__ import annotations

from typing import Any

import msgspec

FEW = 5
"""More changed entries than these are summarised."""
MAX_CHARACTERS = 500
"""Of one value as JSON; a longer one is cut."""


class Change(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """``added`` and ``removed`` count entries where ``before`` and ``after`` name only some of them."""

    path: str
    before: Any = None
    after: Any = None
    added: int = 0
    removed: int = 0
    changed: int = 0
    withheld: bool = False
    """It identifies a person, and was not asked for (or may not be seen)."""


def difference(before: Any, after: Any, path: str = "") -> list[Change]:
    """The changes from one state to the other, in the order of their paths. Both are made of mappings, lists and scalars."""
    if before == after:
        return []
    if isinstance(before, dict) and isinstance(after, dict):
        return _of_mappings(before, after, path)
    if isinstance(before, list) and isinstance(after, list):
        return _of_lists(before, after, path)
    return [Change(path=path, before=_short(before), after=_short(after))]


def _of_mappings(before: dict[str, Any], after: dict[str, Any], path: str) -> list[Change]:
    differing = [key for key in sorted({*before, *after}) if before.get(key) != after.get(key)]
    if path and "." in path and len(differing) > FEW:
        added = [key for key in differing if key not in before]
        removed = [key for key in differing if key not in after]
        shown = differing[:FEW]
        return [
            Change(
                path=path,
                before=_short({key: before[key] for key in shown if key in before}) or None,
                after=_short({key: after[key] for key in shown if key in after}) or None,
                added=len(added),
                removed=len(removed),
                changed=len(differing) - len(added) - len(removed),
            )
        ]
    changes: list[Change] = []
    for key in differing:
        changes += difference(before.get(key), after.get(key), f"{path}.{key}" if path else key)
    return changes


def _of_lists(before: list[Any], after: list[Any], path: str) -> list[Change]:
    """Lists are compared as sets are: by what came and what went."""
    was = {_text(one): one for one in before}
    now = {_text(one): one for one in after}
    went = [was[text] for text in sorted(was.keys() - now.keys())]
    came = [now[text] for text in sorted(now.keys() - was.keys())]
    if not went and not came:  # another order
        return [Change(path=path, before=_short(before), after=_short(after))]
    return [Change(path=path, before=_short(went[:FEW]) or None, after=_short(came[:FEW]) or None, added=len(came), removed=len(went))]


def _text(value: Any) -> str:
    return msgspec.json.encode(value, order="sorted").decode("utf-8")


def _short(value: Any) -> Any:
    text = _text(value)
    return value if len(text) <= MAX_CHARACTERS else f"{text[:MAX_CHARACTERS]}… ({len(text)} characters)"
