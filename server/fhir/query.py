"""A search as one SQL statement over the versions that held at a position, in the order in which they were made unless sorted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import asyncpg
import msgspec

from projections.fhir.projection import SCHEMA
from server.fhir.conditions import KEYED, Condition, HasRow, joined
from server.fhir.sorting import SortKey, later

_COLUMNS = "r.type, r.id, r.version, r.body, r.position_to, r.last_updated, r.key"


_OF_TYPE = "r.type = $1"
_IMPLIED = "$1::text IS NOT NULL"
"""Where rows of a source are joined, which are of one type. Told of the type, too, the planner would expect a fraction of what there is."""


class Written(msgspec.Struct, frozen=True):
    sql: str
    arguments: tuple[object, ...]


class Text:
    """SQL and its arguments, built together."""

    def __init__(self, resource_type: str, position: int) -> None:
        self._arguments: list[object] = [resource_type, position]
        self._aliases = 0

    def argument(self, value: object) -> str:
        self._arguments.append(value)
        return f"${len(self._arguments)}"

    def held(self, alias: str) -> str:
        return f"{alias}.position_from <= $2 AND ({alias}.position_to IS NULL OR {alias}.position_to > $2)"

    def alias(self) -> str:
        self._aliases += 1
        return f"r{self._aliases}"

    def of(self, sql: str) -> Written:
        return Written(sql, tuple(self._arguments))


class Statement:
    """A search as of a position, which is written anew for each page: no value ever gets into the text."""

    def __init__(self, resource_type: str, conditions: Sequence[Condition], position: int, sort: Sequence[SortKey] = ()) -> None:
        self._resource_type = resource_type
        self._conditions = tuple(conditions)
        self._position = position
        self._sort = tuple(sort)

    async def page(self, pool: asyncpg.Pool, after: str, limit: int) -> list[asyncpg.Record]:
        """At most ``limit`` beyond the one that ``after`` is of (see :meth:`mark`), with id, version, body, position_to and key."""
        mark = msgspec.json.decode(after) if after else None
        if not self._sort:
            return await self._fetch(pool, self._listed(mark, limit))
        if len(self._sort) > 1 or self._sort[0].table is None:
            return await self._fetch(pool, self._sorted(mark, limit))
        found = await self._fetch(pool, self._walked(mark, limit)) if mark is None or mark[0] is not None else []
        if len(found) < limit:  # what has none of what is sorted by comes last
            found += await self._fetch(pool, self._without(mark, limit - len(found)))
        return found

    def mark(self, row: asyncpg.Record) -> str:
        """Where a page ends, for the next one to begin after."""
        values = [msgspec.to_builtins(row[f"sort_{nth}"]) for nth in range(len(self._sort))]
        return msgspec.json.encode([*values, row["key"]]).decode("ascii")

    async def count(self, pool: asyncpg.Pool) -> int:
        """How many match, over all pages."""
        text = self._text()
        (row,) = await self._fetch(pool, text.of(f"SELECT count(*) FROM {SCHEMA}.resource r WHERE {self._tests(text)}"))
        return int(row[0])

    async def _fetch(self, pool: asyncpg.Pool, written: Written) -> list[asyncpg.Record]:
        return list(await pool.fetch(written.sql, *written.arguments))

    def _text(self) -> Text:
        return Text(self._resource_type, self._position)

    def _tests(self, text: Text, of_type: str = _OF_TYPE, keyed: str = "r") -> str:
        """``keyed``: what has the key of a version, for conditions that ask for nothing but the key. The planner takes `r.key` and `v.key`
        for the same in a join, and not in an EXISTS: it would read each version before it knows whether it is wanted."""
        tests = [condition.sql(keyed if isinstance(condition, KEYED) else "r", text) for condition in self._conditions]
        return " AND ".join([of_type, text.held("r"), *tests])

    def _listed(self, mark: list[Any] | None, limit: int) -> Written:
        """In order of the keys, in which the indexes of values hold them too: a page of what many have ends where it is full."""
        text = self._text()
        tables = [f"{SCHEMA}.resource r"]
        tests = [_IMPLIED if any(isinstance(one, HasRow) and not one.is_negated for one in self._conditions) else _OF_TYPE, text.held("r")]
        beyond = text.argument(mark[-1]) if mark is not None else ""
        if beyond:
            tests.append(f"r.key > {beyond}")
        for condition in self._conditions:
            tests += joined(condition, "r", text, tables, beyond)
        columns = _COLUMNS if len(tables) == 1 else f"DISTINCT ON (r.key) {_COLUMNS}"
        return text.of(f"SELECT {columns} FROM {', '.join(tables)} WHERE {' AND '.join(tests)} ORDER BY r.key LIMIT {text.argument(limit)}")

    def _walked(self, mark: list[Any] | None, limit: int) -> Written:
        """By the one value that is sorted by, as its index holds them."""
        text = self._text()
        (key,) = self._sort
        beyond = key.beyond("v", mark, text.argument) if mark is not None else ""
        inner = (
            f"SELECT {_COLUMNS}, v.value AS sort_0 FROM ({key.rows()}) v JOIN {SCHEMA}.resource r ON r.key = v.key"
            f" WHERE {self._tests(text, _IMPLIED, 'v')}{key.best('v')}"
        )
        return text.of(f"{inner}{beyond} ORDER BY v.value {key.direction}, r.key LIMIT {text.argument(limit)}")

    def _without(self, mark: list[Any] | None, limit: int) -> Written:
        text = self._text()
        (key,) = self._sort
        beyond = f" AND r.key > {text.argument(mark[-1])}" if mark is not None and mark[0] is None else ""
        columns = f"{_COLUMNS}, NULL AS sort_0"
        tests = f"{self._tests(text)} AND NOT {key.has_row('r')}{beyond}"
        return text.of(f"SELECT {columns} FROM {SCHEMA}.resource r WHERE {tests} ORDER BY r.key LIMIT {text.argument(limit)}")

    def _sorted(self, mark: list[Any] | None, limit: int) -> Written:
        text = self._text()
        keys = ", ".join(f"{key.sql('r')} AS sort_{nth}" for nth, key in enumerate(self._sort))
        inner = f"SELECT {_COLUMNS}, {keys} FROM {SCHEMA}.resource r WHERE {self._tests(text)}"
        values = [f"r.sort_{nth}" for nth in range(len(self._sort))]
        beyond = f"WHERE {later(self._sort, mark, text.argument, values)}" if mark is not None else ""
        order = ", ".join([*(f"{value} {key.order}" for value, key in zip(values, self._sort, strict=True)), "r.key"])
        return text.of(f"SELECT * FROM ({inner}) r {beyond} ORDER BY {order} LIMIT {text.argument(limit)}")
