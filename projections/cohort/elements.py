"""What headers say, as values that can be compared: numbers as numbers, dates as YYYY-MM-DD, times as HH:MM:SS, ages in years.

Of a series (or study), the distinct values that its instances have, in the order in which they came. Of each element the first
MAX_VALUES are kept; of what comes beyond these the smallest and the largest, where they can be ordered, so that ranges and sorting stay
right; and the element is listed under MORE.
"""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from typing import Any

from domain.series import DicomJson
from projections.cohort.naming import (
    MAX_DEPTH,
    NAME_COMPONENTS,
    NAME_GROUPS,
    Element,
    Kind,
    element_named,
    element_of,
    private_key,
    vr_of,
)
from projections.dicom.folding import folded_date, folded_time

Scalar = str | int | float

MAX_VALUES = 100
MAX_CHARACTERS = 400
"""Longer text is cut."""
MORE = "more"
"""Beside the elements: keys of those that have more values than are kept."""
_ORDERED = (Kind.NUMBER, Kind.DATE, Kind.TIME)


class Values:
    """The distinct values of one element, as they come."""

    __slots__ = ("beyond", "first")

    def __init__(self, kept: Iterable[Scalar] = ()) -> None:
        kept = list(kept)
        self.first: dict[Scalar, None] = dict.fromkeys(kept[:MAX_VALUES])
        self.beyond: list[Scalar] = kept[MAX_VALUES:]

    def add(self, value: Scalar, kind: Kind) -> bool:
        """Whether what is kept has changed. Of a value that was not there before."""
        if len(self.first) < MAX_VALUES:
            self.first[value] = None
            return True
        before = self.beyond
        if kind in _ORDERED:
            known: list[Any] = [*before, value]
            self.beyond = list(dict.fromkeys((min(known), max(known))))
        return self.beyond != before

    def kept(self) -> list[Scalar]:
        return [*self.first, *self.beyond]


class Elements:
    """All elements of a study or series: what is kept in a row, and what further headers add to it."""

    def __init__(self, kept: Mapping[str, list[Any]] | None = None) -> None:
        kept = kept or {}
        self._values = {key: Values(values) for key, values in kept.items() if key != MORE}
        self._more = set(kept.get(MORE, ()))

    def add(self, element: Element, values: Iterable[Scalar]) -> bool:
        """Whether what is kept has changed."""
        key = element.key
        known = self._values.get(key)
        changed = False
        for value in values:
            if known is None:
                known = self._values[key] = Values()
            if value in known.first:
                continue
            if len(known.first) == MAX_VALUES and key not in self._more:
                self._more.add(key)
                changed = True
            changed |= known.add(value, element.kind)
        return changed

    def first(self, key: str) -> Scalar | None:
        """The first value that came."""
        known = self._values.get(key)
        return next(iter(known.first), None) if known is not None else None

    def kept(self) -> dict[str, list[Any]]:
        """As the row holds it."""
        made: dict[str, list[Any]] = {key: values.kept() for key, values in self._values.items()}
        if self._more:
            made[MORE] = sorted(self._more)
        return made


def texts(kept: Mapping[str, list[Any]]) -> Iterator[tuple[str, list[str]]]:
    """Of a row's elements, those whose values are codes or text."""
    for key, values in kept.items():
        if key != MORE and _is_text(key):
            yield key, values


@lru_cache(maxsize=16384)
def _is_text(key: str) -> bool:
    element = element_named(key)
    return element is not None and element.kind in (Kind.CODE, Kind.TEXT)


def read(header: DicomJson, shared: DicomJson | None = None) -> Iterator[tuple[Element, list[Scalar]]]:
    """Every element of a header that has values. ``shared``: what else the data set holds, where private blocks may be reserved."""
    yield from _read(header, shared or {}, ())


