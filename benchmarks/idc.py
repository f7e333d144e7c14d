"""About 1.04 million real series: what the Imaging Data Commons says of them (the wheel idc-index-data, as a Parquet file), with made findings.

Into a log as events, which the cohort projection applies; or straight into its tables, which takes minutes instead of an hour. Slice
thickness and KVP are not in the index: for CT they are made, from a hash of the series' UID. So are all findings.
"""

from __future__ import annotations

import asyncio
import random
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import duckdb
import idc_index_data

from domain.event import Event
from domain.findings import SNOMED_CT, Code, Finding, Structure
from domain.ids import series_stream, study_stream, subject_stream
from domain.principal import device
from domain.series import InstancesStored, SegmenterRun, SeriesIndexed, StoredInstance, series_digest
from domain.study import StudyRegistered
from domain.subject import Demographics, SubjectRegistered
from eventlog.envelope import NewEvent, StreamAppend
from eventlog.log import EventLog
from projections import schemas
from projections.catalogue import all_projections
from projections.cohort.projection import NAME, SCHEMA, CohortProjection
from projections.runner import Runner

PARQUET = str(idc_index_data.IDC_INDEX_PARQUET_FILEPATH)
FINDINGS_A_SERIES = 100
STRUCTURES = ["liver", "spleen", *(f"structure_{n}" for n in range(2, FINDINGS_A_SERIES))]
PRINCIPAL = device("benchmark")
SERIES_AT_ONCE = 200
"""In one append."""
BELOW_ZERO = -(1 << 40)
"""Ids of rows that no event made: below those of all events, which go on from the head of an empty log."""

_SOURCE = """
CREATE TABLE source AS
SELECT row_number() OVER (ORDER BY PatientID, StudyInstanceUID, SeriesInstanceUID) AS n, *,
       dense_rank() OVER (ORDER BY PatientID) AS person, dense_rank() OVER (ORDER BY StudyInstanceUID) AS examination,
       CASE WHEN Modality = 'CT' THEN [0.5, 0.625, 1, 1.25, 1.5, 2, 2.5, 3, 5][1 + (hash(SeriesInstanceUID) % 9)::int] END AS thickness,
       CASE WHEN Modality = 'CT' THEN [80, 100, 120, 140][1 + (hash(SeriesInstanceUID || 'k') % 4)::int] END AS kvp
FROM (SELECT * FROM read_parquet($1) ORDER BY hash(SeriesInstanceUID) LIMIT $2)
"""
_OF_SERIES = {
    "00080060": ("CS", "Modality"),
    "00080016": ("UI", "SOPClassUID"),
    "00080070": ("LO", "Manufacturer"),
    "00081090": ("LO", "ManufacturerModelName"),
    "0008103E": ("LO", "SeriesDescription"),
    "00080021": ("DA", "SeriesDate"),
    "00180015": ("CS", "BodyPartExamined"),
    "00280004": ("CS", "PhotometricInterpretation"),
    "00200011": ("IS", "SeriesNumber"),
    "00180050": ("DS", "thickness"),
    "00180060": ("DS", "kvp"),
}
_OF_STUDY = {"00081030": ("LO", "StudyDescription"), "00080020": ("DA", "StudyDate"), "00100040": ("CS", "PatientSex")}


def source(series: int) -> duckdb.DuckDBPyConnection:
    """A database with one row for each series, in the table ``source``."""
    database = duckdb.connect()
    database.execute("SET threads = 2")
    database.execute(_SOURCE, [PARQUET, series])
    return database


async def fill_by_events(log: EventLog, series: int, findings: int) -> None:
    """Appends what a door would have appended, and lets the cohort projection apply it; the other read models are left out."""
    database = source(series)
    cursor = database.execute("SELECT * FROM source ORDER BY n")
    names = [column[0] for column in cursor.description]
    seen: set[str] = set()
    left = findings
    while rows := cursor.fetchmany(SERIES_AT_ONCE):
        appends: dict[str, list[NewEvent]] = {}
        for row in (dict(zip(names, values, strict=True)) for values in rows):
            indexed = row["Modality"] == "CT" and left > 0
            left -= FINDINGS_A_SERIES if indexed else 0
            for stream, event in _events(row, seen, indexed=indexed):
                appends.setdefault(stream, []).append(NewEvent(event=event))
        await log.append([StreamAppend(stream=stream, events=events) for stream, events in appends.items()], principal=PRINCIPAL)
    await Runner(log, [CohortProjection()]).catch_up()


