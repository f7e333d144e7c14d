"""Is a read model what the log says? The log is replayed into a shadow up to the live one's position, and each table compared.

The live tables are read in one snapshot together with their checkpoint, so that the site can go on while this runs. What differs is
told by the columns' names and the row's key; the values, which may identify a person, only to who asks for them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

import asyncpg
import msgspec

from domain.ids import Position
from eventlog.leases import lease
from eventlog.log import EventLog
from projections.digest import ROW_SHA256, row_digests, table_digest, tables
from projections.errors import ProjectionIncomplete, RebuildRunning, WorkLeft
from projections.projection import Projection, schema_name
from projections.rebuild import Progress
from projections.replay import finish, is_finished, replay, writing_session
from projections.schemas import SWEEP_S, complete, create, drop, schemas_key, shadow, sweep

ROWS_LOOKED_AT = 1000
"""Of the rows that one side has and the other has not, so many are read to find the first by its key."""


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """The first row that differs, by its key. ``side``: live (no such row comes of the log), log (it is missing) or both.

    ``key`` holds the primary key, and is empty in a table that has none. ``columns`` are those that differ, or all.
    """

    side: str
    key: Mapping[str, str]
    columns: list[str]
    live: Mapping[str, str | None] | None
    log: Mapping[str, str | None] | None


class TableVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """Digests of one table, live and as the log says, and how many rows only one of them has."""

    table: str
    live_sha256: str
    log_sha256: str
    only_live: int = 0
    only_log: int = 0
    first: Difference | None = None

    @property
    def is_equal(self) -> bool:
        return self.live_sha256 == self.log_sha256


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    version: int
    position: Position
    tables: list[TableVerdict]

    @property
    def is_equal(self) -> bool:
        return all(table.is_equal for table in self.tables)


async def verify(
    log: EventLog, projection: Projection, heard: Callable[[Progress], None] = lambda progress: None, *, values: bool = False
) -> Verdict:
    """Compares the live read model with the log. ``values`` puts the rows' contents into the differences.

    Raises RebuildRunning, ProjectionIncomplete while it has never held the whole log, WorkLeft, UnknownEventType, and whatever apply raises.
    """
    async with lease(log, schemas_key(projection), patience_s=SWEEP_S) as ours, writing_session(log) as connection:
        if not ours:
            raise RebuildRunning(f"projection {projection.name} is being rebuilt or verified: wait until that ends")
        await sweep(connection, projection)
        reader = await log.connect()
        try:
            async with reader.transaction(isolation="repeatable_read", readonly=True):
                position = await _snapshot(reader, projection)
                await _build_shadow(log, projection, connection, position, heard)
                heard(Progress("comparing", position, position))
                return await _compare(reader, connection, projection, position, values)
        finally:
            await reader.close()
            if not connection.is_closed():
                await drop(connection, shadow(projection))


async def _snapshot(reader: asyncpg.Connection, projection: Projection) -> Position:
    """The live position; from here on the reader sees the tables as they were at it."""
    row = await reader.fetchrow(
        "SELECT c.position, c.built, c.state, h.position AS head FROM projection_checkpoint c, log_head h"
        " WHERE c.name = $1 AND c.version = $2",
        projection.name,
        projection.version,
    )
    if row is None or not row["built"]:
        percent = 100 * row["position"] // max(1, row["head"]) if row is not None else 0
        raise ProjectionIncomplete(projection.name, percent, paused=row is not None and row["state"] == "paused")
    if not await is_finished(projection, schema_name(projection), reader):
        raise WorkLeft(projection.name)
    return Position(row["position"])


async def _build_shadow(
    log: EventLog, projection: Projection, connection: asyncpg.Connection, position: Position, heard: Callable[[Progress], None]
) -> None:
    async with connection.transaction():
        await create(connection, projection, shadow(projection))
    await replay(
        log,
        projection,
        shadow(projection),
        connection,
        after=0,
        up_to=position,
        heard=lambda reached: heard(Progress("replaying", reached, position)),
    )
    async with connection.transaction():
        if not await is_finished(projection, shadow(projection), connection):
            await complete(connection, projection, shadow(projection))
    await finish(projection, shadow(projection), connection)


async def _compare(
    reader: asyncpg.Connection, writer: asyncpg.Connection, projection: Projection, position: Position, values: bool
) -> Verdict:
    live, log = schema_name(projection), shadow(projection)
    verdicts: list[TableVerdict] = []
    async with writer.transaction(readonly=True):
        await writer.execute("SET LOCAL enable_seqscan = on")
        there = set(await tables(reader, live))
        for table in sorted(there | set(await tables(writer, log))):
            live_sha256 = await table_digest(reader, live, table) if table in there else ""
            log_sha256 = await table_digest(writer, log, table)
            verdict = TableVerdict(table=table, live_sha256=live_sha256, log_sha256=log_sha256)
            if table in there and not verdict.is_equal:
                verdict = await _explain(reader, writer, live, log, verdict, values)
            verdicts.append(verdict)
    return Verdict(name=projection.name, version=projection.version, position=position, tables=verdicts)


async def _explain(
    reader: asyncpg.Connection, writer: asyncpg.Connection, live: str, log: str, verdict: TableVerdict, values: bool
) -> TableVerdict:
    only_live, only_log = _Sample(), _Sample()
    async for side, digest in _unpaired(row_digests(reader, live, verdict.table), row_digests(writer, log, verdict.table)):
        (only_live if side == "live" else only_log).add(digest)
    key = await _primary_key(reader, live, verdict.table)
    rows = {
        "live": await _rows(reader, live, verdict.table, key, only_live.digests),
        "log": await _rows(writer, log, verdict.table, key, only_log.digests),
    }
    first = _first(rows["live"], rows["log"], key, values)
    return msgspec.structs.replace(verdict, only_live=only_live.count, only_log=only_log.count, first=first)


class _Sample:
    """Counts all, keeps the first ROWS_LOOKED_AT."""

    def __init__(self) -> None:
        self.count = 0
        self.digests: list[bytes] = []

    def add(self, digest: bytes) -> None:
        self.count += 1
        if len(self.digests) < ROWS_LOOKED_AT:
            self.digests.append(digest)


async def _unpaired(live: AsyncIterator[bytes], log: AsyncIterator[bytes]) -> AsyncIterator[tuple[str, bytes]]:
    """What only one of two sorted streams has."""
    a, b = await anext(live, None), await anext(log, None)
    while a is not None or b is not None:
        if a == b:
            a, b = await anext(live, None), await anext(log, None)
        elif b is None or (a is not None and a < b):
            assert a is not None
            yield "live", a
            a = await anext(live, None)
        else:
            yield "log", b
            b = await anext(log, None)


async def _primary_key(connection: asyncpg.Connection, schema: str, table: str) -> list[str]:
    rows = await connection.fetch(
        "SELECT a.attname FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY(i.indkey)"
        " WHERE i.indrelid = $1::text::regclass AND i.indisprimary ORDER BY array_position(i.indkey::int2[], a.attnum)",
        f'{schema}."{table}"',
    )
    return [row["attname"] for row in rows]


Row = dict[str, str | None]


async def _rows(connection: asyncpg.Connection, schema: str, table: str, key: list[str], digests: list[bytes]) -> list[Row]:
    """The rows of these digests with every value as text, in the order of the key (or of their text)."""
    names = await connection.fetch(
        "SELECT attname FROM pg_attribute WHERE attrelid = $1::text::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
        f'{schema}."{table}"',
    )
    columns = ", ".join(f't."{row["attname"]}"::text' for row in names)
    order = ", ".join(f't."{name}"' for name in key) or "t::text"
    rows = await connection.fetch(
        f'SELECT {columns} FROM {schema}."{table}" t WHERE {ROW_SHA256} = ANY($1::bytea[]) ORDER BY {order}', digests
    )
    return [{name["attname"]: value for name, value in zip(names, row, strict=True)} for row in rows]


def _first(live: list[Row], log: list[Row], key: list[str], values: bool) -> Difference:
    """The first row of either side in the order of the key, and the row of the same key on the other side."""
    if not key:
        side, row = ("live", live[0]) if live else ("log", log[0])
        return _difference({side: row}, {}, list(row), values)
    by_key = {side: {_key(row, key): row for row in rows} for side, rows in (("live", live), ("log", log))}
    first = min((_sortable(at), at) for rows in by_key.values() for at in rows)[1]
    found = {side: rows[first] for side, rows in by_key.items() if first in rows}
    shown = {name: value or "" for name, value in zip(key, first, strict=True)}
    one = next(iter(found.values()))
    columns = list(one) if len(found) == 1 else [name for name in one if found["live"][name] != found["log"][name]]
    return _difference(found, shown, columns, values)


def _key(row: Row, key: list[str]) -> tuple[str | None, ...]:
    return tuple(row[name] for name in key)


def _sortable(key: tuple[str | None, ...]) -> list[tuple[int, str]]:
    """Numbers by their size: a longer one is larger."""
    return [(len(value), value) if value is not None and value.isdigit() else (0, value or "") for value in key]


def _difference(found: Mapping[str, Row], key: Mapping[str, str], columns: list[str], values: bool) -> Difference:
    shown: dict[str, Any] = {side: {name: row[name] for name in columns} for side, row in found.items()} if values else {}
    side = "both" if len(found) == 2 else next(iter(found))
    return Difference(side=side, key=key, columns=columns, live=shown.get("live"), log=shown.get("log"))
