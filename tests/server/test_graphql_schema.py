"""The schema that is committed is the one that is served."""

from __future__ import annotations

import pytest
from graphql import GraphQLInputObjectType, GraphQLObjectType, is_introspection_type, is_specified_scalar_type

from server.graphql.schema import SDL, build, sdl

SCHEMA = build()


def test_the_committed_schema_is_the_one_that_is_served() -> None:
    assert SDL.read_text(encoding="utf-8") == sdl(SCHEMA), "run `python -m server.graphql.schema`, and say in CHANGELOG.md what changed"


@pytest.mark.parametrize("name", [name for name in SCHEMA._schema.type_map if not name.startswith("__")])
def test_each_type_and_field_says_what_it_is(name: str) -> None:
    one = SCHEMA._schema.type_map[name]
    if is_introspection_type(one) or is_specified_scalar_type(one) or name in ("Query", "Mutation", "Subscription", "Date", "DateTime"):
        said = []
    else:
        said = [(name, one.description)]
    if isinstance(one, GraphQLObjectType | GraphQLInputObjectType):
        said += [(f"{name}.{field_name}", field.description) for field_name, field in one.fields.items()]
    assert [what for what, text in said if not text] == []
