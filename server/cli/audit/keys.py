"""`anamnesis audit keys`: the keys that sign checkpoints."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer

from eventlog.checkpoint_keys import PublishedKey, published_keys
from eventlog.log import EventLog
from eventlog.sealer import rotate_key
from server.cli.session import with_log

app = typer.Typer(help="The keys that sign checkpoints.", no_args_is_help=True)


@app.command()
def show(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Print every verification key that ever signed, the newest first. Publish them where this site cannot change them.

    Example:

        anamnesis audit keys show
    """

    async def work(log: EventLog) -> list[PublishedKey]:
        return await published_keys(log.pool)

    keys = with_log(work)
    if as_json:
        typer.echo(msgspec.json.encode(keys))
        return
    for key in keys:  # no table: a key is copied whole, however narrow the screen
        until = key.retired_at.date().isoformat() if key.retired_at else "now"
        typer.echo(f"{key.purpose}, in use from {key.made_at.date()} to {until}\n{key.key}")


@app.command()
def rotate() -> None:
    """Make a new signing key. The next checkpoint is signed by both, so that the old one vouches for it; then the old one is destroyed.

    Example:

        anamnesis audit keys rotate
    """
    key = with_log(rotate_key)
    typer.echo(f"The new key is {key.text()}\nThe next checkpoint is signed by it and by the one before: publish it together with that.")
