"""Removing what deleted rows leave in PostgreSQL's own files: pages, statistics, and the write-ahead log.

A deleted row stays in its page until the table is rewritten, its values among the planner's statistics, and all of it in
the write-ahead log until those segments go. The embedded database removes old segments rather than using them again
(``wal_recycle = off``). Elsewhere some of this is its administrator's to do, and is named.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import asyncpg

from eventlog.database import migration_url
from eventlog.settings import LogSettings

OLD_READERS_S = 60.0
LOCK_TIMEOUT = "2s"
LOCK_TRIES = 30
"""A rewrite waits for readers, and new readers behind it: so it gives up after a moment, and tries again."""
MAX_SEGMENTS = 1024
STATISTICS = "pg_catalog.pg_statistic"
_NOT_OURS = "needs its owner, or a superuser"

_logger = logging.getLogger(__name__)
_AHEAD = "SELECT count(*) FROM pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}$' AND name > pg_walfile_name(pg_current_wal_lsn())"
_COLUMNS_WITH_STATISTICS = """
SELECT format('%I', a.attname), format_type(a.atttypid, a.atttypmod)
    || CASE WHEN k.oid IS NULL THEN '' ELSE ' COLLATE ' || quote_ident(n.nspname) || '.' || quote_ident(k.collname) END
FROM pg_attribute a LEFT JOIN pg_collation k ON k.oid = a.attcollation LEFT JOIN pg_namespace n ON n.oid = k.collnamespace
WHERE a.attrelid = $1::text::regclass AND a.attnum > 0 AND NOT a.attisdropped AND EXISTS (
    SELECT FROM pg_stats s JOIN pg_class c ON c.relname = s.tablename JOIN pg_namespace o ON o.oid = c.relnamespace AND o.nspname = s.schemaname
    WHERE c.oid = a.attrelid AND s.attname = a.attname
)
"""
_OLD_READERS = """
SELECT EXISTS (
    SELECT FROM pg_stat_activity
    WHERE coalesce(datname, current_database()) = current_database() AND pid <> pg_backend_pid()
        AND backend_xmin IS NOT NULL AND age(backend_xmin) >= age($1::text::xid)
) OR EXISTS (SELECT FROM pg_prepared_xacts WHERE database = current_database() AND age(transaction) >= age($1::text::xid))
  OR EXISTS (SELECT FROM pg_replication_slots WHERE xmin IS NOT NULL AND age(xmin) >= age($1::text::xid))
  OR pg_snapshot_xmin(pg_current_snapshot()) < $1::text::xid8
"""
"""Sessions of this database, and standbys (whose sessions are of none); VACUUM FULL carries over what any of them may still see. The last
line: a transaction that writes into whatever database of the server holds back every new snapshot, VACUUM's own too."""


async def scrub(settings: LogSettings, schemas: Sequence[str]) -> list[str]:
    """Rewrites every table of these schemas, and the one of the subjects' keys. Gives what could not be done, in words."""
    undone: list[str] = []
    async with _owner(settings) as connection:
        tables = await connection.fetch(
            "SELECT format('%I.%I', schemaname, tablename) FROM pg_tables WHERE schemaname = ANY($1) ORDER BY 1", list(schemas)
        )
        gone = True
        # The statistics by themselves: it is the others' ANALYZE that replaces the old ones.
        for together in ([*(table for (table,) in tables), "public.subject_key"], [STATISTICS]):
            gone = gone and await _old_readers_are_gone(connection)
            for table in together:
                if (problem := await _rewrite(connection, table)) is not None:
                    undone.append(f"VACUUM (FULL, ANALYZE) {table} {problem}")
        if not gone:
            undone.append(
                "a transaction that began before the erasure is still open (or a prepared one, a standby or a replication slot keeps its"
                " rows): end it, and run VACUUM FULL"
            )
        if not await _turn_over_log(connection):
            undone.append("the write-ahead log keeps old segments: a superuser has to run SELECT pg_switch_wal(); CHECKPOINT")
        if await connection.fetchval("SELECT current_setting('archive_mode') <> 'off'"):
            undone.append("archived write-ahead log segments are not ours to remove")
        if await connection.fetchval("SELECT EXISTS (SELECT FROM pg_replication_slots)"):
            undone.append("a replication slot may keep old segments: let its reader catch up, and run SELECT pg_switch_wal(); CHECKPOINT")
    return undone


@asynccontextmanager
async def _owner(settings: LogSettings) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(await migration_url(settings), server_settings={"application_name": "anamnesis scrub"})
    try:
        yield connection
    finally:
        await connection.close()


async def _old_readers_are_gone(connection: asyncpg.Connection) -> bool:
    """Rows that an open snapshot still sees survive a rewrite."""
    now = await connection.fetchval("SELECT pg_current_xact_id()::text")
    deadline = time.monotonic() + OLD_READERS_S
    while await connection.fetchval(_OLD_READERS, now):
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(0.1)
    return True


async def _rewrite(connection: asyncpg.Connection, table: str) -> str | None:
    """Why it could not be done. Where we may not, PostgreSQL only warns."""
    refused: list[object] = []

    def heard(_: object, message: asyncpg.PostgresLogMessage) -> None:
        refused.append(message)

    connection.add_log_listener(heard)
    try:
        await connection.execute(f"SET lock_timeout = '{LOCK_TIMEOUT}'")
        for _ in range(LOCK_TRIES):
            try:
                await connection.execute(f"VACUUM (FULL, ANALYZE) {table}")
                await asyncio.sleep(0)  # listeners are called by the loop
                if not refused:
                    await _forget_statistics(connection, table)
                return _NOT_OURS if refused else None
            except asyncpg.LockNotAvailableError:
                await asyncio.sleep(0.2)
            except asyncpg.InsufficientPrivilegeError:
                return _NOT_OURS
            except asyncpg.UndefinedTableError:  # a rebuild has put another in its place, made of what is left
                return None
        _logger.warning("table %s is read all the time and could not be rewritten", table)
        return "never had the table to itself, since somebody read it all the time: run it when that has ended"
    finally:
        await connection.execute("RESET lock_timeout")
        connection.remove_log_listener(heard)


async def _forget_statistics(connection: asyncpg.Connection, table: str) -> None:
    """Of a table that is empty now: ANALYZE leaves those of the rows that were there. A change of type drops them, also to the same one."""
    if table == STATISTICS or await connection.fetchval(f"SELECT EXISTS (SELECT FROM {table})"):
        return
    for column, kind in await connection.fetch(_COLUMNS_WITH_STATISTICS, table):
        await connection.execute(f"ALTER TABLE {table} ALTER COLUMN {column} TYPE {kind}")


async def _turn_over_log(connection: asyncpg.Connection) -> bool:
    """Twice: a checkpoint puts the segments behind it, as they are, before the current one, to be used again under other names."""
    try:
        await connection.execute("CHECKPOINT")
        for _ in range(2):
            ahead = await connection.fetchval(_AHEAD)
            for _ in range(min(ahead, MAX_SEGMENTS) + 1):  # each switch fills up a segment with zeros and begins the next one
                await connection.execute("SELECT pg_logical_emit_message(false, 'anamnesis', 'scrub')")
                await connection.execute("SELECT pg_switch_wal()")
            await connection.execute("CHECKPOINT")
    except asyncpg.InsufficientPrivilegeError:
        return False
    return True
