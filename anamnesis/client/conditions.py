"""Conditions on subjects, studies, series and findings, built in Python.

    (field("Modality") == "CT") & (field("SliceThickness") <= 1.5) & has("finding", field("label") == "liver")

A condition is true or false of one entity, never unknown: a comparison of what has no value is false, and ``~`` of it true. Where a
field has several values, one that meets the condition is enough, unless ``field(…).every`` is asked. Dates are YYYY-MM-DD, times
HH:MM:SS, numbers in the field's unit (`client.fields()` lists fields with their units).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

Value = str | float | bool
LEVELS = ("subject", "study", "series", "instance", "finding", "fact", "tag")


class Condition:
    """Immutable. ``&``, ``|`` and ``~`` combine conditions; Python's ``and``, ``or`` and ``not`` cannot, and say so."""

    __slots__ = ("_json",)

    def __init__(self, as_json: Mapping[str, Any]) -> None:
        self._json = json.dumps(as_json, sort_keys=True, ensure_ascii=False, allow_nan=False)

    def to_json(self) -> dict[str, Any]:
        """As the server stores it."""
        made: dict[str, Any] = json.loads(self._json)
        return made

    def __and__(self, other: Condition) -> Condition:
        return _joined("all", self, other)

    def __or__(self, other: Condition) -> Condition:
        return _joined("any", self, other)

    def __invert__(self) -> Condition:
        return Condition({"is": "not", "of": self.to_json()})

    def __bool__(self) -> bool:
        raise TypeError("conditions are joined by &, | and ~, each comparison in parentheses; 1 < x < 2 is (x > 1) & (x < 2)")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Condition) and self.to_json() == other.to_json()

    def __hash__(self) -> int:
        return hash(self._json)

    def __str__(self) -> str:
        from anamnesis.client.language import write

        return write(self)

    def __repr__(self) -> str:
        return f"<Condition {self}>"


def _joined(kind: str, one: Condition, other: Condition) -> Condition:
    """``a & b & c`` is one condition of three."""
    if not isinstance(other, Condition):
        raise TypeError(f"a condition is joined with a condition, and this is {type(other).__name__}: put comparisons in parentheses")
    first = one.to_json()
    before = first["of"] if first["is"] == kind and first["of"] else [first]
    return Condition({"is": kind, "of": [*before, other.to_json()]})


class Field:
    """A field to compare: one of the server's own, or any DICOM element by keyword or number. Comparisons give conditions."""

    __hash__ = object.__hash__

    def __init__(self, name: str, *, every: bool = False) -> None:
        self._name = name
        self._every = every

    @property
    def every(self) -> Field:
        """Of a field with several values: all of them have to lie there (ranges alone can be asked so)."""
        return Field(self._name, every=True)

    def __eq__(self, value: object) -> Condition:  # type: ignore[override]
        return self.one_of([value])  # type: ignore[list-item]

    def __ne__(self, value: object) -> Condition:  # type: ignore[override]
        return ~self.one_of([value])  # type: ignore[list-item]

    def __lt__(self, value: float | str) -> Condition:
        return self.between(less_than=value)

    def __le__(self, value: float | str) -> Condition:
        return self.between(at_most=value)

    def __gt__(self, value: float | str) -> Condition:
        return self.between(more_than=value)

    def __ge__(self, value: float | str) -> Condition:
        return self.between(at_least=value)

    def one_of(self, values: Iterable[Value]) -> Condition:
        """The field has one of these values."""
        self._once("one of some values")
        listed = list(values)
        for value in listed:
            if not isinstance(value, str | int | float | bool):
                raise TypeError(f"{self._name} is compared with text, a number or a truth, not with {type(value).__name__}; a date is YYYY-MM-DD")
        return Condition({"is": "one-of", "field": self._name, "values": listed})

    def between(
        self,
        at_least: float | str | None = None,
        at_most: float | str | None = None,
        *,
        more_than: float | str | None = None,
        less_than: float | str | None = None,
    ) -> Condition:
        """Numbers, dates or times between bounds, of which at least one is given."""
        bounds = {"at_least": at_least, "more_than": more_than, "at_most": at_most, "less_than": less_than}
        given = {name: bound for name, bound in bounds.items() if bound is not None}
        if not given or any(isinstance(bound, bool) or not isinstance(bound, str | int | float) for bound in given.values()):
            raise TypeError(f"{self._name} is compared with numbers, dates (YYYY-MM-DD) or times (HH:MM:SS)")
        return Condition({"is": "between", "field": self._name, **given, **({"every": True} if self._every else {})})

    def present(self) -> Condition:
        """The field has a value."""
        self._once("presence")
        return Condition({"is": "present", "field": self._name})

    def contains(self, text: str, *, tolerant: bool = False) -> Condition:
        """The field's text holds this text, whatever the case and accents; ``tolerant``: also with letters wrong."""
        self._once("text")
        return Condition({"is": "contains", "field": self._name, "text": text, **({"tolerant": True} if tolerant else {})})

    def _once(self, what: str) -> None:
        if self._every:
            raise TypeError(f"every value of {self._name} can be asked for a range, not for {what}")

    def __bool__(self) -> bool:
        raise TypeError(f"compare {self._name} with something, or ask whether it is there: field({self._name!r}).present()")


def field(name: str) -> Field:
    """A field by its name: ``volume_ml``, ``SliceThickness``, ``00180050``."""
    return Field(name)


def has(level: str, where: Condition | None = None, *, at_least: int = 1) -> Condition:
    """At least so many of what belongs to the entity meet the condition: a series has findings, a subject has studies.

    Of a level above, what the entity belongs to: ``has("subject", field("sex") == "female")`` of a series.
    """
    if level not in LEVELS:
        raise ValueError(f"{level!r} is no level: {', '.join(LEVELS)}")
    more: dict[str, Any] = {} if at_least == 1 else {"at_least": at_least}
    return Condition({"is": "has", "level": level, **({} if where is None else {"where": where.to_json()}), **more})


def followed(baseline: Condition, follow_up: Condition, *, at_least_days: int = 1, at_most_days: int | None = None) -> Condition:
    """Of a subject: a study that meets ``baseline``, and another one so many days later that meets ``follow_up``; bounds included."""
    days = {} if at_least_days == 1 else {"at_least_days": at_least_days}
    if at_most_days is not None:
        days["at_most_days"] = at_most_days
    return Condition({"is": "followed", "baseline": baseline.to_json(), "follow_up": follow_up.to_json(), **days})


def all_of(*conditions: Condition) -> Condition:
    """Each of these holds; of none: true."""
    return Condition({"is": "all", "of": [one.to_json() for one in conditions]})


def any_of(*conditions: Condition) -> Condition:
    """One of these holds; of none: false."""
    return Condition({"is": "any", "of": [one.to_json() for one in conditions]})
