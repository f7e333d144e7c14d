"""Columns as an engine of cohorts. What they do not hold (identifiers, elements that are no facet, instances) is asked of the rows.

A condition on such a field is looked up in the rows, and its entities are taken from there as a mask; a facet, histogram or order by one is
left to the rows altogether. So everything is answered, and what is a column is answered fast.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from concurrent.futures import Executor
from typing import TypeVar

import numpy as np

from domain.condition import Condition, Level, Query
from projections.cohort.engine import (
    After,
    Asked,
    Counts,
    Engine,
    Explanation,
    Facet,
    FacetAsked,
    Histogram,
    Order,
    Page,
)
from projections.cohort.fields import Field, field_named
from projections.columns.counting import count, facets, histogram, ticks, whole_condition
from projections.columns.errors import NotAColumn
from projections.columns.moment import HELD, Moment, Step
from projections.columns.paging import page
from projections.columns.store import Store
from projections.columns.table import Frame

BATCH = 10_000
"""Ids of members at a time."""
T = TypeVar("T")


class ColumnsEngine:
    """``rows``: what reads PostgreSQL; without it, NotAColumn is raised instead. Computes in ``threads``, so that nobody else waits."""

    def __init__(self, store: Store, threads: Executor, rows: Engine | None = None) -> None:
        self._store, self._threads, self._rows = store, threads, rows

    async def position(self) -> int:
        return self._store.position

    async def counts(self, asked: Asked) -> Counts:
        if asked.query.level not in HELD:
            return await self._by_rows(asked).counts(asked)
        moment = await self._moment(asked)
        return await self._computed(lambda: count(moment, asked))

    async def facets(self, asked: Asked, facets_asked: Sequence[FacetAsked]) -> list[Facet]:
        level = asked.query.level
        here = [each for each in facets_asked if level in HELD and self._store.is_column(field_named(each.field, level))]
        others = [each for each in facets_asked if each not in here]
        found: dict[FacetAsked, Facet] = {}
        if others:
            rows = self._by_rows(asked, *(field_named(each.field, level) for each in others))
            found.update(zip(others, await rows.facets(asked, others), strict=True))
        if here:
            moment = await self._moment(asked)
            found.update(zip(here, await self._computed(lambda: facets(moment, asked, here)), strict=True))
        return [found[each] for each in facets_asked]

    async def histogram(self, asked: Asked, field: str, bins: int) -> Histogram:
        named = field_named(field, asked.query.level)
        if asked.query.level not in HELD or not self._store.is_column(named):
            return await self._by_rows(asked, named).histogram(asked, field, bins)
        moment = await self._moment(asked)
        return await self._computed(lambda: histogram(moment, asked, field, bins))

    async def page(self, asked: Asked, first: int, order: Order | None = None, after: After | None = None, *, backwards: bool = False) -> Page:
        level = asked.query.level
        named = [field_named(order.field, level)] if order is not None else []
        if level not in HELD or not all(map(self._store.is_column, named)):
            return await self._by_rows(asked, *named).page(asked, first, order, after, backwards=backwards)
        moment = await self._moment(asked)
        return await self._computed(lambda: page(moment, asked, first, order, after, backwards=backwards))

    async def members(self, asked: Asked, level: Level) -> AsyncIterator[Sequence[int]]:
        if level not in HELD or asked.query.level not in HELD or not _is_related(asked.query.level, level):
            async for batch in self._by_rows(asked).members(asked, level):
                yield batch
            return
        moment = await self._moment(asked)
        ids = await self._computed(lambda: _members(moment, asked, level))
        for start in range(0, len(ids), BATCH):
            yield ids[start : start + BATCH].tolist()

    async def explain(self, asked: Asked) -> Explanation:
        if asked.query.level not in HELD:
            return await self._by_rows(asked).explain(asked)
        steps: list[Step] = []
        began = time.perf_counter()
        moment = await self._moment(asked, steps)

        def looked_at() -> int:
            return moment.select(asked.query.level, whole_condition(asked), steps).size

        size = await self._computed(looked_at)
        steps.append(Step(f"{asked.query.level}: all of it", size, 1000 * (time.perf_counter() - began)))
        return Explanation(engine="columns", steps=[(step.what, step.met, step.milliseconds) for step in steps])

    async def _moment(self, asked: Asked, steps: list[Step] | None = None) -> Moment:
        """With what the rows have to say of its conditions. Raises PositionUnknown, NotAColumn."""
        moment = self._store.moment(asked.position)
        parts: Iterable[Condition | None] = (asked.query.where, *(tick for _, tick in ticks(asked)))
        for asking in [each for part in parts for each in moment.asks(asked.query.level, part)]:
            if moment.is_answered(asking):
                continue
            began = time.perf_counter()
            rows = self._by_rows(asked, *_fields_of(asking.condition, asking.level))
            outside = Asked(query=Query(level=asking.level, where=asking.condition), position=asked.position)
            ids = [np.array(batch, np.int64) async for batch in rows.members(outside, asking.level)]
            moment.answered(asking, np.concatenate([np.empty(0, np.int64), *ids]))
            if steps is not None:
                steps.append(Step(f"{asking.level}: asked of postgresql", sum(map(len, ids)), 1000 * (time.perf_counter() - began)))
        return moment

    def _by_rows(self, asked: Asked, *fields: Field) -> Engine:
        if self._rows is None:
            missing = [field.name for field in fields if not self._store.is_column(field)]
            raise NotAColumn(missing[0] if missing else str(asked.query.level))
        return self._rows

    async def _computed(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)


def _fields_of(condition: Condition, level: Level) -> list[Field]:
    name = getattr(condition, "field", None)
    return [field_named(name, level)] if isinstance(name, str) else []


_ORDER = (Level.SUBJECT, Level.STUDY, Level.SERIES, Level.FINDING)


def _is_related(level: Level, other: Level) -> bool:
    return level == other or (level in _ORDER and other in _ORDER) or (Level.FACT in (level, other) and Level.SUBJECT in (level, other))


def _members(moment: Moment, asked: Asked, level: Level) -> np.ndarray:
    """Ids, ascending."""
    own = asked.query.level
    selection = moment.select(own, whole_condition(asked))
    frame = moment.frame(level)
    if level == own:
        entities = frame.entity.take(selection.rows)
    elif level in selection.frame.table.belongs:
        flags = selection.owner_flags(level, frame.entities)
        entities = _flagged(frame, flags.take(frame.entity))
    else:
        flags = np.zeros(selection.frame.entities + 1, bool)
        flags[selection.frame.entity.take(selection.rows)] = True
        entities = _flagged(frame, flags.take(frame.owner(own)))
    return np.sort(frame.table.entities.buffer[entities])


def _flagged(frame: Frame, mask: np.ndarray) -> np.ndarray:
    return frame.entity[mask if frame.stands is None else mask & frame.stands]
