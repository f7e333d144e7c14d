"""Nothing is lost and nothing doubled: workers killed in the middle of a series, segmenters killed or too slow, brokers emptied."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Sequence

import asyncpg
import psutil
import pytest

from domain.principal import Principal, PrincipalKind
from domain.series import IndexingFailed, IndexingRequested, SeriesIndexed
from eventlog.log import EventLog
from workers.actors import declare_indexing
from workers.broker import open_broker
from workers.dispatcher import Dispatcher
from workers.indexing import Task
from workers.lease_holders import held
from workers.process import open_worker
from workers.requesting import ask
from workers.settings import WorkerSettings

pytestmark = pytest.mark.slow

READER = Principal(id="person:reader", kind=PrincipalKind.PERSON)
PATIENCE_S = 60.0


async def in_hand(log: EventLog, request: IndexingRequested) -> None:
    """Waits until a worker holds the lease of the request."""
    key = Task(series_uid=request.series_uid, series_digest=request.series_digest, segmenter=request.segmenter).lease_key
    deadline = time.monotonic() + PATIENCE_S
    while key not in await held(log.pool, [key]):
        assert time.monotonic() < deadline, "no worker took the request"
        await asyncio.sleep(0.002)


async def indexed_in(connection: asyncpg.Connection) -> None:
    """Waits for an index on a connection of the test's own: the log's were dropped."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        if await connection.fetchval("SELECT count(*) FROM event WHERE type = 'SeriesIndexed'"):
            return
        assert time.monotonic() < deadline, "no index"
        await asyncio.sleep(0.05)


async def gone(processes: list[psutil.Process]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in processes):
        assert time.monotonic() < deadline, "a segmenting process outlived its worker"
        await asyncio.sleep(0.05)


async def test_a_worker_killed_in_the_middle_of_a_series_leaves_exactly_one_index(
    event_log: EventLog, broker_settings: WorkerSettings, store_phantom, wait_for_events, events_of, worker_process
) -> None:
    uid = await store_phantom()
    with worker_process(broker_settings) as first:
        (request,) = await wait_for_events(event_log, uid, 1, IndexingRequested)
        await in_hand(event_log, request.event)
        children = psutil.Process(first.pid).children(recursive=True)
        first.kill()
        first.wait()
        await gone(children)
    with worker_process(broker_settings), worker_process(broker_settings):
        await wait_for_events(event_log, uid, 1, SeriesIndexed)
    async with open_worker(broker_settings):  # and whatever the broker delivers once more is dropped
        await ask(event_log, uid, "baseline", READER)
    assert [r.type for r in await events_of(event_log, uid)] == ["IndexingRequested", "SeriesIndexed"]


async def test_a_worker_told_to_stop_stops_soon_and_the_request_stands(
    event_log: EventLog, broker_settings: WorkerSettings, store_phantom, wait_for_events, events_of, worker_process
) -> None:
    uid = await store_phantom()
    with worker_process(broker_settings) as first:
        (request,) = await wait_for_events(event_log, uid, 1, IndexingRequested)
        await in_hand(event_log, request.event)
        first.send_signal(signal.SIGTERM)
        assert await asyncio.to_thread(first.wait, 20) == 0
    async with open_worker(broker_settings):
        await wait_for_events(event_log, uid, 1, SeriesIndexed)
    assert [r.type for r in await events_of(event_log, uid)] == ["IndexingRequested", "SeriesIndexed"]


async def test_a_broker_that_lost_its_messages_loses_no_request(
    event_log: EventLog, broker_settings: WorkerSettings, store_phantom, wait_for_events, events_of, remove_queues
) -> None:
    uid = await store_phantom()
    broker = open_broker(broker_settings)
    await Dispatcher(event_log, broker_settings, declare_indexing(broker, broker_settings, None, None)).round()
    broker.close()
    remove_queues(broker_settings)
    assert len(await events_of(event_log, uid, IndexingRequested)) == 1
    async with open_worker(broker_settings):
        await wait_for_events(event_log, uid, 1, SeriesIndexed)
    assert len(await events_of(event_log, uid)) == 2


async def test_a_database_that_drops_every_connection_costs_nothing(
    event_log: EventLog, worker_settings: WorkerSettings, store_phantom, wait_for_events, events_of
) -> None:
    uid = await store_phantom()
    assert worker_settings.database_url is not None
    connection = await asyncpg.connect(worker_settings.database_url.get_secret_value())
    async with open_worker(worker_settings.model_copy(update={"resend_after_s": 0.5})):
        (request,) = await wait_for_events(event_log, uid, 1, IndexingRequested)
        await in_hand(event_log, request.event)
        await connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        await indexed_in(connection)
    await connection.close()
    assert [r.type for r in await events_of(event_log, uid)] == ["IndexingRequested", "SeriesIndexed"]


async def test_a_segmenter_killed_under_a_series_is_an_attempt_and_not_the_end(
    event_log: EventLog, worker_settings: WorkerSettings, store_phantom, wait_for_events, events_of
) -> None:
    uid = await store_phantom()
    async with open_worker(worker_settings):
        (request,) = await wait_for_events(event_log, uid, 1, IndexingRequested)
        await in_hand(event_log, request.event)
        deadline = time.monotonic() + PATIENCE_S
        while not (children := _segmenting()):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.002)
        for child in children:
            child.kill()
        await wait_for_events(event_log, uid, 1, SeriesIndexed)
    assert [r.type for r in await events_of(event_log, uid)] == ["IndexingRequested", "SeriesIndexed"]


async def test_a_series_that_takes_too_long_fails_by_name(
    event_log: EventLog, worker_settings: WorkerSettings, store_phantom, wait_for_events, events_of
) -> None:
    uid = await store_phantom()
    async with open_worker(worker_settings.model_copy(update={"time_limit_s": 0.0001, "max_attempts": 2})):
        (failed,) = await wait_for_events(event_log, uid, 1, IndexingFailed)
    assert isinstance(failed.event, IndexingFailed)
    assert (failed.event.error, failed.event.attempts) == ("SegmentationTimedOut", 2)
    await gone(_segmenting())


async def test_several_processes_are_kept_running_and_stop_with_the_one_that_keeps_them(
    event_log: EventLog, broker_settings: WorkerSettings, store_phantom, wait_for_events, worker_process
) -> None:
    with worker_process(broker_settings, "--processes", "2") as keeper:
        if broker_settings.broker_url is None:
            assert await asyncio.to_thread(keeper.wait, 30) != 0, "an embedded broker cannot be shared"
            return
        first = await workers_of(keeper.pid, 2)
        first[0].kill()
        await workers_of(keeper.pid, 2, others_than=first[:1])
        uid = await store_phantom()
        await wait_for_events(event_log, uid, 1, SeriesIndexed)
        left = psutil.Process(keeper.pid).children(recursive=True)
        keeper.kill()
        await gone(left)


async def workers_of(pid: int, count: int, others_than: Sequence[psutil.Process] = ()) -> list[psutil.Process]:
    """Waits until this many worker processes run under a process."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        running = [p for p in psutil.Process(pid).children() if p not in others_than and p.status() != psutil.STATUS_ZOMBIE]
        if len(running) == count:
            return running
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)


def _segmenting() -> list[psutil.Process]:
    return [p for p in psutil.Process().children(recursive=True) if "workers.segmentation_child" in " ".join(p.cmdline())]
