"""The FHIR API under load: 32 clients against archives of 1, 8 and 64 thousand patients with 30 resources each.

Beside each read stands a bare route that fetches the same row. An archive is filled through the event log, by appends of many
streams, and built into the read model as a rebuild builds it; what clients write afterwards goes over HTTP. The last line is JSON:

    read_vs_bare                 our reads/s over those of the bare route, at the largest size
    search_p50_ms_64k            the slowest of the searches' medians, at the largest size
    search_p50_64k_vs_1k         the worst of the searches' ratios of medians, largest size over smallest
    transaction_resources_per_s  resources/s written by transactions of one patient each, at the largest size
    bytes_per_resource           of the database on disk, events and read models and all, at the largest size

    python benchmarks/fhir.py [--sizes 1000 8000 64000] [--seconds 8] [--clients 32] [--only read token …] [--keep PREFIX]

Filling the largest takes a quarter to half an hour. With --keep the archives stay, in databases named for the prefix and the size, and are
measured again next time, with what earlier runs wrote.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from datetime import timedelta
from pathlib import Path

import database
import load
import msgspec
import patients
from load import Measured, Request
from ours import anamnesis
from peers import Peer, free_port, stop, wait_until_answers
from pydantic import SecretStr
from rich.console import Console
from rich.table import Table

from domain.principal import device
from eventlog.envelope import NewEvent, StreamAppend
from eventlog.log import EventLog
from eventlog.schema import migrate
from eventlog.settings import LogSettings
from projections.catalogue import all_projections
from projections.fhir.vocabulary import SUBJECT_SYSTEM
from projections.runner import Runner

SIZES = (1_000, 8_000, 64_000)
CLIENTS = 32
PATIENTS_AT_ONCE = 40
"""In one append while an archive is filled."""
PRINCIPAL = device("benchmark")
PAGE = 50
COLUMNS_TIMEOUT_S = 300.0
REST_S = 10.0
"""Until the server has compiled what it compiles once."""
FHIR = "application/fhir+json"
SEARCHES = ("token", "patient", "date", "chain", "has", "first_page", "tenth_page")
"""Of which the medians have to be flat. Beside them stand a sorted page, and twenty patients by what refers to them."""
SCOPES = ("fhir:read", "fhir:write", "identities:read", "metrics:read")


class Archive(msgspec.Struct, frozen=True, kw_only=True):
    """One size as it was measured."""

    resources: int
    bytes_each: float
    measured: dict[str, Measured]
    """By the name of the request; of a transaction each request is of one patient."""


_VALUES = itertools.count(1000)
"""Of updates, so that each one changes something."""

_NEW = itertools.count(1_000_000 + 100 * int(time.time()))
"""Numbers of patients who are in no archive yet, nor were made by an earlier run."""
KEY_ENCRYPTION_KEY = base64.b64encode(bytes(range(32))).decode("ascii")
"""Of archives that are kept: nobody in them is anybody."""


def requests(size: int, tenth: str) -> dict[str, Callable[[int], Request]]:
    """What is asked, by name: each a function of the number of the request. ``tenth`` is the path of a tenth page."""
    numbers = _shuffled(size)

    def get(path: Callable[[int, int], str]) -> Callable[[int], Request]:
        return lambda nth: ("GET", path(numbers[nth % size], nth), b"")

    def observation_at(number: int, nth: int) -> str:
        return f"/fhir/Observation/{patients.resource_id('Observation', number, nth % 16)}"

    def period(number: int, nth: int) -> str:
        """Which holds some 20 encounters, whatever the size."""
        begin = patients.day_of(number, nth)
        end = begin + timedelta(days=patients.DAYS) * 20 / (3 * size)
        return f"date=ge{begin:%Y-%m-%dT%H:%M:%SZ}&date=lt{end:%Y-%m-%dT%H:%M:%SZ}"

    def person(number: int) -> str:
        return f"{SUBJECT_SYSTEM}%7C{patients.patient_id(number)}"

    def code(nth: int) -> str:
        return f"{patients.LOINC}%7C{patients.measure_code(nth)}"

    def count(nth: int) -> int:
        """At least as many as there are, and seldom twice the same: what many ask at once is answered once."""
        return patients.SHARE_A_DISEASE + nth % 40

    return {
        "read": get(observation_at),
        "token": get(lambda n, i: f"/fhir/ServiceRequest?identifier={patients.ORDERS}%7C{patients.order_number(n, i % 2)}"),
        "patient": get(lambda n, i: f"/fhir/Observation?patient=Patient/{patients.patient_id(n)}&_count=20"),
        "date": get(lambda n, i: f"/fhir/Encounter?{period(n, i % 3)}&_count=20"),
        "chain": get(lambda n, i: f"/fhir/Observation?subject:Patient.identifier={person(n)}&code={code(i)}&_count=20"),
        "has": get(lambda n, i: f"/fhir/Patient?_has:ServiceRequest:patient:identifier={patients.ORDERS}%7C{patients.order_number(n, i % 2)}"),
        "has_of_20": get(lambda n, i: f"/fhir/Patient?_has:Condition:patient:code={patients.ORPHA}%7C{patients.rare_disease(n)}&_count={count(i)}"),
        "sorted": get(lambda n, i: f"/fhir/Observation?code={code(i)}&_sort=-date&_count={PAGE}"),
        "first_page": get(lambda n, i: f"/fhir/Observation?code={code(i)}&_count={PAGE}"),
        "tenth_page": lambda nth: ("GET", tenth, b""),
        "history": get(lambda n, i: f"{observation_at(n, i)}/_history"),
        "create": lambda nth: ("POST", "/fhir/Observation", _observation(numbers[nth % size], nth)),
        "transaction": lambda nth: ("POST", "/fhir", _transaction()),
        "update": lambda nth: _update(numbers[nth % size], nth),
    }


def _shuffled(size: int) -> list[int]:
    numbers = list(range(size))
    random.Random(size).shuffle(numbers)
    return numbers


def _observation(number: int, nth: int) -> bytes:
    return msgspec.json.encode(patients.observation(number, nth % 16, {"reference": f"Patient/{patients.patient_id(number)}"}))


def _transaction() -> bytes:
    return msgspec.json.encode(patients.transaction(next(_NEW)))


def _update(number: int, nth: int) -> Request:
    its_id = patients.resource_id("Observation", number, nth % 16)
    resource = patients.observation(number, nth % 16, {"reference": f"Patient/{patients.patient_id(number)}"})
    resource["valueQuantity"]["value"] = next(_VALUES)
    return "PUT", f"/fhir/Observation/{its_id}", msgspec.json.encode({**resource, "id": its_id})


async def fill(settings: LogSettings, size: int, console: Console) -> int:
    """Appends the events of so many patients and builds the read models; gives how many resources they have."""
    await migrate(settings)
    log = await EventLog.open(settings)
    try:
        began = time.perf_counter()
        for first in range(0, size, PATIENTS_AT_ONCE):
            appends = [
                StreamAppend(stream=stream, events=[NewEvent(event=event)], expected_version=0)
                for number in range(first, min(size, first + PATIENTS_AT_ONCE))
                for stream, event in patients.events(number)
            ]
            await log.append(appends, principal=PRINCIPAL)
        console.print(f"  {await log.head():,} events appended in {time.perf_counter() - began:.0f} s", style="dim")
        began = time.perf_counter()
        await Runner(log, all_projections()).catch_up()
        console.print(f"  read models built in {time.perf_counter() - began:.0f} s", style="dim")
    finally:
        await log.close()
    return size * patients.RESOURCES_EACH


@contextmanager
def bare(url: str) -> Iterator[str]:
    """The bare route in a process of its own; gives its address."""
    port = free_port()
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen([sys.executable, Path(__file__).with_name("bare.py"), url, str(port)], stdout=log, stderr=log)
        try:
            wait_until_answers(f"http://127.0.0.1:{port}/health", process, Path(os.devnull), 30)
            yield f"http://127.0.0.1:{port}"
        finally:
            stop(process, 10)


def measure(server_url: str, size: int, clients: int, seconds: float, only: Sequence[str], keep: str, console: Console) -> Archive:
    """One size, in a database of its own."""
    place: AbstractContextManager[tuple[str, bool]] = _kept(server_url, f"{keep}_{size}") if keep else _passing(server_url)
    with place as (url, is_filled):
        if not database.compress_wal(server_url, url):
            console.print("  this PostgreSQL does not compress its WAL with LZ4: spans of time take longer than in docs/benchmarks.md")

        def prepare(folder: Path) -> None:
            if not is_filled:
                key = SecretStr(KEY_ENCRYPTION_KEY)
                asyncio.run(fill(LogSettings(data_dir=folder, database_url=SecretStr(url), key_encryption_key=key), size, console))
                database.vacuum(url)

        with anamnesis(url, scopes=SCOPES, prepare=prepare, key_encryption_key=KEY_ENCRYPTION_KEY) as ours:
            bytes_each = database.size(url) / (size * patients.RESOURCES_EACH)
            database.checkpoint(server_url)
            until_columns_are_read(ours)
            time.sleep(REST_S)
            headers = {**ours.headers, "Accept": FHIR, "Content-Type": FHIR}
            asked = requests(size, tenth_page(ours.http_url, headers))
            asked = {name: request for name, request in asked.items() if not only or name in only}
            measured: dict[str, Measured] = {}
            for name, request in asked.items():
                measured[name] = measured_once(ours.http_url, name, request, headers, clients, seconds, console)
                if name == "read":
                    with bare(url) as beside:
                        measured["bare"] = measured_once(beside, "bare", request, {}, clients, seconds, console)
        return Archive(resources=size * patients.RESOURCES_EACH, bytes_each=bytes_each, measured=measured)


@contextmanager
def _passing(server_url: str) -> Iterator[tuple[str, bool]]:
    with database.fresh_database(server_url) as url:
        yield url, False


@contextmanager
def _kept(server_url: str, name: str) -> Iterator[tuple[str, bool]]:
    """A database that stays, and whether it was filled before."""
    url, is_new = database.kept_database(server_url, name)
    try:
        yield url, not is_new
    except BaseException:
        if is_new:
            database.drop(server_url, name)  # it may be half full
        raise


def measured_once(
    url: str, name: str, request: Callable[[int], Request], headers: Mapping[str, str], clients: int, seconds: float, console: Console
) -> Measured:
    """After a warm-up as long, which plans statements and fills caches, and changes most pages for the first time since the checkpoint: then
    PostgreSQL writes them whole, which it does once in five minutes and not for every request."""
    load.measure(url, request, headers=headers, clients=clients, seconds=seconds)
    found = load.measure(url, request, headers=headers, clients=clients, seconds=seconds)
    console.print(f"  {name}: {found.per_s:,.0f}/s, p50 {found.p50_ms:.1f} ms, p99 {found.p99_ms:.1f} ms", style="dim")
    return found


def until_columns_are_read(ours: Peer) -> None:
    """Which takes the first start on a large archive longer than all else. Raises RuntimeError."""
    deadline = time.monotonic() + COLUMNS_TIMEOUT_S
    while b"anamnesis_columns_position 0.0" in load.one(ours.http_url, ("GET", "/metrics", b""), headers=ours.headers):
        if time.monotonic() > deadline:
            raise RuntimeError("the columns were not read in time")
        time.sleep(0.2)


def tenth_page(url: str, headers: Mapping[str, str]) -> str:
    """The path of the tenth page of the first page's search, reached by its links."""
    path = f"/fhir/Observation?code={patients.LOINC}%7C{patients.measure_code(0)}&_count={PAGE}"
    for _ in range(9):
        body = json.loads(load.one(url, ("GET", path, b""), headers=headers))
        path = next(link["url"] for link in body["link"] if link["relation"] == "next").removeprefix(url)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="patients (default 1000 8000 64000)")
    parser.add_argument("--seconds", type=float, default=8.0, help="that each kind of request is measured (default 8)")
    parser.add_argument("--clients", type=int, default=CLIENTS, help=f"that ask at once (default {CLIENTS})")
    parser.add_argument("--only", nargs="+", default=(), help="kinds of requests (default all); no line of JSON then")
    parser.add_argument("--keep", default="", help="prefix of the names of databases that stay, and are measured again")
    arguments = parser.parse_args()
    console = Console(width=140)
    archives: dict[int, Archive] = {}
    with database.server() as server_url:
        console.print(f"PostgreSQL {database.version(server_url)}, {os.cpu_count()} cores, {arguments.clients} clients")
        for size in arguments.sizes:
            console.print(f"{size:,} patients")
            archives[size] = measure(server_url, size, arguments.clients, arguments.seconds, arguments.only, arguments.keep, console)
    console.print(as_table(archives))
    if not arguments.only:
        print(json.dumps(figures(archives)))


