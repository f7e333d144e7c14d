"""An open log for the length of one command."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from eventlog.log import EventLog
from projections.ledger.projection import LedgerProjection
from projections.runner import Runner
from server.settings import ServerSettings

T = TypeVar("T")


def with_log(work: Callable[[EventLog], Awaitable[T]]) -> T:
    """Runs ``work`` on the log that the settings name."""

    async def run() -> T:
        log = await EventLog.open(ServerSettings())
        try:
            return await work(log)
        finally:
            await log.close()

    return asyncio.run(run())


def with_ledger(work: Callable[[EventLog], Awaitable[T]]) -> T:
    """The same with the ledger up to date, also where no server runs that keeps it so."""

    async def caught_up(log: EventLog) -> T:
        await Runner(log, [LedgerProjection()]).catch_up_unless_led()
        return await work(log)

    return with_log(caught_up)
