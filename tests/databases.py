"""Databases of tests: each test that needs one has its own, most of them as a copy of one that is already made."""

from __future__ import annotations

import tempfile
import uuid
from enum import Enum
from pathlib import Path

import asyncpg
from pydantic import SecretStr

from eventlog.log import EventLog
from eventlog.schema import SERVER_ROLE, migrate
from eventlog.settings import LogSettings
from eventlog.vault import make_key_encryption_key
from projections.catalogue import projections
from projections.runner import Runner


class Ready(Enum):
    """What a new database may already have in it. Whoever opens it makes what is not there."""

    EMPTY = "empty"
    MIGRATED = "migrated"
    SERVED = "served"
    """As a server leaves it that was opened and never used: with the tables of its read models."""


_templates: dict[str, dict[Ready, str]] = {}
"""By server: names of databases to copy."""


async def keep_templates(server: str) -> None:
    """Databases on this server, which is of this process alone and goes with it, are copied where that is quicker.

    It need not survive the machine: what it writes is not waited for.
    """
    connection = await asyncpg.connect(server)
    try:
        for setting in ("fsync", "full_page_writes", "synchronous_commit"):
            await connection.execute(f"ALTER SYSTEM SET {setting} = off")
        await connection.execute("SELECT pg_reload_conf()")
    finally:
        await connection.close()
    _templates[server] = {}


async def fresh_database(server: str, ready: Ready = Ready.EMPTY) -> str:
    """A database of its own on this server, without events; gives its URL. Only where templates are kept is it ever more than empty."""
    if server not in _templates or ready is Ready.EMPTY:
        return await _create(server)
    if ready not in _templates[server]:
        _templates[server][ready] = await _template(server, ready)
    url = await _create(server, f'TEMPLATE "{_templates[server][ready]}" STRATEGY file_copy')
    # What is granted on a database is the one thing of it that is not copied.
    await _execute(url, f'GRANT CREATE, CONNECT, TEMPORARY ON DATABASE "{_name(url)}" TO {SERVER_ROLE}')
    return url


async def drop_database(server: str, url: str) -> None:
    await _execute(server, f'DROP DATABASE IF EXISTS "{_name(url)}" WITH (FORCE)')


async def _template(server: str, ready: Ready) -> str:
    """The name of a database that is so far; nobody is connected to it, as copying it needs."""
    url = await _create(server)
    with tempfile.TemporaryDirectory(prefix="anamnesis-test-") as folder:
        settings = LogSettings(data_dir=Path(folder), database_url=SecretStr(url))
        make_key_encryption_key(settings)
        await migrate(settings)
        if ready is Ready.SERVED:
            log = await EventLog.open(settings)
            await Runner(log, projections()).prepare()
            await log.close()
            await _execute(url, "DELETE FROM site_secret")  # each copy makes its own, under a key of its own
    return _name(url)


async def _create(server: str, how: str = "") -> str:
    name = f"anamnesis_test_{uuid.uuid4().hex[:12]}"
    await _execute(server, f'CREATE DATABASE "{name}" {how}')
    head, _, query = server.partition("?")
    return f"{head.rsplit('/', 1)[0]}/{name}" + (f"?{query}" if query else "")


async def _execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


def _name(url: str) -> str:
    return url.partition("?")[0].rsplit("/", 1)[1]
