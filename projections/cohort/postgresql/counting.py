"""Totals, facets and histograms, each one statement over what is selected."""

from __future__ import annotations

import datetime
import math
from collections.abc import Callable
from typing import Any

import asyncpg

from domain.condition import Level, Value
from projections.cohort.engine import Asked, Bin, Counts, Facet, FacetAsked, FacetValue, Histogram
from projections.cohort.errors import FieldRefused
from projections.cohort.fields import BELONGS_TO, Field, field_named
from projections.cohort.naming import Kind
from projections.cohort.postgresql.belonging import belongs
from projections.cohort.postgresql.searching import begun
from projections.cohort.postgresql.selection import selected, whole_condition
from projections.cohort.postgresql.statement import Statement
from projections.cohort.postgresql.values import values


async def count(pool: asyncpg.Pool, asked: Asked) -> Counts:
    level = asked.query.level
    s = await begun(pool, asked.position, level, whole_condition(asked))
    rows = selected(level, whole_condition(asked), s, *(("instance_count", "bytes") if level == Level.SERIES else ()))
    row = await pool.fetchrow(
        f"WITH c AS MATERIALIZED ({rows}), m AS MATERIALIZED ({_series(level, s)})"
        f" SELECT {_how_many(level, Level.SUBJECT, s)} AS subjects, {_how_many(level, Level.STUDY, s)} AS studies,"
        f" {_how_many(level, Level.SERIES, s)} AS series, {_how_many(level, Level.FINDING, s)} AS findings,"
        " (SELECT coalesce(sum(instance_count), 0) FROM m)::bigint AS instances, (SELECT coalesce(sum(bytes), 0) FROM m)::bigint AS bytes",
        *s.arguments,
    )
    return Counts(**dict(row))


def _how_many(level: Level, other: Level, s: Statement) -> str:
    """Of a level above: those that what is selected (``c``) belongs to; of one below, all that belongs to it."""
    if other == level:
        return "(SELECT count(*) FROM c)"
    if other in BELONGS_TO[level]:
        return f"(SELECT count(DISTINCT {belongs(level, 'c', other, s)}) FROM c)"
    if level in BELONGS_TO[other]:
        return f"(SELECT count(*) FROM {s.table(other, 'o')} WHERE o.{level} IN (SELECT c.id FROM c) AND {s.held('o')})"
    return "0"


def _series(level: Level, s: Statement) -> str:
    """The series in question: of a subject or study all of its series, of a fact those of its subject."""
    if level == Level.SERIES:
        return "SELECT c.instance_count, c.bytes FROM c"
    of = {Level.SUBJECT: "x.subject IN (SELECT c.id FROM c)", Level.STUDY: "x.study IN (SELECT c.id FROM c)", Level.TAG: "false"}
    of[Level.FACT] = "x.subject IN (SELECT c.subject FROM c)"
    where = of.get(level, "x.id IN (SELECT c.series FROM c)")
    return f"SELECT x.instance_count, x.bytes FROM {s.table(Level.SERIES, 'x')} WHERE {s.held('x')} AND {where}"


async def facet(pool: asyncpg.Pool, asked: Asked, wanted: FacetAsked) -> Facet:
    level = asked.query.level
    field = field_named(wanted.field, level)
    s = await begun(pool, asked.position, level, whole_condition(asked, but=field))
    if wanted.subjects and level != Level.SUBJECT and Level.SUBJECT not in BELONGS_TO[level]:
        raise FieldRefused(f"a {level} is of no subject: persons cannot be counted")
    subject = belongs(level, "c", Level.SUBJECT, s) if wanted.subjects else "NULL::bigint"
    row_of, having = _with_values(level, field, s, f", {subject} AS subject")
    persons = "count(DISTINCT v.subject)" if wanted.subjects else "NULL::bigint"
    found = await pool.fetch(
        f"WITH c AS MATERIALIZED ({selected(level, whole_condition(asked, but=field), s, *_own_column(level, field))}), v AS MATERIALIZED ({row_of} {having}),"
        f" g AS (SELECT v.value, count(*) AS count, {persons} AS subjects FROM v GROUP BY v.value)"
        " SELECT t.*, f.* FROM (SELECT (SELECT count(*) FROM g) AS distinct,"
        " (SELECT count(*) FROM c) - (SELECT count(DISTINCT v.id) FROM v) AS missing) t"
        f" LEFT JOIN (SELECT * FROM g ORDER BY count DESC, value LIMIT {s.argument(wanted.size, 'bigint')}) f ON true"
        " ORDER BY f.count DESC, f.value",
        *s.arguments,
    )
    top = [FacetValue(row["value"], row["count"], row["subjects"]) for row in found if row["count"] is not None]
    return Facet(field=wanted.field, values=top, distinct=found[0]["distinct"], missing=found[0]["missing"])


