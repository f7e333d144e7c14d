"""An event that the running code does not know stops a projection and is not lost: after an upgrade it is applied in its turn."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import asyncpg
import pytest
from archive_history import append_studies
from served_site import served_site

from domain.event import EVENT_TYPES, Event, event
from domain.principal import device
from domain.study import StudyRegistered, StudySubjectDisputed
from eventlog.envelope import NewEvent, RecordedEvent, StreamAppend
from eventlog.errors import UnknownEventType
from eventlog.log import EventLog
from eventlog.upcasters import UPCASTERS
from projections.checkpoint import Status, wait_for
from projections.fhir.projection import SCHEMA
from projections.runner import Runner


class StudyList:
    name = "studies"
    version = 1
    handles: frozenset[type[Event]] = frozenset({StudyRegistered})
    statements = ("CREATE TABLE study (position bigint PRIMARY KEY, uid text)",)

    async def apply(self, batch: Sequence[RecordedEvent], connection: asyncpg.Connection) -> None:
        rows = [(r.position, r.event.study_uid) for r in batch if isinstance(r.event, StudyRegistered)]
        await connection.executemany("INSERT INTO study VALUES ($1, $2)", rows)


class Disputes(StudyList):
    name = "disputes"
    handles = frozenset({StudySubjectDisputed})


class StudyFrozen(Event, frozen=True, kw_only=True):
    """An event of a later release."""

    study_uid: str


@contextmanager
def a_later_release() -> Iterator[None]:
    """Code that knows StudyFrozen, and writes StudyRegistered at schema version 2."""
    event(StudyFrozen)
    StudyRegistered.SCHEMA_VERSION = 2
    UPCASTERS.register("StudyRegistered", from_version=1)(lambda data: data)
    try:
        yield
    finally:
        EVENT_TYPES.pop("StudyFrozen")
        StudyRegistered.SCHEMA_VERSION = 1
        UPCASTERS._steps.pop(("StudyRegistered", 1))


async def append(log: EventLog, *events: Event) -> int:
    new = [NewEvent(event=one) for one in events]
    return (await log.append([StreamAppend(stream="x", events=new)], principal=device("test"))).last


def study(uid: str) -> StudyRegistered:
    return StudyRegistered(study_uid=uid, subject_id="s")


async def uids(log: EventLog) -> str:
    return "".join(row["uid"] for row in await log.pool.fetch("SELECT uid FROM studies_v1.study ORDER BY position"))


async def status(runner: Runner) -> Status:
    (found,) = await runner.status()
    return found


async def test_an_unknown_type_stops_every_projection_after_what_came_before_it(event_log: EventLog) -> None:
    await append(event_log, *map(study, "abcdefg"))
    with a_later_release():
        await append(event_log, StudyFrozen(study_uid="a"))
    await append(event_log, study("h"))
    runner = Runner(event_log, [StudyList(), Disputes()])  # neither handles it: both might have to, once it is known
    await runner.catch_up()
    assert await uids(event_log) == "abcdefg"
    for found in await runner.status():
        assert (found.state, found.lag) == ("paused", 2)
        assert found.problem is not None
        assert "StudyFrozen (schema version 1) at position 8" in found.problem and "update" in found.problem


async def test_after_an_upgrade_and_resume_nothing_is_lost(event_log: EventLog) -> None:
    await append(event_log, study("a"))
    with a_later_release():
        await append(event_log, StudyFrozen(study_uid="a"), study("b"))
    await append(event_log, study("c"))
    runner = Runner(event_log, [StudyList()])
    await runner.catch_up()
    assert await runner.resume("studies")
    await runner.catch_up()  # not upgraded: it stops again
    assert ((await status(runner)).state, await uids(event_log)) == ("paused", "a")
    with a_later_release():
        await runner.resume("studies")
        await runner.catch_up()
    assert ((await status(runner)).state, await uids(event_log)) == ("live", "abc")


async def test_an_unknown_schema_version_of_a_known_type_stops_too(event_log: EventLog) -> None:
    await append(event_log, study("a"))
    with a_later_release():
        await append(event_log, study("b"))
    runner = Runner(event_log, [StudyList()])
    await runner.catch_up()
    assert await uids(event_log) == "a"
    assert "StudyRegistered (schema version 2) at position 2" in ((await status(runner)).problem or "")


async def test_upgraded_code_resumes_by_itself_when_it_starts(event_log: EventLog) -> None:
    with a_later_release():
        last = await append(event_log, StudyFrozen(study_uid="a"), study("b"))
    await Runner(event_log, [StudyList()]).catch_up()
    with a_later_release():
        running = asyncio.create_task(Runner(event_log, [StudyList()]).run())
        await wait_for(event_log.pool, StudyList(), last)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    assert await uids(event_log) == "b"


async def test_a_rebuild_stops_at_it_and_leaves_the_live_read_model(event_log: EventLog) -> None:
    await append(event_log, study("a"))
    runner = Runner(event_log, [StudyList()])
    await runner.catch_up()
    with a_later_release():
        await append(event_log, StudyFrozen(study_uid="a"))
    with pytest.raises(UnknownEventType, match="StudyFrozen"):
        await runner.rebuild("studies")
    assert await uids(event_log) == "a"


async def test_who_subscribes_to_types_hears_of_those_alone(event_log: EventLog) -> None:
    with a_later_release():
        await append(event_log, StudyFrozen(study_uid="a"))
    await append(event_log, study("b"))
    async for batch in event_log.subscribe(0, [StudyRegistered]):
        assert [recorded.position for recorded in batch] == [2]
        break


async def test_a_read_model_that_was_never_complete_is_not_read(embedded_server: str, tmp_path: Path) -> None:
    async with served_site(embedded_server, tmp_path, audit_reads=False) as site:
        log, pool = site.services.log, site.services.pool
        await append_studies(log, range(3))
        await site.caught_up()
        with a_later_release():
            await append(log, StudyFrozen(study_uid="1.2.1"))
        # As the first start of a new version finds it: no tables yet, and a log that is not empty.
        await pool.execute(f"DROP SCHEMA {SCHEMA} CASCADE")
        await pool.execute("DELETE FROM projection_checkpoint WHERE name = 'fhir'")
        site.services.complete.clear()
        await Runner(log, site.services.runner.projections).catch_up()
        for path in ("/fhir/Patient", "/fhir/Patient/x", "/fhir/Patient/x/_history"):
            refused = await site.get(path, "fhir:read")
            assert refused.status_code == 503 and "93 %" in refused.text, refused.text
            assert int(refused.headers["Retry-After"]) > 0
        assert (await site.get("/fhir/metadata", "fhir:read")).status_code == 200
        assert (await site.get("/fhir/Patient", "dicom:read")).status_code == 403
        assert (await site.get("/dicomweb/studies", "dicom:read")).status_code == 200
        assert "projection fhir is paused" in (await site.client.get("/health/ready")).text
        with a_later_release():
            await site.services.runner.resume("fhir")
            await site.services.runner.resume("dicom")
            await site.services.runner.resume("ledger")
            await Runner(log, site.services.runner.projections).catch_up()
            assert (await site.get("/fhir/Patient", "fhir:read")).json()["total"] == 3
