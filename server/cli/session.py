"""An open log for the length of one command."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from eventlog.log import EventLog
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
