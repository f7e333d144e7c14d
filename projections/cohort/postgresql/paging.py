"""Pages in order, each found by where the one before ended."""

from __future__ import annotations

import asyncpg

from domain.condition import Value
from projections.cohort.engine import After, Asked, Order, Page
from projections.cohort.fields import Field, field_named
from projections.cohort.postgresql.belonging import belongs
from projections.cohort.postgresql.conditions import condition
from projections.cohort.postgresql.searching import begun
from projections.cohort.postgresql.selection import whole_condition
from projections.cohort.postgresql.statement import Statement
from projections.cohort.postgresql.values import asked_value, first_value, sql_kind


async def page(pool: asyncpg.Pool, asked: Asked, first: int, order: Order | None, after: After | None, *, backwards: bool) -> Page:
    level = asked.query.level
    s = await begun(pool, asked.position, level, whole_condition(asked))
    field = field_named(order.field, level) if order is not None else None
    descending = order is not None and order.descending
    alias = s.alias()
    key, joined = "NULL", ""
    if field is not None:
        home = alias if field.level == level else s.alias()
        key = first_value(field, home, s, last=descending)
        if field.level != level:
            joined = f" JOIN {s.table(field.level, home)} ON {home}.id = {belongs(level, alias, field.level, s)} AND {s.held(home)}"
    where = whole_condition(asked)
    met = f" AND {condition(where, level, alias, s)}" if where is not None else ""
    beyond = f" WHERE {_beyond(after, field, s, descending=descending, backwards=backwards)}" if after is not None else ""
    rows = await pool.fetch(
        f"SELECT q.id, q.key FROM (SELECT {alias}.id, {key} AS key FROM {s.table(level, alias)}{joined} WHERE {s.held(alias)}{met}) q{beyond}"
        f" ORDER BY {_order(field, descending=descending, backwards=backwards)} LIMIT {s.argument(first + 1, 'bigint')}",
        *s.arguments,
    )
    kept = rows[:first]
    if backwards:
        kept = kept[::-1]
    return Page(ids=[row["id"] for row in kept], keys=[row["key"] for row in kept], has_more=len(rows) > first)


def _order(field: Field | None, *, descending: bool, backwards: bool) -> str:
    by_id = f"q.id{' DESC' if backwards else ''}"
    if field is None:
        return by_id
    return f"q.key IS NULL{' DESC' if backwards else ''}, q.key{' DESC' if descending != backwards else ''}, {by_id}"


def _beyond(after: After, field: Field | None, s: Statement, *, descending: bool, backwards: bool) -> str:
    """That a row comes after (or before) where the page begins."""
    by_id = f"q.id {'<' if backwards else '>'} {s.argument(after.id, 'bigint')}"
    if field is None:
        return by_id
    if after.key is None:
        return f"(q.key IS NOT NULL OR {by_id})" if backwards else f"(q.key IS NULL AND {by_id})"
    key = s.argument(_key(field, after.key), sql_kind(field))
    beyond = f"q.key {'<' if descending != backwards else '>'} {key} OR (q.key = {key} AND {by_id})"
    return f"({beyond})" if backwards else f"({beyond} OR q.key IS NULL)"


def _key(field: Field, key: Value) -> Value:
    found: Value = asked_value(field, key)
    return found
