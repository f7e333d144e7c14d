"""Single questions to PostgreSQL: what is refused and how, what is explained, what an index serves; and headers of real images."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import numpy as np
import pydicom
import pytest
import pytest_asyncio

from archive.header import read_header
from domain.condition import All, Between, Condition, Contains, Followed, Has, Level, Not, OneOf, Present, Query
from domain.event import Event
from domain.principal import device
from domain.series import InstancesStored, StoredInstance, split_headers
from domain.subject import Demographics, SubjectRegistered
from eventlog.envelope import NewEvent, StreamAppend
from eventlog.log import EventLog
from projections.cohort.engine import Asked, FacetAsked
from projections.cohort.errors import CohortError, FieldRefused, FieldUnknown, PositionUnknown
from projections.cohort.fields import field_named
from projections.cohort.postgresql import PostgresEngine, text_matches
from projections.cohort.postgresql.searching import begun
from projections.cohort.postgresql.selection import selected
from projections.cohort.projection import SCHEMA, CohortProjection
from projections.runner import Runner

DESCRIPTIONS = ("Abdomen portalvenös", "Thorax nativ", "ABDOMEN NATIV")


@pytest_asyncio.fixture
async def searches(event_log: EventLog) -> AsyncIterator[asyncpg.Pool]:
    async with await event_log.reading_pool(plan_cache_mode="force_custom_plan") as pool:
        yield pool


def stored(number: int, description: str) -> InstancesStored:
    one = StoredInstance(sop_instance_uid=f"1.{number}.1", sop_class_uid="1", transfer_syntax_uid="1", sha256=f"{number:064x}", size=1)
    header = {"0008103E": {"vr": "LO", "Value": [description]}, "00080060": {"vr": "CS", "Value": ["CT"]}}
    return InstancesStored(study_uid="1", series_uid=f"1.{number}", subject_id="s", modality="CT", door="stow", instances=[one], headers=[header])


async def append(log: EventLog, *events: Event) -> None:
    for event in events:
        await log.append([StreamAppend(stream="x", events=[NewEvent(event=event)])], principal=device("door"))
    await Runner(log, [CohortProjection()]).catch_up()


def asked(where: Condition | None = None, level: Level = Level.SERIES, position: int = 3) -> Asked:
    return Asked(query=Query(level=level, where=where), position=position)


REFUSED: list[tuple[Level, Condition, type[CohortError]]] = [
    (Level.SERIES, OneOf("SliceThicknes", (1.5,)), FieldUnknown),
    (Level.SERIES, OneOf("SliceThickness", ("1.5",)), FieldRefused),
    (Level.SERIES, OneOf("Modality", (7,)), FieldRefused),
    (Level.SERIES, OneOf("study_date", ("20200101",)), FieldRefused),
    (Level.FINDING, OneOf("whole", ("yes",)), FieldRefused),
    (Level.SERIES, Between(field="Modality", at_least="CT"), FieldRefused),
    (Level.SERIES, Between(field="SliceThickness"), FieldRefused),
    (Level.SERIES, Contains("SliceThickness", "1"), FieldRefused),
    (Level.SERIES, Contains("series_uid", "1.2"), FieldRefused),
    (Level.SERIES, Has(level=Level.SERIES), FieldRefused),
    (Level.FACT, Has(level=Level.SERIES), FieldRefused),
    (Level.TAG, Has(level=Level.SERIES), FieldRefused),
    (Level.SERIES, Followed(baseline=All(()), follow_up=All(())), FieldRefused),
    (Level.SUBJECT, Has(level=Level.STUDY, at_least=0, where=Present("label")), FieldUnknown),
    (Level.SERIES, Not(Has(level=Level.FINDING, where=OneOf("Modalty", ("CT",)))), FieldUnknown),
]


async def test_what_cannot_be_asked_is_refused(event_log: EventLog, searches: asyncpg.Pool) -> None:
    await append(event_log)
    for level, where, error in REFUSED:
        with pytest.raises(error):
            await PostgresEngine(searches).counts(asked(where, level, 0))


async def test_a_position_that_is_not_read_yet_is_refused(event_log: EventLog, searches: asyncpg.Pool) -> None:
    await append(event_log, stored(1, "x"))
    engine = PostgresEngine(searches)
    assert await engine.position() == 1
    with pytest.raises(PositionUnknown):
        await engine.counts(asked(position=2))


async def test_persons_cannot_be_counted_of_tags_nor_histograms_made_of_codes(event_log: EventLog, searches: asyncpg.Pool) -> None:
    await append(event_log)
    engine = PostgresEngine(searches)
    with pytest.raises(FieldRefused):
        await engine.facets(asked(level=Level.TAG, position=0), [FacetAsked(field="name", subjects=True)])
    with pytest.raises(FieldRefused):
        await engine.histogram(asked(position=0), "Modality", 5)
    with pytest.raises(FieldRefused):
        await engine.histogram(asked(position=0), "SliceThickness", 0)


HELD = [
    ("abdomen", False, ["1.1", "1.3"]),
    ("PORTALVENOS", False, ["1.1"]),
    ("abdmen", False, []),
    ("abdmen nativ", True, ["1.3"]),
    ("n", False, ["1.1", "1.2", "1.3"]),
    ("", False, ["1.1", "1.2", "1.3"]),
    ("100%", False, []),
]


async def test_text_is_found_by_a_part_of_it(event_log: EventLog, searches: asyncpg.Pool) -> None:
    await append(event_log, *(stored(number, description) for number, description in enumerate(DESCRIPTIONS, 1)))
    for text, tolerant, found in HELD:
        ids = await text_matches(searches, field_named("SeriesDescription", Level.SERIES), text, tolerant, 3)
        rows = await event_log.pool.fetch(f"SELECT series_uid FROM {SCHEMA}.series WHERE id = ANY($1) ORDER BY id", ids)
        assert [row["series_uid"] for row in rows] == found, (text, tolerant)


async def test_text_that_thousands_of_values_hold_is_found_in_all_of_them(event_log: EventLog, searches: asyncpg.Pool) -> None:
    await append(event_log, *(stored(number, f"series {number}") for number in range(1, 41)))
    counts = await PostgresEngine(searches).counts(asked(Contains("SeriesDescription", "series"), position=40))
    assert (counts.series, counts.studies) == (40, 1)
    assert len(await text_matches(searches, field_named("SeriesDescription", Level.SERIES), "series", False, 20)) == 20


async def test_explaining_says_what_met_each_condition_and_no_value(event_log: EventLog, searches: asyncpg.Pool) -> None:
    await append(event_log, *(stored(number, description) for number, description in enumerate(DESCRIPTIONS, 1)))
    where = All((OneOf("Modality", ("CT",)), Not(Contains("SeriesDescription", "abdomen"))))
    explained = await PostgresEngine(searches).explain(asked(where))
    assert [(what, met) for what, met, _ in explained.steps] == [
        ("series: Modality one-of", 3),
        ("series: SeriesDescription contains", 2),
        ("series: all of it", 1),
    ]


MANY = f"""
INSERT INTO {SCHEMA}.series SELECT id + n * 4096, position_from, position_to, series_uid || '.' || n, study, subject, instance_count, frame_count, bytes,
    series_digest, slice_spacing_mm, indexing, elements, ARRAY[n], orientation
