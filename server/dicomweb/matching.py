"""How one key becomes a condition of SQL (PS3.4 C.2.2.2): single value, list of UIDs, wildcard, range, universal.

Values never enter the SQL text, only parameters do. Every kind of match is exact: where an index narrows the search, the
value itself is compared again.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from projections.dicom import folding
from server.dicomweb.errors import QueryInvalid
from server.dicomweb.keys import Key


class Parameters(list[Any]):
    """The parameters of a statement; ``bind`` adds one and gives its placeholder."""

    def bind(self, value: Any) -> str:
        self.append(value)
        return f"${len(self)}"


def condition(key: Key, text: str, parameters: Parameters) -> str | None:
    """The condition for this key's value as the client wrote it; None where everything matches. Raises QueryInvalid."""
    if not text.strip().strip("*"):  # no value, or * alone: universal matching
        return None
    alternatives = [_KINDS[key.kind](key, one, parameters) for one in _values(key, text)]
    return f"({' OR '.join(alternatives)})" if alternatives else None


def _values(key: Key, text: str) -> list[str]:
    """A backslash separates values of any attribute, a comma those of UIDs and codes, which never hold one."""
    separators = r"[\\,]" if key.kind in ("uid", "uids", "code", "codes") else r"\\"
    return [one for one in re.split(separators, text) if one.strip()]


def _name(key: Key, text: str, parameters: Parameters) -> str:
    """One group matches in any of the three; several, divided by =, match each its own (PS3.5, 6.2.1.2)."""
    groups = [folding.folded_name(group) for group in text.split("=")[:3]]
    if len(groups) > 1:
        wanted = [(column, group) for column, group in zip(key.columns, groups, strict=False) if group.strip("*")]
        return " AND ".join(_pattern(column, group, parameters) for column, group in wanted) or "true"
    columns = key.columns if groups[0] else key.columns[:1]
    found = " OR ".join(_pattern(column, groups[0], parameters) for column in columns)
    return _narrowed(key, groups[0], f"({found})", parameters)


def _text(key: Key, text: str, parameters: Parameters) -> str:
    wanted = folding.folded_text(text)
    return _narrowed(key, wanted, _pattern(key.columns[0], wanted, parameters), parameters)


def _pattern(column: str, wanted: str, parameters: Parameters) -> str:
    """Equality, a prefix as a range of the index (which LIKE with a parameter would not use), or LIKE."""
    literal, *rest = re.split(r"[*?]", wanted, maxsplit=1)
    if not rest:
        return f"{column} = {parameters.bind(wanted)}"
    found = []
    if literal:
        low, high = parameters.bind(literal), parameters.bind(_successor(literal))
        found.append(f"{column} >= {low} AND {column} < {high}")
    if not _is_prefix(wanted):
        found.append(f"{column} LIKE {parameters.bind(_like(wanted))}")
    return f"({' AND '.join(found)})"


def _is_prefix(wanted: str) -> bool:
    return not re.search(r"[*?]", wanted[:-1]) and wanted.endswith("*")


def _narrowed(key: Key, wanted: str, found: str, parameters: Parameters) -> str:
    """For a fragment in the middle of the text: the index of grams first, where the fragment is long enough for one."""
    pieces = re.split(r"[*?]", wanted)
    codes = folding.grams(key.keyword, pieces)
    if not key.has_grams or len(pieces) == 1 or _is_prefix(wanted) or not codes:
        return found
    return f"(s.grams @> {parameters.bind(codes)}::integer[] AND {found})"


def _successor(prefix: str) -> str:
    """The least text that is greater than every text with this prefix, in the order of code points."""
    for end in range(len(prefix), 0, -1):
        following = ord(prefix[end - 1]) + 1
        if following <= 0x10FFFF:
            return prefix[: end - 1] + chr(0xE000 if following == 0xD800 else following)
    return prefix + "\U0010ffff"


def _like(wanted: str) -> str:
    escaped = re.sub(r"([\\%_])", r"\\\1", wanted)
    return escaped.replace("*", "%").replace("?", "_")


def _uid(key: Key, text: str, parameters: Parameters) -> str:
    return f"{key.columns[0]} = {parameters.bind(_checked_uid(key, text))}"


def _uids(key: Key, text: str, parameters: Parameters) -> str:
    return f"{key.columns[0]} @> {parameters.bind([_checked_uid(key, text)])}::text[]"


def _checked_uid(key: Key, text: str) -> str:
    uid = text.strip(" \0")
    if not re.fullmatch(r"[0-9.]{1,128}", uid, re.ASCII):
        raise QueryInvalid(f"{key.keyword} takes UIDs (several divided by commas), without wildcards")
    return uid


def _code(key: Key, text: str, parameters: Parameters) -> str:
    return _pattern(key.columns[0], folding.folded_text(text), parameters)


def _codes(key: Key, text: str, parameters: Parameters) -> str:
    """One of the codes that a study holds. A wildcard is compared with each."""
    wanted = folding.folded_text(text)
    if "*" in wanted or "?" in wanted:
        return f"EXISTS (SELECT FROM unnest({key.columns[0]}) AS held(code) WHERE {_pattern('held.code', wanted, parameters)})"
    return f"{key.columns[0]} @> {parameters.bind([wanted])}::text[]"


def _date(key: Key, text: str, parameters: Parameters) -> str:
    return _range(key, text, parameters, lambda value, _: folding.folded_date(value), "a date YYYYMMDD")


def _time(key: Key, text: str, parameters: Parameters) -> str:
    return _range(key, text, parameters, lambda value, latest: folding.folded_time(value, latest=latest), "a time HHMMSS.FFFFFF")


def _range(key: Key, text: str, parameters: Parameters, fold: Callable[[str, bool], str], form: str) -> str:
    """PS3.4 C.2.2.2.5: ``a-b``, ``a-`` and ``-b`` take in both ends; a time without its seconds is the whole minute."""
    first, dash, last = text.strip().partition("-")
    if not dash:
        last = first
    low, high = fold(first, False), fold(last, True)
    if (first and not low) or (last and not high) or not (first or last):
        raise QueryInvalid(f"{key.keyword} takes {form}, or a range of two with a hyphen between, either of which may be absent")
    column = key.columns[0]
    bounds = [f"{column} >= {parameters.bind(low)}"] if low else [f"{column} <> ''"]
    if high:
        bounds.append(f"{column} <= {parameters.bind(high)}")
    return f"({' AND '.join(bounds)})"


def _integer(key: Key, text: str, parameters: Parameters) -> str:
    if not re.fullmatch(r"\s*[+-]?[0-9]{1,18}\s*", text, re.ASCII):
        raise QueryInvalid(f"{key.keyword} takes an integer")
    return f"{key.columns[0]} = {parameters.bind(int(text))}::bigint"


_KINDS: dict[str, Callable[[Key, str, Parameters], str]] = {
    "name": _name,
    "text": _text,
    "texts": _codes,
    "uid": _uid,
    "uids": _uids,
    "code": _code,
    "codes": _codes,
    "date": _date,
    "time": _time,
    "integer": _integer,
}
