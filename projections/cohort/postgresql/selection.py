"""What was asked for, as a selection that counts, facets, pages and members are taken from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from domain.condition import All, Condition, Level, OneOf
from projections.cohort.engine import Asked
from projections.cohort.fields import Field, field_named
from projections.cohort.postgresql.conditions import condition
from projections.cohort.postgresql.statement import Statement


def whole_condition(asked: Asked, but: Field | None = None) -> Condition | None:
    """With all that is ticked, but of one field. A facet without a tick does not narrow."""
    level = asked.query.level
    ticks = [
        OneOf(name, tuple(values))
        for name, values in asked.ticked.items()
        if values and (but is None or field_named(name, level) != but)
    ]
    parts = ([asked.query.where] if asked.query.where is not None else []) + ticks
    return All(tuple(parts)) if parts else None


LINKS: Mapping[Level, Sequence[str]] = {
    Level.SUBJECT: (),
    Level.STUDY: ("subject",),
    Level.SERIES: ("study", "subject"),
    Level.INSTANCE: ("series",),
    Level.FINDING: ("series", "study", "subject"),
    Level.FACT: ("subject",),
    Level.TAG: ("level", "target"),
}
"""Columns that say what an entity belongs to."""


def selected(level: Level, where: Condition | None, s: Statement, *more: str) -> str:
    """Rows of the level that held, and met it: ids and what they belong to, and further columns."""
    alias = s.alias()
    met = f" AND {condition(where, level, alias, s)}" if where is not None else ""
    names = ", ".join(f"{alias}.{column}" for column in dict.fromkeys(("id", *LINKS[level], *more)))
    return f"SELECT {names} FROM {s.table(level, alias)} WHERE {s.held(alias)}{met}"
