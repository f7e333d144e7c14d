"""The contract of the log, on embedded and external PostgreSQL."""

from __future__ import annotations

import asyncio
import random

import asyncpg
import msgspec
import pytest

from domain.principal import device
from domain.series import IndexingFailed
from domain.study import StudyRegistered
from domain.subject import Demographics, SubjectRegistered
from eventlog.envelope import NewEvent, StreamAppend, envelope_sha256, event_digest
from eventlog.errors import EventIdReused, SubjectKeyDestroyed, VersionConflict
from eventlog.log import EventLog

WHO = device("test")


def registered(n: int = 0) -> NewEvent:
    return NewEvent(event=StudyRegistered(study_uid=f"1.2.{n}", subject_id="s"))


async def test_events_come_back_as_they_went_in(any_log: EventLog) -> None:
    new = NewEvent(
        event=SubjectRegistered(
            subject_id="s1", sex="F", demographics=Demographics(patient_id="4711", patient_name="Müller^Änne")
        )
    )
    appended = await any_log.append([StreamAppend(stream="subject-s1", events=[new], expected_version=0)], principal=WHO)
    (back,) = await any_log.read_stream("subject-s1")
    assert (back.event, back.event_id, back.position, back.version) == (new.event, new.event_id, appended.first, 1)
    assert back.principal == WHO and back.occurred_at == new.occurred_at


async def test_an_append_names_each_stream_once(event_log: EventLog) -> None:
    with pytest.raises(ValueError, match="each stream once"):
        await event_log.append([StreamAppend(stream="a", events=[registered(n)]) for n in range(2)], principal=WHO)


async def test_what_identifies_is_not_readable_in_the_database(any_log: EventLog) -> None:
    secret = Demographics(patient_id="MRN-4711", patient_name="Doe^Jane", birth_date="19701231")
    event = SubjectRegistered(subject_id="s1", demographics=secret)
    await any_log.append([StreamAppend(stream="subject-s1", events=[NewEvent(event=event)])], principal=WHO)
    row = await any_log.pool.fetchrow("SELECT * FROM event")
    everything = b"".join(v if isinstance(v, bytes) else str(v).encode() for v in row.values())
    for text in (b"4711", b"Doe", b"1970"):
        assert text not in everything


async def test_of_many_who_seal_at_once_each_has_the_key_of_its_subject(any_log: EventLog) -> None:
    """Their keys are asked for together: some are new, one was destroyed, and who is refused takes nobody along."""
    subjects = [f"s{n}" for n in range(40)]

    async def append(log: EventLog, subject: str, version: int) -> None:
        event = SubjectRegistered(subject_id=subject, demographics=Demographics(patient_name=f"{subject}^{version}"))
        await log.append([StreamAppend(stream=f"subject-{subject}", events=[NewEvent(event=event)], expected_version=version)], principal=WHO)

    await asyncio.gather(*(append(any_log, subject, 0) for subject in subjects[:20]))
    async with any_log.pool.acquire() as connection:
        await any_log.vault.destroy("s7", connection)
    again = await EventLog.open(any_log.settings)
    try:
        answers = await asyncio.gather(*(append(again, one, int(one in subjects[:20])) for one in subjects), return_exceptions=True)
        assert [type(one) for one, subject in zip(answers, subjects, strict=True) if subject == "s7"] == [SubjectKeyDestroyed]
        assert [one for one, subject in zip(answers, subjects, strict=True) if subject != "s7"] == [None] * 39
        for subject in subjects:
            last = (await again.read_stream(f"subject-{subject}"))[-1].event
            assert isinstance(last, SubjectRegistered)
            assert last.demographics.patient_name == ("" if subject == "s7" else f"{subject}^{int(subject in subjects[:20])}")
    finally:
        await again.close()


async def test_without_the_key_the_rest_still_reads(any_log: EventLog) -> None:
    event = SubjectRegistered(subject_id="s1", sex="M", demographics=Demographics(patient_id="4711"))
    await any_log.append([StreamAppend(stream="subject-s1", events=[NewEvent(event=event)])], principal=WHO)
    await any_log.pool.execute("UPDATE subject_key SET wrapped = NULL")
    again = await EventLog.open(any_log.settings)
    try:
        (back,) = await again.read_stream("subject-s1")
    finally:
        await again.close()
    assert back.event == SubjectRegistered(subject_id="s1", sex="M")


