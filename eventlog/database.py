"""Which database the log lives in, as a URL: the one that is set, or the embedded one (started when it is asked for)."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from eventlog.embedded import EmbeddedPostgres
from eventlog.settings import LogSettings

DATABASE = "anamnesis"


async def database_url(settings: LogSettings) -> str:
    """postgresql://… of the database that the server uses."""
    if settings.database_url is not None:
        return plain_url(settings.database_url.get_secret_value())
    return await asyncio.to_thread(EmbeddedPostgres(settings.data_dir / "postgresql").url, DATABASE)


async def migration_url(settings: LogSettings) -> str:
    """The same database as the role that owns its tables."""
    if settings.migration_url is not None:
        return plain_url(settings.migration_url.get_secret_value())
    return await database_url(settings)


def plain_url(url: str) -> str:
    """Without SQLAlchemy's driver suffix, which asyncpg does not know."""
    scheme, *rest = urlsplit(url)
    return urlunsplit((scheme.split("+")[0], *rest))


async def server_settings(url: str, role: str) -> dict[str, str]:
    """Session settings of the server's connections: its restricted role, where the database has it and lets us take it."""
    connection = await asyncpg.connect(url)
    try:
        may = await connection.fetchval(
            "SELECT bool_or(pg_has_role(oid, 'MEMBER')) FROM pg_roles WHERE rolname = $1", role
        )
    finally:
        await connection.close()
    settings: dict[str, Any] = {"application_name": "anamnesis", "jit": "off"}
    if may:
        settings["role"] = role
    return settings
