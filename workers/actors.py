"""The dramatiq actors: thin bridges from a worker thread to the event loop on which the log lives."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import wait

from dramatiq import Actor, Broker
from dramatiq.errors import Retry
from dramatiq.middleware import CurrentMessage

from workers.broker import Priority, queue_name
from workers.indexing import Indexer, Outcome, Task
from workers.settings import WorkerSettings

FAILURES = "failures"
"""Message option: attempts that failed. dramatiq's own count of retries holds interruptions too, which are nobody's fault."""
WAKE_UP_S = 1.0
"""A thread that waits in C cannot be interrupted by a time limit: it looks up this often."""
OVERHEAD_S = 300.0
"""Fetching and recording, beyond the time limits of the segmentations in hand."""


def declare_indexing(
    broker: Broker, settings: WorkerSettings, indexer: Indexer | None, loop: asyncio.AbstractEventLoop | None
) -> Mapping[Priority, Actor[..., None]]:
    """One actor a priority, on a queue of its own. A process that only sends messages gives no indexer."""

    def index_series(series_uid: str, series_digest: str, segmenter: str) -> None:
        assert indexer is not None and loop is not None, "this process sends messages and works none off"
        message = CurrentMessage.get_current_message()
        assert message is not None
        failures = int(message.options.get(FAILURES, 0))
        task = Task(series_uid=series_uid, series_digest=series_digest, segmenter=segmenter)
        working = asyncio.run_coroutine_threadsafe(indexer.work_off(task, failures + 1), loop)
        try:
            while not wait([working], timeout=WAKE_UP_S).done:
                pass
        except BaseException:
            working.cancel()
            raise
        worked = working.result()
        if worked.outcome == Outcome.ATTEMPT_FAILED:
            message.options[FAILURES] = failures + 1
        if worked.retry_after_s is not None:
            raise Retry(worked.outcome.value, delay=round(worked.retry_after_s * 1000))

    return {
        priority: Actor(
            index_series,
            broker=broker,
            actor_name=f"index_{priority.name.lower()}",
            queue_name=queue_name(settings, "index", priority),
            priority=int(priority),
            options={
                "time_limit": round((settings.time_limit_s * settings.worker_threads + OVERHEAD_S) * 1000),
                "max_retries": None,
                "min_backoff": round(settings.min_backoff_s * 1000),
                "max_backoff": round(settings.max_backoff_s * 1000),
            },
        )
        for priority in Priority
    }
