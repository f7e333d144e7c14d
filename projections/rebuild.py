"""A read model built anew from the log while the live one serves, which then changes places with it.

Readers notice nothing: the tables change places by their schemas' names, in the transaction that holds the checkpoint, when both
hold the same. The old tables go some seconds later, when nobody reads them any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import asyncpg
import msgspec

from domain.ids import Position
from eventlog.leases import lease
from eventlog.log import EventLog
from projections.checkpoint import move
from projections.errors import RebuildRunning
from projections.projection import Projection, schema_name
from projections.replay import EVENTS_A_BATCH, finish, is_finished, replay, writing_session
from projections.schemas import SWEEP_S, beside, complete, create, drop, schemas_key, swap, sweep

GRACE_S = 3.0
"""From the switch until the old tables are dropped: readers may hold a snapshot in which the new ones are empty."""
NEARLY_THERE = 200
"""At most so many events are left to be applied while the live read model waits for the switch."""


class Progress(msgspec.Struct, frozen=True):
    """``stage``: replaying, indexing, switching, or switched (the rest is tidying up)."""

    stage: str
    position: Position
    head: Position


Heard = Callable[[Progress], None]


async def rebuild(
    log: EventLog,
    projection: Projection,
    heard: Heard = lambda progress: None,
    *,
    limit: int = EVENTS_A_BATCH,
    grace_s: float = GRACE_S,
) -> Position:
    """Builds the projection anew and puts it in the live one's place. Returns the position that it holds.

    The live tables and the checkpoint must be there (Runner.prepare). Raises RebuildRunning, UnknownEventType, and whatever apply
    raises; the live read model is then as it was.
    """
    async with lease(log, schemas_key(projection), patience_s=SWEEP_S) as ours, writing_session(log) as connection:
        if not ours:
            raise RebuildRunning(f"projection {projection.name} is being rebuilt or verified: wait until that ends")
        await sweep(connection, projection)
        try:
            position = await _build(log, projection, connection, heard, limit)
            old, position = await _switch(log, projection, connection, position, heard)
        except BaseException:
            if not connection.is_closed():
                await drop(connection, beside(projection))
            raise
        heard(Progress("switched", position, position))
        await asyncio.sleep(grace_s)
        await drop(connection, old)
        return position


async def _build(log: EventLog, projection: Projection, connection: asyncpg.Connection, heard: Heard, limit: int) -> Position:
    async with connection.transaction():
        await create(connection, projection, beside(projection))
    position, head = Position(0), await log.head()

    def at(reached: Position) -> None:
        heard(Progress("replaying", reached, head))

    await replay(log, projection, beside(projection), connection, after=position, up_to=head, heard=at, limit=limit)
    position = head
    heard(Progress("indexing", position, head))
    async with connection.transaction():
        await complete(connection, projection, beside(projection))
    return position


async def _switch(
    log: EventLog, projection: Projection, connection: asyncpg.Connection, position: Position, heard: Heard
) -> tuple[str, Position]:
    """Applies what came meanwhile, the last of it while the live read model waits, and swaps."""
    while True:
        head = await log.head()
        heard(Progress("switching", position, head))
        await replay(log, projection, beside(projection), connection, after=position, up_to=head)
        await finish(projection, beside(projection), connection)
        position = max(position, head)
        async with connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", switch_key(projection))
            live_at = await connection.fetchval(
                "SELECT position FROM projection_checkpoint WHERE name = $1 AND version = $2 FOR UPDATE",
                projection.name,
                projection.version,
            )
            if live_at > position + NEARLY_THERE:
                continue
            await replay(log, projection, beside(projection), connection, after=position, up_to=live_at)
            position = Position(max(position, live_at))
            if not await is_finished(projection, beside(projection), connection):
                continue
            old = await swap(connection, projection)
            await move(connection, projection, live_at, position, built=True)
            # What came before was written without waiting for the disk; with this commit all of it is durable.
            await connection.execute("SET LOCAL synchronous_commit = on")
        return old, position


def switch_key(projection: Projection) -> str:
    """Of the lock that whoever writes the live tables shares: none of them is under way while the schemas change names."""
    return f"switch {schema_name(projection)}"
