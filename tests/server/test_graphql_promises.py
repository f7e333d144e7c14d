"""What was promised to clients stays: nothing leaves the schema that was not deprecated in the promised one before."""

from __future__ import annotations

from pathlib import Path

from graphql import BreakingChange, GraphQLSchema, build_schema, find_breaking_changes

from server.graphql.schema import SDL

PROMISED = Path(__file__).parents[1] / "golden" / "graphql_promised.graphql"
"""Replaced by a copy of schema.graphql at each release."""


def broken(promised: GraphQLSchema, now: GraphQLSchema) -> list[str]:
    return [change.description for change in find_breaking_changes(promised, now) if not _was_deprecated(promised, change)]


def _was_deprecated(promised: GraphQLSchema, change: BreakingChange) -> bool:
    """``Type.field`` is among the words that say that a field went."""
    type_name, _, field_name = next((word for word in change.description.split() if "." in word), "").partition(".")
    fields = getattr(promised.type_map.get(type_name), "fields", {})
    return field_name in fields and fields[field_name].deprecation_reason is not None


def test_nothing_that_was_promised_is_gone() -> None:
    promised, now = (build_schema(path.read_text(encoding="utf-8")) for path in (PROMISED, SDL))
    assert broken(promised, now) == []


def test_what_goes_without_a_warning_is_noticed_and_with_one_is_not() -> None:
    text = PROMISED.read_text(encoding="utf-8")
    now = build_schema(text.replace("  seriesDigest: String!\n", "  digestOfSeries: String!\n"))
    gone = broken(build_schema(text), now)
    assert gone and all("seriesDigest" in one for one in gone)
    deprecated = build_schema(text.replace("  seriesDigest: String!\n", '  seriesDigest: String! @deprecated(reason: "x")\n'))
    assert broken(deprecated, now) == []
