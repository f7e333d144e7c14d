"""Events/s that become durable, with 1 and with 32 writers: our log, the library `eventsourcing`, and bare INSERTs.

All on one PostgreSQL with nothing turned off. A writer appends single events to a stream of its own, and starts the next when
the last is durable. The contenders take turns, each run gets a new database, and the table shows medians.

* ours: ``EventLog.append`` with the expected version; dense positions in commit order, a digest over every envelope.
* the library: ``insert_events`` of its PostgreSQL application recorder, a thread a writer. Serialisation is left out, in its
  favour. Twice: as it comes, and with the database functions that an option switches on.
* bare: one prepared INSERT a connection, into a table with the columns and keys of ours; positions from a sequence, so neither
  dense nor in commit order, and nothing is hashed. What only a database can do, and no log. Twice: on a connection that each
  writer has for itself, and through a pool, as applications do it.

The last line is JSON with the ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit
from uuid import UUID, uuid4

import asyncpg
import database
import msgspec
from eventsourcing.persistence import StoredEvent
from eventsourcing.postgres import PostgresApplicationRecorder, PostgresDatastore
from pydantic import SecretStr
from rich.console import Console
from rich.table import Table

from domain.principal import device
from domain.series import IndexingRequested
from eventlog.envelope import NewEvent, StreamAppend, new_event_id
from eventlog.log import EventLog
from eventlog.schema import migrate
from eventlog.settings import LogSettings
from eventlog.vault import make_key_encryption_key

PRINCIPAL = device("benchmark")
EVENT = IndexingRequested(
    study_uid="1.2.826.0.1.3680043.8.498.10000000000000000000000000000000000001",
    series_uid="1.2.826.0.1.3680043.8.498.20000000000000000000000000000000000002",
    subject_id="5f0c2a52-6f6e-5d0e-9a41-5a1f0c2a526f",
    series_digest="9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
    segmenter="baseline",
    reason="quiet",
)
DATA = msgspec.json.encode(EVENT)

BARE_TABLE = """
CREATE TABLE bare (
    position        bigserial   NOT NULL PRIMARY KEY,
    event_id        uuid        NOT NULL UNIQUE,
    stream          text        NOT NULL,
    version         integer     NOT NULL,
    type            text        NOT NULL,
    schema_version  smallint    NOT NULL,
    occurred_at     timestamptz NOT NULL,
    recorded_at     timestamptz NOT NULL,
    principal       text        NOT NULL,
    correlation_id  uuid        NOT NULL,
    causation_id    uuid,
    origin          text        NOT NULL,
    data            bytea       NOT NULL,
    digest          bytea       NOT NULL,
    UNIQUE (stream, version)
)"""
BARE_INSERT = """
INSERT INTO bare (event_id, stream, version, type, schema_version, occurred_at, recorded_at, principal, correlation_id,
                  causation_id, origin, data, digest)
