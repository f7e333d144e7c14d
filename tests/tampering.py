"""What an administrator can do who means no good, and some events to do it to."""

from __future__ import annotations

import asyncpg

from domain.principal import device
from domain.study import StudyRegistered
from eventlog.envelope import NewEvent, StreamAppend
from eventlog.log import EventLog


async def append_studies(log: EventLog, count: int, first: int = 0) -> None:
    """One small event in a stream of its own for each of the numbers from ``first`` on."""
    appends = [
        StreamAppend(stream=f"study-1.2.{n}", events=[NewEvent(event=StudyRegistered(study_uid=f"1.2.{n}", subject_id="s"))])
        for n in range(first, first + count)
    ]
    await log.append(appends, principal=device("test"))


async def as_owner(log: EventLog, statement: str) -> None:
    """Runs the statement with the triggers off that refuse changes."""
    assert log.settings.database_url is not None
    connection = await asyncpg.connect(log.settings.database_url.get_secret_value())
    try:
        await connection.execute("SET session_replication_role = replica")
        await connection.execute(statement)
    finally:
        await connection.close()
