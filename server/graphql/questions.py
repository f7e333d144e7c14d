"""Questions before they are asked: are their fields known, may who asks see them, and which place in the log are they of?"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date, time

from domain.condition import (
    All,
    Any,
    Between,
    Condition,
    Contains,
    Followed,
    Has,
    Level,
    Not,
    OneOf,
    Present,
    Query,
    Value,
)
from projections.cohort.engine import Asked
from projections.cohort.errors import CohortError, FieldRefused
from projections.cohort.fields import Field, field_named
from projections.cohort.naming import Kind
from server.errors import ScopeMissing
from server.graphql.errors import At

IDENTITIES = "identities:read"


def fields_of(condition: Condition | None, level: Level, where: str = "$.where") -> Iterator[tuple[Field, str]]:
    """Each field that a condition names, and where. Raises At (FieldUnknown, FieldRefused)."""
    match condition:
        case None:
            return
        case OneOf() | Between() | Present() | Contains():
            field = known_field(condition.field, level, where)
            wrong = _wrong(condition, field)
            if wrong:
                raise At(FieldRefused(f"{field.name} is a {field.kind}: {wrong}"), where)
            yield field, where
        case All() | Any():
            for number, one in enumerate(condition.of):
                yield from fields_of(one, level, f"{where}.of[{number}]")
        case Not():
            yield from fields_of(condition.of, level, f"{where}.of")
        case Has():
            yield from fields_of(condition.where, condition.level, f"{where}.where")
        case Followed():
            yield from fields_of(condition.baseline, Level.STUDY, f"{where}.baseline")
            yield from fields_of(condition.follow_up, Level.STUDY, f"{where}.follow_up")


def _wrong(condition: OneOf | Between | Present | Contains, field: Field) -> str:
    """What of a condition does not fit the field's kind, and what to do; empty where all does."""
    match condition:
        case Between() if field.kind not in _ORDERED:
            return "bounds are of numbers, dates and times; name its values (oneOf)"
        case Between():
            bounds = [bound for bound in (condition.at_least, condition.more_than, condition.at_most, condition.less_than) if bound is not None]
            return next((wrong for bound in bounds if (wrong := _wrong_value(bound, field.kind))), "")
        case Contains() if field.kind not in (Kind.CODE, Kind.TEXT, Kind.UID):
            return "only text holds text"
        case OneOf():
            return next((wrong for value in condition.values if (wrong := _wrong_value(value, field.kind))), "")
    return ""


def _wrong_value(value: Value, kind: Kind) -> str:
    if kind is Kind.BOOLEAN:
        return "" if isinstance(value, bool) else "its values are true and false"
    if kind is Kind.NUMBER:
        return "" if isinstance(value, int | float) and not isinstance(value, bool) else "write a number, without quotation marks"
    if not isinstance(value, str):
        return "write its values in quotation marks"
    if kind in _ORDERED:
        try:
            date.fromisoformat(value) if kind is Kind.DATE else time.fromisoformat(value)
        except ValueError:
            return "write YYYY-MM-DD" if kind is Kind.DATE else "write HH:MM:SS"
    return ""


_ORDERED = (Kind.NUMBER, Kind.DATE, Kind.TIME)


def known_field(name: str, level: Level, where: str) -> Field:
    """Raises At, with what is wrong."""
    try:
        return field_named(name, level)
    except CohortError as error:
        raise At(error, where) from None


def check(query: Query, *, may_identify: bool, others: Sequence[tuple[str, str]] = ()) -> list[str]:
    """Names of the fields that a question uses; ``others``: those of its facets, orders and ticks, with where they are.

    Raises ScopeMissing for a field that identifies, and At for one that is not known. Saved questions are checked like any.
    """
    fields = [*fields_of(query.where, query.level), *((known_field(name, query.level, where), where) for name, where in others)]
    if not may_identify and any(field.identifies for field, _ in fields):
        raise ScopeMissing(IDENTITIES)
    return [field.name for field, _ in fields]


def asked(query: Query, position: int, ticked: Mapping[str, Sequence[Value]]) -> Asked:
    return Asked(query=query, position=position, ticked=ticked)