def _own_column(level: Level, field: Field) -> tuple[str, ...]:
    return () if field.level != level else (field.column or "elements",)


def _with_values(level: Level, field: Field, s: Statement, more: str = "") -> tuple[str, str]:
    """Rows of id and value, one for each value of the field that something selected (``c``) has."""
    if field.level == level:
        return f"SELECT c.id, a.value{more} FROM c", f"CROSS JOIN LATERAL ({values(field, 'c', s)}) a"
    above = f"JOIN {s.table(field.level, 'h')} ON h.id = {belongs(level, 'c', field.level, s)} AND {s.held('h')}"
    return f"SELECT c.id, a.value{more} FROM c {above}", f"CROSS JOIN LATERAL ({values(field, 'h', s)}) a"


async def histogram(pool: asyncpg.Pool, asked: Asked, name: str, bins: int) -> Histogram:
    level = asked.query.level
    field = field_named(name, level)
    if field.kind not in (Kind.NUMBER, Kind.DATE):
        raise FieldRefused(f"{field.name} is a {field.kind}: histograms are of numbers and dates")
    if bins < 1:
        raise FieldRefused("a histogram has at least one bin")

    def found(s: Statement) -> str:
        row_of, having = _with_values(level, field, s)
        value = "x.value" if field.kind == Kind.NUMBER else "(x.value::date - date '0001-01-01' + 1)::double precision"
        rows = f"SELECT x.id, {value} AS value FROM ({row_of} {having}) x"
        return f"WITH c AS MATERIALIZED ({selected(level, whole_condition(asked), s, *_own_column(level, field))}), v AS MATERIALIZED ({rows})"

    s = await begun(pool, asked.position, level, whole_condition(asked))
    ends = await pool.fetchrow(
        f"{found(s)} SELECT min(value) AS low, max(value) AS high, (SELECT count(*) FROM c) - count(DISTINCT id) AS missing FROM v", *s.arguments
    )
    if ends["low"] is None:
        return Histogram(field=name, bins=[], low=None, high=None, missing=ends["missing"])
    edges = edges_of(ends["low"], ends["high"], bins, of_dates=field.kind == Kind.DATE)
    s = await begun(pool, asked.position, level, whole_condition(asked))
    last = len(edges) - 1
    rows = await pool.fetch(
        f"{found(s)} SELECT least(greatest(width_bucket(value, {s.argument(edges, 'double precision[]')}), 1), {last:d}) AS bin, count(*) AS count"
        " FROM v GROUP BY 1",
        *s.arguments,
    )
    counts = {row["bin"]: row["count"] for row in rows}
    say: Callable[[float], Value] = _date if field.kind == Kind.DATE else float
    made = [Bin(say(edges[n]), say(edges[n + 1]), counts.get(n + 1, 0)) for n in range(last)]
    return Histogram(field=name, bins=made, low=say(ends["low"]), high=say(ends["high"]), missing=ends["missing"])


def edges_of(low: float, high: float, bins: int, *, of_dates: bool) -> list[float]:
    """Of bins of one width: of dates, whole days, so that the last bin may end beyond the last day."""
    if of_dates:
        width = max(1, math.ceil((high - low + 1) / bins))
        return [low + width * n for n in range(math.ceil((high - low + 1) / width) + 1)]
    bins = bins if high > low else 1
    return [low + (high - low) * n / bins for n in range(bins)] + [high]


def _date(day: float) -> Any:
    return datetime.date.fromordinal(int(day)).isoformat()
