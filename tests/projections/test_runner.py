"""The runner: exactly once, in order, paused by what it cannot apply, rebuilt to the same bytes."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

import asyncpg
import pytest

from domain.event import Event
from domain.principal import device
from domain.study import StudyRegistered, StudySubjectDisputed
from eventlog.envelope import NewEvent, RecordedEvent, StreamAppend
from eventlog.leases import lease
from eventlog.log import EventLog
from projections.checkpoint import reached, wait_for
from projections.digest import table_digests
from projections.errors import ProjectionBehind, RebuildRunning, UnknownProjection
from projections.runner import Runner
from projections.schemas import SWEEP_S, schemas_key
from projections.verification import verify


class StudyList:
    name = "studies"
    version = 1
    handles: frozenset[type[Event]] = frozenset({StudyRegistered})
    statements = ("CREATE TABLE study (position bigint PRIMARY KEY, uid text)",)
    refuse: str | None = None

    async def apply(self, batch: Sequence[RecordedEvent], connection: asyncpg.Connection) -> None:
        for recorded in batch:
            assert isinstance(recorded.event, StudyRegistered)
            if recorded.event.study_uid == self.refuse:
                raise ValueError("cannot apply")
            await connection.execute("INSERT INTO study VALUES ($1, $2)", recorded.position, recorded.event.study_uid)


async def append(log: EventLog, *uids: str) -> int:
    events = [NewEvent(event=StudyRegistered(study_uid=uid, subject_id="s")) for uid in uids]
    return (await log.append([StreamAppend(stream="x", events=events)], principal=device("test"))).last


async def uids(log: EventLog) -> list[str]:
    return [row["uid"] for row in await log.pool.fetch("SELECT uid FROM studies_v1.study ORDER BY position")]


async def test_events_are_applied_once_and_in_order(event_log: EventLog) -> None:
    await append(event_log, *"abcdefg")
    runner = Runner(event_log, [StudyList()], batch=3)
    assert await runner.catch_up() == 7
    await append(event_log, "h")
    await runner.catch_up()
    assert "".join(await uids(event_log)) == "abcdefgh"


async def test_other_events_move_the_checkpoint_too(event_log: EventLog) -> None:
    event = StudySubjectDisputed(study_uid="1", registered_subject_id="a", disputed_subject_id="b")
    await event_log.append([StreamAppend(stream="x", events=[NewEvent(event=event)])], principal=device("test"))
    await Runner(event_log, [StudyList()]).catch_up()
    assert await reached(event_log.pool, "studies", 1) == 1


async def test_a_reader_waits_for_its_position(event_log: EventLog) -> None:
    projection = StudyList()
    running = asyncio.create_task(Runner(event_log, [projection]).run())
    for uid in "abc":
        await wait_for(event_log.pool, projection, await append(event_log, uid))
        assert (await uids(event_log))[-1] == uid
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    with pytest.raises(ProjectionBehind):
        await wait_for(event_log.pool, projection, await append(event_log, "d"), timeout_s=0.05)


async def test_an_event_that_cannot_be_applied_pauses_and_is_not_skipped(event_log: EventLog) -> None:
    projection = StudyList()
    projection.refuse = "c"
    await append(event_log, *"abcd")
    runner = Runner(event_log, [projection])
    await runner.catch_up()
    (status,) = await runner.status()
    assert (status.state, status.position, status.lag) == ("paused", 2, 2)
    assert status.problem == "ValueError at or after position 3"
    projection.refuse = None
    await runner.resume("studies")
    await runner.catch_up()
    assert "".join(await uids(event_log)) == "abcd"


async def test_only_one_runner_leads(event_log: EventLog) -> None:
    runners = [asyncio.create_task(Runner(event_log, [StudyList()]).run()) for _ in range(3)]
    last = 0
    for n in range(30):
        last = await append(event_log, str(n))
    await wait_for(event_log.pool, StudyList(), last)
    for task in runners:
        task.cancel()
    await asyncio.gather(*runners, return_exceptions=True)
    assert await uids(event_log) == [str(n) for n in range(30)]


async def test_a_rebuild_gives_the_same_bytes_while_the_log_grows(event_log: EventLog) -> None:
    runner = Runner(event_log, [StudyList()], batch=5)
    await append(event_log, *(str(n) for n in range(40)))
    await runner.catch_up()
    running = asyncio.create_task(runner.run())
    heard: list[int] = []
    rebuilt, last = await asyncio.gather(
        runner.rebuild("studies", lambda progress: heard.append(progress.position)), append(event_log, "more")
    )
    await wait_for(event_log.pool, StudyList(), last)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert heard and rebuilt >= 40
    async with event_log.pool.acquire() as connection:
        before = await table_digests(connection, StudyList())
        await runner.rebuild("studies")
        assert await table_digests(connection, StudyList()) == before
    assert await uids(event_log) == [*(str(n) for n in range(40)), "more"]


async def test_a_rebuild_waits_for_a_sweep_and_is_refused_beside_another(event_log: EventLog) -> None:
    runner = Runner(event_log, [StudyList()])
    await append(event_log, "a")
    await runner.catch_up()

    async def hold(seconds: float) -> None:
        async with lease(event_log, schemas_key(StudyList())) as had:
            assert had
            held.set()
            await asyncio.sleep(seconds)

    for seconds, refused in ((SWEEP_S / 8, False), (SWEEP_S * 4, True)):
        held = asyncio.Event()
        holder = asyncio.create_task(hold(seconds))
        await held.wait()
        for work in (runner.rebuild("studies", grace_s=0), verify(event_log, StudyList())):
            with pytest.raises(RebuildRunning) if refused else contextlib.nullcontext():
                await work
        holder.cancel()
        await asyncio.gather(holder, return_exceptions=True)


async def test_a_lease_that_has_ended_can_be_had_at_once(event_log: EventLog) -> None:
    for _ in range(50):
        async with lease(event_log, "it") as had:
            assert had


async def test_a_lease_ends_with_who_is_cancelled_again_while_it_ends(event_log: EventLog) -> None:
    for turns in range(6):
        held = asyncio.Event()
        sessions = await sessions_of(event_log)

        async def hold(held: asyncio.Event) -> None:
            async with lease(event_log, "it"):
                held.set()
                await asyncio.sleep(60)

        holder = asyncio.create_task(hold(held))
        await held.wait()
        holder.cancel()
        for _ in range(turns):
            await asyncio.sleep(0)
        holder.cancel()
        with pytest.raises(asyncio.CancelledError) as cancelled:
            await holder
        async with asyncio.timeout(5):  # what holds the traceback holds the session, if nothing has ended it
            while await sessions_of(event_log) > sessions:
                await asyncio.sleep(0.02)
        assert cancelled.value is not None


async def sessions_of(log: EventLog) -> int:
    return int(await log.pool.fetchval("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"))


async def test_an_unknown_projection_is_named(event_log: EventLog) -> None:
    with pytest.raises(UnknownProjection, match="nope"):
        await Runner(event_log, [StudyList()]).rebuild("nope")
