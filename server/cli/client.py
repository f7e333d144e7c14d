"""`anamnesis client`: register, list and revoke programs that authenticate by a key of their own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from eventlog.log import EventLog
from server.auth.clients import list_clients, register_client, revoke_client
from server.cli.session import with_log
from server.errors import SettingRefused
from server.fhir.access import check_usable

app = typer.Typer(help="Programs that get their tokens by a key of their own (SMART backend services).", no_args_is_help=True)


@app.command()
def register(
    name: Annotated[str, typer.Argument(help="What the program is, to find it again.")],
    scope: Annotated[list[str], typer.Option(help="The most that it may ask for; several times: system/*.rs, audit:read, ….")],
    jwks: Annotated[Path | None, typer.Option(help="File with its public keys, a JSON Web Key Set.", exists=True, dir_okay=False)] = None,
    jwks_uri: Annotated[str | None, typer.Option(help="Where it publishes them: an address that begins with https://.")] = None,
) -> None:
    """Register a program, and print its client id.

    Example:

        anamnesis client register warehouse --scope "system/*.rs" --jwks-uri https://warehouse.example/jwks.json
    """
    check_usable(scope)
    keys = jwks.read_text() if jwks is not None else None

    async def work(log: EventLog) -> str:
        return await register_client(log.pool, name=name, scopes=scope, jwks=keys, jwks_uri=jwks_uri)

    typer.echo(with_log(work))


@app.command("list")
def list_() -> None:
    """Show the clients, with what they may ask for.

    Example:

        anamnesis client list
    """
    table = Table("client id", "name", "scopes", "keys", "registered", "revoked")
    for row in with_log(lambda log: list_clients(log.pool)):
        revoked = f"{row.revoked_at:%Y-%m-%d %H:%M}" if row.revoked_at else ""
        table.add_row(row.client_id, row.name, " ".join(row.scopes), row.jwks_uri or "kept here", f"{row.made_at:%Y-%m-%d %H:%M}", revoked)
    Console().print(table)


@app.command()
def revoke(client_id: Annotated[str, typer.Argument(help="As `anamnesis client list` shows it.")]) -> None:
    """Revoke a client; it and its tokens stop working within 5 seconds.

    Example:

        anamnesis client revoke 9b1f0c6e2a8d4b3a9c570d2f6b7c8e91
    """
    if not with_log(lambda log: revoke_client(log.pool, client_id)):
        raise SettingRefused(f"there is no client {client_id} to revoke: see `anamnesis client list`")
    typer.echo("revoked")
