"""The ledger: an entry for every event of whatever type, what it touched, and which position an instant means."""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domain.event import Event
from domain.findings import SNOMED_CT, Code, Finding, Structure, finding_key
from domain.ids import Position, StreamName
from domain.intake import FileRefused
from domain.principal import Principal, PrincipalKind, device
from domain.series import InstanceConflicted, SegmenterRun, SeriesIndexed
from domain.study import StudyRegistered
from domain.subject import Demographics, SubjectRegistered
from eventlog.envelope import NewEvent, RecordedEvent, StreamAppend
from eventlog.log import EventLog
from projections.digest import table_digests
from projections.ledger.instants import position_at
from projections.ledger.projection import SCHEMA, LedgerProjection
from projections.runner import Runner

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
LIVER = Structure(label="liver", snomed=Code(SNOMED_CT, "10200004", "Liver structure"))
PERSON = Principal(id="token:1", kind=PrincipalKind.PERSON, on_behalf_of="token:2")


def indexed(series_uid: str) -> SeriesIndexed:
    finding = Finding(
        structure=LIVER,
        volume_mm3=1.0,
        voxel_count=1,
        mean_hu=1.0,
        touches_edge=False,
        centroid_mm=(0.0, 0.0, 0.0),
        bounding_box_mm=((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    )
    run = SegmenterRun(segmenter="baseline", segmenter_version="1", software={}, duration_s=1.0)
    return SeriesIndexed(study_uid="1.2", series_uid=series_uid, subject_id="s", series_digest="ab", run=run, findings=[finding])


HISTORY: list[Event] = [
    SubjectRegistered(subject_id="s", sex="F", demographics=Demographics(patient_name="PLANTED^NAME", patient_id="PLANTED-1")),
    StudyRegistered(study_uid="1.2", subject_id="s"),
    indexed("1.2.3"),
    InstanceConflicted(
        study_uid="1.2", series_uid="1.2.3", sop_instance_uid="1.2.3.4", kept_sha256="a", conflicting_sha256="b", conflicting_size=1, door="stow"
    ),
    FileRefused(reject_id="r", sha256="c", size=1, reason="truncated", detail="", door="ingest", sop_instance_uid="1.2.3.9"),
]


async def append(log: EventLog, *events: Event, principal: Principal = PERSON) -> None:
    for event in events:
        await log.append([StreamAppend(stream="x", events=[NewEvent(event=event)])], principal=principal)


async def positions(log: EventLog, tag: str) -> list[int]:
    rows = await log.pool.fetch(f"SELECT position FROM {SCHEMA}.touched WHERE tag = $1 ORDER BY position", tag)
    return [row[0] for row in rows]


async def test_every_event_has_an_entry_that_says_who_and_for_whom(event_log: EventLog) -> None:
    await append(event_log, *HISTORY)
    await append(event_log, StudyRegistered(study_uid="9", subject_id="t"), principal=device("other"))
    await Runner(event_log, [LedgerProjection()]).catch_up()
    rows = await event_log.pool.fetch(f"SELECT * FROM {SCHEMA}.entry ORDER BY position")
    recorded = await event_log.read(0)
    assert [(r["event_id"], r["type"], r["recorded_at"]) for r in rows] == [(e.event_id, e.type, e.recorded_at) for e in recorded]
    assert [(r["principal_id"], r["on_behalf_of"]) for r in rows] == [("token:1", "token:2")] * 5 + [("device:other", None)]


async def test_what_an_event_touched_is_found_by_its_tag(event_log: EventLog) -> None:
    await append(event_log, *HISTORY)
    await Runner(event_log, [LedgerProjection()]).catch_up()
    assert await positions(event_log, "subject:s") == [1, 2, 3]
    assert await positions(event_log, "study:1.2") == [2, 3, 4]
    assert await positions(event_log, "series:1.2.3") == [3, 4]
    assert await positions(event_log, f"finding:{finding_key('1.2.3', 'baseline', 'liver')}") == [3]
    assert await positions(event_log, "instance:1.2.3.4") == [4]
    assert await positions(event_log, "instance:1.2.3.9") == [5]


async def test_the_ledger_holds_no_identities(event_log: EventLog) -> None:
    await append(event_log, *HISTORY)
    await Runner(event_log, [LedgerProjection()]).catch_up()
    for table in ("entry", "touched"):
        rows = await event_log.pool.fetch(f"SELECT t::text AS text FROM {SCHEMA}.{table} t")
        assert rows and not any("PLANTED" in row["text"] for row in rows)


async def test_a_rebuild_gives_the_same_bytes_whatever_the_batches(event_log: EventLog) -> None:
    await append(event_log, *HISTORY)
    await Runner(event_log, [LedgerProjection()], batch=2).catch_up()
    async with event_log.pool.acquire() as connection:
        before = await table_digests(connection, LedgerProjection())
    await Runner(event_log, [LedgerProjection()]).rebuild("ledger")
    async with event_log.pool.acquire() as connection:
        assert await table_digests(connection, LedgerProjection()) == before


async def test_an_instant_beyond_the_last_event_is_where_the_ledger_stands(event_log: EventLog) -> None:
    await Runner(event_log, [LedgerProjection()]).prepare()
    assert await position_at(event_log.pool, datetime.now(UTC)) == 0
    await append(event_log, *HISTORY)
    assert await position_at(event_log.pool, datetime.now(UTC)) == 0  # not applied yet
    await Runner(event_log, [LedgerProjection()]).catch_up()
    assert await position_at(event_log.pool, datetime.now(UTC)) == 5


def recorded(position: int, seconds: int) -> RecordedEvent:
    at = EPOCH + timedelta(seconds=seconds)
    return RecordedEvent(
        position=Position(position),
        event_id=uuid.UUID(int=position),
        stream=StreamName("x"),
        version=position,
        type="StudyRegistered",
        schema_version=1,
        occurred_at=at,
        recorded_at=at,
        principal=PERSON,
        correlation_id=uuid.UUID(int=0),
        causation_id=None,
        origin="here",
        event=StudyRegistered(study_uid=f"1.{position}", subject_id="s"),
        digest=b"",
    )


async def apply(pool: asyncpg.Pool, batches: Sequence[Sequence[RecordedEvent]]) -> None:
    """As the runner does: each batch and the checkpoint in one transaction."""
    for batch in batches:
        async with pool.acquire() as connection, connection.transaction():
            await connection.execute(f"SET LOCAL search_path = {SCHEMA}")
            await LedgerProjection().apply(batch, connection)
            await connection.execute("UPDATE public.projection_checkpoint SET position = $1 WHERE name = 'ledger'", batch[-1].position)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(clock=st.lists(st.integers(0, 8), min_size=1, max_size=12), cut=st.integers(1, 12), more=st.lists(st.integers(0, 8), max_size=4))
async def test_an_instant_means_all_before_the_first_later_event_and_for_ever(
    event_log: EventLog, clock: list[int], cut: int, more: list[int]
) -> None:
    """Clocks that step back, batches cut anywhere, events that come afterwards."""
    await Runner(event_log, [LedgerProjection()]).prepare()
    await event_log.pool.execute(f"TRUNCATE {SCHEMA}.entry, {SCHEMA}.touched")
    events = [recorded(n, at) for n, at in enumerate(clock, start=1)]
    await apply(event_log.pool, [batch for batch in (events[:cut], events[cut:]) if batch])
    found = {second: await position_at(event_log.pool, EPOCH + timedelta(seconds=second)) for second in range(-1, 10)}
    for second, position in found.items():
        later = [n for n, at in enumerate(clock, start=1) if at > second]
        assert position == (later[0] - 1 if later else len(clock))
    if more:
        await apply(event_log.pool, [[recorded(len(clock) + n, at) for n, at in enumerate(more, start=1)]])
        for second, position in found.items():
            if any(at > second for at in clock):
                assert await position_at(event_log.pool, EPOCH + timedelta(seconds=second)) == position


async def test_an_instant_is_looked_up_in_its_index(event_log: EventLog) -> None:
    await Runner(event_log, [LedgerProjection()]).prepare()
    await apply(event_log.pool, [[recorded(n, n) for n in range(1, 3000)]])
    await event_log.pool.execute(f"ANALYZE {SCHEMA}.entry")
    plan = await event_log.pool.fetch(
        f"EXPLAIN SELECT position - 1 FROM {SCHEMA}.entry WHERE latest_at > '2026-01-01 00:20Z' ORDER BY latest_at, position LIMIT 1"
    )
    assert any("Index Only Scan using entry_latest" in row[0] or "Index Scan using entry_latest" in row[0] for row in plan)


@pytest.mark.parametrize("tag", ["study:" + "9" * 4000, "study:1\x002"])
async def test_a_tag_that_postgresql_could_not_keep_is_cut_and_still_found(event_log: EventLog, tag: str) -> None:
    from projections.ledger.tags import tag as kept

    event = StudyRegistered(study_uid=tag.removeprefix("study:"), subject_id="s")
    batch = [recorded(1, 1).__class__(**{**{f: getattr(recorded(1, 1), f) for f in RecordedEvent.__struct_fields__}, "event": event})]
    await Runner(event_log, [LedgerProjection()]).prepare()
    await apply(event_log.pool, [batch])
    assert await positions(event_log, kept(*tag.split(":", 1))) == [1]