async def test_digest_covers_the_envelope_and_the_stored_bytes(any_log: EventLog) -> None:
    await any_log.append([StreamAppend(stream="a", events=[registered()])], principal=WHO)
    (back,) = await any_log.read_stream("a")
    data = await any_log.pool.fetchval("SELECT data FROM event")
    fields = {f: getattr(back, f) for f in msgspec.structs.asdict(back)}
    for not_covered in ("position", "version", "event", "digest"):
        del fields[not_covered]
    scope = {"study:1.2.0", "subject:s"}
    sha256 = envelope_sha256(**fields, data=data)
    assert event_digest(sha256, back.event_id, scope) == back.digest
    assert envelope_sha256(**{**fields, "stream": "b"}, data=data) != sha256
    assert event_digest(sha256, back.event_id, {"study:1.2.0"}) != back.digest


async def test_a_wrong_expected_version_is_a_conflict_and_appends_nothing(any_log: EventLog) -> None:
    await any_log.append([StreamAppend(stream="a", events=[registered()], expected_version=0)], principal=WHO)
    with pytest.raises(VersionConflict) as caught:
        await any_log.append(
            [
                StreamAppend(stream="b", events=[registered()], expected_version=0),
                StreamAppend(stream="a", events=[registered()], expected_version=0),
            ],
            principal=WHO,
        )
    assert (caught.value.stream, caught.value.expected, caught.value.actual) == ("a", 0, 1)
    assert await any_log.head() == 1 and await any_log.read_stream("b") == []


async def test_a_version_beyond_the_streams_leaves_no_gap(any_log: EventLog) -> None:
    for events in ([registered()], [registered(1), registered(2)]):
        with pytest.raises(VersionConflict) as caught:
            await any_log.append([StreamAppend(stream="a", events=events, expected_version=5)], principal=WHO)
        assert (caught.value.expected, caught.value.actual) == (5, 0)
    assert await any_log.head() == 0


async def test_a_stream_without_events_is_a_condition(any_log: EventLog) -> None:
    """Its version must be what the decision saw, though nothing is appended to it."""
    for version in range(3):
        await any_log.append([StreamAppend(stream="seen", events=[registered()], expected_version=version)], principal=WHO)
    for version in (0, 2):
        with pytest.raises(VersionConflict):
            await any_log.append(
                [
                    StreamAppend(stream="seen", events=[], expected_version=version),
                    StreamAppend(stream="a", events=[registered()], expected_version=0),
                ],
                principal=WHO,
            )
    condition = StreamAppend(stream="seen", events=[], expected_version=3)
    await any_log.append([condition, StreamAppend(stream="a", events=[registered()], expected_version=0)], principal=WHO)
    assert [e.version for e in await any_log.read_stream("a")] == [1] and len(await any_log.read_stream("seen")) == 3


async def test_a_conflict_costs_nobody_else_who_appends_at_the_same_time(any_log: EventLog) -> None:
    await any_log.append([StreamAppend(stream="s0", events=[registered()], expected_version=0)], principal=WHO)
    results = await asyncio.gather(
        *(any_log.append([StreamAppend(stream=f"s{n}", events=[registered()], expected_version=0)], principal=WHO) for n in range(20)),
        return_exceptions=True,
    )
    assert isinstance(results[0], VersionConflict)
    assert sorted(r.first for r in results[1:]) == list(range(2, 21))  # type: ignore[union-attr]


async def test_the_same_event_twice_is_accepted_once(any_log: EventLog) -> None:
    sealed = NewEvent(event=SubjectRegistered(subject_id="s", demographics=Demographics(patient_id="1")))
    append = [StreamAppend(stream="a", events=[registered(), sealed], expected_version=0)]
    first = await any_log.append(append, principal=WHO)
    second = await any_log.append(append, principal=WHO)
    assert (second.first, second.last, second.duplicate) == (first.first, first.last, True)
    assert await any_log.head() == 2


async def test_another_event_under_the_same_id_is_an_error(any_log: EventLog) -> None:
    one = registered(1)
    await any_log.append([StreamAppend(stream="a", events=[one])], principal=WHO)
    other = msgspec.structs.replace(one, event=StudyRegistered(study_uid="9", subject_id="s"))
    with pytest.raises(EventIdReused):
        await any_log.append([StreamAppend(stream="a", events=[other])], principal=WHO)


