"""A log on a database of its own, for a test that needs several."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from conftest import drop_database, fresh_database
from pydantic import SecretStr

from eventlog.log import EventLog
from eventlog.schema import migrate
from eventlog.settings import LogSettings
from eventlog.vault import make_key_encryption_key


@asynccontextmanager
async def a_log(server: str, folder: Path) -> AsyncIterator[EventLog]:
    url = await fresh_database(server)
    settings = LogSettings(data_dir=folder / "data", database_url=SecretStr(url))
    make_key_encryption_key(settings)
    await migrate(settings)
    log = await EventLog.open(settings)
    try:
        yield log
    finally:
        await log.close()
        await drop_database(server, url)