def as_table(archives: Mapping[int, Archive]) -> Table:
    table = Table("", *(f"{size:,} patients: /s, p50 / p99 ms" for size in archives), title="FHIR")
    for name in next(iter(archives.values())).measured:
        cells = (archive.measured[name] for archive in archives.values())
        table.add_row(name, *(f"{one.per_s:,.0f}, {one.p50_ms:.1f} / {one.p99_ms:.1f}" for one in cells))
    table.add_row("bytes a resource", *(f"{archive.bytes_each:,.0f}" for archive in archives.values()))
    return table


def figures(archives: Mapping[int, Archive]) -> dict[str, float]:
    smallest, largest = archives[min(archives)].measured, archives[max(archives)].measured
    return {
        "read_vs_bare": round(largest["read"].per_s / largest["bare"].per_s, 3),
        f"search_p50_ms_{thousands(max(archives))}": round(max(largest[name].p50_ms for name in SEARCHES), 1),
        f"search_p50_{thousands(max(archives))}_vs_{thousands(min(archives))}": round(
            max(largest[name].p50_ms / smallest[name].p50_ms for name in SEARCHES), 2
        ),
        "transaction_resources_per_s": round(largest["transaction"].per_s * patients.RESOURCES_EACH),
        "bytes_per_resource": round(archives[max(archives)].bytes_each),
    }


def thousands(size: int) -> str:
    return f"{size // 1000}k"


if __name__ == "__main__":
    main()
