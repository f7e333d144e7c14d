"""Instances/s over C-STORE, with 1 and with 4 associations at once: Anamnesis, Orthanc with each of its indexes, and the disk.

dcmtk's storescu sends 528 KB CT slices, TCP_NODELAY=1 at every end. Each run has a new, empty server; the contenders take turns
and the table shows medians. Everything is durable: Orthanc with SyncStorageArea, PostgreSQL with nothing turned off. A run of
ours ends when the events of all instances are in the log, not when the last one was answered. "The disk" writes the same bytes
and does nothing else: file, fsync, rename, fsync of the folder, in as many threads as there are associations.

The last line is JSON with the ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import asyncpg
import database
from ours import anamnesis
from peers import Peer, orthanc
from rich.console import Console
from rich.table import Table
from slices import make_series

STORESCU = "/usr/bin/storescu"  # dcmtk's: pynetdicom puts one of its own on a virtual environment's PATH
STORED = """
SELECT coalesce(sum(json_array_length(convert_from(data, 'UTF8')::json -> 'instances')), 0)
FROM event WHERE type = 'InstancesStored'"""
LOG_TIMEOUT_S = 60.0

Batches = Sequence[Sequence[Path]]
"""What each association sends."""
Contender = Callable[[str, Sequence[Path], Batches], float]
"""(database server, files to warm up with, batches) → instances/s."""


def ours(server: str, warm: Sequence[Path], batches: Batches) -> float:
    with database.fresh_database(server) as url, anamnesis(url) as peer:
        _send(peer, [warm])
        asyncio.run(_wait_for_events(url, len(warm)))
        started = time.perf_counter()
        _send(peer, batches)
        asyncio.run(_wait_for_events(url, len(warm) + _count(batches)))
        return _count(batches) / (time.perf_counter() - started)


def orthanc_sqlite(server: str, warm: Sequence[Path], batches: Batches) -> float:
    with orthanc("sqlite") as peer:
        return _timed_send(peer, warm, batches)


def orthanc_postgresql(server: str, warm: Sequence[Path], batches: Batches) -> float:
    with database.fresh_database(server) as url, orthanc("postgresql", url) as peer:
        return _timed_send(peer, warm, batches)


def disk(server: str, warm: Sequence[Path], batches: Batches) -> float:
    with tempfile.TemporaryDirectory(prefix="anamnesis-bench-", dir="/var/tmp") as folder, ThreadPoolExecutor(len(batches)) as pool:
        started = time.perf_counter()
        for done in [pool.submit(_write_durably, batch, Path(folder) / str(n)) for n, batch in enumerate(batches)]:
            done.result()
        return _count(batches) / (time.perf_counter() - started)


CONTENDERS: dict[str, Contender] = {
    "Anamnesis": ours,
    "Orthanc 1.12, PostgreSQL": orthanc_postgresql,
    "Orthanc 1.12, SQLite": orthanc_sqlite,
    "the disk": disk,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="runs of each contender (default 5)")
    parser.add_argument("--slices", type=int, default=150, help="instances of each association (default 150)")
    arguments = parser.parse_args()
    rates: dict[tuple[str, int], list[float]] = {(name, n): [] for name in CONTENDERS for n in (1, 4)}
    with tempfile.TemporaryDirectory(prefix="anamnesis-slices-", dir="/var/tmp") as folder, database.server() as server:
        series = [make_series(Path(folder) / str(n), f"{n}", arguments.slices) for n in range(4)]
        warm = make_series(Path(folder) / "warm", "warm", 4)
        for _ in range(arguments.rounds):
            for name, associations in rates:
                os.sync()  # nobody pays for the writes of the one before
                database.checkpoint(server)
                rates[name, associations].append(CONTENDERS[name](server, warm, series[:associations]))
        size = series[0][0].stat().st_size
        heading = f"Instances/s over C-STORE, {size / 1000:.0f} kB each, durable, PostgreSQL {database.version(server)}"
    medians = {key: statistics.median(values) for key, values in rates.items()}
    _print_table(heading, rates, medians)
    mine = medians["Anamnesis", 4]
    print(
        json.dumps(
            {
                "ingest_vs_orthanc_postgresql_4": round(mine / medians["Orthanc 1.12, PostgreSQL", 4], 2),
                "ingest_vs_orthanc_sqlite_4": round(mine / medians["Orthanc 1.12, SQLite", 4], 2),
                "ingest_vs_disk_4": round(mine / medians["the disk", 4], 2),
            }
        )
    )


def _timed_send(peer: Peer, warm: Sequence[Path], batches: Batches) -> float:
    _send(peer, [warm])
    started = time.perf_counter()
    _send(peer, batches)
    return _count(batches) / (time.perf_counter() - started)


def _send(peer: Peer, batches: Batches) -> None:
    """One storescu, and so one association, for each batch, all at once. Raises CalledProcessError if any file was refused."""
    environment = {**os.environ, "TCP_NODELAY": "1"}
    senders = []
    for n, batch in enumerate(batches):
        command = [STORESCU, "-aet", f"BENCH{n}", "-aec", peer.ae_title, "127.0.0.1", str(peer.dicom_port), *map(str, batch)]
        senders.append(subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL))
    for sender in senders:
        if sender.wait() != 0:
            raise subprocess.CalledProcessError(sender.returncode, STORESCU)


async def _wait_for_events(url: str, instances: int) -> None:
    """Until the log, asked in SQL by somebody else than the server, holds the events of so many instances."""
    connection = await asyncpg.connect(url)
    try:
        deadline = time.monotonic() + LOG_TIMEOUT_S
        while (stored := await connection.fetchval(STORED)) < instances:
            if time.monotonic() > deadline:
                raise TimeoutError(f"{stored} of {instances} instances are in the log after {LOG_TIMEOUT_S:.0f} s")
            await asyncio.sleep(0.01)
    finally:
        await connection.close()


def _write_durably(files: Sequence[Path], folder: Path) -> None:
    folder.mkdir()
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        for path in files:
            data = path.read_bytes()
            incoming = folder / "incoming"
            with incoming.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            incoming.rename(folder / path.name)
            os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _count(batches: Batches) -> int:
    return sum(len(batch) for batch in batches)


def _print_table(
    heading: str, rates: dict[tuple[str, int], list[float]], medians: dict[tuple[str, int], float]
) -> None:
    table = Table("", "1 association", "4 associations", "range with 4", title=heading)
    for name in CONTENDERS:
        runs = rates[name, 4]
        table.add_row(name, f"{medians[name, 1]:,.0f}", f"{medians[name, 4]:,.0f}", f"{min(runs):,.0f} to {max(runs):,.0f}")
    for column in table.columns[1:]:
        column.justify = "right"
    Console().print(table)


if __name__ == "__main__":
    main()