def _events(row: dict[str, Any], seen: set[str], *, indexed: bool) -> Iterator[tuple[str, Event]]:
    subject_id, study_uid, series_uid = f"person-{row['person']}", row["StudyInstanceUID"], row["SeriesInstanceUID"]
    if subject_id not in seen:
        seen.add(subject_id)
        yield subject_stream(subject_id), SubjectRegistered(subject_id=subject_id, sex=row["PatientSex"] or "", demographics=Demographics(patient_id=row["PatientID"]))
    if study_uid not in seen:
        seen.add(study_uid)
        yield study_stream(study_uid), StudyRegistered(study_uid=study_uid, subject_id=subject_id)
    header = {tag: {"vr": vr, "Value": [_written(vr, row[name])]} for tag, (vr, name) in {**_OF_SERIES, **_OF_STUDY}.items() if row[name] is not None}
    stored = StoredInstance(
        sop_instance_uid=f"{series_uid}.1", sop_class_uid=row["SOPClassUID"] or "", transfer_syntax_uid="1.2.840.10008.1.2.1", sha256=f"{row['n']:064x}",
        size=int((row["series_size_MB"] or 0) * 1e6), number_of_frames=row["instanceCount"],
    )  # fmt: skip
    yield series_stream(series_uid), InstancesStored(
        study_uid=study_uid, series_uid=series_uid, subject_id=subject_id, modality=row["Modality"], door="ingest", instances=[stored], headers=[header]
    )
    if indexed:
        digest = series_digest({stored.sop_instance_uid: stored.sha256})
        run = SegmenterRun(segmenter="made", segmenter_version="1", software={}, duration_s=0.0)
        yield series_stream(series_uid), SeriesIndexed(
            study_uid=study_uid, series_uid=series_uid, subject_id=subject_id, series_digest=digest, run=run, findings=list(_findings(row["n"]))
        )


def _written(vr: str, value: Any) -> Any:
    return str(value).replace("-", "") if vr == "DA" else float(value) if vr in ("DS", "IS") else value


def _findings(n: int) -> Iterator[Finding]:
    chance = random.Random(n)
    for number, label in enumerate(STRUCTURES):
        yield Finding(
            structure=Structure(label=label, snomed=Code(SNOMED_CT, str(10_000_000 + number), label)), volume_mm3=chance.lognormvariate(12, 1.5),
            voxel_count=1, mean_hu=chance.gauss(40, 30), touches_edge=chance.random() < 0.2, centroid_mm=(0, 0, 0), bounding_box_mm=((0, 0, 0), (0, 0, 0)),
        )  # fmt: skip


async def fill_by_rows(log: EventLog, series: int, findings: int) -> None:
    """The rows that the projection would have made, by COPY."""
    projection = CohortProjection()
    await Runner(log, [projection]).prepare()
    database = source(series)
    with tempfile.TemporaryDirectory(prefix="anamnesis-bench-", dir="/var/tmp") as folder:
        for table, (columns, query) in _tables(findings).items():
            path = Path(folder) / f"{table}.csv"
            await asyncio.to_thread(database.execute, f"COPY ({query}) TO '{path}' (FORMAT csv, HEADER false)")
            async with log.pool.acquire() as connection:
                await connection.copy_to_table(table, schema_name=SCHEMA, columns=columns, source=path, format="csv", timeout=3600)
            path.unlink()
    async with log.pool.acquire() as connection, connection.transaction():
        await schemas.complete(connection, projection, SCHEMA)
        await connection.execute("UPDATE public.projection_checkpoint SET built = true, state = 'live' WHERE name = $1", NAME)


