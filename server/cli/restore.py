"""`anamnesis restore`: a backup into an empty database and an empty archive."""

from __future__ import annotations

import asyncio
import logging
from typing import Annotated

import msgspec
import typer
from rich.filesize import decimal

from server.cli.backup import WHERE
from server.cli.progress import showing_progress
from server.settings import ServerSettings


def restore(
    dest: Annotated[str, typer.Argument(help=WHERE, metavar="DEST")],
    position: Annotated[int | None, typer.Option(min=0, help="The newest backup at or before this position; without it the newest of all.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Restore a backup into an empty database and an empty archive, checking every event and every file. Killed, it can be run again.

    It needs the key-encryption key, in the file keys/kek of the data folder or as ANAMNESIS_KEY_ENCRYPTION_KEY.

    Example:

        ANAMNESIS_DATA_DIR=/srv/anamnesis anamnesis restore /mnt/backup/anamnesis
    """
    from server.backup.restoring import restore as restore_backup

    logging.getLogger("alembic").setLevel(logging.CRITICAL)
    with showing_progress(as_json) as progress:
        restored = asyncio.run(restore_backup(ServerSettings(), dest, position=position, progress=progress))
    if as_json:
        typer.echo(msgspec.json.encode(restored).decode("utf-8"))
        return
    typer.echo(f"Restored position {restored.position} of site {restored.site}: {restored.objects} objects, {restored.files} other files, {decimal(restored.bytes)}.")
    agrees = f"agree with the signed checkpoint at {restored.checkpoint_size}" if restored.checkpoint_size is not None else "have no checkpoint yet"
    typer.echo(f"Every event has its digest, and the events {agrees}.")
    if restored.missing:
        typer.echo(f"{len(restored.missing)} instances were missing when the backup was made: {', '.join(restored.missing)}")
