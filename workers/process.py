"""One worker process: the log, the dispatcher, dramatiq's threads and the segmenter's child, opened in order and closed in the
opposite one; and several such processes under one that keeps them running.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

from dramatiq import Broker, Worker
from prometheus_client import start_http_server

from archive.store import Store
from eventlog.appender import CONNECTION_ERRORS
from eventlog.database import database_url
from eventlog.errors import EmbeddedDatabaseFailed
from eventlog.log import EventLog
from workers import metrics
from workers.actors import declare_indexing
from workers.broker import open_broker
from workers.dispatcher import Dispatcher
from workers.errors import BrokerNeeded, WorkerError
from workers.indexing import Indexer, sweep_fetched
from workers.segmentation import Segmentation
from workers.settings import WorkerSettings

IDLE_WAKE_UP_MS = 500
WATCH_DATABASE_S = 1.0
WATCH_PARENT_S = 1.0
RESTART_S = 1.0

_logger = logging.getLogger(__name__)


@asynccontextmanager
async def open_worker(settings: WorkerSettings, *, dispatch: bool = True) -> AsyncIterator[None]:
    """Dispatches and works off messages while the block runs. Raises BrokerNeeded and what opening the log raises."""
    if settings.broker_url is None and not dispatch:
        raise BrokerNeeded("a worker without dispatcher needs a broker that others fill: set ANAMNESIS_BROKER_URL")
    await asyncio.to_thread(sweep_fetched, settings)
    log = await EventLog.open(settings)
    tasks: list[asyncio.Task[None]] = []
    segmentation = Segmentation()
    broker = open_broker(settings)
    try:
        indexer = Indexer(log, Store(settings.store_url), segmentation, settings)
        actors = declare_indexing(broker, settings, indexer, asyncio.get_running_loop())
        worker = _worker(broker, settings.worker_threads)
        worker.start()
        try:
            if dispatch:
                tasks.append(asyncio.create_task(Dispatcher(log, settings, actors).run()))
            if settings.database_url is None:
                tasks.append(asyncio.create_task(_keep_database_up(log, settings)))
            tasks.append(asyncio.create_task(_look_at_segmenter(segmentation, settings.segmenter)))
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await _stop(worker, segmentation, settings.stop_grace_s)
    finally:
        await asyncio.to_thread(segmentation.close)
        await asyncio.to_thread(broker.close)
        await log.close()


async def run(settings: WorkerSettings, *, dispatch: bool = True, parent: int | None = None) -> None:
    """Until SIGTERM or SIGINT, or until the process ``parent`` that started this one is gone."""
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    if settings.worker_metrics_port is not None:
        start_http_server(settings.worker_metrics_port, addr="127.0.0.1")
    async with open_worker(settings, dispatch=dispatch):
        _logger.info("the worker runs with segmenter %s", settings.segmenter)
        while not stopped.is_set() and parent in (None, os.getppid()):
            with suppress(TimeoutError):
                async with asyncio.timeout(WATCH_PARENT_S):
                    await stopped.wait()
        _logger.info("the worker stops")


def run_several(settings: WorkerSettings, processes: int, *, dispatch: bool = True) -> None:
    """Keeps ``processes`` workers running until SIGTERM or SIGINT; one of them dispatches. Raises BrokerNeeded."""
    if settings.broker_url is None:
        raise BrokerNeeded("several processes need a broker between them: set ANAMNESIS_BROKER_URL")
    with _stop_signals() as stopped:
        children = [_start_one(settings, number, dispatch) for number in range(processes)]
        while not stopped():
            time.sleep(RESTART_S)
            for number, child in enumerate(children):
                if child.poll() is not None and not stopped():
                    _logger.warning("worker process %d ended (%s); starting another", number, child.returncode)
                    children[number] = _start_one(settings, number, dispatch)
        for child in children:
            child.terminate()
        for child in children:
            child.wait()


def _worker(broker: Broker, threads: int) -> Worker:
    worker = Worker(broker, worker_threads=threads, worker_timeout=IDLE_WAKE_UP_MS)
    worker.queue_prefetch = threads  # no more than are in hand: the rest is for others, and for what is more urgent
    return worker


async def _stop(worker: Worker, segmentation: Segmentation, grace_s: float) -> None:
    """Takes no more messages, waits for the series in hand, then ends them: their requests stand."""
    stopping = asyncio.create_task(asyncio.to_thread(worker.stop))
    await asyncio.wait([stopping], timeout=grace_s)
    if not stopping.done():
        await asyncio.to_thread(segmentation.close)
    await stopping


async def _look_at_segmenter(segmentation: Segmentation, segmenter: str) -> None:
    """Says at the start whether the segmenter can run, and loads its libraries before the first series."""
    try:
        version = await asyncio.to_thread(segmentation.version, segmenter)
        metrics.READY.labels(segmenter).set(1)
        _logger.info("segmenter %s %s is ready", segmenter, version)
    except WorkerError as error:
        metrics.READY.labels(segmenter).set(0)
        _logger.warning("segmenter %s: %s", segmenter, error)


async def _keep_database_up(log: EventLog, settings: WorkerSettings) -> None:
    """The embedded database is ours to restart when something killed it."""
    while True:
        await asyncio.sleep(WATCH_DATABASE_S)
        try:
            await log.pool.fetchval("SELECT 1")
        except CONNECTION_ERRORS:
            try:
                await database_url(settings)
            except EmbeddedDatabaseFailed as error:
                _logger.error("%s", error)


def _start_one(settings: WorkerSettings, number: int, dispatch: bool) -> subprocess.Popen[bytes]:
    environment = dict(os.environ)
    if settings.worker_metrics_port:
        environment["ANAMNESIS_WORKER_METRICS_PORT"] = str(settings.worker_metrics_port + number)
    command = [sys.executable, "-m", "workers.cli", "run", "--parent", str(os.getpid())] + ([] if dispatch else ["--no-dispatcher"])
    return subprocess.Popen(command, env=environment)


@contextmanager
def _stop_signals() -> Iterator[Callable[[], bool]]:
    received: list[int] = []
    previous = {n: signal.signal(n, lambda number, _: received.append(number)) for n in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
