"""`anamnesis sign`: personal signing keys, and signatures on what was done."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

import typer

from domain.signature import Meaning
from eventlog.log import EventLog
from server.cli.person import ask_for_token, person
from server.cli.session import with_log

app = typer.Typer(help="Electronic signatures: a key of one's own, opened by a passphrase.", no_args_is_help=True)
SCOPE = "reviews:write"


@app.command()
def enroll(
    printed_name: Annotated[str, typer.Option(prompt="Printed name", help="As it shall stand beside the signature; kept sealed.")],
) -> None:
    """Make a signing key for the person behind the token in ANAMNESIS_TOKEN (or typed), in place of the one before.

    Example:

        anamnesis sign enroll
    """
    from server.signing import enroll as enroll_signer

    token = ask_for_token()
    passphrase = typer.prompt("New signing passphrase", hide_input=True, confirmation_prompt=True)

    async def work(log: EventLog) -> str:
        signer = await person(log, token, SCOPE)
        return await enroll_signer(log, signer.principal, printed_name, passphrase)

    typer.echo(f"signing key {with_log(work)}; nobody can open it without the passphrase, nor give you another one for it")


@app.command()
def event(
    event_id: Annotated[UUID, typer.Argument(help="The event, as `anamnesis audit show` and Provenance name it.")],
    meaning: Annotated[Meaning, typer.Option(help="What the signature states (21 CFR 11.50).")] = Meaning.REVIEW,
) -> None:
    """Sign an event with one's own key; asks for the passphrase.

    Example:

        anamnesis sign event 0193a6f0-5d3c-7c1e-8a55-0c6f0e7b2a10 --meaning approval
    """
    from server.reviews import SignatureWanted, sign_event

    token = ask_for_token()
    wanted = SignatureWanted(meaning=meaning, passphrase=typer.prompt("Signing passphrase", hide_input=True))

    async def work(log: EventLog) -> None:
        signer = await person(log, token, SCOPE)
        done = await sign_event(log, signer.principal, event_id, wanted)
        typer.echo(f"signed with key {done.signed_by_key}, log position {done.position}")

    with_log(work)


@app.command()
def revoke() -> None:
    """End one's own signing key; what it signed stays signed.

    Example:

        anamnesis sign revoke
    """
    from server.signing import revoke as revoke_signer

    token = ask_for_token()

    async def work(log: EventLog) -> None:
        signer = await person(log, token, SCOPE)
        await revoke_signer(log, signer.principal.id, by=signer.principal)

    with_log(work)
    typer.echo("the key signs no more")
