"""`anamnesis keys`: the key-encryption key, which wraps every other key of this site."""

from __future__ import annotations

import typer
from rich.console import Console
from rich.progress import Progress

from eventlog.log import EventLog
from eventlog.rotation import Rotated
from eventlog.rotation import rotate as rotate_keys
from server.cli.session import with_log
from server.settings import ServerSettings

app = typer.Typer(help="The key-encryption key, which wraps every other key of this site.", no_args_is_help=True)


@app.callback()
def _group() -> None: ...


@app.command()
def rotate() -> None:
    """Put a new key-encryption key in the old one's place, under running servers. Interrupted, it goes on when run again.

    With the key in a file (keys/kek), a new one is made, by the service that ANAMNESIS_KMS names where it is set. With
    ANAMNESIS_KEY_ENCRYPTION_KEY, set the new one there and the old one as ANAMNESIS_PREVIOUS_KEY_ENCRYPTION_KEY, for every
    process, and then run this.

    Example:

        anamnesis keys rotate
    """
    settings = ServerSettings()
    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task("Wrapping keys anew", total=None)

        async def work(log: EventLog) -> Rotated:
            async with log.pool.acquire() as connection:
                return await rotate_keys(settings, connection, lambda done, all_: progress.update(task, completed=done, total=all_))

        rotated = with_log(work)
    typer.echo(f"{rotated.secrets} secrets are under the key {rotated.kek_id}.")
    if settings.key_encryption_key is None:
        typer.echo(f"Keep a copy of {settings.kek_file} elsewhere: the one that you have opens nothing from now on.")
