"""A projection whose code has a new version is built beside the old one at start, in the background; the old one goes when told to."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import asyncpg

from domain.event import Event
from domain.principal import device
from domain.study import StudyRegistered
from eventlog.envelope import NewEvent, RecordedEvent, StreamAppend
from eventlog.log import EventLog
from projections.checkpoint import status_of, wait_for
from projections.pruning import prune
from projections.runner import Runner


class StudyList:
    name = "studies"
    version = 1
    handles: frozenset[type[Event]] = frozenset({StudyRegistered})
    statements: Sequence[str] = ("CREATE TABLE study (position bigint PRIMARY KEY, uid text)",)

    async def apply(self, batch: Sequence[RecordedEvent], connection: asyncpg.Connection) -> None:
        rows = [(r.position, r.event.study_uid) for r in batch if isinstance(r.event, StudyRegistered)]
        await connection.executemany("INSERT INTO study VALUES ($1, $2)", rows)


class StudiesWithSubjects(StudyList):
    """The same of a later release, which waits until the test lets it go on."""

    version = 2
    statements = ("CREATE TABLE study (position bigint PRIMARY KEY, uid text, subject_id text)",)

    def __init__(self) -> None:
        self.may_go_on = asyncio.Event()

    async def apply(self, batch: Sequence[RecordedEvent], connection: asyncpg.Connection) -> None:
        await self.may_go_on.wait()
        rows = [(r.position, r.event.study_uid, r.event.subject_id) for r in batch if isinstance(r.event, StudyRegistered)]
        await connection.executemany("INSERT INTO study VALUES ($1, $2, $3)", rows)


async def append(log: EventLog, *uids: str) -> int:
    events = [NewEvent(event=StudyRegistered(study_uid=uid, subject_id="s")) for uid in uids]
    return (await log.append([StreamAppend(stream="x", events=events)], principal=device("test"))).last


async def uids(log: EventLog, version: int) -> str:
    return "".join(row["uid"] for row in await log.pool.fetch(f"SELECT uid FROM studies_v{version}.study ORDER BY position"))


async def test_the_new_version_is_built_in_the_background_while_the_old_one_is_kept_up(event_log: EventLog) -> None:
    last = await append(event_log, *"abc")
    old, new = StudyList(), StudiesWithSubjects()
    keeps_old = asyncio.create_task(Runner(event_log, [old]).run())
    await wait_for(event_log.pool, old, last)
    keeps_new = asyncio.create_task(Runner(event_log, [new]).run())  # as the process of the new release does when it starts
    last = await append(event_log, "d")
    await wait_for(event_log.pool, old, last)
    assert await uids(event_log, 1) == "abcd"
    before = await status_of(event_log.pool, new)
    assert before is None or (before.state, before.built) == ("building", False)
    new.may_go_on.set()
    await wait_for(event_log.pool, new, last)
    status = await status_of(event_log.pool, new)
    assert status is not None and (status.state, status.built) == ("live", True)
    assert await uids(event_log, 2) == await uids(event_log, 1) == "abcd"

    (kept,) = await prune(event_log, [new])
    assert not kept.removed and "still keeps it up" in kept.reason
    keeps_old.cancel()
    await asyncio.gather(keeps_old, return_exceptions=True)
    (gone,) = await prune(event_log, [new])
    assert gone.removed and await event_log.pool.fetchval("SELECT to_regnamespace('studies_v1') IS NULL")
    assert await status_of(event_log.pool, old) is None
    keeps_new.cancel()
    await asyncio.gather(keeps_new, return_exceptions=True)
    assert await uids(event_log, 2) == "abcd"
