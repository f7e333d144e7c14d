"""The PostgreSQL schemas of a projection: the live one, which readers name, and those beside it for a while.

``fhir_v1_rebuild`` is filled anew, ``fhir_v1_old_…`` was live until a rebuild took its place, ``fhir_v1_shadow`` is compared with
the live one. Whoever makes them holds the lease of the projection's schemas, so that what is there without it was left behind.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Iterable

import asyncpg

from domain.subject import SubjectErased
from eventlog.envelope import RecordedEvent
from eventlog.leases import lease
from eventlog.log import EventLog
from projections.projection import BeginsWith, Projection, schema_name

DROP_TRIES = 40
DROP_LOCK_TIMEOUT = "200ms"
DROP_PAUSE_S = 0.5
"""A table is dropped when no reader holds it; a drop that waits longer would keep readers waiting behind it."""

SWEEP_S = 2.0
"""Whoever rebuilds or verifies waits so long for the lease: a process that has just begun to lead holds it while it sweeps."""

_logger = logging.getLogger(__name__)


def beside(projection: Projection) -> str:
    return f"{schema_name(projection)}_rebuild"


def shadow(projection: Projection) -> str:
    return f"{schema_name(projection)}_shadow"


def schemas_key(projection: Projection) -> str:
    """Of the lease without which nobody makes, swaps or removes schemas beside the live one."""
    return f"schemas {schema_name(projection)}"


async def exists(connection: asyncpg.Connection, schema: str) -> bool:
    return bool(await connection.fetchval("SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)", schema))


async def create(connection: asyncpg.Connection, projection: Projection, schema: str) -> None:
    """The schema with its tables, and what they begin with; without what can wait until they are filled. Within a transaction."""
    await connection.execute(f"CREATE SCHEMA {schema}")
    await _execute(connection, schema, [statement for statement in projection.statements if not _can_wait(statement)])
    if isinstance(projection, BeginsWith):
        before = await connection.fetchval("SELECT current_setting('search_path')")
        await connection.execute(f"SET LOCAL search_path = {schema}")
        await projection.begin(connection)
        await connection.execute("SELECT set_config('search_path', $1, true)", before)


async def complete(connection: asyncpg.Connection, projection: Projection, schema: str) -> None:
    """The indexes that ``create`` left out, as far as they are not there, and the planner's statistics. Within a transaction."""
    await connection.execute("SET LOCAL maintenance_work_mem = '256MB'")
    waiting = [statement for statement in projection.statements if _can_wait(statement)]
    await _execute(connection, schema, [_CREATE_INDEX.sub("CREATE INDEX IF NOT EXISTS ", statement, 1) for statement in waiting])
    for (table,) in await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = $1 ORDER BY 1", schema):
        await connection.execute(f'ANALYZE {schema}."{table}"')


def needs_all_indexes(events: Iterable[RecordedEvent]) -> bool:
    """An erasure looks for what is about a subject, in tables that may hold the whole archive."""
    return any(isinstance(recorded.event, SubjectErased) for recorded in events)


async def swap(connection: asyncpg.Connection, projection: Projection) -> str:
    """The rebuilt schema takes the live one's place, whose new name is returned.

    A rename takes no lock on tables: a statement that reads the old ones reads on, and every statement that begins later is
    planned again (PostgreSQL throws its cached plans away when a schema's name changes) and finds the new ones.
    """
    live = schema_name(projection)
    old = f"{live}_old_{await connection.fetchval('SELECT pg_current_xact_id()::text')}"
    await connection.execute(f"ALTER SCHEMA {live} RENAME TO {old}")
    await connection.execute(f"ALTER SCHEMA {beside(projection)} RENAME TO {live}")
    return old


async def drop(connection: asyncpg.Connection, schema: str) -> bool:
    """Drops the schema as soon as nobody reads it; False when somebody did all the time."""
    for _ in range(DROP_TRIES):
        try:
            async with connection.transaction():
                await connection.execute(f"SET LOCAL lock_timeout = '{DROP_LOCK_TIMEOUT}'")
                await connection.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE")
            return True
        except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
            await asyncio.sleep(DROP_PAUSE_S)
    _logger.warning("schema %s is still read and stays until `anamnesis projections prune`", schema)
    return False


async def sweep(connection: asyncpg.Connection, projection: Projection) -> list[str]:
    """Drops what a rebuild or verification that died has left, and names it. For the holder of the schemas' lease."""
    return [schema for schema in await _left_behind(connection, schema_name(projection)) if await drop(connection, schema)]


async def sweep_unless_in_use(log: EventLog, projection: Projection) -> list[str]:
    """The same for whoever does not hold the lease: nothing happens while somebody does."""
    async with lease(log, schemas_key(projection)) as free:
        if not free:
            return []
        async with log.pool.acquire() as connection:
            return await sweep(connection, projection)


async def _left_behind(connection: asyncpg.Connection, live: str) -> list[str]:
    names = [row["nspname"] for row in await connection.fetch("SELECT nspname FROM pg_namespace ORDER BY nspname")]
    return [name for name in names if re.fullmatch(rf"{re.escape(live)}_(rebuild|shadow|old_\d+)", name)]


async def _execute(connection: asyncpg.Connection, schema: str, statements: list[str]) -> None:
    """Within a transaction, whose search_path is afterwards what it was."""
    before = await connection.fetchval("SELECT current_setting('search_path')")
    await connection.execute(f"SET LOCAL search_path = {schema}")
    for statement in statements:
        await connection.execute(statement)
    await connection.execute("SELECT set_config('search_path', $1, true)", before)


_CREATE_INDEX = re.compile(r"\s*CREATE\s+INDEX\s+", re.IGNORECASE)


def _can_wait(statement: str) -> bool:
    return _CREATE_INDEX.match(statement) is not None
