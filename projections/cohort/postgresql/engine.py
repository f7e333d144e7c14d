"""Cohorts by PostgreSQL alone: an engine for every field and level, and what columns in memory ask where they do not know."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Iterator, Sequence

import asyncpg

from domain.condition import All, Any, Condition, Contains, Followed, Has, Level, Not
from projections.checkpoint import reached
from projections.cohort.engine import (
    After,
    Asked,
    Counts,
    Explanation,
    Facet,
    FacetAsked,
    Histogram,
    Order,
    Page,
)
from projections.cohort.errors import PositionUnknown
from projections.cohort.fields import Field
from projections.cohort.postgresql.belonging import related
from projections.cohort.postgresql.counting import count, facet, histogram
from projections.cohort.postgresql.paging import page
from projections.cohort.postgresql.searching import begun
from projections.cohort.postgresql.selection import selected, whole_condition
from projections.cohort.projection import NAME, VERSION

BATCH = 10_000
"""Ids of members at a time."""


class PostgresEngine:
    """``pool``: sessions that plan each statement for its own values (EventLog.reading_pool, ``plan_cache_mode=force_custom_plan``)."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool

    async def position(self) -> int:
        return await reached(self._pool, NAME, VERSION)

    async def counts(self, asked: Asked) -> Counts:
        await self._known(asked)
        return await count(self._pool, asked)

    async def facets(self, asked: Asked, facets: Sequence[FacetAsked]) -> list[Facet]:
        await self._known(asked)
        return [await facet(self._pool, asked, one) for one in facets]

    async def histogram(self, asked: Asked, field: str, bins: int) -> Histogram:
        await self._known(asked)
        return await histogram(self._pool, asked, field, bins)

    async def page(self, asked: Asked, first: int, order: Order | None = None, after: After | None = None, *, backwards: bool = False) -> Page:
        await self._known(asked)
        return await page(self._pool, asked, first, order, after, backwards=backwards)

    async def members(self, asked: Asked, level: Level) -> AsyncIterator[Sequence[int]]:
        await self._known(asked)
        own, where = asked.query.level, whole_condition(asked)
        s = await begun(self._pool, asked.position, own, where)
        if level == own:
            rows = selected(level, where, s)
        else:
            there = s.alias()
            belonging = related(own, "c", level, there, s)
            rows = (
                f"WITH c AS MATERIALIZED ({selected(own, where, s)}) SELECT {there}.id FROM {s.table(level, there)}"
                f" WHERE {s.held(there)} AND EXISTS (SELECT FROM c WHERE {belonging})"
            )
        async with self._pool.acquire() as connection, connection.transaction(readonly=True):
            cursor = await connection.cursor(f"SELECT m.id FROM ({rows}) m ORDER BY m.id", *s.arguments)
            while found := await cursor.fetch(BATCH):
                yield [row["id"] for row in found]

    async def explain(self, asked: Asked) -> Explanation:
        await self._known(asked)
        steps: list[tuple[str, int, float]] = []
        level = asked.query.level
        for part in _parts(whole_condition(asked)):
            steps.append((f"{level}: {_words(part)}", *await self._met(level, part, asked.position)))
        steps.append((f"{level}: all of it", *await self._met(level, whole_condition(asked), asked.position)))
        return Explanation(engine="postgresql", steps=steps)

    async def _met(self, level: Level, where: Condition | None, position: int) -> tuple[int, float]:
        began = time.perf_counter()
        s = await begun(self._pool, position, level, where)
        met = await self._pool.fetchval(f"SELECT count(*) FROM ({selected(level, where, s, 'id')}) m", *s.arguments)
        return met, 1000 * (time.perf_counter() - began)

    async def _known(self, asked: Asked) -> None:
        if asked.position > (at := await self.position()):
            raise PositionUnknown(f"position {asked.position} is not read yet, but {at}: ask again")


async def text_matches(pool: asyncpg.Pool, field: Field, text: str, tolerant: bool, position: int) -> list[int]:
    """Ids of the entities of the field's level whose values hold a text, ascending. Raises FieldRefused."""
    where = Contains(field.name, text, tolerant)
    s = await begun(pool, position, field.level, where)
    rows = await pool.fetch(f"SELECT m.id FROM ({selected(field.level, where, s, 'id')}) m ORDER BY m.id", *s.arguments)
    return [row["id"] for row in rows]


def _parts(where: Condition | None) -> Iterator[Condition]:
    match where:
        case None:
            return
        case All(of) | Any(of):
            for each in of:
                yield from _parts(each)
        case Not(of):
            yield from _parts(of)
        case _:
            yield where


def _words(condition: Condition) -> str:
    """What is asked, without the values: they may be of a person."""
    kind = str(type(condition).__struct_config__.tag)
    match condition:
        case Has():
            return f"has {condition.level}"
        case Followed() | All() | Any() | Not():
            return kind
    return f"{condition.field} {kind}"
