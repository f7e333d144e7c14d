"""How fast a read model is built anew from the log, at 10 thousand, 100 thousand and 1 million FHIR resource versions.

The log is made as a site makes it: subjects, studies, instances, requests, and indexes of about 100 findings each. Beside each
rebuild stands what PostgreSQL alone does with the same rows: COPY of the built tables, already in PostgreSQL's own binary form,
into empty tables, and the same indexes on them. The last line is JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import database
import msgspec
from pydantic import SecretStr
from rich.console import Console
from rich.table import Table

from domain.event import Event
from domain.findings import RADLEX, SNOMED_CT, Code, Finding, Laterality, Structure
from domain.principal import device
from domain.series import IndexingRequested, InstancesStored, SegmenterRun, SeriesIndexed, StoredInstance, split_headers
from domain.study import StudyRegistered
from domain.subject import Demographics, SubjectRegistered
from eventlog.envelope import NewEvent, StreamAppend
from eventlog.log import EventLog
from eventlog.schema import migrate
from eventlog.settings import LogSettings
from eventlog.vault import make_key_encryption_key
from projections.catalogue import all_projections
from projections.digest import tables
from projections.fhir.projection import SCHEMA, FhirProjection
from projections.projection import Projection
from projections.rebuild import Progress
from projections.runner import Runner
from projections.schemas import complete, create
from projections.verification import verify

SIZES = (10_000, 100_000, 1_000_000)
FINDINGS = 104
INSTANCES = 40
VERSIONS_A_STUDY = 2 * FINDINGS + 12
"""About: the findings twice, the study and its selection, the index, the subject, and a Provenance for each event."""
STUDIES_AT_ONCE = 40
VERIFIED_UP_TO = 100_000
"""Resource versions: larger logs are rebuilt once, and not replayed once more to compare."""
BESIDE = "copied_alone"
PRINCIPAL = device("benchmark")

STRUCTURES = [
    Structure(
        label=f"structure_{number}",
        snomed=Code(SNOMED_CT, f"{10_000_000 + number * 7919}", f"Structure number {number} of the body"),
        radlex=Code(RADLEX, f"RID{1000 + number}", f"structure {number}") if number % 3 else None,
        laterality=(None, Laterality.LEFT, Laterality.RIGHT)[number % 3],
    )
    for number in range(FINDINGS)
]


def study(number: int) -> list[tuple[str, list[Event]]]:
    """The events of one study with one series, by stream."""
    study_uid = f"1.2.826.0.1.3680043.8.498.{10**18 + number}"
    series_uid = f"{study_uid}.1"
    subject_id = f"5f0c2a52-6f6e-5d0e-9a41-{number:012d}"
    person = Demographics(patient_id=f"MRN-{number}", patient_name=f"DOE^JANE{number}", birth_date="19700102")
    headers = [
        {
            "00080018": {"vr": "UI", "Value": [f"{series_uid}.{n}"]},
            "00080020": {"vr": "DA", "Value": ["20240131"]},
            "00080060": {"vr": "CS", "Value": ["CT"]},
            "0008103E": {"vr": "LO", "Value": ["THORAX 2.0"]},
            "00100010": {"vr": "PN", "Value": [{"Alphabetic": person.patient_name}]},
            "00200011": {"vr": "IS", "Value": [3]},
            "00200013": {"vr": "IS", "Value": [n]},
            "00200032": {"vr": "DS", "Value": [-190.5, -190.5, n * 2.0]},
        }
        for n in range(1, INSTANCES + 1)
    ]
    common, own = split_headers(headers)
    instances = [
        StoredInstance(
            sop_instance_uid=f"{series_uid}.{n}",
            sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
            transfer_syntax_uid="1.2.840.10008.1.2.1",
            sha256=f"{number * 1000 + n:064x}",
            size=526_000,
        )
        for n in range(1, INSTANCES + 1)
    ]
    of_series = {"study_uid": study_uid, "series_uid": series_uid, "subject_id": subject_id}
    run = SegmenterRun(
        segmenter="totalsegmentator",
        segmenter_version="2.11.0",
        software={"nnunetv2": "2.6.2", "torch": "2.8.0"},
        weights_sha256="9f" * 32,
        task="total",
        resolution_mm=1.5,
        duration_s=31.5,
    )
    findings = [
        Finding(
            structure=structure,
            volume_mm3=1000.5 + number % 977 + place,
            voxel_count=300 + number % 977 + place,
            mean_hu=40.25 + place,
            touches_edge=place % 10 == 0,
            centroid_mm=(1.5 * place, 2.5, -3.5),
            bounding_box_mm=((0.0, 0.0, 0.0), (10.5, 20.5, 30.5)),
        )
        for place, structure in enumerate(STRUCTURES)
    ]
    digest = f"{number:064x}"
    return [
        (f"subject-{subject_id}", [SubjectRegistered(subject_id=subject_id, sex="F", demographics=person)]),
        (f"study-{study_uid}", [StudyRegistered(study_uid=study_uid, subject_id=subject_id)]),
        (
            f"series-{series_uid}",
            [
                InstancesStored(**of_series, modality="CT", door="dimse", instances=instances, common=common, headers=own),
                IndexingRequested(**of_series, series_digest=digest, segmenter="totalsegmentator", reason="quiet"),
                SeriesIndexed(**of_series, series_digest=digest, run=run, findings=findings),
            ],
        ),
    ]


async def fill(log: EventLog, versions: int) -> int:
    """Appends the events of as many studies as make about this many resource versions; gives the log's head."""
    for group in _groups(range(max(1, versions // VERSIONS_A_STUDY))):
        appends = [
            StreamAppend(stream=stream, events=[NewEvent(event=event) for event in events], expected_version=0)
            for number in group
            for stream, events in study(number)
        ]
        await log.append(appends, principal=PRINCIPAL)
    return await log.head()


def _groups(numbers: range) -> Iterator[range]:
    return (numbers[start : start + STUDIES_AT_ONCE] for start in range(0, len(numbers), STUDIES_AT_ONCE))


class Measured(msgspec.Struct):
    """Of one size. Times in seconds until the new tables serve; of several rounds, the median."""

    versions: int
    events: int
    seconds: dict[str, float]
    """By projection."""
    copy_s: float
    """PostgreSQL alone: COPY of the same rows into tables that have their primary keys only, as ours are filled."""
    indexes_s: float
    """The other indexes on them, then."""
    verified: bool | None
    """Whether a replay gave the same bytes; None where it was not asked."""

    @property
    def versions_per_s(self) -> float:
        return self.versions / self.seconds["fhir"]

    @property
    def events_per_s(self) -> float:
        """Through all read models, one after the other."""
        return self.events / sum(self.seconds.values())

    @property
    def copied_per_s(self) -> float:
        return self.versions / (self.copy_s + self.indexes_s)


async def measure(url: str, versions: int, rounds: int, console: Console) -> Measured:
    """One size, in a database of its own."""
    with tempfile.TemporaryDirectory(prefix="anamnesis-bench-") as folder:
        settings = LogSettings(data_dir=Path(folder), database_url=SecretStr(url))
        make_key_encryption_key(settings)
        await migrate(settings)
        log = await EventLog.open(settings)
        try:
            began = time.perf_counter()
            head = await fill(log, versions)
            console.print(f"  {head:,} events made in {time.perf_counter() - began:.0f} s", style="dim")
            seconds = {projection.name: await _rebuild(log, url, projection, rounds, console) for projection in all_projections()}
            made = await log.pool.fetchval(f"SELECT count(*) FROM {SCHEMA}.resource")
            verified = (await verify(log, FhirProjection())).is_equal if versions <= VERIFIED_UP_TO else None
            copy_s, indexes_s = await _copy_alone(log, url, Path(folder))
            return Measured(made, head, seconds, copy_s, indexes_s, verified)
        finally:
            await log.close()


async def _rebuild(log: EventLog, url: str, projection: Projection, rounds: int, console: Console) -> float:
    """Seconds until the new tables serve: what follows waits for readers of the old ones."""
    times = []
    stages: dict[str, float] = {}
    for _ in range(rounds):
        await asyncio.to_thread(database.checkpoint, url)
        began = time.perf_counter()

        def heard(now: Progress, began: float = began) -> None:
            stages[now.stage] = time.perf_counter() - began

        await Runner(log, [projection]).rebuild(projection.name, heard, grace_s=0)
        times.append(stages["switched"])
    console.print(f"  {projection.name}: {', '.join(f'{stage} {s:.1f} s' for stage, s in stages.items())}", style="dim")
    return statistics.median(times)


async def _copy_alone(log: EventLog, url: str, folder: Path) -> tuple[float, float]:
    """The rows of the built FHIR tables, in PostgreSQL's own binary form, into the same tables elsewhere."""
    projection = FhirProjection()
    copy_s = 0.0
    async with log.pool.acquire() as connection:
        await connection.execute("SET synchronous_commit = off")
        async with connection.transaction():
            await create(connection, projection, BESIDE)
        for table in await tables(connection, SCHEMA):
            rows = folder / table
            await connection.copy_from_table(table, schema_name=SCHEMA, output=rows, format="binary")
            await asyncio.to_thread(database.checkpoint, url)
            began = time.perf_counter()
            await connection.copy_to_table(table, schema_name=BESIDE, source=rows, format="binary")
            copy_s += time.perf_counter() - began
            rows.unlink()
        began = time.perf_counter()
        async with connection.transaction():
            await complete(connection, projection, BESIDE)
        return copy_s, time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="resource versions (default 10k, 100k, 1M)")
    parser.add_argument("--rounds", type=int, default=3, help="rebuilds of a size up to 100k, of which the median counts")
    arguments = parser.parse_args()
    console = Console()
    measured: dict[str, Measured] = {}
    with database.server() as server:
        console.print(f"PostgreSQL {database.version(server)}, {os.cpu_count()} cores")
        for size in arguments.sizes:
            console.print(f"{label(size)} resource versions")
            with database.fresh_database(server) as url:
                rounds = arguments.rounds if size <= VERIFIED_UP_TO else 1
                measured[label(size)] = asyncio.run(measure(url, size, rounds, console))
    _print_table(console, measured)
    print(json.dumps(_figures(measured)))


def label(size: int) -> str:
    """10k, 100k, 1m."""
    return f"{size // 1_000_000}m" if size >= 1_000_000 else f"{size // 1000}k"


def _print_table(console: Console, measured: dict[str, Measured]) -> None:
    table = Table("", *measured, title="Full rebuild")
    rows: dict[str, Callable[[Measured], str]] = {
        "events": lambda m: f"{m.events:,}",
        "resource versions": lambda m: f"{m.versions:,}",
        "FHIR, resource versions/s": lambda m: f"{m.versions_per_s:,.0f}",
        "FHIR, events/s": lambda m: f"{m.events / m.seconds['fhir']:,.0f}",
        "all read models, events/s": lambda m: f"{m.events_per_s:,.0f}",
        "COPY and indexes alone, resource versions/s": lambda m: f"{m.copied_per_s:,.0f}",
        "COPY alone, resource versions/s": lambda m: f"{m.versions / m.copy_s:,.0f}",
        "a replay gives the same bytes": lambda m: {True: "yes", False: "NO", None: "not asked"}[m.verified],
    }
    for name, cell in rows.items():
        table.add_row(name, *(cell(one) for one in measured.values()))
    for column in table.columns[1:]:
        column.justify = "right"
    console.print(table)


def _figures(measured: dict[str, Measured]) -> dict[str, float]:
    figures: dict[str, float] = {}
    for size, m in measured.items():
        figures[f"resource_versions_per_s_{size}"] = round(m.versions_per_s)
        figures[f"events_per_s_{size}"] = round(m.events_per_s, 1)
        figures[f"copy_versions_per_s_{size}"] = round(m.copied_per_s)
        figures[f"vs_copy_{size}"] = round(m.versions_per_s / m.copied_per_s, 3)
    sizes = list(measured)
    small, large = sizes[0], sizes[-1]
    if small != large:
        figures[f"flatness_{small}_{large}"] = round(measured[large].versions_per_s / measured[small].versions_per_s, 3)
    return figures


if __name__ == "__main__":
    main()
