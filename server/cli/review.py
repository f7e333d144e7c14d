"""`anamnesis review`: a person accepts or rejects a finding, and signs that on request."""

from __future__ import annotations

from typing import Annotated

import typer

from domain.review import ReviewFinding, Verdict
from domain.signature import Meaning
from eventlog.log import EventLog
from server.cli.person import ask_for_token, person
from server.cli.session import with_log


def review(
    finding: Annotated[str, typer.Argument(help="The finding's key: the id of its BodyStructure.")],
    verdict: Annotated[Verdict, typer.Argument(help="Whether the finding stands.")],
    comment: Annotated[str, typer.Option(help="Why; kept sealed.")] = "",
    sign: Annotated[Meaning | None, typer.Option(help="Sign the review with this meaning; asks for the passphrase.")] = None,
) -> None:
    """Review a finding as the person behind the token in ANAMNESIS_TOKEN (or typed).

    Examples:

        anamnesis review 5f0c6a52-6c3e-5f0a-9c1e-2d7a4b1f8e11 accepted

        anamnesis review 5f0c6a52-6c3e-5f0a-9c1e-2d7a4b1f8e11 rejected --comment "this is the stomach" --sign responsibility
    """
    from server.reviews import SignatureWanted, review_finding

    token = ask_for_token()
    signature = SignatureWanted(meaning=sign, passphrase=typer.prompt("Signing passphrase", hide_input=True)) if sign else None
    command = ReviewFinding(finding_key=finding, verdict=verdict, comment=comment)

    async def work(log: EventLog) -> None:
        reviewer = await person(log, token, "reviews:write")
        done = await review_finding(log, reviewer.principal, command, signature)
        signed = f", signed with key {done.signed_by_key}" if done.signed_by_key else ""
        typer.echo(f"{verdict.value}: event {done.event_id}{signed}, log position {done.position}")

    with_log(work)
