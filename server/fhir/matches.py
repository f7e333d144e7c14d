"""What searches of one or of several types find, as one list: type by type, each in the order of its search."""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg

from server.fhir.query import Statement
from server.fhir.search import Search


class Matches:
    def __init__(self, searches: Sequence[Search], position: int) -> None:
        """``searches`` in the order of their types' names."""
        self._statements: dict[str, Statement] = {one.resource_type: one.statement(position) for one in searches}

    async def count(self, pool: asyncpg.Pool) -> int:
        return sum([await one.count(pool) for one in self._statements.values()])

    async def page(self, pool: asyncpg.Pool, after: str, limit: int) -> list[asyncpg.Record]:
        """At most ``limit`` beyond the one that ``after`` is of (see :meth:`mark`)."""
        first, _, mark = after.partition("|")
        found: list[asyncpg.Record] = []
        for resource_type, statement in self._statements.items():
            if resource_type >= first and len(found) < limit:
                found += await statement.page(pool, mark if resource_type == first else "", limit - len(found))
        return found

    def mark(self, row: asyncpg.Record) -> str:
        """Where a page ends, for the next one to begin after."""
        return f"{row['type']}|{self._statements[row['type']].mark(row)}"
