"""`anamnesis db`: the database's schema."""

from __future__ import annotations

import asyncio

import asyncpg
import typer

from eventlog.database import database_url
from eventlog.embedded import EmbeddedPostgres
from eventlog.schema import migrate, newest_revision
from server.settings import ServerSettings

app = typer.Typer(help="The database's schema.", no_args_is_help=True)


@app.command()
def upgrade() -> None:
    """Bring the database to the newest schema; nothing to do is fine.

    Example:

        ANAMNESIS_MIGRATION_URL=postgresql://owner@db/anamnesis anamnesis db upgrade
    """
    _run(lambda settings: migrate(settings))
    typer.echo(f"The database is at schema {newest_revision()}.")


@app.command()
def status() -> None:
    """Say at which schema the database is.

    Example:

        anamnesis db status
    """

    async def revision(settings: ServerSettings) -> str | None:
        connection = await asyncpg.connect(await database_url(settings))
        try:
            return str(await connection.fetchval("SELECT version_num FROM alembic_version"))
        except asyncpg.UndefinedTableError:
            return None
        finally:
            await connection.close()

    found = _run(revision)
    typer.echo(f"database: {found or 'empty'}; this version needs: {newest_revision()}")
    if found != newest_revision():
        raise typer.Exit(1)


def _run(work):  # type: ignore[no-untyped-def]
    settings = ServerSettings()

    async def run():  # type: ignore[no-untyped-def]
        try:
            return await work(settings)
        finally:
            if settings.database_url is None:
                await asyncio.to_thread(EmbeddedPostgres(settings.data_dir / "postgresql").leave)

    return asyncio.run(run())
