"""The dispatcher: follows the log, requests an index of every series that became quiet, and sends a message for every request that
stands.

There is one at a time, by a lease. It remembers nothing that matters: a new one finds in the dispatch projection what is to be done,
and sends it again; workers drop what is done or in work elsewhere.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from dramatiq import Actor

from eventlog.appender import CONNECTION_ERRORS
from eventlog.errors import LogUnavailable, VersionConflict
from eventlog.leases import lease
from eventlog.log import EventLog
from projections.dispatch.projection import DispatchProjection
from projections.dispatch.standing import StandingRequest, counts, standing, unrequested
from projections.errors import CheckpointMoved
from projections.runner import Runner
from workers import metrics
from workers.broker import Priority
from workers.indexing import Task
from workers.lease_holders import held
from workers.requesting import request_quiet
from workers.settings import WorkerSettings

LEASE_KEY = "dispatcher"
STAND_BY_S = 1.0
ROUND_AT_LEAST_EVERY_S = 5.0
ROUND_AT_MOST_EVERY_S = 0.05
BROKER_RETRY_S = 2.0
LONGEST_RESEND_S = 900.0
"""A message that still waits in the broker is sent twice then: the second is dropped at the cost of reading a stream."""
PAGE = 500

_logger = logging.getLogger(__name__)


@dataclass
class _Sent:
    at: float
    times: int


class Dispatcher:
    """Lives on the log's event loop. ``actors`` are those of workers.actors, declared on the broker."""

    def __init__(self, log: EventLog, settings: WorkerSettings, actors: Mapping[Priority, Actor[..., None]]) -> None:
        self._log = log
        self._settings = settings
        self._actors = actors
        self._runner = Runner(log, [DispatchProjection()], batch=100)
        self._sender = ThreadPoolExecutor(1, "dispatcher")  # one thread, so one connection to the broker
        self._sent: dict[Task, _Sent] = {}
        self._requested_up_to = 0
        self._counted_at = 0.0

    async def run(self) -> None:
        """Until cancelled: leads when nobody else does, and outlives a lost database and a lost broker."""
        try:
            while True:
                try:
                    async with lease(self._log, LEASE_KEY) as leads:
                        metrics.LEADS.set(int(leads))
                        if leads:
                            await self._lead()
                except (*CONNECTION_ERRORS, LogUnavailable, CheckpointMoved) as error:
                    _logger.warning("the dispatcher stopped (%s); starting again", type(error).__name__)
                metrics.LEADS.set(0)
                await asyncio.sleep(STAND_BY_S)
        finally:
            self._sender.shutdown(wait=False, cancel_futures=True)

    async def _lead(self) -> None:
        self._sent.clear()
        self._requested_up_to = 0
        while True:
            heard = self._log.news()
            due_s = await self.round()
            await asyncio.sleep(ROUND_AT_MOST_EVERY_S)
            await self._log.wait_for_news(heard, timeout_s=min(due_s, ROUND_AT_LEAST_EVERY_S))

    async def round(self) -> float:
        """Applies the news, requests what became quiet, sends what stands. Returns in how many seconds something is due next."""
        await self._runner.catch_up()
        quiet_in_s = await self._request_quiet()
        await self._runner.catch_up()
        send_in_s = await self._send_standing()
        await self._count()
        return min(quiet_in_s, send_in_s)

    async def _request_quiet(self) -> float:
        """Series that became quiet; the positions below the first that is not quiet yet need no second look."""
        while True:
            now = datetime.now(UTC)
            found = await unrequested(self._log.pool, self._settings.segmenter, self._requested_up_to, PAGE)
            waiting: list[timedelta] = []
            for one in found:
                remaining = one.last_stored_at + timedelta(seconds=self._settings.quiet_seconds) - now
                if remaining > timedelta(0):
                    waiting.append(remaining)
                    continue
                try:
                    if await request_quiet(self._log, one.series_uid, self._settings.segmenter) is not None:
                        metrics.REQUESTED.labels(self._settings.segmenter).inc()
                except VersionConflict:
                    waiting.append(timedelta(0))
                if not waiting:
                    self._requested_up_to = one.last_stored_position
            if waiting or len(found) < PAGE:
                return min(waiting).total_seconds() if waiting else ROUND_AT_LEAST_EVERY_S

    async def _send_standing(self) -> float:
        requests = await standing(self._log.pool, self._settings.dispatch_window)
        tasks = {_task(request): request for request in requests}
        for gone in self._sent.keys() - tasks.keys():
            del self._sent[gone]
        now = time.monotonic()
        due = [task for task in tasks if task not in self._sent or now >= self._again_at(self._sent[task])]
        if due:
            in_work = await held(self._log.pool, [task.lease_key for task in due])
            for task in due:
                if task.lease_key in in_work:
                    self._sent[task] = _Sent(now, 1)
                elif not await self._send(task, tasks[task]):
                    return BROKER_RETRY_S
        again_at = [self._again_at(sent) for sent in self._sent.values()]
        return max(0.0, min(again_at) - now) if again_at else ROUND_AT_LEAST_EVERY_S

    def _again_at(self, sent: _Sent) -> float:
        return sent.at + min(self._settings.resend_after_s * 2.0 ** (sent.times - 1), LONGEST_RESEND_S)

    async def _send(self, task: Task, request: StandingRequest) -> bool:
        actor = self._actors[Priority(request.priority)]
        message = {"series_uid": task.series_uid, "series_digest": task.series_digest, "segmenter": task.segmenter}
        try:
            await asyncio.get_running_loop().run_in_executor(self._sender, lambda: actor.send(**message))
        except Exception as error:  # pika, redis and dramatiq have an error each for a broker that is away
            _logger.warning("the broker does not take messages (%s); the requests stand", type(error).__name__)
            return False
        times = self._sent[task].times + 1 if task in self._sent else 1
        self._sent[task] = _Sent(time.monotonic(), times)
        metrics.SENT.labels(actor.queue_name.rpartition(".")[2], str(times > 1).lower()).inc()
        return True

    async def _count(self) -> None:
        """The gauges, at most every few seconds: they look at every request."""
        if time.monotonic() - self._counted_at < ROUND_AT_LEAST_EVERY_S:
            return
        self._counted_at = time.monotonic()
        metrics.STANDING.clear()
        metrics.OLDEST_S.clear()
        for count in await counts(self._log.pool, "requested"):
            labels = (count.segmenter, Priority(count.priority).name.lower())
            metrics.STANDING.labels(*labels).set(count.requests)
            metrics.OLDEST_S.labels(*labels).set((datetime.now(UTC) - count.oldest).total_seconds())


def _task(request: StandingRequest) -> Task:
    return Task(series_uid=request.series_uid, series_digest=request.series_digest, segmenter=request.segmenter)
