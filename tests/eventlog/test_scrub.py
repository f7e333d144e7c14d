"""What a deleted row leaves in PostgreSQL's files is gone after a scrub; what the database does not let us do is named."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg
import pytest
from pydantic import SecretStr

from eventlog import scrub as scrubbing
from eventlog.database import migration_url
from eventlog.log import EventLog
from eventlog.scrub import scrub
from eventlog.settings import LogSettings

PLANTED = "Quirinaldazwetschgenbaumer"
SCHEMA = "planted_v1"
_SEGMENTS = """
SELECT count(*) FROM pg_ls_waldir() WHERE name ~ '^[0-9A-F]{24}$'
    AND position($1::bytea IN coalesce(pg_read_binary_file('pg_wal/' || name, 0, 67108864, true), '')) > 0
"""


@asynccontextmanager
async def owner(settings: LogSettings) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(await migration_url(settings))
    try:
        yield connection
    finally:
        await connection.close()


async def plant_and_delete(connection: asyncpg.Connection) -> None:
    await connection.execute(f"CREATE SCHEMA {SCHEMA}")
    await connection.execute(f"CREATE TABLE {SCHEMA}.person (id bigint PRIMARY KEY, name text, other text)")
    await connection.execute(f"INSERT INTO {SCHEMA}.person SELECT n, $1 || n % 3, 'kept' || n FROM generate_series(1, 3000) AS n", PLANTED)
    await connection.execute(f"CREATE INDEX by_name ON {SCHEMA}.person (name)")
    await connection.execute(f"ANALYZE {SCHEMA}.person")
    await connection.execute("CHECKPOINT")
    assert await left_in_files(connection) and await left_in_statistics(connection) and await connection.fetchval(_SEGMENTS, PLANTED.encode())
    await connection.execute(f"DELETE FROM {SCHEMA}.person WHERE id <> 1")
    await connection.execute(f"UPDATE {SCHEMA}.person SET name = 'somebody else'")


async def left_in_files(connection: asyncpg.Connection) -> bool:
    await connection.execute("CHECKPOINT")
    return bool(
        await connection.fetchval(
            "SELECT bool_or(position($1::bytea IN pg_read_binary_file(pg_relation_filepath(c.oid))) > 0)"
            f" FROM pg_class c WHERE c.relnamespace = '{SCHEMA}'::regnamespace AND c.relkind IN ('r', 'i')",
            PLANTED.encode(),
        )
    )


async def left_in_statistics(connection: asyncpg.Connection) -> bool:
    """In the statistics' own file, whichever tables its rows are of."""
    return bool(
        await connection.fetchval(
            "SELECT position($1::bytea IN pg_read_binary_file(pg_relation_filepath('pg_statistic'))) > 0", PLANTED.encode()
        )
    )


async def test_nothing_is_left_in_pages_statistics_and_write_ahead_log(any_log: EventLog) -> None:
    async with owner(any_log.settings) as connection:
        await plant_and_delete(connection)
        assert await scrub(any_log.settings, [SCHEMA]) == []
        assert not await left_in_files(connection)
        assert not await left_in_statistics(connection)
        assert await connection.fetchval(_SEGMENTS, PLANTED.encode()) == 0
        assert await connection.fetchval(f"SELECT name FROM {SCHEMA}.person") == "somebody else"


async def test_a_transaction_that_still_sees_the_rows_is_named(event_log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrubbing, "OLD_READERS_S", 0.3)
    async with owner(event_log.settings) as connection, owner(event_log.settings) as reader:
        async with reader.transaction(isolation="repeatable_read"):
            await reader.fetchval("SELECT 1")
            await plant_and_delete(connection)
            [said] = await scrub(event_log.settings, [SCHEMA])
            assert "is still open" in said and "VACUUM FULL" in said
            assert await left_in_files(connection)
        assert await scrub(event_log.settings, [SCHEMA]) == [] and not await left_in_files(connection)


async def test_a_transaction_that_writes_into_another_database_is_waited_for(
    event_log: EventLog, embedded_server: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scrubbing, "OLD_READERS_S", 0.3)
    async with owner(event_log.settings) as connection:
        other = await asyncpg.connect(embedded_server)
        try:
            async with other.transaction():
                await other.execute("SELECT pg_current_xact_id()")
                await plant_and_delete(connection)
                [said] = await scrub(event_log.settings, [SCHEMA])
                assert "is still open" in said
        finally:
            await other.close()
        assert await scrub(event_log.settings, [SCHEMA]) == [] and not await left_in_files(connection)


async def test_a_table_that_somebody_reads_all_the_time_is_named(event_log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scrubbing, "LOCK_TIMEOUT", "50ms")
    monkeypatch.setattr(scrubbing, "LOCK_TRIES", 2)
    async with owner(event_log.settings) as connection, owner(event_log.settings) as reader:
        await plant_and_delete(connection)
        async with reader.transaction():  # holds its lock, and no snapshot
            await reader.execute(f"LOCK TABLE {SCHEMA}.person IN ACCESS SHARE MODE")
            [said] = await scrub(event_log.settings, [SCHEMA])
        assert said.startswith(f"VACUUM (FULL, ANALYZE) {SCHEMA}.person never had the table to itself")


async def test_a_role_that_may_not_is_told_what_its_administrator_has_to_do(event_log: EventLog) -> None:
    settings = event_log.settings
    async with owner(settings) as connection:
        await plant_and_delete(connection)
        await connection.execute("DROP ROLE IF EXISTS scrub_guest")
        await connection.execute("CREATE ROLE scrub_guest LOGIN")
        await connection.execute(f"GRANT USAGE ON SCHEMA {SCHEMA} TO scrub_guest")
        try:
            url = (await migration_url(settings)).replace("postgres:@", "scrub_guest:@").replace("//postgres@", "//scrub_guest@")
            assert "scrub_guest" in url
            undone = await scrub(settings.model_copy(update={"migration_url": SecretStr(url)}), [SCHEMA])
        finally:
            await connection.execute("DROP OWNED BY scrub_guest")
            await connection.execute("DROP ROLE scrub_guest")
    assert f"VACUUM (FULL, ANALYZE) {SCHEMA}.person needs its owner, or a superuser" in undone
    assert any(line.startswith("the write-ahead log keeps old segments") for line in undone)


async def test_a_table_that_is_empty_keeps_no_statistics_of_what_was_there(any_log: EventLog) -> None:
    async with owner(any_log.settings) as connection:
        await plant_and_delete(connection)
        columns = f"""'{PLANTED}'::text COLLATE "C" AS name, ARRAY['{PLANTED}'] AS "AND others", 7 AS n"""
        await connection.execute(f'CREATE TABLE {SCHEMA}."first gone" AS SELECT {columns}')
        await connection.execute(f'ANALYZE {SCHEMA}."first gone"; DELETE FROM {SCHEMA}.person; DELETE FROM {SCHEMA}."first gone"')
        assert await scrub(any_log.settings, [SCHEMA]) == []
        assert not await left_in_statistics(connection) and not await left_in_files(connection)
        there = await connection.fetch("SELECT data_type, collation_name FROM information_schema.columns WHERE table_name = 'first gone' ORDER BY 1")
        assert [tuple(row) for row in there] == [("ARRAY", None), ("integer", None), ("text", "C")]
