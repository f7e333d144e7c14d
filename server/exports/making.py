"""Makes the exports that were asked for, whichever server of the site took the request, and goes on with those that a killed one left."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import timedelta
from typing import Any, Generic, TypeVar

import asyncpg

from eventlog.appender import CONNECTION_ERRORS
from eventlog.errors import LogUnavailable
from eventlog.leases import lease
from eventlog.log import EventLog
from projections.errors import ProjectionBehind
from server.exports.jobs import FAILED, RUNNING, Job, Jobs

LOOK_S = 1.0
SWEEP_S = 30.0
RETRY_S = 1.0
DISK_FULL, UNWRITABLE, UNKNOWN = "disk-full", "unwritable", "exception"

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
PASSING = (
    LogUnavailable,
    ProjectionBehind,
    ConnectionError,
    *(one for one in CONNECTION_ERRORS if one is not OSError),
    asyncpg.InsufficientResourcesError,
    asyncpg.TransactionRollbackError,
)
"""What may be better when it is tried again."""
_logger = logging.getLogger(__name__)

A = TypeVar("A")
P = TypeVar("P")


class NotWanted(Exception):
    """Raised when an export was cancelled, or an erasure took it, while it was being made."""


class Named(Exception):
    """Raised when an export has failed for a reason that who asked can be told; ``problem`` is its code."""

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.problem = problem


class Maker(Generic[A, P]):
    """``make`` makes one to its end, and raises what stops it. ``asked_for`` is set when there is a new one; ``is_ready``: they can be made now."""

    def __init__(
        self,
        log: EventLog,
        jobs: Jobs[A, P],
        make: Callable[[Job[A, P], A], Awaitable[None]],
        *,
        asked_for: asyncio.Event,
        keep: timedelta,
        is_ready: Callable[[], Awaitable[bool]],
    ) -> None:
        self._log = log
        self._jobs = jobs
        self._make_one = make
        self._asked_for = asked_for
        self._keep = keep
        self._is_ready = is_ready
        self._tasks: dict[str, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Until cancelled."""
        swept = float("-inf")
        try:
            while True:
                self._asked_for.clear()
                try:
                    wanted = await self._jobs.running()
                    if wanted and await self._is_ready():
                        self._take_up(wanted)
                    if time.monotonic() - swept > SWEEP_S:
                        swept = time.monotonic()
                        await self._jobs.expire(self._keep)
                        await self._jobs.sweep()
                except (*PASSING, OSError, asyncpg.PostgresError) as error:
                    _logger.warning("exports cannot be looked for now (%s)", type(error).__name__)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_S):
                        await self._asked_for.wait()
        finally:
            for task in self._tasks.values():
                task.cancel()
            await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    def _take_up(self, export_ids: Sequence[str]) -> None:
        for export_id, task in list(self._tasks.items()):
            if task.done():
                del self._tasks[export_id]
                if (error := task.exception()) is not None:
                    _logger.warning("an export is interrupted (%s), and will go on", type(error).__name__)
        for export_id in export_ids:
            if export_id not in self._tasks:
                self._tasks[export_id] = asyncio.create_task(self._make(export_id))

    async def _make(self, export_id: str) -> None:
        with contextlib.suppress(*PASSING):  # taken up again, here or by another server
            async with lease(self._log, self._jobs.kind.lease_key(export_id)) as ours:
                if not ours:
                    return
                job = await self._jobs.find(export_id)
                if job is None or job.asked is None or job.state != RUNNING:  # it ended after it was found running
                    return
                try:
                    await self._make_one(job, job.asked)
                    return
                except NotWanted:
                    pass
                except asyncpg.QueryCanceledError as error:  # before those that may pass: it is no better when it is tried again
                    await self._fail(export_id, error)
                except PASSING as error:
                    _logger.warning("an export is interrupted (%s), and will go on", type(error).__name__)
                    await asyncio.sleep(RETRY_S)
                    return
                except Exception as error:
                    await self._fail(export_id, error)
                if not (self._jobs.kind.goes_on and await self._jobs.has_failed(export_id)):
                    await self._jobs.remove_files(export_id)

    async def _fail(self, export_id: str, error: Exception) -> None:
        await self._jobs.end(export_id, FAILED, _problem(error))


def _problem(error: Any) -> str:
    """The code of what failed; the server's log has the rest."""
    if isinstance(error, Named):
        _logger.error("an export has failed (%s)", error.problem)
        return error.problem
    if isinstance(error, asyncpg.QueryCanceledError):
        _logger.error("an export has failed: the database ended one of its statements")
        return UNKNOWN
    if isinstance(error, OSError):
        _logger.error("an export has failed: its files cannot be written (%s)", errno.errorcode.get(error.errno or 0))
        return DISK_FULL if error.errno in _FULL else UNWRITABLE
    _logger.error("an export has failed (%s)", type(error).__name__, exc_info=error)
    return UNKNOWN
