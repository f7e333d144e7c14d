"""The dispatcher: what it requests, what it sends, in which order, and what it sends again."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from dramatiq import Broker

from domain.ids import series_stream
from domain.principal import Principal, PrincipalKind
from domain.series import IndexingRefused, IndexingRequested
from eventlog.envelope import NewEvent, StreamAppend
from eventlog.leases import lease
from eventlog.log import EventLog
from projections.digest import table_digests
from projections.dispatch.projection import DispatchProjection
from projections.dispatch.standing import standing, unrequested
from projections.runner import Runner
from workers.actors import declare_indexing
from workers.broker import open_broker
from workers.dispatcher import LEASE_KEY, Dispatcher
from workers.indexing import Task
from workers.lease_holders import held
from workers.requesting import ask
from workers.settings import WorkerSettings

READER = Principal(id="person:reader", kind=PrincipalKind.PERSON)
TODAY = datetime.now(UTC).strftime("%Y%m%d")


class Sent:
    """What a dispatcher sent, taken off the broker in the order in which a worker would: the most urgent queue first."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def take(self) -> list[tuple[str, str]]:
        """(queue, series) of every message."""
        taken: list[tuple[str, str]] = []
        for actor in sorted(self._broker.actors.values(), key=lambda actor: actor.priority):
            consumer = self._broker.consume(actor.queue_name, prefetch=1000, timeout=1)
            while (message := next(consumer)) is not None:
                taken.append((actor.queue_name.rpartition(".")[2], message.kwargs["series_uid"]))
                consumer.ack(message)
        return taken


MakeDispatcher = Callable[..., tuple[Dispatcher, Sent]]


@pytest.fixture
def dispatcher(event_log: EventLog, worker_settings: WorkerSettings) -> MakeDispatcher:
    def make(**changes: object) -> tuple[Dispatcher, Sent]:
        settings = worker_settings.model_copy(update=changes)
        broker = open_broker(settings)
        return Dispatcher(event_log, settings, declare_indexing(broker, settings, None, None)), Sent(broker)

    return make


async def finish(log: EventLog, uid: str) -> None:
    """Somebody's worker refuses the series."""
    request = next(r.event for r in reversed(await log.read_stream(series_stream(uid))) if isinstance(r.event, IndexingRequested))
    refused = IndexingRefused(
        study_uid=request.study_uid,
        series_uid=uid,
        subject_id=request.subject_id,
        series_digest=request.series_digest,
        segmenter=request.segmenter,
        reason="too-few-slices",
        detail="",
    )
    await log.append([StreamAppend(stream=series_stream(uid), events=[NewEvent(event=refused)])], principal=READER)


async def test_a_series_is_requested_when_it_is_quiet_and_not_before(
    event_log: EventLog, dispatcher: MakeDispatcher, store_headers, events_of
) -> None:
    await store_headers(event_log, "1.1", 1, 2)
    impatient, sent = dispatcher(quiet_seconds=3600)
    due_s = await impatient.round()
    assert await events_of(event_log, "1.1") == [] and sent.take() == []
    assert due_s <= 3600
    patient, sent = dispatcher(quiet_seconds=0)
    await patient.round()
    (request,) = await events_of(event_log, "1.1")
    assert isinstance(request.event, IndexingRequested) and request.event.reason == "quiet"
    assert (request.principal.id, request.principal.on_behalf_of) == ("device:dispatcher", "ae:STORESCU")
    stored = (await event_log.read_stream(series_stream("1.1")))[0]
    assert (request.causation_id, request.correlation_id) == (stored.event_id, stored.correlation_id)
    assert sent.take() == [("backlog", "1.1")]


async def test_the_running_dispatcher_says_when_the_next_series_is_due(
    event_log: EventLog, dispatcher: MakeDispatcher, store_headers, wait_for_events
) -> None:
    running, _ = dispatcher(quiet_seconds=0.3)
    task = asyncio.create_task(running.run())
    await store_headers(event_log, "1.1", 1)
    (request,) = await wait_for_events(event_log, "1.1", 1, IndexingRequested)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    stored = (await event_log.read_stream(series_stream("1.1")))[0]
    waited_s = (request.recorded_at - stored.recorded_at).total_seconds()
    assert waited_s >= 0.3


async def test_a_request_by_somebody_does_not_wait_for_quiet(
    event_log: EventLog, dispatcher: MakeDispatcher, store_headers
) -> None:
    await store_headers(event_log, "1.1", 1)
    one, sent = dispatcher(quiet_seconds=3600)
    assert await ask(event_log, "1.1", "baseline", READER) is not None
    assert await ask(event_log, "1.1", "baseline", READER) is None
    await one.round()
    assert sent.take() == [("asked", "1.1")]


