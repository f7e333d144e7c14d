"""Rows of the cohort read model: what events make of them, the same in whatever batches, and after a rebuild."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cohort_history import append, histories
from conftest import drop_database, fresh_database
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import SecretStr
from random_history import Step

from domain.clinical_record import ClinicalRecordWritten
from domain.event import Event
from domain.findings import SNOMED_CT, Code, Finding, Structure, finding_key
from domain.principal import device
from domain.review import FindingReviewed, Verdict
from domain.series import IndexingRequested, InstancesStored, SegmenterRun, SeriesIndexed, StoredInstance
from domain.subject import Demographics, SubjectErased, SubjectRegistered
from domain.tag import TagLevel, TagRemoved, TagSet
from eventlog.envelope import NewEvent, StreamAppend
from eventlog.log import EventLog
from eventlog.schema import migrate
from eventlog.settings import LogSettings
from eventlog.vault import make_key_encryption_key
from projections.cohort.ages import age_years
from projections.cohort.facts import facts, normalised
from projections.cohort.projection import SCHEMA, CohortProjection
from projections.cohort.spacing import slice_spacing_mm
from projections.digest import table_digests
from projections.runner import Runner
from projections.verification import verify

_DOOR = device("door")
SUBJECT = "5f0c2a52-6f6e-5d0e-9a41-000000000009"
OF_SERIES = {"study_uid": "1.2", "series_uid": "1.2.3", "subject_id": SUBJECT}


def stored(*numbers: int, gap_mm: float = 2.5, **further: Any) -> InstancesStored:
    instances = [StoredInstance(sop_instance_uid=f"1.2.3.{n}", sop_class_uid="1", transfer_syntax_uid="1.2", sha256=f"{n:064x}", size=10) for n in numbers]
    headers = [
        {
            "00200032": {"vr": "DS", "Value": [10, 20, n * gap_mm]},
            "00200037": {"vr": "DS", "Value": [1, 0, 0, 0, 1, 0]},
            **{tag: {"vr": vr, "Value": [value]} for tag, (vr, value) in further.items()},
        }
        for n in numbers
    ]
    return InstancesStored(**OF_SERIES, modality="CT", door="stow", instances=instances, headers=headers)


def indexed(*labels: str, volume_mm3: float = 1500.0) -> SeriesIndexed:
    findings = [
        Finding(
            structure=Structure(label=label, snomed=Code(SNOMED_CT, "10200004", "x")),
            volume_mm3=volume_mm3,
            voxel_count=1,
            mean_hu=40.0,
            touches_edge=False,
            centroid_mm=(0.0, 0.0, 0.0),
            bounding_box_mm=((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
        )
        for label in labels
    ]
    run = SegmenterRun(segmenter="baseline", segmenter_version="1", software={}, duration_s=1.0)
    return SeriesIndexed(**OF_SERIES, series_digest="ab", run=run, findings=findings)


def person(birth_date: str = "", sex: str = "F") -> SubjectRegistered:
    return SubjectRegistered(subject_id=SUBJECT, sex=sex, demographics=Demographics(birth_date=birth_date, patient_name="PLANTED^NAME"))


def written(resource: dict[str, Any], name: str = "x", version: int = 1) -> ClinicalRecordWritten:
    kind = resource["resourceType"]
    return ClinicalRecordWritten(
        resource_type=kind, resource_id=SUBJECT if kind == "Patient" else name, subject_id=SUBJECT, record_version=version, resource=resource
    )


async def project(log: EventLog, events: Sequence[Event]) -> None:
    for event in events:
        await log.append([StreamAppend(stream="x", events=[NewEvent(event=event)])], principal=_DOOR)
    await Runner(log, [CohortProjection()]).catch_up()


async def rows(log: EventLog, table: str, columns: str, *, standing: bool = False) -> list[tuple[Any, ...]]:
    which = "WHERE position_to IS NULL" if standing else ""
    return [tuple(row) for row in await log.pool.fetch(f"SELECT {columns} FROM {SCHEMA}.{table} {which} ORDER BY id, position_from")]


async def test_versions_of_a_series_hold_for_ranges_of_positions(event_log: EventLog) -> None:
    requested = IndexingRequested(**OF_SERIES, series_digest="ab", segmenter="baseline", reason="quiet")
    await project(event_log, [stored(1, 2), stored(3), requested, indexed("liver")])
    assert await rows(event_log, "series", "position_from, position_to, instance_count, bytes, slice_spacing_mm, indexing") == [
        (1, 2, 2, 20, 2.5, "none"),
        (2, 3, 3, 30, 2.5, "none"),
        (3, 4, 3, 30, 2.5, "requested"),
        (4, None, 3, 30, 2.5, "indexed"),
    ]
    assert await rows(event_log, "instance", "id, sop_instance_uid, slice_mm") == [
        (4096 + 3, "1.2.3.1", 2.5),
        (4096 + 4, "1.2.3.2", 5.0),
        (2 * 4096 + 3, "1.2.3.3", 7.5),
    ]


async def test_a_new_index_ends_what_it_does_not_see_and_begins_reviews_anew(event_log: EventLog) -> None:
    first = indexed("liver", "spleen")
    key = finding_key("1.2.3", "baseline", "liver")
    review = FindingReviewed(**OF_SERIES, finding_key=key, segmenter="baseline", label="liver", series_digest="ab", verdict=Verdict.ACCEPTED)
    await project(event_log, [stored(1), first, review, indexed("liver")])
    assert await rows(event_log, "finding", "label, position_from, position_to, volume_ml, verdict") == [
        ("liver", 2, 3, 1.5, "unreviewed"),
        ("liver", 3, 4, 1.5, "accepted"),
        ("liver", 4, None, 1.5, "unreviewed"),
        ("spleen", 2, 4, 1.5, "unreviewed"),
    ]


async def test_age_follows_what_is_said_of_the_person(event_log: EventLog) -> None:
    patient = written({"resourceType": "Patient", "id": SUBJECT, "gender": "male", "birthDate": "1960-07-01"})
    image = stored(1, **{"00080020": ("DA", "20100701"), "00101010": ("AS", "049Y")})
    await project(event_log, [image, person("19600101"), patient])
    assert await rows(event_log, "study", "position_from, position_to, age_years") == [(1, 2, 49.0), (2, 3, 50.49), (3, None, 50.0)]
    assert await rows(event_log, "subject", "sex, born") == [
        ("", None),
        ("F", datetime.date(1960, 1, 1)),
        ("M", datetime.date(1960, 7, 1)),
    ]


@pytest.mark.parametrize(
    ("born", "day", "age"),
    [
        ("1960-07-01", "2010-07-01", 50.0),
        ("1960-07-01", "2010-06-30", 49.99),
        ("2000-02-29", "2001-02-28", 0.99),
        ("2000-02-29", "2001-03-01", 1.0),
        ("2010-01-01", "2010-07-02", 0.49),
        ("2010-01-02", "2010-01-01", None),
    ],
)
def test_age_has_the_part_of_the_year(born: str, day: str, age: float | None) -> None:
    assert age_years(datetime.date.fromisoformat(born), datetime.date.fromisoformat(day)) == age


@pytest.mark.parametrize(
    ("places", "spacing"),
    [
        ([0.0, 2.5, 5.0], 2.5),
        ([5.0, 0.0, 2.5], 2.5),
        ([0.0, 1.249, 2.5], 1.25),
        ([0.0, 0.0, 3.0, 3.0], 3.0),
        ([0.0, 2.5, 7.5], None),
        ([0.0, 2.5, None], None),
        ([4.0], None),
        ([], None),
    ],
)
def test_spacing_is_that_of_all_slices_or_none(places: list[float | None], spacing: float | None) -> None:
    assert slice_spacing_mm(places) == spacing


async def test_slices_of_another_orientation_leave_no_spacing(event_log: EventLog) -> None:
    turned = stored(3)
    turned.headers[0]["00200037"] = {"vr": "DS", "Value": [0, 1, 0, 0, 0, 1]}
    await project(event_log, [stored(1, 2), turned])
    assert await rows(event_log, "series", "slice_spacing_mm", standing=True) == [(None,)]


OBSERVATION = {
    "resourceType": "Observation",
    "status": "final",
    "code": {"coding": [{"system": "http://loinc.org", "code": "85354-9"}, {"system": "urn:x", "code": "BP"}]},
    "effectiveDateTime": "2020-05-06T07:08:09Z",
    "component": [
        {
            "code": {"coding": [{"system": "http://loinc.org", "code": "8480-6"}]},
            "valueQuantity": {"value": 120, "unit": "mmHg", "system": "http://unitsofmeasure.org", "code": "mm[Hg]"},
        }
    ],
}


def test_an_observation_is_a_fact_for_each_coding_and_component() -> None:
    made = [(one.code, one.value, one.status, one.date) for one in facts(OBSERVATION)]
    day = datetime.date(2020, 5, 6)
    assert made == [("85354-9", None, "final", day), ("BP", None, "final", day), ("8480-6", normalised(120, "mm[Hg]")[0], "final", day)]


def test_quantities_in_different_units_are_one_value() -> None:
    assert normalised(126, "mg/dL") == normalised(1.26, "g/L")


@pytest.mark.parametrize(
    ("resource", "expected"),
    [
        ({"resourceType": "Condition", "code": {"coding": [{"code": "a"}]}, "clinicalStatus": {"coding": [{"code": "active"}]}}, ("a", "active", "")),
        (
            {
                "resourceType": "Condition",
                "code": {"coding": [{"code": "a"}]},
                "clinicalStatus": {"coding": [{"code": "active"}]},
                "verificationStatus": {"coding": [{"code": "refuted"}]},
            },
            ("a", "refuted", ""),
        ),
        ({"resourceType": "Consent", "status": "active", "decision": "deny", "category": [{"coding": [{"code": "c"}]}]}, ("c", "active", "deny")),
        ({"resourceType": "MedicationRequest", "status": "active", "medication": {"concept": {"coding": [{"code": "m"}]}}}, ("m", "active", "")),
        (
            {"resourceType": "Observation", "status": "final", "code": {"coding": [{"code": "o"}]}, "valueCodeableConcept": {"coding": [{"code": "pos"}]}},
            ("o", "final", "pos"),
        ),
    ],
)
def test_what_a_record_says(resource: dict[str, Any], expected: tuple[str, str, str]) -> None:
    assert [(one.code, one.status, one.value_code) for one in facts(resource)] == [expected]


@pytest.mark.parametrize("value", [None, 7, "x", [], {"coding": "x"}, {"coding": [None, {"code": 5}]}])
def test_what_is_not_of_the_right_shape_says_nothing(value: Any) -> None:
    assert facts({"resourceType": "Condition", "code": value, "onsetDateTime": 5}) == []


async def test_what_a_record_says_again_stays_the_same_fact(event_log: EventLog) -> None:
    def condition(*codes: str) -> dict[str, Any]:
        return {"resourceType": "Condition", "code": {"coding": [{"code": code} for code in codes]}, "onsetDateTime": "2020"}

    await project(event_log, [written(condition("a", "b")), written(condition("b", "c"), version=2)])
    assert await rows(event_log, "fact", "id, code, position_from, position_to") == [
        (4096 + 1, "a", 1, 2),
        (4096 + 2, "b", 1, None),
        (2 * 4096 + 1, "c", 2, None),
    ]


async def test_tags_come_and_go_with_their_history(event_log: EventLog) -> None:
    on_series = {"project_id": "p", "level": TagLevel.SERIES, **OF_SERIES, "name": "quality"}
    unknown = TagSet(project_id="p", level=TagLevel.SERIES, study_uid="9", series_uid="9.9", subject_id=SUBJECT, name="quality", value="x")
    await project(
        event_log, [stored(1), TagSet(**on_series, value="good"), TagSet(**on_series, value="bad"), unknown, TagRemoved(**on_series)]
    )
    assert await rows(event_log, "tag", "id, level, target, value, position_from, position_to") == [
        (2 * 4096, "series", 4096 + 2, "good", 2, 3),
        (2 * 4096, "series", 4096 + 2, "bad", 3, 5),
    ]


async def test_an_erasure_leaves_nothing_of_the_subject_in_any_table(event_log: EventLog) -> None:
    said = {"00100010": ("PN", {"Alphabetic": "PLANTED^NAME"}), "0008103E": ("LO", "PLANTED text")}
    erased = SubjectErased(subject_id=SUBJECT, study_uids=["1.2"], series_uids=["1.2.3"], files=1, bytes=1)
    tag = TagSet(project_id="p", level=TagLevel.SUBJECT, subject_id=SUBJECT, name="x", value="PLANTED value")
    condition = written({"resourceType": "Condition", "code": {"coding": [{"code": "PLANTED"}]}})
    await project(event_log, [person("19230704"), stored(1, **said), indexed("liver"), tag, condition, erased])
    tables = [row["tablename"] for row in await event_log.pool.fetch("SELECT tablename FROM pg_tables WHERE schemaname = $1", SCHEMA)]
    for table in tables:
        held = [row["text"] for row in await event_log.pool.fetch(f"SELECT t::text AS text FROM {SCHEMA}.{table} t")]
        assert not any("planted" in text.casefold() or "1923" in text for text in held), table
        assert bool(held) == (table in ("entity_erased", "subject_erased", "text_value")), table
    assert [tuple(row) for row in await event_log.pool.fetch(f"SELECT level, id FROM {SCHEMA}.entity_erased ORDER BY id")] == [
        ("subject", 4096),
        ("study", 2 * 4096 + 1),
        ("series", 2 * 4096 + 2),
    ]


@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(history=histories, batch=st.integers(1, 7))
def test_batches_do_not_matter_and_a_rebuild_gives_the_same_bytes(
    embedded_server: str, tmp_path_factory: pytest.TempPathFactory, history: list[list[Step]], batch: int
) -> None:
    asyncio.run(_same_in_any_batches(embedded_server, tmp_path_factory.mktemp("log"), history, batch))


async def _same_in_any_batches(server: str, folder: Path, history: list[list[Step]], batch: int) -> None:
    url = await fresh_database(server)
    try:
        log_settings = LogSettings(data_dir=folder, database_url=SecretStr(url))
        make_key_encryption_key(log_settings)
        await migrate(log_settings)
        log = await EventLog.open(log_settings)
        try:
            await _live_while_it_happens(log, history, batch)
        finally:
            await log.close()
    finally:
        await drop_database(server, url)


async def _live_while_it_happens(log: EventLog, history: list[list[Step]], batch: int) -> None:
    """Projected up to the erasures while the keys exist, and built anew when they do not."""
    projection = CohortProjection()
    runner = Runner(log, [projection], batch=batch)
    await runner.prepare()
    await append(log, history)
    await runner.catch_up()
    async with log.pool.acquire() as connection:
        before = await table_digests(connection, projection)
        for row in await connection.fetch(f"SELECT subject_id FROM {SCHEMA}.subject_erased"):
            await log.vault.destroy(row["subject_id"], connection)
    verdict = await verify(log, projection, values=True)
    assert verdict.is_equal, [msgspec.to_builtins(table) for table in verdict.tables if not table.is_equal]
    await Runner(log, [projection]).rebuild("cohort", grace_s=0)
    async with log.pool.acquire() as connection:
        assert await table_digests(connection, projection) == before
