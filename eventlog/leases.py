"""A lease on a name that vanishes with the process that holds it: a PostgreSQL advisory lock on a session of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from eventlog.log import EventLog


@asynccontextmanager
async def lease(log: EventLog, key: str) -> AsyncIterator[bool]:
    """Yields whether the lease was had. It ends with the block, or with this process or its connection."""
    connection = await log.connect()
    try:
        yield await connection.fetchval("SELECT pg_try_advisory_lock(hashtextextended($1, 0))", key)
    finally:
        if not connection.is_closed():
            await connection.close()
