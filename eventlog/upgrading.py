"""Alembic's part of the schema: what `migrate` does, by a connection of SQLAlchemy."""

from __future__ import annotations

from alembic.config import Config
from sqlalchemy import Connection, make_url, text
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from alembic import command
from eventlog.errors import ServerTooOld
from eventlog.schema import HALF_RESTORED, SERVER_ROLE, refuse_half_restored, scripts_folder

OLDEST_SERVER = 15_00_00
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


async def upgrade(url: str, revision: str) -> None:
    """Raises ServerTooOld, HalfRestored."""
    engine = create_async_engine(make_url(url).set(drivername="postgresql+asyncpg"), poolclass=NullPool)
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


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(scripts_folder()))
    config.set_main_option("path_separator", "os")
    return config
