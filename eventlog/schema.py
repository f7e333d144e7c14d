"""The log's tables: made and changed by Alembic, as the role that owns them; the server's role gets only what it needs."""

from __future__ import annotations

import sys
from pathlib import Path

from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from alembic import command
from eventlog.database import migration_url, sqlalchemy_url
from eventlog.errors import HalfRestored, SchemaOutdated, ServerTooOld
from eventlog.settings import LogSettings

SERVER_ROLE = "anamnesis_server"
OLDEST_SERVER = 15_00_00
HALF_RESTORED = "half_restored"
"""The table that is there from the first step of a restore to its last."""
_MIGRATION_LOCK = 0x616E616D  # two processes that start at once migrate one after the other

_GRANTS = f"""
DO $$
BEGIN
    IF EXISTS (SELECT FROM pg_roles WHERE rolname = '{SERVER_ROLE}') THEN
        EXECUTE format('GRANT CREATE, CONNECT, TEMPORARY ON DATABASE %I TO {SERVER_ROLE}', current_database());
        GRANT USAGE ON SCHEMA public TO {SERVER_ROLE};
        GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO {SERVER_ROLE};
        REVOKE UPDATE, DELETE ON event FROM {SERVER_ROLE};
        REVOKE INSERT, DELETE ON log_head FROM {SERVER_ROLE};
        REVOKE INSERT, UPDATE, DELETE ON alembic_version FROM {SERVER_ROLE};
    END IF;
END $$;
"""


def scripts_folder() -> Path:
    """Where the migrations are: beside the packages in a checkout, under share/ in an installation."""
    beside = Path(__file__).parent.parent / "alembic"
    return beside if (beside / "env.py").exists() else Path(sys.prefix) / "share" / "anamnesis" / "alembic"


def newest_revision() -> str:
    head = ScriptDirectory.from_config(_config()).get_current_head()
    assert head is not None
    return head


async def migrate(settings: LogSettings, revision: str = "head") -> None:
    """Brings the database to the newest schema (or to that of a backup); nothing to do is fine.

    Raises ServerTooOld, LogUnavailable, HalfRestored.
    """
    engine = create_async_engine(sqlalchemy_url(await migration_url(settings)), poolclass=NullPool)
    try:
        async with engine.connect() as connection:
            await connection.run_sync(_upgrade, revision)
    finally:
        await engine.dispose()


def _upgrade(connection: Connection, revision: str) -> None:
    version = connection.execute(text("SELECT current_setting('server_version_num')::int")).scalar_one()
    if version < OLDEST_SERVER:
        raise ServerTooOld(f"PostgreSQL {version // 10000} is too old: Anamnesis needs {OLDEST_SERVER // 10000} or later")
    refuse_half_restored(connection.execute(text(f"SELECT to_regclass('public.{HALF_RESTORED}') IS NOT NULL")).scalar_one())
    connection.execute(text(f"SELECT pg_advisory_lock({_MIGRATION_LOCK})"))
    connection.commit()
    try:
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
        if revision == "head":
            connection.execute(text(_GRANTS))
        connection.commit()
    finally:
        connection.rollback()
        connection.execute(text(f"SELECT pg_advisory_unlock({_MIGRATION_LOCK})"))
        connection.commit()


def refuse_half_restored(is_half_restored: bool) -> None:
    """Raises HalfRestored."""
    if is_half_restored:
        raise HalfRestored("a restore into this database has not ended: run the same `anamnesis restore` again, or give it an empty one")


def check_revision(found: str | None) -> None:
    """Raises SchemaOutdated unless the database is at the revision that this code needs."""
    if found != newest_revision():
        raise SchemaOutdated(f"the database is at {found or 'no'} schema revision, not at {newest_revision()}: run `anamnesis db upgrade`")


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(scripts_folder()))
    config.set_main_option("path_separator", "os")
    return config
