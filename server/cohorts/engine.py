"""What answers questions about cohorts: the columns in memory where they hold the position that is asked for, else the rows in PostgreSQL."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from domain.condition import Level
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
from projections.columns.engine import ColumnsEngine
from projections.columns.follower import Follower

THREADS = 2
"""NumPy lets go of the interpreter in much of what it does."""


class Cohorts:
    """An engine made of two. ``columns`` is None where they are turned off."""

    def __init__(self, rows: Engine, columns: Follower | None) -> None:
        self.rows, self.columns = rows, columns
        self.threads = ThreadPoolExecutor(THREADS, "cohorts")
        self._in_memory = ColumnsEngine(columns.store, self.threads, rows) if columns is not None else None

    def close(self) -> None:
        self.threads.shutdown(wait=False, cancel_futures=True)

    async def position(self) -> int:
        """Where the columns keep up, theirs: asking the database would take longer than most answers."""
        if self.columns is not None and self.columns.is_level:
            return self.columns.store.position
        return await self.rows.position()

    async def counts(self, asked: Asked) -> Counts:
        return await self._engine(asked).counts(asked)

    async def facets(self, asked: Asked, facets: Sequence[FacetAsked]) -> list[Facet]:
        return await self._engine(asked).facets(asked, facets)

    async def histogram(self, asked: Asked, field: str, bins: int) -> Histogram:
        return await self._engine(asked).histogram(asked, field, bins)

    async def page(self, asked: Asked, first: int, order: Order | None = None, after: After | None = None, *, backwards: bool = False) -> Page:
        return await self._engine(asked).page(asked, first, order, after, backwards=backwards)

    async def members(self, asked: Asked, level: Level) -> AsyncIterator[Sequence[int]]:
        async for batch in self._engine(asked).members(asked, level):
            yield batch

    async def explain(self, asked: Asked) -> Explanation:
        return await self._engine(asked).explain(asked)

    def _engine(self, asked: Asked) -> Engine:
        if self.columns is not None and self._in_memory is not None:
            store = self.columns.store
            if store.is_ready and asked.position <= store.position:
                return self._in_memory
        return self.rows
