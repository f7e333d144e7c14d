"""The values of a field of a row, as SQL, and values that are asked for, as arguments: what has no such kind is refused."""

from __future__ import annotations

import datetime
from typing import Any

from domain.condition import Value
from projections.cohort.errors import FieldRefused
from projections.cohort.fields import Field
from projections.cohort.naming import Kind
from projections.cohort.postgresql.statement import Statement
from projections.dicom.folding import folded_time

TEXTS = (Kind.CODE, Kind.TEXT)
_SQL_KIND = {Kind.NUMBER: "double precision", Kind.BOOLEAN: "boolean"}


def sql_kind(field: Field) -> str:
    """What values are compared as: of dates and times, the text."""
    return _SQL_KIND.get(field.kind, "text")


def own_value(field: Field, alias: str) -> str:
    """Of one of our own fields: NULL without a value."""
    column = f"{alias}.{field.column}"
    match field.kind:
        case Kind.NUMBER:
            return f"{column}::double precision"
        case Kind.DATE:
            return f"to_char({column}, 'YYYY-MM-DD') COLLATE \"C\""
        case Kind.BOOLEAN:
            return column
    return f"nullif({column}, '')"


def element_values(field: Field, alias: str, s: Statement) -> str:
    """Of an element: rows of a column ``value``."""
    found = f"jsonb_array_elements_text({alias}.elements -> {s.argument(field.key, 'text')})"
    value = "v.value::double precision" if field.kind == Kind.NUMBER else 'v.value COLLATE "C"'
    return f"SELECT {value} AS value FROM {found} AS v (value)"


def values(field: Field, alias: str, s: Statement) -> str:
    """All of them: rows of a column ``value``."""
    if field.is_element:
        return element_values(field, alias, s)
    return f"SELECT o.value FROM (SELECT {own_value(field, alias)} AS value) o WHERE o.value IS NOT NULL"


def first_value(field: Field, alias: str, s: Statement, *, last: bool) -> str:
    """The smallest, or the largest; NULL without one."""
    if not field.is_element:
        return own_value(field, alias)
    found = element_values(field, alias, s)
    return f"(SELECT {'max' if last else 'min'}(e.value) FROM ({found}) e)"


def asked_value(field: Field, value: Value) -> Any:
    """As it is compared. Raises FieldRefused."""
    match field.kind:
        case Kind.BOOLEAN:
            if isinstance(value, bool):
                return value
        case Kind.NUMBER:
            if isinstance(value, int | float) and not isinstance(value, bool):
                return float(value)
        case Kind.DATE:
            if isinstance(value, str) and _is_date(value):
                return value
        case Kind.TIME:
            if isinstance(value, str) and len(value) == 8 and folded_time(value):
                return value
        case _:
            if isinstance(value, str):
                return value.replace("\0", " ")
    raise FieldRefused(f"{field.name} is a {field.kind}: {_HOW[field.kind]}")


_HOW = {
    Kind.BOOLEAN: "ask for true or false",
    Kind.NUMBER: "ask for a number",
    Kind.DATE: "ask for a date as YYYY-MM-DD",
    Kind.TIME: "ask for a time as HH:MM:SS",
    Kind.CODE: "ask for text",
    Kind.TEXT: "ask for text",
    Kind.UID: "ask for text",
}


def _is_date(value: str) -> bool:
    try:
        return datetime.date.fromisoformat(value).isoformat() == value
    except ValueError:
        return False
