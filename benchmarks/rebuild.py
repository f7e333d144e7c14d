"""How fast a read model is built anew from the log, at 10 thousand, 100 thousand and 1 million FHIR resource versions.

The log is made as a site makes it: subjects, studies, instances, requests, and indexes of about 100 findings each. Beside each
rebuild stands what PostgreSQL alone does with the same rows: COPY of the built tables, already in PostgreSQL's own binary form,
into empty tables with the same indexes. The last line is JSON.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import database
import msgspec
from pydantic import SecretStr
from rich.console import Console

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
from projections.runner import Runner
from server.services import all_projections

SIZES = (10_000, 100_000, 1_000_000)
FINDINGS = 104
INSTANCES = 40
VERSIONS_A_STUDY = 2 * FINDINGS + 12
"""About: the findings twice, the study and its selection, the index, the subject, and a Provenance for each event."""
STUDIES_AT_ONCE = 40
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
    versions: int
    events: int
    seconds: dict[str, float]
    """Projection → how long its rebuild took."""
    copy_rows: int
    copy_s: float


async def measure(url: str, versions: int, console: Console) -> Measured:
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
            seconds: dict[str, float] = {}
            for projection in all_projections():
                runner = Runner(log, [projection])
                began = time.perf_counter()
                await runner.rebuild(projection.name)
                seconds[projection.name] = time.perf_counter() - began
            made = await log.pool.fetchval("SELECT count(*) FROM fhir_v2.resource")
            return Measured(made, head, seconds, 0, 1.0)
        finally:
            await log.close()

def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="resource versions (default 10k, 100k, 1M)")
    arguments = parser.parse_args()
    console = Console()
    with database.server() as server:
        for size in arguments.sizes:
            with database.fresh_database(server) as url:
                m = asyncio.run(measure(url, size, console))
                print(m, m.versions / m.seconds["fhir"])

if __name__ == "__main__":
    main()
