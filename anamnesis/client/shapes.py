"""Dataclasses as what GraphQL is asked for and answers: each field by its name, dataclasses within dataclasses, lists of them."""

from __future__ import annotations

import typing
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import cache
from types import UnionType
from typing import Any, NewType, TypeVar

T = TypeVar("T")
Word = NewType("Word", str)
"""A value of an enumeration: the schema's CLINICAL_TRIAL is clinical-trial here."""


def camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(word.capitalize() for word in others)


def as_word(name: str) -> Word:
    return Word(name.lower().replace("_", "-"))


def as_name(word: str) -> str:
    """As the schema writes it."""
    return word.upper().replace("-", "_")


def selection(kind: Any) -> str:
    """What is asked for, to read one of these."""
    chosen = []
    for name, inner, _ in _parts(kind):
        chosen.append(f"{camel(name)} {{ {selection(inner)} }}" if is_dataclass(inner) else camel(name))
    return " ".join(chosen)


def read(kind: type[T], node: Mapping[str, Any]) -> T:
    """One of these, from what ``selection`` asked for."""
    values: dict[str, Any] = {}
    of: Any = kind
    for name, inner, is_list in _parts(of):
        value = node[camel(name)]
        values[name] = [_read_one(inner, one) for one in value] if is_list else _read_one(inner, value)
    return kind(**values)


def _read_one(inner: Any, value: Any) -> Any:
    if value is None:
        return None
    if inner is Word:
        return as_word(value)
    return read(inner, value) if is_dataclass(inner) and isinstance(inner, type) else value


@cache
def _parts(kind: Any) -> Sequence[tuple[str, Any, bool]]:
    """Of each field its name, its type (of a list, that of its entries; of what may be None, the other one), and whether it is a list."""
    hints = typing.get_type_hints(kind)
    found = []
    for one in fields(kind):
        hint = hints[one.name]
        if typing.get_origin(hint) in (UnionType, typing.Union):
            hint = next(arm for arm in typing.get_args(hint) if arm is not type(None))
        is_list = typing.get_origin(hint) is Sequence
        found.append((one.name, typing.get_args(hint)[0] if is_list else hint, is_list))
    return found
