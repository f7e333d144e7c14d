"""`anamnesis init`: the data folder, its key-encryption key, and the database's schema."""

from __future__ import annotations

import asyncio

import typer

from eventlog.database import database_url
from eventlog.embedded import EmbeddedPostgres
from eventlog.schema import migrate
from eventlog.vault import load_key_encryption_key, make_key_encryption_key
from server.settings import ServerSettings


def init() -> None:
    """Make the data folder, the key-encryption key and the database; run again, it changes nothing.

    Example:

        ANAMNESIS_DATA_DIR=/srv/anamnesis anamnesis init
    """
    settings = ServerSettings()
    settings.data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    if settings.key_encryption_key is None and make_key_encryption_key(settings):
        typer.echo(f"Made the key-encryption key {settings.kek_file}. Keep a copy of it elsewhere: without it nobody's data can be read.")
    load_key_encryption_key(settings)
    asyncio.run(_migrate(settings))
    typer.echo(f"Ready in {settings.data_dir}. Next: anamnesis serve --with-worker")


async def _migrate(settings: ServerSettings) -> None:
    try:
        await migrate(settings)
        await database_url(settings)
    finally:
        if settings.database_url is None:
            await asyncio.to_thread(EmbeddedPostgres(settings.data_dir / "postgresql").leave)
