"""What seals cost and give: appends with the sealer on and off, proofs a second, and a million events verified offline in one pass.

* appends: 32 writers of single events, as in append.py; the sealer signs every second (ten times as often as by default). Both take
  turns, each run in a new database.
* proofs: inclusion proofs of random positions, at a million events: made in this process, and served over HTTP by `anamnesis serve`
  to clients with one request at a time each; one proof a request, and a hundred.
* verification: a bundle of the whole log is exported, and its own verifier reads it; beside it, SHA-256 alone over the same file.
  `anamnesis audit check`, which reads the database, is timed too.

The last line is JSON with the ratios.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import random
import statistics
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlsplit

import append
import database
from ours import anamnesis
from pydantic import SecretStr
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from domain.clinical_record import ClinicalRecordWritten
from eventlog.checking import check_log
from eventlog.envelope import NewEvent, StreamAppend
from eventlog.log import EventLog
from eventlog.schema import migrate
from eventlog.sealer import run_sealer, seal
from eventlog.settings import LogSettings
from eventlog.tree import Tree
from eventlog.vault import make_key_encryption_key
from projections.checkpoint import wait_for
from projections.ledger.projection import LedgerProjection
from projections.runner import Runner
from server.audit import verifier
from server.audit.export import export
from server.audit.proving import prove_inclusions
from server.audit.scope import of_time
from server.auth.tokens import create_token

WRITERS = 32
SEAL_EVERY_S = 1.0
GROUP = 2_000
STREAMS = 20
CLIENTS = 16
BATCH = 100
PROVING_S = 8.0
CATCH_UP_S = 1800.0


@asynccontextmanager
async def opened(url: str, folder: Path) -> AsyncIterator[EventLog]:
    """A new log in a new database."""
    settings = LogSettings(data_dir=folder, database_url=SecretStr(url))
    make_key_encryption_key(settings)
    await migrate(settings)
    log = await EventLog.open(settings)
    try:
        yield log
    finally:
        await log.close()


def appends(url: str, seconds: float, *, sealed: bool) -> float:
    """Events/s of 32 writers."""

    async def run() -> float:
        with tempfile.TemporaryDirectory(prefix="anamnesis-bench-") as folder:
            async with opened(url, Path(folder)) as log:
                sealer = asyncio.create_task(run_sealer(log, SEAL_EVERY_S)) if sealed else None
                try:
                    return await append.events_per_second([append.append_to(log, f"series:{n}") for n in range(WRITERS)], seconds)
                finally:
                    if sealer is not None:
                        sealer.cancel()
                        await asyncio.gather(sealer, return_exceptions=True)

    return asyncio.run(run())


async def fill(log: EventLog, events: int, progress: Progress) -> None:
    """FHIR resources from outside: of every type of event the one that only the ledger projects."""
    task = progress.add_task("Appending", total=events)
    for first in range(0, events, GROUP):
        streams = [
            StreamAppend(
                stream=f"clinical-record-Observation-{first // STREAMS + n}",
                events=[NewEvent(event=_record(first + n, version)) for version in range(1, GROUP // STREAMS + 1)],
            )
            for n in range(STREAMS)
        ]
        await log.append(streams, principal=append.PRINCIPAL)
        progress.update(task, completed=first + GROUP)
    progress.remove_task(task)


def _record(number: int, version: int) -> ClinicalRecordWritten:
    return ClinicalRecordWritten(
        resource_type="Observation",
        resource_id=f"{number:08d}",
        subject_id=f"5f0c2a52-6f6e-5d0e-9a41-{number % 500:012d}",
        record_version=version,
        resource={"resourceType": "Observation", "status": "final", "valueQuantity": {"value": version, "unit": "mL"}},
    )


async def proofs_made(log: EventLog, size: int) -> float:
    """One after the other in this process: digest, checkpoint and tiles are read from the database each time."""
    tree, rng = Tree(log.pool), random.Random(1)
    made, began = 0, time.perf_counter()
    while time.perf_counter() < began + PROVING_S:
        await prove_inclusions(log.pool, tree, [rng.randint(1, size)])
        made += 1
    return made / (time.perf_counter() - began)


async def proofs_served(url: str, token: str, size: int, at_once: int) -> float:
    """Proofs/s over HTTP/1.1 with kept connections, by clients that each wait for their answer."""
    parts = urlsplit(url)
    until = time.perf_counter() + 1.0  # warm
    counts = [0] * CLIENTS

    async def ask(n: int) -> None:
        reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
        rng = random.Random(n)
        while time.perf_counter() < until:
            wanted = [rng.randint(1, size) for _ in range(at_once)]
            path = f"/audit/inclusion/{wanted[0]}" if at_once == 1 else "/audit/inclusion?" + "&".join(f"position={p}" for p in wanted)
            writer.write(f"GET {path} HTTP/1.1\r\nHost: {parts.netloc}\r\nAuthorization: Bearer {token}\r\n\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            if not head.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(f"the server answered {head.splitlines()[0]!r}")
            length = next(int(line.split(b":")[1]) for line in head.splitlines() if line.lower().startswith(b"content-length"))
            await reader.readexactly(length)
            counts[n] += at_once
        writer.close()

    await asyncio.gather(*(ask(n) for n in range(CLIENTS)))
    counts = [0] * CLIENTS
    began = time.perf_counter()
    until = began + PROVING_S
    await asyncio.gather(*(ask(n) for n in range(CLIENTS)))
    return sum(counts) / (time.perf_counter() - began)


async def at_size(url: str, folder: Path, events: int, progress: Progress) -> dict[str, float]:
    """Everything that is measured on one large log; the server runs for the proofs alone."""
    found: dict[str, float] = {}
    async with opened(url, folder / "data") as log:
        await fill(log, events, progress)
        began = time.perf_counter()
        size = (await seal(log)).size
        found["sealed_per_s"] = size / (time.perf_counter() - began)
        found["proofs_made_per_s"] = await proofs_made(log, size)
        task = progress.add_task("Checking the log", total=size)
        began = time.perf_counter()
        checked = await check_log(log, progress=lambda at, _: progress.update(task, completed=at))
        if not checked.holds:
            raise RuntimeError(f"the log does not hold: {checked.discrepancies[:3]}")
        found["checked_per_s"] = size / (time.perf_counter() - began)
        progress.update(task, description="Catching up")
        await _catch_up(log, size)
        progress.remove_task(task)
        _, token = await create_token(log.pool, name="benchmark", scopes=["audit:read"], lifetime=timedelta(hours=2))
        found |= await asyncio.to_thread(_served, url, folder / "data", token, size)
        found |= await _verified(log, folder, size, progress)
    return found


async def _catch_up(log: EventLog, size: int) -> None:
    runner = Runner(log, [LedgerProjection()])
    await runner.prepare()
    running = asyncio.create_task(runner.run())
    try:
        await wait_for(log.pool, LedgerProjection(), size, CATCH_UP_S)
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


def _served(url: str, data_dir: Path, token: str, size: int) -> dict[str, float]:
    with anamnesis(url, data_dir=str(data_dir)) as peer:
        time.sleep(10)  # the other read models pass over the log, of which they need nothing
        return {
            "proofs_served_per_s": asyncio.run(proofs_served(peer.http_url, token, size, 1)),
            "proofs_served_in_hundreds_per_s": asyncio.run(proofs_served(peer.http_url, token, size, BATCH)),
        }


async def _verified(log: EventLog, folder: Path, size: int, progress: Progress) -> dict[str, float]:
    task = progress.add_task("Exporting", total=size)
    began = time.perf_counter()
    bundle = folder / "bundle"
    await export(log, of_time(None, None), bundle, progress=lambda at, _: progress.update(task, completed=at))
    exported_s = time.perf_counter() - began
    progress.update(task, description="Verifying", completed=0)
    began = time.perf_counter()
    result = verifier.verify(bundle, progress=lambda at, _: progress.update(task, completed=at))
    verified_s = time.perf_counter() - began
    if not result.holds or result.facts["disclosed"] < size:
        raise RuntimeError(f"the bundle does not hold: {result.problems[:3]}")
    began = time.perf_counter()
    with (bundle / "events.ndjson").open("rb") as file:
        hashlib.file_digest(file, "sha256")
    bare_s = time.perf_counter() - began
    progress.remove_task(task)
    return {
        "exported_per_s": size / exported_s,
        "verified_per_s": size / verified_s,
        "bundle_mb": (bundle / "events.ndjson").stat().st_size / 1e6,
        "sha256_per_s": size / bare_s,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--events", type=int, default=1_000_000, help="size of the large log (default 1,000,000)")
    parser.add_argument("--rounds", type=int, default=7, help="runs of appends with and without the sealer (default 7)")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of such a run (default 4)")
    arguments = parser.parse_args()
    rates: dict[bool, list[float]] = {True: [], False: []}
    console = Console()
    with database.server() as server, Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("Appending with and without the sealer", total=2 * arguments.rounds)
        for number in range(arguments.rounds):
            for sealed in ((True, False), (False, True))[number % 2]:
                database.checkpoint(server)
                with database.fresh_database(server) as url:
                    rates[sealed].append(appends(url, arguments.seconds, sealed=sealed))
                progress.advance(task)
        with database.fresh_database(server) as url, tempfile.TemporaryDirectory(prefix="anamnesis-bench-", dir="/var/tmp") as folder:
            found = asyncio.run(at_size(url, Path(folder), arguments.events, progress))
    medians = {sealed: statistics.median(runs) for sealed, runs in rates.items()}
    console.print(_table(arguments.events, medians, rates, found))
    ratios = {
        "append_sealed_vs_unsealed": round(medians[True] / medians[False], 3),
        "proofs_per_s": round(found["proofs_served_per_s"]),
        "verify_vs_sha256": round(found["verified_per_s"] / found["sha256_per_s"], 4),
        "verified_per_s": round(found["verified_per_s"]),
    }
    print(json.dumps(ratios))


def _table(events: int, medians: dict[bool, float], rates: dict[bool, list[float]], found: dict[str, float]) -> Table:
    table = Table("", "a second", "range", title=f"Seals, at {events:,} events")
    for sealed, name in ((False, "appends, no sealer"), (True, f"appends, sealed every {SEAL_EVERY_S:g} s")):
        table.add_row(name, f"{medians[sealed]:,.0f}", f"{min(rates[sealed]):,.0f} to {max(rates[sealed]):,.0f}")
    for name, key in (
        ("events sealed", "sealed_per_s"),
        ("proofs made, one after the other", "proofs_made_per_s"),
        ("proofs served, one a request", "proofs_served_per_s"),
        (f"proofs served, {BATCH} a request", "proofs_served_in_hundreds_per_s"),
        ("events checked in the database", "checked_per_s"),
        ("events exported", "exported_per_s"),
        (f"events verified offline ({found['bundle_mb']:,.0f} MB)", "verified_per_s"),
        ("the same bytes by SHA-256 alone, in events", "sha256_per_s"),
    ):
        table.add_row(name, f"{found[key]:,.0f}", "")
    for column in table.columns[1:]:
        column.justify = "right"
    return table


if __name__ == "__main__":
    main()