def _tables(findings: int) -> dict[str, tuple[Sequence[str], str]]:
    """Of each table, its columns, and the query that makes them."""
    base = f"{BELOW_ZERO}::bigint"
    person, examination, series = f"{base} + person", f"{base} + examination", f"{base} + n"
    stands = f"{base} * 4096 AS position_from, NULL AS position_to"
    made = (
        f"SELECT {base} + (s.k - 1) * {FINDINGS_A_SERIES} + i AS id, {stands}, 'f' || s.k || '.' || i, s.series, s.study, s.subject, 'made', '1',"
        f" CASE i WHEN 0 THEN 'liver' WHEN 1 THEN 'spleen' ELSE 'structure_' || i END, (10000000 + i)::text, '', '',"
        " exp(7 + 1.5 * sqrt(-2 * ln(greatest(random(), 1e-9))) * cos(6.283 * random())) , 40 + 60 * (random() - 0.5), random() < 0.8,"
        " ['unreviewed', 'unreviewed', 'accepted', 'rejected'][1 + (random() * 3.99)::int % 4]"
        f" FROM (SELECT row_number() OVER (ORDER BY n) AS k, {series} AS series, {examination} AS study, {person} AS subject FROM source WHERE Modality = 'CT'"
        f" LIMIT {-(-findings // FINDINGS_A_SERIES)}) s, range({FINDINGS_A_SERIES}) r (i)"
    )
    versioned = ("id", "position_from", "position_to")
    return {
        "subject": ((*versioned, "subject_id", "sex"), f"SELECT DISTINCT ON (person) {person}, {stands}, 'person-' || person, coalesce(PatientSex, '') FROM source ORDER BY person, n"),
        "study": (
            (*versioned, "study_uid", "subject", "study_date", "age_years", "elements", "terms"),
            f"SELECT DISTINCT ON (examination) {examination}, {stands}, StudyInstanceUID, {person}, try_cast(StudyDate AS date),"
            f" try_cast(regexp_extract(PatientAge, '^(\\d+)Y$', 1) AS double), {_elements(_OF_STUDY)}, '{{}}' FROM source ORDER BY examination, n",
        ),
        "series": (
            (*versioned, "series_uid", "study", "subject", "instance_count", "frame_count", "bytes", "series_digest", "slice_spacing_mm", "indexing", "elements", "terms", "orientation"),
            f"SELECT {series}, {stands}, SeriesInstanceUID, {examination}, {person}, instanceCount, instanceCount, (series_size_MB * 1e6)::bigint, 'd', thickness, 'none',"
            f" {_elements(_OF_SERIES)}, '{{}}', '{{}}' FROM source ORDER BY n",
        ),
        "finding": (
            (*versioned, "finding_key", "series", "study", "subject", "segmenter", "segmenter_version", "label", "structure", "laterality", "morphology", "volume_ml", "mean_hu", "whole", "verdict"),
            made,
        ),
    }  # fmt: skip


def _elements(tags: dict[str, tuple[str, str]]) -> str:
    """A JSON object of the values that there are."""
    parts = []
    for tag, (vr, name) in tags.items():
        value = f"try_cast({name} AS double)" if vr in ("DS", "IS") else f"to_json(replace(cast({name} AS varchar), chr(0), ' '))"
        parts.append(f"CASE WHEN {name} IS NOT NULL THEN '\"{tag}\": [' || {value} || ']' END")
    return f"'{{' || concat_ws(', ', {', '.join(parts)}) || '}}'"


async def leave_out_the_others(log: EventLog) -> None:
    """The other read models count as complete: what they would hold is not measured here."""
    others = [projection for projection in all_projections() if projection.name != NAME]
    await Runner(log, others).prepare()
    for projection in others:
        async with log.pool.acquire() as connection, connection.transaction():
            await schemas.complete(connection, projection, f"{projection.name}_v{projection.version}")
    await log.pool.execute("UPDATE projection_checkpoint SET position = (SELECT position FROM log_head), built = true, state = 'live'")


def one_more(number: int) -> StreamAppend:
    """An event, as one comes each second while others ask: an image of a person who was not there."""
    uid = f"1.2.826.0.1.3680043.10.{number}"
    header = {"00080060": {"vr": "CS", "Value": ["CT"]}, "0008103E": {"vr": "LO", "Value": [f"arrived {number}"]}}
    stored = StoredInstance(sop_instance_uid=f"{uid}.1", sop_class_uid="1.2.840.10008.5.1.4.1.1.2", transfer_syntax_uid="1.2.840.10008.1.2.1", sha256=f"{number:064x}", size=1)
    event = InstancesStored(study_uid=uid, series_uid=uid, subject_id=f"arrived-{number}", modality="CT", door="dimse", instances=[stored], headers=[header])
    return StreamAppend(stream=series_stream(uid), events=[NewEvent(event=event)])


