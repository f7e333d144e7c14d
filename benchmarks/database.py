"""The PostgreSQL that every contender writes to: one server, a new database for each run, and nothing turned off.

ANAMNESIS_BENCH_DATABASE_URL names the server (default: postgres on 127.0.0.1:5432). Where none answers, the embedded one is
started in a temporary folder; Orthanc cannot use that one, since it has no TCP port.
"""

from __future__ import annotations

import asyncio
import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from eventlog.embedded import EmbeddedPostgres

DEFAULT_URL = "postgresql://postgres@127.0.0.1:5432/postgres"
DURABLE = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on"}


class NotDurable(RuntimeError):
    """The server would lose what it has acknowledged: its figures would mean nothing."""


@contextmanager
def server() -> Iterator[str]:
    """URL of the server's maintenance database. Raises NotDurable."""
    url = os.environ.get("ANAMNESIS_BENCH_DATABASE_URL", DEFAULT_URL)
    try:
        _check_durable(url)
    except OSError:
        if "ANAMNESIS_BENCH_DATABASE_URL" in os.environ:
            raise
        with tempfile.TemporaryDirectory(prefix="anamnesis-bench-") as folder:
            embedded = EmbeddedPostgres(Path(folder) / "postgresql")
            url = embedded.url("postgres")
            _check_durable(url)
            try:
                yield url
            finally:
                embedded.leave()
        return
    yield url


@contextmanager
def fresh_database(server_url: str) -> Iterator[str]:
    """URL of a new, empty database, dropped afterwards."""
    name = f"anamnesis_bench_{uuid.uuid4().hex[:12]}"
    try:
        yield kept_database(server_url, name)[0]
    finally:
        drop(server_url, name)


def kept_database(server_url: str, name: str) -> tuple[str, bool]:
    """URL of the database of this name, and whether it had to be made."""
    is_new = True
    try:
        asyncio.run(_execute(server_url, f'CREATE DATABASE "{name}"'))
    except asyncpg.DuplicateDatabaseError:
        is_new = False
    return urlunsplit(urlsplit(server_url)._replace(path=f"/{name}")), is_new


def drop(server_url: str, name: str) -> None:
    asyncio.run(_execute(server_url, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)'))


def compress_wal(server_url: str, url: str) -> bool:
    """For this database, as docs/operate.md recommends; False where the server was built without LZ4, or does not let us."""
    name = urlsplit(url).path.removeprefix("/")
    try:
        asyncio.run(_execute(server_url, f"ALTER DATABASE \"{name}\" SET wal_compression = 'lz4'"))
    except (asyncpg.InvalidParameterValueError, asyncpg.InsufficientPrivilegeError):
        return False
    return True


def checkpoint(server_url: str) -> None:
    """Starts each run with clean buffers, so that no contender pays for the writes of the one before."""
    asyncio.run(_execute(server_url, "CHECKPOINT"))


def vacuum(url: str) -> None:
    """Leaves what was filled in one go as autovacuum leaves it some minutes later, where it is on: with statistics."""
    asyncio.run(_execute(url, "VACUUM ANALYZE"))


def version(server_url: str) -> str:
    """PostgreSQL's version, for the table's heading."""

    async def ask() -> str:
        connection = await asyncpg.connect(server_url)
        try:
            return str(await connection.fetchval("SHOW server_version")).split()[0]
        finally:
            await connection.close()

    return asyncio.run(ask())


def size(url: str) -> int:
    """Bytes of a database on disk, indexes and all."""

    async def ask() -> int:
        connection = await asyncpg.connect(url)
        try:
            return int(await connection.fetchval("SELECT pg_database_size(current_database())"))
        finally:
            await connection.close()

    return asyncio.run(ask())


async def _execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


def _check_durable(url: str) -> None:
    async def ask() -> dict[str, str]:
        connection = await asyncpg.connect(url, timeout=5)
        try:
            return {name: await connection.fetchval(f"SHOW {name}") for name in DURABLE}
        finally:
            await connection.close()

    found = asyncio.run(ask())
    if found != DURABLE:
        raise NotDurable(f"the PostgreSQL for benchmarks must run with {DURABLE}, and has {found}")
