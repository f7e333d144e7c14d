"""`anamnesis keys`: the key-encryption key, which wraps every other key of this site."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from eventlog.log import EventLog
from eventlog.rotation import KeysStatus, Rotated, keys_status
from eventlog.rotation import rotate as rotate_keys
from server.cli.session import with_log
from server.settings import ServerSettings

app = typer.Typer(help="The key-encryption key, which wraps every other key of this site.", no_args_is_help=True)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def status(as_json: AsJson = False) -> None:
    """Show by its id which key-encryption key wraps now, where it comes from, and how many secrets are under which.

    Exit code 1 while a rotation is not finished.

    Examples:

        anamnesis keys status

        anamnesis keys status --json
    """
    settings = ServerSettings()

    async def work(log: EventLog) -> KeysStatus:
        async with log.pool.acquire() as connection:
            return await keys_status(settings, connection)

    found = with_log(work)
    if as_json:
        typer.echo(msgspec.json.encode(found))
    else:
        service = f", new ones by the key management service {found.kms}" if found.kms else ""
        typer.echo(f"{found.wraps} wraps. This machine has {', '.join(found.at_hand)} (from {found.source}{service}).")
        for kek_id, count in found.secrets.items():
            typer.echo(f"{count} secrets are under {kek_id}.")
    if found.rotation_is_unfinished:
        typer.echo("A rotation is not finished: run `anamnesis keys rotate`.", err=True)
        raise typer.Exit(1)


@app.command()
def rotate(as_json: AsJson = False) -> None:
    """Put a new key-encryption key in the old one's place, under running servers. Interrupted, it goes on when run again.

    With the key in a file, a new one is made, by the service that ANAMNESIS_KMS names where it is set. With
    ANAMNESIS_KEY_ENCRYPTION_KEY, set the new one there and the old one as ANAMNESIS_PREVIOUS_KEY_ENCRYPTION_KEY, for every
    process, and then run this. Backups made before need the old key: keep a copy of it for as long as you keep them.

    Examples:

        anamnesis keys rotate

        ANAMNESIS_KMS=vault anamnesis keys rotate --json
    """
    settings = ServerSettings()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task("Wrapping keys anew", total=None)

        async def work(log: EventLog) -> Rotated:
            connection = await log.connect()
            try:
                return await rotate_keys(settings, connection, lambda done, all_: progress.update(task, completed=done, total=all_))
            finally:
                await connection.close()

        rotated = with_log(work)
    if as_json:
        typer.echo(msgspec.json.encode(rotated))
        return
    typer.echo(f"{rotated.secrets} secrets are under the key {rotated.kek_id}.")
    if settings.key_encryption_key is None:
        typer.echo(f"Keep a copy of {settings.kek_file} elsewhere: of this database, the one that you have opens nothing from now on.")
    elif settings.kek_file.exists():
        typer.echo(f"{settings.kek_file} opens nothing of this database any more: remove it, unless backups need it.")
    typer.echo("Backups made before still need the old key.")
