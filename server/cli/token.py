"""`anamnesis token`: make, list and revoke bearer tokens."""

from __future__ import annotations

import json
import re
from datetime import timedelta
from typing import Annotated

import typer
from rich.console import Console
from rich.table import Table

from domain.principal import PrincipalKind
from eventlog.log import EventLog
from server.auth.scopes import SCOPES
from server.auth.tokens import create_token, list_tokens, revoke_token
from server.cli.session import with_log
from server.errors import SettingRefused
from server.fhir.access import check_usable

app = typer.Typer(help="Bearer tokens: who may do what, until when.", no_args_is_help=True)


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="What the token is for, to find it again (no person's name).")],
    scope: Annotated[
        list[str],
        typer.Option(help=f"May be given several times: {', '.join(SCOPES)}, or one of SMART: patient/*.rs, system/Observation.cruds?status=final."),
    ],
    expires: Annotated[str, typer.Option(help="How long it is good for: 30m, 12h, 90d.")] = "90d",
    kind: Annotated[PrincipalKind, typer.Option(help="Who acts with it.")] = PrincipalKind.PERSON,
    on_behalf_of: Annotated[str | None, typer.Option(help="Principal that it acts for.")] = None,
    patient: Annotated[str | None, typer.Option(help="Id of the Patient whom scopes that begin with patient/ are about.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Make a token. It is shown this once and kept as a hash.

    Examples:

        anamnesis token create viewer --scope dicom:read --scope fhir:read --expires 30d

        anamnesis token create app --scope "patient/*.rs" --patient 1f0c6e2a-8d3b-5a54-9c57-0d2f6b7c8e91
    """
    lifetime = _lifetime(expires)
    check_usable(scope)

    async def work(log: EventLog) -> tuple[str, str]:
        return await create_token(
            log.pool, name=name, scopes=scope, lifetime=lifetime, kind=kind, on_behalf_of=on_behalf_of, patient=patient
        )

    token_id, token = with_log(work)
    typer.echo(json.dumps({"token_id": token_id, "token": token}) if as_json else f"{token}")
    if not as_json:
        typer.echo(f"id {token_id}; it is not shown again", err=True)


@app.command("list")
def list_() -> None:
    """Show the tokens, without their secrets.

    Example:

        anamnesis token list
    """
    table = Table("id", "name", "kind", "scopes", "patient", "expires", "revoked")
    for row in with_log(lambda log: list_tokens(log.pool)):
        revoked = f"{row.revoked_at:%Y-%m-%d %H:%M}" if row.revoked_at else ""
        table.add_row(row.token_id, row.name, row.kind, " ".join(row.scopes), row.patient or "", f"{row.expires_at:%Y-%m-%d %H:%M}", revoked)
    Console().print(table)


@app.command()
def revoke(token_id: Annotated[str, typer.Argument(help="As `anamnesis token list` shows it.")]) -> None:
    """Revoke a token; it stops working within 5 seconds.

    Example:

        anamnesis token revoke 3f2a9c51d0e7
    """
    if not with_log(lambda log: revoke_token(log.pool, token_id)):
        raise SettingRefused(f"there is no live token {token_id}: see `anamnesis token list`")
    typer.echo("revoked")


def _lifetime(text: str) -> timedelta:
    match = re.fullmatch(r"(\d{1,5})([mhd])", text)
    if match is None:
        raise SettingRefused(f"--expires {text} is not a time: write 30m, 12h or 90d")
    number = int(match[1])
    return {"m": timedelta(minutes=number), "h": timedelta(hours=number), "d": timedelta(days=number)}[match[2]]