async def test_a_series_that_grew_is_requested_anew(event_log: EventLog, dispatcher: MakeDispatcher, store_headers, events_of) -> None:
    one, sent = dispatcher()
    await store_headers(event_log, "1.1", 1)
    await one.round()
    await finish(event_log, "1.1")
    await one.round()
    assert len(sent.take()) == 1
    await store_headers(event_log, "1.1", 2)
    await one.round()
    digests = [r.event.series_digest for r in await events_of(event_log, "1.1", IndexingRequested)]
    assert len(set(digests)) == 2
    assert len(sent.take()) == 1


async def test_another_event_of_the_series_does_not_hide_it(
    event_log: EventLog, dispatcher: MakeDispatcher, store_headers, events_of
) -> None:
    await store_headers(event_log, "1.1", 1)
    assert await ask(event_log, "1.1", "another", READER) is not None
    one, _ = dispatcher()
    await one.round()
    assert [r.event.segmenter for r in await events_of(event_log, "1.1", IndexingRequested)] == ["another", "baseline"]


async def test_what_is_urgent_goes_first(event_log: EventLog, dispatcher: MakeDispatcher, store_headers) -> None:
    await store_headers(event_log, "1.1", 1, study_date="20200101")
    await store_headers(event_log, "1.2", 1, study_date=TODAY)
    await store_headers(event_log, "1.3", 1, study_date="")
    await store_headers(event_log, "1.4", 1, study_date="20200101")
    assert await ask(event_log, "1.4", "baseline", READER) is not None
    one, sent = dispatcher()
    await one.round()
    assert sent.take() == [("asked", "1.4"), ("today", "1.2"), ("backlog", "1.1"), ("backlog", "1.3")]


async def test_the_broker_holds_no_more_than_a_window(event_log: EventLog, dispatcher: MakeDispatcher, store_headers) -> None:
    for n in range(5):
        await store_headers(event_log, f"1.{n}", 1)
    one, sent = dispatcher(dispatch_window=2)
    await one.round()
    assert [uid for _, uid in sent.take()] == ["1.0", "1.1"]
    await finish(event_log, "1.1")
    await one.round()
    assert [uid for _, uid in sent.take()] == ["1.2"]


async def test_a_lost_message_is_sent_again_unless_somebody_works_on_it(
    event_log: EventLog, dispatcher: MakeDispatcher, store_headers, events_of
) -> None:
    await store_headers(event_log, "1.1", 1)
    one, sent = dispatcher(resend_after_s=0.001)
    await one.round()
    assert len(sent.take()) == 1
    (request,) = await events_of(event_log, "1.1")
    task = Task(series_uid="1.1", series_digest=request.event.series_digest, segmenter="baseline")
    async with lease(event_log, task.lease_key) as had:
        assert had
        assert await held(event_log.pool, [task.lease_key, "nobody's"]) == {task.lease_key}
        for _ in range(3):
            await one.round()
        assert sent.take() == []
    await asyncio.wait_for(_until_sent(one, sent), timeout=10)
    await finish(event_log, "1.1")
    await one.round()
    sent.take()
    await one.round()
    assert sent.take() == []


async def _until_sent(one: Dispatcher, sent: Sent) -> None:
    while not sent.take():
        await one.round()


async def test_a_new_dispatcher_sends_everything_that_stands(event_log: EventLog, dispatcher: MakeDispatcher, store_headers) -> None:
    for n in range(3):
        await store_headers(event_log, f"1.{n}", 1)
    first, sent = dispatcher()
    await first.round()
    assert len(sent.take()) == 3
    second, sent = dispatcher()
    await second.round()
    assert len(sent.take()) == 3


async def test_only_one_dispatches(event_log: EventLog, dispatcher: MakeDispatcher, store_headers, wait_for_events, events_of) -> None:
    made = [dispatcher() for _ in range(3)]
    tasks = [asyncio.create_task(one.run()) for one, _ in made]
    for n in range(5):
        await store_headers(event_log, f"1.{n}", 1)
    for n in range(5):
        await wait_for_events(event_log, f"1.{n}", 1, IndexingRequested)
    assert await held(event_log.pool, [LEASE_KEY]) == {LEASE_KEY}
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for n in range(5):
        assert len(await events_of(event_log, f"1.{n}")) == 1


async def test_the_projection_rebuilds_to_the_same_bytes_whatever_the_batches(
    event_log: EventLog, dispatcher: MakeDispatcher, store_headers
) -> None:
    one, _ = dispatcher()
    for n in range(4):
        await store_headers(event_log, f"1.{n}", 1, study_date=TODAY if n % 2 else "20200101")
        await one.round()
        await finish(event_log, f"1.{n}")
    await store_headers(event_log, "1.0", 2)
    await one.round()
    async with event_log.pool.acquire() as connection:
        projection = DispatchProjection()
        before = await table_digests(connection, projection)
        for batch in (1, 3, 500):
            await Runner(event_log, [projection], batch=batch).rebuild("dispatch")
            assert await table_digests(connection, projection) == before
    (request,) = await standing(event_log.pool, 10)
    assert request.series_uid == "1.0"
    assert await unrequested(event_log.pool, "baseline", 0, 10) == []
