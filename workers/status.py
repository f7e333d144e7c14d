"""How the workers stand: who dispatches, which segmenters can run here, and the requests by outcome."""

from __future__ import annotations

import asyncio
from datetime import datetime

import msgspec

from eventlog.log import EventLog
from projections.dispatch.projection import DispatchProjection
from projections.dispatch.standing import counts
from projections.runner import Runner
from workers.broker import Priority
from workers.dispatcher import LEASE_KEY
from workers.errors import WorkerError
from workers.lease_holders import held
from workers.segmentation import Segmentation
from workers.segmenters.protocol import names
from workers.settings import WorkerSettings


class SegmenterStatus(msgspec.Struct, frozen=True, kw_only=True):
    """``problem`` is None when the segmenter can run on this machine."""

    name: str
    version: str
    problem: str | None


class RequestCount(msgspec.Struct, frozen=True, kw_only=True):
    segmenter: str
    priority: str
    outcome: str
    requests: int
    oldest: datetime


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """``broker`` is in-process, or the kind of server: never its URL, which may hold a password."""

    broker: str
    dispatches: bool
    segmenters: list[SegmenterStatus]
    counts: list[RequestCount]


async def status_of(log: EventLog, settings: WorkerSettings) -> Status:
    """As the dispatch projection has it; a dispatcher that runs keeps it up with the log."""
    await Runner(log, [DispatchProjection()]).prepare()
    found = await counts(log.pool)
    url = settings.broker_url
    return Status(
        broker="in-process" if url is None else url.get_secret_value().partition("://")[0],
        dispatches=bool(await held(log.pool, [LEASE_KEY])),
        segmenters=await asyncio.to_thread(_segmenters),
        counts=[
            RequestCount(
                segmenter=c.segmenter,
                priority=Priority(c.priority).name.lower(),
                outcome=c.outcome,
                requests=c.requests,
                oldest=c.oldest,
            )
            for c in found
        ],
    )


def _segmenters() -> list[SegmenterStatus]:
    segmentation = Segmentation()
    try:
        return [_segmenter(segmentation, name) for name in names()]
    finally:
        segmentation.close()


def _segmenter(segmentation: Segmentation, name: str) -> SegmenterStatus:
    try:
        return SegmenterStatus(name=name, version=segmentation.version(name), problem=None)
    except WorkerError as error:
        return SegmenterStatus(name=name, version="", problem=str(error))
