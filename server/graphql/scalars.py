"""Scalars beyond GraphQL's own: whole numbers that outgrow 32 bits, and values as DICOM elements have them."""

from __future__ import annotations

from typing import Any, NewType

import strawberry
from graphql import GraphQLError, ValueNode, value_from_ast_untyped
from strawberry.types.scalar import ScalarDefinition

from domain.condition import Value as FieldValue

Long = NewType("Long", int)
Value = NewType("Value", object)
Json = NewType("Json", object)

_MOST = 2**53 - 1
"""The largest whole number that every reader of JSON takes exactly (RFC 8259, 6)."""


def _long(value: object) -> int:
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) > _MOST:
        raise GraphQLError("this is no whole number of at most 53 bits")
    return value


def _value(value: object) -> FieldValue:
    if isinstance(value, bool | str | float):
        return value
    if isinstance(value, int):
        return float(_long(value))
    raise GraphQLError("a value is a text, a number, or true or false")


def _of_literal(parse: Any) -> Any:
    def parse_literal(node: ValueNode, variables: dict[str, Any] | None = None) -> Any:
        return parse(value_from_ast_untyped(node, variables))

    return parse_literal


SCALARS: dict[object, ScalarDefinition] = {
    Long: strawberry.scalar(
        name="Long",
        description="A whole number of up to 53 bits: positions in the log, bytes.",
        serialize=int,
        parse_value=_long,
        parse_literal=_of_literal(_long),
    ),
    Value: strawberry.scalar(
        name="Value",
        description="What a field has: a text, a number in the field's unit, or true or false. Dates are YYYY-MM-DD, times HH:MM:SS.",
        serialize=lambda value: value,
        parse_value=_value,
        parse_literal=_of_literal(_value),
    ),
    Json: strawberry.scalar(name="JSON", description="Any JSON.", serialize=lambda value: value, parse_value=lambda value: value),
}