@pytest.mark.parametrize(
    "statement", ["UPDATE event SET type = 'x'", "DELETE FROM event", "TRUNCATE event", "DELETE FROM log_head"]
)
async def test_the_database_refuses_to_change_events(any_log: EventLog, statement: str) -> None:
    await any_log.append([StreamAppend(stream="a", events=[registered()])], principal=WHO)
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await any_log.pool.execute(statement)
    owner = await asyncpg.connect(any_log.settings.database_url.get_secret_value())  # type: ignore[union-attr]
    try:
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="immutable"):
            await owner.execute(statement)
    finally:
        await owner.close()


async def test_subscribers_see_every_event_once_and_in_order(any_log: EventLog) -> None:
    """The torture test: 12 writers with conflicts and duplicates in two processes' worth of logs, three readers."""
    other = await EventLog.open(any_log.settings)
    writers, each = 12, 60
    total = writers * each

    async def write(log: EventLog, n: int) -> None:
        chance = random.Random(n)
        for i in range(each):
            append = StreamAppend(stream=f"s{n}", events=[registered(i)], expected_version=i)
            await log.append([append], principal=WHO)
            if chance.random() < 0.2:
                assert (await log.append([append], principal=WHO)).duplicate
            if chance.random() < 0.2:
                with pytest.raises(VersionConflict):
                    await log.append([StreamAppend(stream=f"s{n}", events=[registered()], expected_version=0)], principal=WHO)

    async def read(log: EventLog) -> list[tuple[int, str, int]]:
        seen: list[tuple[int, str, int]] = []
        async for batch in log.subscribe(0, batch=37):
            seen += [(e.position, e.stream, e.version) for e in batch]
            if len(seen) >= total:
                return seen
        raise AssertionError("a subscription does not end")

    readers = [asyncio.create_task(read(log)) for log in (any_log, other, any_log)]
    await asyncio.gather(*(write(any_log if n % 2 else other, n) for n in range(writers)))
    results = await asyncio.wait_for(asyncio.gather(*readers), timeout=30)
    await other.close()
    for seen in results:
        assert [position for position, _, _ in seen] == list(range(1, total + 1))
        for n in range(writers):
            assert [v for _, s, v in seen if s == f"s{n}"] == list(range(1, each + 1))


async def test_concurrent_appends_to_one_stream_are_ordered(any_log: EventLog) -> None:
    appends = (any_log.append([StreamAppend(stream="a", events=[registered(n)])], principal=WHO) for n in range(50))
    positions = sorted(a.last for a in await asyncio.gather(*appends))
    assert positions == list(range(1, 51))
    assert [e.version for e in await any_log.read_stream("a")] == list(range(1, 51))


async def test_reading_by_position_filters_by_type(any_log: EventLog) -> None:
    failed = IndexingFailed(
        study_uid="1", series_uid="2", subject_id="s", series_digest="d", segmenter="x", error="E", attempts=3
    )
    events = [registered(1), NewEvent(event=failed), registered(2)]
    await any_log.append([StreamAppend(stream="a", events=events)], principal=WHO)
    assert [e.position for e in await any_log.read(0, types=[IndexingFailed])] == [2]
    assert [e.position for e in await any_log.read(1, limit=1)] == [2]


async def test_a_broken_connection_is_taken_up_again_without_doubles(any_log: EventLog) -> None:
    server = await asyncpg.connect(any_log.settings.database_url.get_secret_value())  # type: ignore[union-attr]

    async def cut() -> None:
        for _ in range(10):
            await server.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE pid <> pg_backend_pid() AND datname = current_database()"
            )
            await asyncio.sleep(0.02)

    async def write(n: int) -> None:
        for i in range(40):
            await any_log.append(
                [StreamAppend(stream=f"s{n}", events=[registered(i)], expected_version=i)], principal=WHO
            )

    await asyncio.gather(cut(), *(write(n) for n in range(4)))
    await server.close()
    positions = [e.position for e in await any_log.read(0, limit=1000)]
    assert positions == list(range(1, 161))


async def test_a_cancellation_that_comes_with_the_news_is_heard(any_log: EventLog) -> None:
    async def follow() -> None:
        while True:
            await any_log.wait_for_news(any_log.news())

    following = asyncio.create_task(follow())
    await asyncio.sleep(0.05)
    any_log._tell()
    await asyncio.sleep(0)
    following.cancel()
    done, _ = await asyncio.wait([following], timeout=10)
    assert done, "whoever follows the log cannot be stopped"
