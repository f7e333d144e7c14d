"""Cohort questions over about 1.04 million real series and ten million made findings, by GraphQL over HTTP, while an event comes each second.

Beside ours, in the same run: PostgreSQL over a narrow table of encoded columns (GROUPING SETS), and DuckDB in memory on the same columns.
The last line is JSON:

    facets_p95_ms_1m      eight facets, the slower of unfiltered and filtered
    facets_p95_ms_10m     the same over ten million series, made by drawing from the real ones again
    facets_vs_postgresql  how many times longer PostgreSQL takes for the same counts, the smaller of unfiltered and filtered (medians)
    facets_vs_duckdb      DuckDB, likewise
    unheard_p95_ms_1m     the same filtered by what nobody has asked before
    unheard_p95_ms_10m    the same over ten million series
    page_p95_ms           the slowest of the sorted pages: the first, the thousandth, filtered, by a field of the study
    cold_start_s_1m       from the start of the process until facets are answered from memory, with a snapshot on disk
    bytes_per_series      of arrays in memory, for each series, without findings

    python benchmarks/cohort.py [--series N] [--findings N] [--asked N] [--rows] [--keep NAME]

The archive is filled through the log, which takes half an hour; with --rows, by COPY into the tables of the cohort read model, in
minutes. With --keep it stays, in a database and a folder of that name, and is measured again next time.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import database
import duckdb
import httpx
import idc
import msgspec
import numpy as np
import pyarrow as pa
from ours import COMMAND
from peers import free_port, stop, wait_until_answers
from pydantic import SecretStr
from rich.console import Console
from rich.table import Table as Printed

from domain.condition import Level
from eventlog.log import EventLog
from eventlog.schema import migrate
from eventlog.settings import LogSettings
from projections.columns import snapshot
from projections.columns.column import Encoded
from projections.columns.growing import Growing
from projections.columns.store import Store
from projections.columns.table import NEVER, Table

FACETS = ("Modality", "Manufacturer", "ManufacturerModelName", "BodyPartExamined", "SOPClassUID", "SeriesDescription", "StudyDescription", "sex")
NARROW = ("00080060", "00080070", "00081090", "00180015", "00080016", "0008103E", "00081030", "sex")
FILTERS: Sequence[dict[str, Any]] = (
    {"oneOf": {"field": "Modality", "values": ["CT"]}},
    {"oneOf": {"field": "Modality", "values": ["MR"]}},
    {"oneOf": {"field": "Manufacturer", "values": ["SIEMENS", "GE MEDICAL SYSTEMS"]}},
    {"not": {"oneOf": {"field": "Modality", "values": ["SM", "SEG"]}}},
    {"all": [{"oneOf": {"field": "Modality", "values": ["CT"]}}, {"between": {"field": "SliceThickness", "atMost": 1.5}}]},
    {"all": [{"oneOf": {"field": "sex", "values": ["F"]}}, {"oneOf": {"field": "BodyPartExamined", "values": ["CHEST", "BREAST"]}}]},
)
_FACETS_QUERY = "query($f: [FacetInput!]!, $w: ConditionInput, $t: [TickInput!]) { cohort(where: $w, ticked: $t) { position facets(fields: $f) { field distinct missing values { value count } } } }"
_HISTOGRAM = "query($w: ConditionInput) { cohort(where: $w) { histogram(field: \"SliceThickness\", bins: 20) { low high bins { count } } } }"
_COUNTS = "query($w: ConditionInput) { cohort(where: $w) { counts { subjects studies series } } }"
_PAGE = "query($o: OrderInput, $n: Int, $a: String, $w: ConditionInput) { series(orderBy: $o, first: $n, after: $a, where: $w) { nodes { seriesUid } pageInfo { endCursor } } }"
_CURSORS = "query($o: OrderInput, $n: Int, $a: String) { series(orderBy: $o, first: $n, after: $a) { pageInfo { endCursor } } }"
_ENGINE = "{ cohort { explain { engine } } }"
ROWS_A_PAGE = 50
UNFILTERED, FILTERED, UNHEARD, TICKED = "8 facets, unfiltered", "8 facets, six filters in turn", "8 facets, filters never asked before", "8 facets, ticked in 3"
OF_CT = "8 facets of CT"
START_TIMEOUT_S = 3600.0
REST_S = 10.0
"""Until the server has compiled what it compiles once, beside its first answers."""

console = Console(width=120)


class Took(msgspec.Struct, frozen=True):
    """Milliseconds of one kind of question."""

    p50: float
    p95: float

    @classmethod
    def of(cls, times: Sequence[float]) -> Took:
        ordered = sorted(times)
        return cls(1000 * statistics.median(ordered), 1000 * ordered[min(len(ordered) - 1, int(len(ordered) * 0.95))])


class Server:
    """`anamnesis serve` over a folder and a database that stay."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder, self.port = folder, free_port()
        self._environment = {name: value for name, value in os.environ.items() if not name.startswith("ANAMNESIS_")} | {
            "ANAMNESIS_DATA_DIR": str(folder / "data"),
            "ANAMNESIS_DATABASE_URL": url,
            "ANAMNESIS_HTTP_PORT": str(self.port),
            "ANAMNESIS_DIMSE_PORT": str(free_port()),
        }
        self.url = f"http://127.0.0.1:{self.port}"
        self.token = self._run("token", "create", "benchmark", "--scope", "cohorts:read", "--scope", "metrics:read").strip()

    def _run(self, *arguments: str) -> str:
        return subprocess.run([COMMAND, *arguments], env=self._environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, check=True, text=True).stdout

    @contextmanager
    def running(self) -> Iterator[tuple[Asker, float]]:
        """Gives who asks it, and the seconds until facets were answered from memory."""
        began = time.perf_counter()
        with (self.folder / "log").open("ab") as log:
            process = subprocess.Popen([COMMAND, "serve"], env=self._environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            wait_until_answers(f"{self.url}/health/live", process, self.folder / "log", START_TIMEOUT_S)
            with Asker(self.url, self.token) as asker:
                asker.until_in_memory()
                asker.facets()
                yield asker, time.perf_counter() - began
        finally:
            stop(process, 120.0)


class Asker:
    def __init__(self, url: str, token: str) -> None:
        self._client = httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=120.0)

    def __enter__(self) -> Asker:
        return self

    def __exit__(self, *error: object) -> None:
        self._client.close()

    def ask(self, query: str, **variables: Any) -> Any:
        answer = self._client.post("/graphql", json={"query": query, "variables": variables})
        body = answer.json()
        if answer.status_code != 200 or body.get("errors"):
            raise RuntimeError(f"{answer.status_code}: {answer.text[:500]}")
        return body["data"]

    def facets(self, where: Any = None, ticked: Any = None) -> Any:
        return self.ask(_FACETS_QUERY, f=[{"field": field, "size": 20} for field in FACETS], w=where, t=ticked)["cohort"]["facets"]

    def until_in_memory(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            if self.metric("anamnesis_columns_position") != 0 and self.ask(_ENGINE)["cohort"]["explain"]["engine"] == "columns":
                return
            time.sleep(0.1)
        raise RuntimeError("the columns were not read in time")

    def metric(self, name: str) -> float:
        found = [line.rsplit(" ", 1) for line in self._client.get("/metrics").text.splitlines() if line.startswith(name)]
        return sum(float(value) for _, value in found)


@contextmanager
def arriving(settings: LogSettings) -> Iterator[None]:
    """An event each second, from a loop of its own."""
    over = threading.Event()

    async def append() -> None:
        log = await EventLog.open(settings)
        try:
            while not over.is_set():
                await log.append([idc.one_more(time.time_ns())], principal=idc.PRINCIPAL)
                await asyncio.to_thread(over.wait, 1.0)
        finally:
            await log.close()

    thread = threading.Thread(target=asyncio.run, args=(append(),))
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def timed(times: int, ask: Callable[[int], object]) -> Took:
    ask(0)
    found = []
    for n in range(times):
        began = time.perf_counter()
        ask(n)
        found.append(time.perf_counter() - began)
    return Took.of(found)


def questions(asker: Asker, asked: int) -> dict[str, Took]:
    """What a page of a cohort builder asks."""
    found = {
        UNFILTERED: timed(asked, lambda n: asker.facets()),
        FILTERED: timed(asked, lambda n: asker.facets(FILTERS[n % len(FILTERS)])),
        UNHEARD: timed(asked, lambda n: asker.facets(_unheard())),
        TICKED: timed(asked, lambda n: asker.facets(None, _TICKS)),
        "histogram": timed(asked, lambda n: asker.ask(_HISTOGRAM, w=FILTERS[n % len(FILTERS)])),
        "series with a finding": timed(asked, lambda n: asker.ask(_COUNTS, w=_with_finding(n))),
        "text within": timed(asked, lambda n: asker.ask(_COUNTS, w={"contains": {"field": "SeriesDescription", "text": ("axial", "thorax", "t2 ", "portal")[n % 4]}})),
    }
    for title, order, where in (
        ("by SeriesDescription", {"field": "SeriesDescription"}, None),
        ("by StudyDate, latest first", {"field": "study_date", "descending": True}, None),
        ("by SliceThickness, of CT", {"field": "SliceThickness"}, FILTERS[0]),
    ):
        found[f"page 1 {title}"] = timed(asked, lambda n, order=order, where=where: asker.ask(_PAGE, o=order, n=ROWS_A_PAGE, w=where))  # type: ignore[misc]
    order = {"field": "SeriesDescription"}
    cursor = None
    for _ in range(999 * ROWS_A_PAGE // 1000):
        cursor = asker.ask(_CURSORS, o=order, n=1000, a=cursor)["series"]["pageInfo"]["endCursor"]
    found["page 1,000 by SeriesDescription"] = timed(asked, lambda n: asker.ask(_PAGE, o=order, n=ROWS_A_PAGE, a=cursor))
    return found


_TICKS = [{"field": "Modality", "values": ["CT", "MR"]}, {"field": "BodyPartExamined", "values": ["CHEST"]}, {"field": "sex", "values": ["F"]}]


_NUMBERS = itertools.count()


def _unheard() -> dict[str, Any]:
    """A filter that nothing is kept of: a third to two thirds of all series."""
    n = next(_NUMBERS)
    modalities = {"oneOf": {"field": "Modality", "values": (["CT", "MR"], ["CT", "SEG"], ["MR", "SM", "SEG"], ["CT", "PT", "RTSTRUCT"])[n % 4]}}
    return {"all": [modalities, {"between": {"field": "study_date", "atLeast": f"{1990 + n // 300}-{1 + n // 25 % 12:02}-{1 + n % 25:02}"}}]}


def _with_finding(n: int) -> dict[str, Any]:
    label = idc.STRUCTURES[n % len(idc.STRUCTURES)]
    large = {"between": {"field": "volume_ml", "moreThan": 1200.0}}
    return {"has": {"level": "FINDING", "where": {"all": [{"oneOf": {"field": "label", "values": [label]}}, large, {"oneOf": {"field": "whole", "values": [True]}}]}}}


def narrow_codes(store: Store) -> dict[str, np.ndarray]:
    """The eight facets as arrays of codes, one entry for each series."""
    series = store.tables[Level.SERIES]
    found = {}
    for key in NARROW:
        level = next(level for level in (Level.SERIES, Level.STUDY, Level.SUBJECT) if key in store.tables[level].columns)
        column = store.tables[level].columns[key]
        assert isinstance(column, Encoded)
        codes = column.all_codes
        if level != Level.SERIES:
            of_entity = np.zeros(store.tables[level].entities.size, codes.dtype)
            of_entity[store.tables[level].entity.values] = codes
            codes = of_entity[series.belongs[level].values]
        found[key] = codes
    return found


class Peers:
    """PostgreSQL over a narrow table, and DuckDB in memory with two threads: the same eight counts, of all and of CT alone."""

    def __init__(self, url: str, codes: dict[str, np.ndarray], ct: int) -> None:
        self._url = url
        self._names = [f"c{n}" for n in range(len(codes))]
        self._wheres = ("", f"WHERE c0 = {ct}")
        asyncio.run(self._fill_postgresql(codes))
        self._duckdb = duckdb.connect()
        self._duckdb.execute("SET threads = 2")
        self._duckdb.register("arrays", pa.table(dict(zip(self._names, codes.values(), strict=True))))
        self._duckdb.execute("CREATE TABLE narrow AS SELECT * FROM arrays")

    async def _fill_postgresql(self, codes: dict[str, np.ndarray]) -> None:
        connection = await asyncpg.connect(self._url)
        await connection.execute("DROP TABLE IF EXISTS narrow")
        await connection.execute(f"CREATE TABLE narrow ({', '.join(f'{name} integer NOT NULL' for name in self._names)})")
        rows = np.stack([array.astype(np.int32) for array in codes.values()], axis=1)
        for start in range(0, len(rows), 100_000):
            await connection.copy_records_to_table("narrow", records=map(tuple, rows[start : start + 100_000].tolist()), columns=self._names)
        await connection.execute("VACUUM ANALYZE narrow")
        await connection.close()

    def postgresql(self, asked: int) -> list[Took]:
        async def measure() -> list[Took]:
            connection = await asyncpg.connect(self._url)
            await connection.execute("SET work_mem = '256MB'")
            sets = ", ".join(f"({name})" for name in self._names)
            times = []
            for where in self._wheres:
                found = []
                for _ in range(asked):
                    began = time.perf_counter()
                    await connection.fetch(f"SELECT {', '.join(self._names)}, count(*) FROM narrow {where} GROUP BY GROUPING SETS ({sets})")
                    found.append(time.perf_counter() - began)
                times.append(Took.of(found))
            await connection.close()
            return times

        return asyncio.run(measure())

    def duckdb(self, asked: int) -> list[Took]:
        def counts(where: str) -> None:
            for name in self._names:
                self._duckdb.execute(f"SELECT {name}, count(*) AS k FROM narrow {where} GROUP BY 1 ORDER BY k DESC LIMIT 20").fetchall()

        return [timed(asked, lambda n, where=where: counts(where)) for where in self._wheres]  # type: ignore[misc]


def resampled(path: Path, factor: int) -> None:
    """Puts a snapshot in this one's place whose series are drawn from it again, so many times as many; findings stay as they are."""
    description, store = snapshot.read(path)
    table = store.tables[Level.SERIES]
    by_entity = np.argsort(table.entity.values, kind="stable")
    standing = np.flatnonzero(table.ends.values == NEVER)
    drawn = standing[np.random.default_rng(0).integers(0, len(standing), len(standing) * (factor - 1))]
    rows = np.concatenate([drawn, by_entity])
    made = Table(Level.SERIES)
    # Ids in front of all others: what arrives later has ids behind them.
    made.entities = Growing(np.int64, np.concatenate([idc.BELOW_ZERO - len(drawn) + np.arange(len(drawn)), table.entities.values]))
    made.entity = Growing(np.int32, np.concatenate([np.arange(len(drawn), dtype=np.int32), table.entity.values[by_entity] + len(drawn)]))
    made.begins, made.ends = Growing(np.int64, table.begins.values[rows]), Growing(np.int64, table.ends.values[rows])
    made.belongs = {level: Growing(np.int32, owners.values[rows]) for level, owners in table.belongs.items()}
    made.columns = {name: column.taken(rows) for name, column in table.columns.items()}
    made.changed_at = table.changed_at
    store.tables[Level.SERIES] = made
    for other in store.tables.values():
        if Level.SERIES in other.belongs:
            owners = other.belongs[Level.SERIES].values
            other.belongs[Level.SERIES] = Growing(np.int32, np.where(owners < 0, owners, owners + len(drawn)))
    store.publish(description.position)
    path.unlink()
    snapshot.write(path.parent, snapshot.capture(store, description.schema, description.first, description.last))


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--series", type=int, default=2_000_000, help="at most so many of the real ones")
    asked.add_argument("--findings", type=int, default=10_000_000)
    asked.add_argument("--asked", type=int, default=60, help="how often each question is asked")
    asked.add_argument("--times", type=int, default=10, help="so many times as many series in the second part; 1: without it")
    asked.add_argument("--rows", action="store_true")
    asked.add_argument("--keep", help="name of a database and folder that stay")
    options = asked.parse_args()
    with ExitStack() as stack:
        server_url = stack.enter_context(database.server())
        folder, url, is_filled = _place(stack, server_url, options.keep)
        settings = LogSettings(data_dir=folder / "data", database_url=SecretStr(url))
        if not is_filled:
            environment = {**os.environ, "ANAMNESIS_DATA_DIR": str(folder / "data"), "ANAMNESIS_DATABASE_URL": url}
            subprocess.run([COMMAND, "init"], env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=True)
            asyncio.run(_fill(settings, options))
        asyncio.run(migrate(settings))  # what was kept may be of an older code
        _measure(folder, url, settings, options)


def _place(stack: ExitStack, server_url: str, keep: str | None) -> tuple[Path, str, bool]:
    """Folder, database, and whether they are there from last time."""
    if keep is None:
        folder = Path(tempfile.mkdtemp(prefix="anamnesis-bench-", dir="/var/tmp"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        return folder, stack.enter_context(database.fresh_database(server_url)), False
    folder, url = Path("/var/tmp") / keep, urlunsplit(urlsplit(server_url)._replace(path=f"/{keep}"))
    is_filled = (folder / "filled").exists()
    if not is_filled:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        asyncio.run(database._execute(server_url, f'DROP DATABASE IF EXISTS "{keep}" WITH (FORCE)'))
        asyncio.run(database._execute(server_url, f'CREATE DATABASE "{keep}"'))
    return folder, url, is_filled


async def _fill(settings: LogSettings, options: argparse.Namespace) -> None:
    await migrate(settings)
    log = await EventLog.open(settings)
    began = time.perf_counter()
    try:
        await (idc.fill_by_rows if options.rows else idc.fill_by_events)(log, options.series, options.findings)
        await idc.leave_out_the_others(log)
    finally:
        await log.close()
    (settings.data_dir.parent / "filled").touch()
    console.print(f"filled {'by rows' if options.rows else 'through the log'} in {time.perf_counter() - began:.0f} s")


def _measure(folder: Path, url: str, settings: LogSettings, options: argparse.Namespace) -> None:
    server = Server(folder, url)
    snapshots = folder / "data" / "columns"
    if not list(snapshots.glob("*.columns")):
        with server.running() as (_, took):
            console.print(f"a start that reads every row: {took:.1f} s until facets came from memory")
    [path] = snapshots.glob("*.columns")
    _, store = snapshot.read(path)
    rows, findings = store.tables[Level.SERIES].entities.size, store.tables[Level.FINDING].entities.size
    bytes_per_series = sum(store.tables[level].nbytes for level in (Level.SERIES, Level.STUDY, Level.SUBJECT)) / rows
    peers = Peers(url, narrow_codes(store), _code_of(store.tables[Level.SERIES], "00080060", "CT"))
    del store
    _say("measure")
    with server.running() as (asker, cold_start_s), arriving(settings):
        time.sleep(REST_S)
        found = questions(asker, options.asked)
        found[OF_CT] = timed(options.asked, lambda n: asker.facets(FILTERS[0]))
        in_memory = asker.metric("anamnesis_columns_bytes")
        of_peers = {"PostgreSQL": peers.postgresql(max(3, options.asked // 12)), "DuckDB": peers.duckdb(options.asked // 2)}
    _say("measured")
    ten = _ten_times(server, settings, options) if options.times > 1 else {}
    _print(f"{rows:,} series, {findings:,} findings, {in_memory / 1e6:,.0f} MB of arrays", found, ten, of_peers)
    ratios = {name: min(took[0].p50 / found[UNFILTERED].p50, took[1].p50 / found[OF_CT].p50) for name, took in of_peers.items()}
    print(
        json.dumps(
            {
                "facets_p95_ms_1m": round(max(found[each].p95 for each in (UNFILTERED, FILTERED)), 1),
                "facets_p95_ms_10m": round(max(ten[each].p95 for each in (UNFILTERED, FILTERED)), 1) if ten else None,
                "unheard_p95_ms_1m": round(found[UNHEARD].p95, 1),
                "unheard_p95_ms_10m": round(ten[UNHEARD].p95, 1) if ten else None,
                "facets_vs_postgresql": round(ratios["PostgreSQL"], 1),
                "facets_vs_duckdb": round(ratios["DuckDB"], 1),
                "page_p95_ms": round(max(took.p95 for title, took in found.items() if title.startswith("page")), 1),
                "cold_start_s_1m": round(cold_start_s, 1),
                "bytes_per_series": round(bytes_per_series),
            }
        )
    )


def _ten_times(server: Server, settings: LogSettings, options: argparse.Namespace) -> dict[str, Took]:
    [path] = (server.folder / "data" / "columns").glob("*.columns")
    kept = path.with_suffix(".kept")
    shutil.copy2(path, kept)
    try:
        resampled(path, options.times)
        with server.running() as (asker, started_s), arriving(settings):
            console.print(f"{options.times} times as many series: a start from a snapshot took {started_s:.1f} s")
            time.sleep(REST_S)
            _say("measure")
            found = {
                UNFILTERED: timed(options.asked, lambda n: asker.facets()),
                FILTERED: timed(options.asked, lambda n: asker.facets(FILTERS[n % len(FILTERS)])),
                UNHEARD: timed(options.asked, lambda n: asker.facets(_unheard())),
                TICKED: timed(options.asked, lambda n: asker.facets(None, _TICKS)),
            }
            _say("measured")
            return found
    finally:
        for each in path.parent.glob("*.columns"):
            each.unlink()
        kept.replace(path)


def _code_of(table: Table, key: str, value: str) -> int:
    column = table.columns[key]
    assert isinstance(column, Encoded)
    return column.dictionary.code_of[(value,)]


def _say(what: str) -> None:
    """To whoever keeps the machine quiet while times are measured."""
    with contextlib.suppress(BrokenPipeError):
        print(f"# {what}", file=sys.stderr, flush=True)


def _print(title: str, found: dict[str, Took], ten: dict[str, Took], of_peers: dict[str, list[Took]]) -> None:
    printed = Printed("question", "p50 ms", "p95 ms", "10 ×: p50", "p95", title=title)
    for name, took in found.items():
        more = ten.get(name)
        printed.add_row(name, f"{took.p50:.1f}", f"{took.p95:.1f}", *((f"{more.p50:.1f}", f"{more.p95:.1f}") if more else ("", "")))
    for name, both in of_peers.items():
        for of, took in zip(("of all", "of CT"), both, strict=True):
            printed.add_row(f"{name}: 8 counts {of}", f"{took.p50:.1f}", f"{took.p95:.1f}", "", "")
    console.print(printed)


if __name__ == "__main__":
    main()
