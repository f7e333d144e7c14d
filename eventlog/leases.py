"""A lease on a name that vanishes with the process that holds it: a PostgreSQL advisory lock on a session of its own."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from eventlog.log import EventLog


@asynccontextmanager
async def lease(log: EventLog, key: str, *, patience_s: float = 0.0) -> AsyncIterator[bool]:
    """Yields whether the lease was had, within ``patience_s`` seconds where others hold it only for moments.

    It ends with the block, or with this process or its connection."""
    connection = await log.connect()
    try:
        yield await _had(connection, key, patience_s)
    finally:
        try:
            if not connection.is_closed():
                # A closed session's locks go when its backend ends, which is a little later.
                with contextlib.suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError):
                    await connection.execute("SELECT pg_advisory_unlock_all()")
                await connection.close()
        finally:
            connection.terminate()  # where who held it was cancelled once more: no lease outlives its block


async def _had(connection: asyncpg.Connection, key: str, patience_s: float) -> bool:
    if await connection.fetchval("SELECT pg_try_advisory_lock(hashtextextended($1, 0))", key):
        return True
    if not patience_s:
        return False
    await connection.execute("SELECT set_config('lock_timeout', $1, false)", f"{round(patience_s * 1000)}ms")
    try:
        await connection.execute("SELECT pg_advisory_lock(hashtextextended($1, 0))", key)
    except asyncpg.LockNotAvailableError:
        return False
    finally:
        await connection.execute("RESET lock_timeout")
    return True
