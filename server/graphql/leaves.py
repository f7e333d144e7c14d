"""Plain values of things, taken without the ceremony that a resolver needs: of a page, nearly all values are such.

What graphql-core does for each (arguments, what a resolver is told, completing by type) took a quarter of the time of a page of a hundred
series, and nearly half of that of facets.
Only what needs no conversion is taken here: everything else goes the ordinary way, errors above all.
"""

from __future__ import annotations

from math import isfinite
from typing import Any

from graphql import GraphQLNonNull, GraphQLObjectType, GraphQLScalarType, GraphQLSchema
from strawberry.schema.schema import StrawberryGraphQLCoreExecutionContext
from strawberry.types.base import StrawberryObjectDefinition
from strawberry.types.field import StrawberryField

_KINDS: dict[str, type] = {"String": str, "ID": str, "Boolean": bool, "Int": int, "Float": float, "Long": int}
_MOST_INT = 2**31

Leaf = tuple[str, type, bool, bool]
"""Attribute, type of a value that is taken as it is, whether it may be null, whether it is an Int (of 32 bits)."""


class LeafExecution(StrawberryGraphQLCoreExecutionContext):
    def execute_field(self, parent_type: Any, source: Any, field_details_list: Any, path: Any, position_context: Any) -> Any:
        node = field_details_list[0].node
        if node.selection_set is None and not node.arguments:
            leaf = leaves(self.schema).get((parent_type.name, node.name.value))
            if leaf is not None:
                attribute, kind, may_be_null, is_int = leaf
                value: Any = getattr(source, attribute, _NOTHING)
                if type(value) is kind and _is_fit(value, is_int):
                    return value
                if value is None and may_be_null:
                    return None
        return super().execute_field(parent_type, source, field_details_list, path, position_context)


_NOTHING = object()


def _is_fit(value: Any, is_int: bool) -> bool:
    """Whether GraphQL can have it: finite numbers, and whole ones of 32 bits."""
    if type(value) is float:
        return isfinite(value)
    return not is_int or -_MOST_INT <= value < _MOST_INT


def leaves(schema: GraphQLSchema) -> dict[tuple[str, str], Leaf]:
    """By type and field: fields without a resolver, of scalars."""
    known: dict[tuple[str, str], Leaf] | None = schema.extensions.get(_KEY)
    if known is None:
        known = schema.extensions[_KEY] = _found(schema)
    return known


_KEY = "anamnesis-leaves"


def _found(schema: GraphQLSchema) -> dict[tuple[str, str], Leaf]:
    found: dict[tuple[str, str], Leaf] = {}
    for one in schema.type_map.values():
        definition = one.extensions.get("strawberry-definition") if isinstance(one, GraphQLObjectType) else None
        if not isinstance(one, GraphQLObjectType) or not isinstance(definition, StrawberryObjectDefinition):
            continue
        for name, field in one.fields.items():
            ours = field.extensions.get("strawberry-definition")
            may_be_null = not isinstance(field.type, GraphQLNonNull)
            inner = field.type if may_be_null else field.type.of_type
            if isinstance(ours, StrawberryField) and ours.is_basic_field and isinstance(inner, GraphQLScalarType) and inner.name in _KINDS:
                found[one.name, name] = (ours.python_name, _KINDS[inner.name], may_be_null, inner.name == "Int")
    return found
