"""Bulk Data $export of a whole archive, beside what PostgreSQL alone gives of the same rows: COPY to a file, and a cursor to a file.

Made, not downloaded: from the kick-off to the status that has the manifest, with every record of whom the files are about in the log.
The last line is JSON:

    export_resources_per_s  resources in the files over the time
    export_mb_per_s         the same in megabytes
    export_vs_copy          our rate over that of COPY
    export_vs_cursor        our rate over that of a cursor
    export_grows_mb         by how much the server's memory grew at most while it exported

    python benchmarks/export.py [--patients 1000] [--rounds 3]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import asyncpg
import database
import fhir
import httpx
import psutil
from ours import anamnesis
from peers import Peer
from pydantic import SecretStr
from rich.console import Console
from rich.table import Table

from eventlog.settings import LogSettings
from projections.fhir.projection import SCHEMA

ROWS = f"SELECT body FROM {SCHEMA}.resource WHERE position_to IS NULL AND type <> 'AuditEvent' ORDER BY type, key"
PREFETCH = 1000
LOOK_S = 0.02


def exported(ours: Peer) -> tuple[int, int, float]:
    """Resources, bytes and seconds of an export of everything."""
    with httpx.Client(base_url=f"{ours.http_url}/fhir", headers=ours.headers, timeout=60) as client:
        began = time.perf_counter()
        status = client.get("/$export", headers={"Prefer": "respond-async"}).raise_for_status().headers["content-location"]
        while (answer := client.get(status)).status_code == 202:
            time.sleep(LOOK_S)
        seconds = time.perf_counter() - began
        files = answer.raise_for_status().json()["output"]
        sizes = [int(client.head(one["url"], headers={"Accept-Encoding": "identity"}).headers["content-length"]) for one in files]
        client.delete(status)
    return sum(one["count"] for one in files), sum(sizes), seconds


async def copied(url: str, path: Path) -> None:
    connection = await asyncpg.connect(url)
    try:
        with path.open("wb") as file:
            await connection.copy_from_query(ROWS, output=file)
            os.fsync(file.fileno())
    finally:
        await connection.close()


async def fetched(url: str, path: Path) -> None:
    connection = await asyncpg.connect(url)
    try:
        with path.open("w", encoding="utf-8") as file:
            async with connection.transaction():
                async for row in connection.cursor(ROWS, prefetch=PREFETCH):
                    file.write(row["body"])
                    file.write("\n")
            file.flush()
            os.fsync(file.fileno())
    finally:
        await connection.close()


def seconds_of(work: Callable[[Path], None]) -> float:
    with tempfile.TemporaryDirectory(prefix="anamnesis-bench-", dir="/var/tmp") as folder:
        began = time.perf_counter()
        work(Path(folder) / "rows")
        return time.perf_counter() - began


class Memory(threading.Thread):
    """How much a process grew, at most, while it was watched."""

    def __init__(self, process_id: int) -> None:
        super().__init__(daemon=True)
        self._process = psutil.Process(process_id)
        self._ended = threading.Event()
        self._before = self._process.memory_info().rss
        self.grown = 0

    def run(self) -> None:
        while not self._ended.wait(LOOK_S):
            self.grown = max(self.grown, self._process.memory_info().rss - self._before)

    def stop(self) -> int:
        """Bytes."""
        self._ended.set()
        self.join()
        return self.grown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=int, default=1000, help="with 30 resources each, and a Provenance of each (default 1000)")
    parser.add_argument("--rounds", type=int, default=3, help="in which the contenders take turns (default 3)")
    arguments = parser.parse_args()
    console = Console(width=140)
    with database.server() as server_url, database.fresh_database(server_url) as url:
        console.print(f"PostgreSQL {database.version(server_url)}, {os.cpu_count()} cores, {arguments.patients:,} patients")

        def prepare(folder: Path) -> None:
            asyncio.run(fhir.fill(LogSettings(data_dir=folder, database_url=SecretStr(url)), arguments.patients, console))

        with anamnesis(url, scopes=("fhir:read",), prepare=prepare) as ours:
            database.checkpoint(server_url)
            exported(ours)  # plans are made, and pages are in memory
            memory = Memory(ours.process_id)
            memory.start()
            exports: list[tuple[int, int, float]] = []
            copies: list[float] = []
            cursors: list[float] = []
            for _ in range(arguments.rounds):
                exports.append(exported(ours))
                copies.append(seconds_of(lambda path: asyncio.run(copied(url, path))))
                cursors.append(seconds_of(lambda path: asyncio.run(fetched(url, path))))
            grown = memory.stop()
    count, size, _ = exports[0]
    ours_s = statistics.median(seconds for _, _, seconds in exports)
    copy_s, cursor_s = statistics.median(copies), statistics.median(cursors)
    table = Table("", "resources/s", "MB/s", title=f"{count:,} resources, {size / 1e6:,.0f} MB")
    for name, seconds in (("$export", ours_s), ("COPY", copy_s), ("cursor", cursor_s)):
        table.add_row(name, f"{count / seconds:,.0f}", f"{size / seconds / 1e6:,.1f}")
    console.print(table)
    figures = {
        "export_resources_per_s": round(count / ours_s),
        "export_mb_per_s": round(size / ours_s / 1e6, 1),
        "export_vs_copy": round(copy_s / ours_s, 3),
        "export_vs_cursor": round(cursor_s / ours_s, 3),
        "export_grows_mb": round(grown / 1e6),
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