FROM {SCHEMA}.series, generate_series(10, 20000) AS n WHERE series_uid = '1.1'
"""


async def test_what_is_asked_by_text_or_uid_is_served_by_an_index(event_log: EventLog, searches: asyncpg.Pool) -> None:
    await append(event_log, *(stored(number, description) for number, description in enumerate(DESCRIPTIONS, 1)))
    await event_log.pool.execute(MANY)
    await event_log.pool.execute(f"ANALYZE {SCHEMA}.series")
    for where, index in (
        (OneOf("series_uid", ("1.1",)), "series_by_series_uid"),
        (OneOf("SeriesDescription", ("Thorax nativ",)), "series_terms"),
        (Contains("SeriesDescription", "nativ"), "series_terms"),
    ):
        s = await begun(searches, 3, Level.SERIES, where)
        plan = await searches.fetch(f"EXPLAIN {selected(Level.SERIES, where, s)}", *s.arguments)
        assert any(index in row[0] for row in plan), (index, plan)


async def test_headers_of_real_images_are_read_as_pydicom_reads_them(event_log: EventLog, dicom_data: Path) -> None:
    by_series: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(path for path in dicom_data.rglob("*") if path.is_file()):
        try:
            by_series[read_header(path).series_uid].append(path)
        except Exception:  # what is no DICOM is refused at the door
            continue
    most = sorted(by_series.values(), key=len, reverse=True)[:6]
    await append(event_log, SubjectRegistered(subject_id="s", demographics=Demographics()), *(_of_files(paths) for paths in most))
    rows = {row["series_uid"]: row for row in await event_log.pool.fetch(f"SELECT * FROM {SCHEMA}.series WHERE position_to IS NULL")}
    assert len(rows) == len(most)
    spaced = 0
    for paths in most:
        images = [pydicom.dcmread(path, stop_before_pixels=True) for path in paths]
        row = rows[images[0].SeriesInstanceUID]
        for keyword in ("SliceThickness", "KVP", "Modality", "ConvolutionKernel", "ManufacturerModelName", "SeriesNumber", "PixelSpacing"):
            field = field_named(keyword, Level.SERIES)
            assert await _values(event_log, row["id"], field.key) == _said(images, keyword), keyword
        spacing = _spacing(images)
        spaced += spacing is not None
        assert row["slice_spacing_mm"] == (pytest.approx(spacing, abs=2e-3) if spacing is not None else None)
    assert spaced >= 2


def _of_files(paths: list[Path]) -> InstancesStored:
    headers = [read_header(path) for path in paths][:100]
    instances = [
        StoredInstance(sop_instance_uid=one.sop_instance_uid, sop_class_uid=one.sop_class_uid, transfer_syntax_uid="1", sha256=f"{n:064x}", size=1,
                       number_of_frames=one.number_of_frames)
        for n, one in enumerate(headers)
    ]  # fmt: skip
    common, own = split_headers([one.elements for one in headers])
    first = headers[0]
    return InstancesStored(
        study_uid=first.study_uid, series_uid=first.series_uid, subject_id="s", modality=first.modality, door="stow", instances=instances,
        common=common, headers=own,
    )  # fmt: skip


async def _values(log: EventLog, series: int, key: str) -> set[Any]:
    rows = await log.pool.fetch(
        f"SELECT jsonb_array_elements_text(elements -> $2) AS value FROM {SCHEMA}.series WHERE id = $1 AND position_to IS NULL", series, key
    )
    return {_number(row["value"]) for row in rows}


def _number(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text


def _said(images: list[pydicom.Dataset], keyword: str) -> set[Any]:
    found: set[Any] = set()
    for image in images:
        value = image.get(keyword)
        values = value if isinstance(value, pydicom.multival.MultiValue) else [value]
        found |= {_number(str(one).strip()) for one in values if one not in (None, "")}
    return found


def _spacing(images: list[pydicom.Dataset]) -> float | None:
    """By NumPy: the gaps between projections on the normal, where one orientation and one gap serve all."""
    if any("ImagePositionPatient" not in one or "ImageOrientationPatient" not in one for one in images):
        return None
    turned = np.array([one.ImageOrientationPatient for one in images], float)
    if np.abs(turned - turned[0]).max() > 1e-3:
        return None
    along = np.unique(np.round(np.array([one.ImagePositionPatient for one in images], float) @ np.cross(turned[0][:3], turned[0][3:]), 3))
    gaps = np.diff(along)
    return float(gaps.mean()) if len(gaps) and np.ptp(gaps) < 0.05 else None
