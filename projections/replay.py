"""The log applied to empty tables that nobody reads yet: for a rebuild, and for a shadow to compare with."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import asyncpg

from domain.ids import Position
from eventlog.envelope import RecordedEvent
from eventlog.log import EventLog
from projections.projection import Projection, WorksLater
from projections.schemas import complete, needs_all_indexes

EVENTS_A_BATCH = 2000
BYTES_A_BATCH = 2 * 1024 * 1024
"""Of stored data: a bound on the memory and on the length of a transaction, whatever the events are."""

COLLECT_AFTER = 200_000
"""Objects made between two looks for cycles: a batch is nothing but trees, and looking through them took a quarter of the time."""

FOR_WRITING = {
    "synchronous_commit": "off",  # the events are durable, and tables and checkpoint go back together
    # Plans made while a table is small must not scan it when it is large.
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
}
"""Settings of sessions and transactions in which projections write."""


@asynccontextmanager
async def writing_session(log: EventLog) -> AsyncIterator[asyncpg.Connection]:
    """A session of its own, outside the pool."""
    connection = await log.connect()
    try:
        for name, value in FOR_WRITING.items():
            await connection.execute("SELECT set_config($1, $2, false)", name, value)
        yield connection
    finally:
        if not connection.is_closed():
            await connection.close()


async def replay(
    log: EventLog,
    projection: Projection,
    schema: str,
    connection: asyncpg.Connection,
    *,
    after: int,
    up_to: int,
    heard: Callable[[Position], None] = lambda position: None,
    limit: int = EVENTS_A_BATCH,
) -> None:
    """Applies the events in (after, up_to]; the next batch is read while the one before is written.

    ``heard`` is told the position after each batch. Raises UnknownEventType, and whatever apply raises.
    """
    if after >= up_to:
        return

    def read(position: int) -> asyncio.Task[tuple[list[RecordedEvent], Position]]:
        return asyncio.create_task(
            log.read_batch(position, up_to, types=projection.handles, limit=limit, max_bytes=BYTES_A_BATCH)
        )

    has_all_indexes = False
    ahead = read(after)
    before = gc.get_threshold()
    gc.set_threshold(COLLECT_AFTER)
    try:
        while True:
            events, position = await ahead
            if position < up_to:
                ahead = read(position)
            if events:
                async with connection.transaction():
                    if needs_all_indexes(events) and not has_all_indexes:
                        await complete(connection, projection, schema)
                        has_all_indexes = True
                    await connection.execute(f"SET LOCAL search_path = {schema}")
                    await projection.apply(events, connection)
            heard(position)
            if position >= up_to:
                return
    finally:
        gc.set_threshold(*before)
        ahead.cancel()
        await asyncio.gather(ahead, return_exceptions=True)


async def finish(projection: Projection, schema: str, connection: asyncpg.Connection) -> None:
    """All that the projection left for later. The tables need all their indexes."""
    if not isinstance(projection, WorksLater):
        return
    is_left = True
    while is_left:
        async with connection.transaction():
            await connection.execute(f"SET LOCAL search_path = {schema}")
            is_left = await projection.work(connection)


async def is_finished(projection: Projection, schema: str, connection: asyncpg.Connection) -> bool:
    """Whether it left nothing for later in the tables of this schema. Within a transaction, whose search_path is afterwards what it was."""
    if not isinstance(projection, WorksLater):
        return True
    before = await connection.fetchval("SELECT current_setting('search_path')")
    await connection.execute(f"SET LOCAL search_path = {schema}")
    is_done = await projection.is_done(connection)
    await connection.execute("SELECT set_config('search_path', $1, true)", before)
    return is_done
