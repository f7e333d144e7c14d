"""A search as one SQL statement over the versions that held at a position, in the order in which they were made unless sorted."""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg
import msgspec

from projections.fhir.projection import SCHEMA
from server.fhir.conditions import Condition
from server.fhir.sorting import SortKey, later

_COLUMNS = "r.type, r.id, r.version, r.body, r.position_to, r.last_updated, r.key"


class Statement:
    """SQL and its arguments, built together so that no value ever gets into the text."""

    def __init__(self, resource_type: str, conditions: Sequence[Condition], position: int, sort: Sequence[SortKey] = ()) -> None:
        self.arguments: list[object] = [resource_type, position]
        self._sort = tuple(sort)
        self._aliases = 0
        self._tests = ["r.type = $1", self.held("r"), *(condition.sql("r", self) for condition in conditions)]

    def argument(self, value: object) -> str:
        self.arguments.append(value)
        return f"${len(self.arguments)}"

    def held(self, alias: str) -> str:
        return f"{alias}.position_from <= $2 AND ({alias}.position_to IS NULL OR {alias}.position_to > $2)"

    def alias(self) -> str:
        self._aliases += 1
        return f"r{self._aliases}"

    async def page(self, pool: asyncpg.Pool, after: str, limit: int) -> list[asyncpg.Record]:
        """At most ``limit`` beyond the one that ``after`` is of (see :meth:`mark`), with id, version, body, position_to and key."""
        before = len(self.arguments)
        try:
            text = self._sorted(after, limit) if self._sort else self._listed(after, limit)
            return list(await pool.fetch(text, *self.arguments))
        finally:
            del self.arguments[before:]

    def mark(self, row: asyncpg.Record) -> str:
        """Where a page ends, for the next one to begin after."""
        values = [msgspec.to_builtins(row[f"sort_{nth}"]) for nth in range(len(self._sort))]
        return msgspec.json.encode([*values, row["key"]]).decode("ascii")

    async def count(self, pool: asyncpg.Pool) -> int:
        """How many match, over all pages."""
        return int(await pool.fetchval(f"SELECT count(*) FROM {SCHEMA}.resource r WHERE {' AND '.join(self._tests)}", *self.arguments))

    def _listed(self, after: str, limit: int) -> str:
        tests = [*self._tests]
        if after:
            (key,) = msgspec.json.decode(after, type=tuple[int])
            tests.append(f"r.key > {self.argument(key)}")
        return f"SELECT {_COLUMNS} FROM {SCHEMA}.resource r WHERE {' AND '.join(tests)} ORDER BY r.key LIMIT {self.argument(limit)}"

    def _sorted(self, after: str, limit: int) -> str:
        keys = ", ".join(f"{key.sql('r')} AS sort_{nth}" for nth, key in enumerate(self._sort))
        inner = f"SELECT {_COLUMNS}, {keys} FROM {SCHEMA}.resource r WHERE {' AND '.join(self._tests)}"
        beyond = f"WHERE {later(self._sort, msgspec.json.decode(after), self.argument)}" if after else ""
        order = ", ".join([*(f"r.sort_{nth} {key.direction} NULLS LAST" for nth, key in enumerate(self._sort)), "r.key"])
        return f"SELECT * FROM ({inner}) r {beyond} ORDER BY {order} LIMIT {self.argument(limit)}"