VALUES ($1, $2, $3, 'IndexingRequested', 1, $4, $5, $6, $7, NULL, 'local', $8, $9)"""

Contender = Callable[[str, int, float], float]
"""(database URL, writers, seconds) → events/s."""


def ours(url: str, writers: int, seconds: float) -> float:
    async def run() -> float:
        with tempfile.TemporaryDirectory(prefix="anamnesis-bench-") as folder:
            settings = LogSettings(data_dir=Path(folder), database_url=SecretStr(url))
            make_key_encryption_key(settings)
            await migrate(settings)
            log = await EventLog.open(settings)
            try:
                return await events_per_second([append_to(log, f"series:{n}") for n in range(writers)], seconds)
            finally:
                await log.close()

    return asyncio.run(run())


def bare(url: str, writers: int, seconds: float) -> float:
    async def run() -> float:
        setup = await asyncpg.connect(url)
        await setup.execute(BARE_TABLE)
        await setup.close()
        connections = [await asyncpg.connect(url) for _ in range(writers)]
        try:
            return await events_per_second([await _insert_on(c, f"series:{n}") for n, c in enumerate(connections)], seconds)
        finally:
            for connection in connections:
                await connection.close()

    return asyncio.run(run())


def pooled(url: str, writers: int, seconds: float) -> float:
    async def run() -> float:
        async with asyncpg.create_pool(url, min_size=writers, max_size=writers) as pool:
            await pool.execute(BARE_TABLE)
            return await events_per_second([_insert_by(pool.execute, f"series:{n}") for n in range(writers)], seconds)

    return asyncio.run(run())


def library(url: str, writers: int, seconds: float, *, database_functions: bool) -> float:
    parts = urlsplit(url)
    datastore = PostgresDatastore(
        dbname=parts.path.strip("/"),
        host=parts.hostname or parse_qs(parts.query)["host"][0],
        port=parts.port or 5432,
        user=unquote(parts.username or "postgres"),
        password=unquote(parts.password or ""),
        pool_size=writers,
        enable_db_functions=database_functions,
    )
    try:
        recorder = PostgresApplicationRecorder(datastore)
        recorder.create_table()
        counts = [0] * writers
        until = 0.0

        def write(writer: int) -> None:
            stream, version = uuid4(), 0
            while time.perf_counter() < until:
                recorder.insert_events([StoredEvent(stream, version, "domain.series:IndexingRequested", DATA)])
                version += 1
                counts[writer] = version

        until = time.perf_counter() + 0.5  # warm: every connection open, every statement prepared
        _in_threads(write, writers)
        counts = [0] * writers
        started = time.perf_counter()
        until = started + seconds
        _in_threads(write, writers)
        return sum(counts) / (time.perf_counter() - started)
    finally:
        datastore.close()


def library_by_statements(url: str, writers: int, seconds: float) -> float:
    return library(url, writers, seconds, database_functions=False)


def library_by_functions(url: str, writers: int, seconds: float) -> float:
    return library(url, writers, seconds, database_functions=True)


CONTENDERS: dict[str, Contender] = {
    "Anamnesis": ours,
    "eventsourcing": library_by_statements,
    "eventsourcing, its functions": library_by_functions,
    "bare INSERT": bare,
    "bare INSERT, pooled": pooled,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="runs of each contender (default 5)")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of a run (default 3)")
    arguments = parser.parse_args()
    rates: dict[tuple[str, int], list[float]] = {(name, n): [] for name in CONTENDERS for n in (1, 32)}
    with database.server() as server:
        heading = f"Durable events/s, PostgreSQL {database.version(server)}, {len(DATA)} bytes of data each"
        for _ in range(arguments.rounds):
            for name, writers in rates:
                database.checkpoint(server)
                with database.fresh_database(server) as url:
                    rates[name, writers].append(CONTENDERS[name](url, writers, arguments.seconds))
    medians = {key: statistics.median(values) for key, values in rates.items()}
    _print_table(heading, rates, medians)
    peers = {
        "append_vs_library_32": ("eventsourcing", 32),
        "append_vs_library_functions_32": ("eventsourcing, its functions", 32),
        "append_vs_insert_32": ("bare INSERT", 32),
        "append_vs_pooled_insert_32": ("bare INSERT, pooled", 32),
        "append_vs_insert_1": ("bare INSERT", 1),
        "append_vs_pooled_insert_1": ("bare INSERT, pooled", 1),
    }
    print(json.dumps({name: round(medians["Anamnesis", peer[1]] / medians[peer], 2) for name, peer in peers.items()}))


def append_to(log: EventLog, stream: str) -> Callable[[int], Coroutine[Any, Any, object]]:
    def append(version: int) -> Coroutine[Any, Any, object]:
        new = StreamAppend(stream=stream, events=[NewEvent(event=EVENT)], expected_version=version)
        return log.append([new], principal=PRINCIPAL)

    return append


async def _insert_on(connection: asyncpg.Connection, stream: str) -> Callable[[int], Coroutine[Any, Any, object]]:
    statement = await connection.prepare(BARE_INSERT)
    return _insert_by(lambda _, *row: statement.fetch(*row), stream)


def _insert_by(execute: Callable[..., Coroutine[Any, Any, object]], stream: str) -> Callable[[int], Coroutine[Any, Any, object]]:
    principal, digest, correlation_id = '{"id":"device:benchmark","kind":"device"}', bytes(32), UUID(int=1)

    def insert(version: int) -> Coroutine[Any, Any, object]:
        now = datetime.now(UTC)
        return execute(BARE_INSERT, new_event_id(), stream, version + 1, now, now, principal, correlation_id, DATA, digest)

    return insert


async def events_per_second(writers: list[Callable[[int], Coroutine[Any, Any, object]]], seconds: float) -> float:
    """Every writer goes on from one event to the next; the first half second is not counted."""
    versions = [0] * len(writers)
    until = time.perf_counter() + 0.5

    async def write(n: int) -> None:
        while time.perf_counter() < until:
            await writers[n](versions[n])
            versions[n] += 1

    await asyncio.gather(*(write(n) for n in range(len(writers))))
    before, started = sum(versions), time.perf_counter()
    until = started + seconds
    await asyncio.gather(*(write(n) for n in range(len(writers))))
    return (sum(versions) - before) / (time.perf_counter() - started)


def _in_threads(work: Callable[[int], None], count: int) -> None:
    threads = [threading.Thread(target=work, args=(n,)) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _print_table(
    heading: str, rates: dict[tuple[str, int], list[float]], medians: dict[tuple[str, int], float]
) -> None:
    table = Table("", "1 writer", "32 writers", "range with 32", title=heading)
    for name in CONTENDERS:
        runs = rates[name, 32]
        table.add_row(name, f"{medians[name, 1]:,.0f}", f"{medians[name, 32]:,.0f}", f"{min(runs):,.0f} to {max(runs):,.0f}")
    for column in table.columns[1:]:
        column.justify = "right"
    Console().print(table)


if __name__ == "__main__":
    main()