def _read(items: DicomJson, shared: DicomJson, path: tuple[str, ...]) -> Iterator[tuple[Element, list[Scalar]]]:
    for tag, element in items.items():
        found = element.get("Value") if isinstance(element, dict) else None
        if not isinstance(found, list):
            continue
        key = tag if int(tag[3], 16) % 2 == 0 else _private(tag, items, shared)
        if not key:
            continue
        if "SQ" in (element.get("vr"), vr_of(key)):
            if vr_of(key) == "SQ" and len(path) + 1 < MAX_DEPTH:
                for item in found:
                    if isinstance(item, dict):
                        yield from _read(item, {}, (*path, key))
            continue
        named = _named((*path, key))
        if named is None:
            continue
        yield named, _converted(found, named)
        if named.vr == "PN":
            yield from _parts_of_names(found, (*path, key))


def _private(tag: str, items: DicomJson, shared: DicomJson) -> str:
    """By the creator that reserved its block (PS3.5, 7.8.1); empty for that reservation itself, and without one."""
    block = tag[4:6]
    if block < "10":
        return ""
    reserved = f"{tag[:4]}00{block}"
    creator = _first_text(items.get(reserved) or shared.get(reserved))
    return private_key(tag[:4], creator, tag) if 0 < len(creator) <= 64 and '"' not in creator else ""


def _first_text(element: Any) -> str:
    found = element.get("Value") if isinstance(element, dict) else None
    return _text(found[0]) if isinstance(found, list) and found else ""


@lru_cache(maxsize=65536)
def _named(path: tuple[str, ...], part: str = "") -> Element | None:
    return element_of(path, part)


def _converted(found: list[Any], element: Element) -> list[Scalar]:
    convert = _CONVERSIONS[element.kind]
    if element.vr == "AS":
        convert = _age
    made = (convert(value) for value in found if value is not None)
    return [value for value in made if value is not None and value != ""]


def _parts_of_names(found: list[Any], path: tuple[str, ...]) -> Iterator[tuple[Element, list[Scalar]]]:
    for number, part in enumerate(NAME_COMPONENTS):
        values = [name[number].strip() for name in (_text(one).split("^") for one in found) if len(name) > number]
        yield from _part(path, part, values)
    for group in NAME_GROUPS:
        yield from _part(path, group, [_plain(one.get(group.capitalize())) for one in found if isinstance(one, dict)])


def _part(path: tuple[str, ...], part: str, values: Iterable[str]) -> Iterator[tuple[Element, list[Scalar]]]:
    kept: list[Scalar] = [value for value in values if value]
    named = _named(path, part) if kept else None
    if named is not None:
        yield named, kept


def _text(value: Any) -> str:
    """Of a person's name, its alphabetic group without trailing delimiters."""
    return _plain(value.get("Alphabetic")).rstrip("^ ") if isinstance(value, dict) else _plain(value)


def _plain(value: Any) -> str:
    return "" if value is None else str(value).replace("\0", " ").strip()[:MAX_CHARACTERS].strip()


def _number(value: Any) -> Scalar | None:
    if isinstance(value, (bool, dict, list)):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    if not math.isfinite(number):
        return None
    return int(number) if number.is_integer() and abs(number) < 2**53 else number


def _date(value: Any) -> Scalar | None:
    """Of DA, and the day of DT (PS3.5, 6.2)."""
    digits = folded_date(str(value)) or folded_date(str(value).strip()[:8])
    try:
        return datetime.date(int(digits[:4]), int(digits[4:6]), int(digits[6:])).isoformat() if digits else None
    except ValueError:
        return None


def _time(value: Any) -> Scalar | None:
    """To the second."""
    folded = folded_time(str(value))
    return f"{folded[:2]}:{folded[2:4]}:{folded[4:6]}" if folded else None


_AGE = re.compile(r"(\d{3})([DWMY])", re.ASCII)
_AGE_YEARS = {"D": 1 / 365.25, "W": 7 / 365.25, "M": 1 / 12, "Y": 1.0}


def _age(value: Any) -> Scalar | None:
    """An age string (PS3.5, 6.2) in years, to the hundredth."""
    found = _AGE.fullmatch(str(value).strip(" \0").upper())
    return _number(round(int(found[1]) * _AGE_YEARS[found[2]], 2)) if found else None


_CONVERSIONS: Mapping[Kind, Any] = {
    Kind.NUMBER: _number,
    Kind.DATE: _date,
    Kind.TIME: _time,
    Kind.TEXT: _text,
    Kind.CODE: _text,
    Kind.UID: _text,
}

