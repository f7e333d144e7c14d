"""`anamnesis subject`: find a person's pseudonym, place legal holds, and erase by two persons.

Who acts is the person behind an access token; a person's number is typed or piped in. Neither is ever an argument, which
everybody on the machine can read.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Annotated
from uuid import UUID

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from domain.access import Action
from domain.ids import SubjectId
from domain.subject import LegalBasis
from eventlog.log import EventLog
from server.cli.console import record_read
from server.cli.person import ask_for_token, person
from server.cli.session import with_log
from server.errors import SettingRefused
from server.subjects import ErasureStatus

SCOPE = "subjects:erase"
WATCH_S = 0.5

app = typer.Typer(help="Find a person's pseudonym, place legal holds, and erase by two persons.", no_args_is_help=True)

Subject = Annotated[UUID, typer.Argument(help="The subject's id, as `anamnesis subject find` gives it.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@app.command()
def find(as_json: AsJson = False) -> None:
    """Give the subject id of a person: Patient ID (0010,0020), then its issuer (0010,0021), typed or a line each on standard input.

    Examples:

        anamnesis subject find

        anamnesis subject find < number.txt
    """
    if sys.stdin.isatty():
        patient_id = str(typer.prompt("Patient ID", hide_input=True))
        issuer = str(typer.prompt("Issuer of Patient ID", default="", hide_input=True, show_default=False))
    else:
        patient_id, issuer = [*sys.stdin.read().split("\n"), "", ""][:2]
    if not patient_id.strip():
        raise SettingRefused("a Patient ID is needed: a study without one is a subject of its own, which FHIR names")

    async def work(log: EventLog) -> SubjectId:
        from server.refusal import load_subject
        from server.subjects import status_of

        _, subject_id = await load_subject(log, log.vault.subject_id(patient_id, issuer, otherwise=""))
        await status_of(log, subject_id)  # raises SubjectUnknown
        await record_read(log, Action.SEARCH, "subject find", subjects=[subject_id])
        return subject_id

    subject_id = with_log(work)
    typer.echo(msgspec.json.encode({"subject_id": subject_id}) if as_json else subject_id)


@app.command()
def show(subject: Subject, as_json: AsJson = False) -> None:
    """Show which holds stand on a subject and why, and how far its erasure is. That somebody looked is recorded.

    Examples:

        anamnesis subject show 8a1f9a52-5d1c-5e0f-8f3e-0d1d5f3b7a11

        anamnesis subject show 8a1f9a52-5d1c-5e0f-8f3e-0d1d5f3b7a11 --json
    """
    from server.subjects import status_of

    async def work(log: EventLog) -> ErasureStatus:
        status = await status_of(log, _id(subject))
        await record_read(log, Action.READ, "subject show", subjects=[status.subject_id])
        return status

    status = with_log(work)
    if as_json:
        typer.echo(msgspec.json.encode(status))
        return
    table = Table(show_header=False)
    for name, value in msgspec.to_builtins(status, str_keys=True).items():
        if name not in ("holds", "undone"):
            table.add_row(name.replace("_", " "), str(value))
    for one in status.holds:
        table.add_row(f"hold {one.hold_id}", f"{one.reason} (by {one.placed_by}, {one.placed_at:%Y-%m-%d})")
    for line in status.undone:
        table.add_row("left to do", line)
    Console().print(table)


@app.command()
def hold(subject: Subject, as_json: AsJson = False) -> None:
    """Place a legal hold: while it stands, nothing of the subject is erased. Its reason is asked for and kept sealed.

    Prints the hold's id, by which `anamnesis subject release` lifts it. Where the reason is piped in, the token has to be in
    ANAMNESIS_TOKEN.

    Examples:

        anamnesis subject hold 8a1f9a52-5d1c-5e0f-8f3e-0d1d5f3b7a11

        anamnesis subject hold 8a1f9a52-5d1c-5e0f-8f3e-0d1d5f3b7a11 --json < reason.txt
    """
    from server.subjects import place_hold

    token = ask_for_token()
    reason = str(typer.prompt("Reason")) if sys.stdin.isatty() else sys.stdin.read().strip()

    async def work(log: EventLog) -> str:
        return await place_hold(log, _id(subject), reason, (await person(log, token, SCOPE)).principal)

    hold_id = with_log(work)
    typer.echo(msgspec.json.encode({"subject_id": str(subject), "hold_id": hold_id}) if as_json else hold_id)


@app.command()
def release(
    subject: Subject, hold_id: Annotated[str, typer.Argument(help="As `anamnesis subject show` gives it.")], as_json: AsJson = False
) -> None:
    """Lift a legal hold. Every other one goes on standing.

    Example:

        anamnesis subject release 8a1f9a52-5d1c-5e0f-8f3e-0d1d5f3b7a11 3f2a9c51d0e7
    """
    from server.subjects import lift_hold, status_of

    token = ask_for_token()

    async def work(log: EventLog) -> ErasureStatus:
        await lift_hold(log, _id(subject), hold_id, (await person(log, token, SCOPE)).principal)
        return await status_of(log, _id(subject))

    left = len(with_log(work).holds)
    if as_json:
        typer.echo(msgspec.json.encode({"subject_id": str(subject), "hold_id": hold_id, "standing": left}))
    else:
        typer.echo(f"Lifted. {left} holds stand." if left else "Lifted. No hold stands.")


@app.command()
def erase(
    subject: Subject,
    legal_basis: Annotated[LegalBasis, typer.Option(help="Why: the letter of article 17 (1) GDPR, or another law.")],
    as_json: AsJson = False,
) -> None:
    """Ask that a subject be erased. Nothing happens until another person confirms; a legal hold refuses it.

    Examples:

        anamnesis subject erase 8a1f9a52-5d1c-5e0f-8f3e-0d1d5f3b7a11 --legal-basis gdpr-17-1-b

        anamnesis subject erase 8a1f9a52-5d1c-5e0f-8f3e-0d1d5f3b7a11 --legal-basis other-law --json
    """
    from server.subjects import request_erasure, status_of

    token = ask_for_token()

    async def work(log: EventLog) -> ErasureStatus:
        await request_erasure(log, _id(subject), legal_basis, (await person(log, token, SCOPE)).principal)
        return await status_of(log, _id(subject))

    status = with_log(work)
    if as_json:
        typer.echo(msgspec.json.encode(status))
    else:
        typer.echo(f"Asked for. Another person confirms with: anamnesis subject confirm {subject}")


@app.command()
def confirm(subject: Subject, as_json: AsJson = False) -> None:
    """Confirm what another person asked for, and carry it out: there is no way back. Killed, it goes on when a server starts.

    Exit code 1 when something is left to do that the database did not let us do; it is named.

    Examples:

        anamnesis subject confirm 8a1f9a52-5d1c-5e0f-8f3e-0d1d5f3b7a11

        anamnesis subject confirm 8a1f9a52-5d1c-5e0f-8f3e-0d1d5f3b7a11 --json
    """
    from server.subjects import confirm_erasure

    token = ask_for_token()

    async def work(log: EventLog) -> ErasureStatus:
        await confirm_erasure(log, _id(subject), (await person(log, token, SCOPE)).principal)
        return await _carry_out(log, _id(subject))

    status = with_log(work)
    if as_json:
        typer.echo(msgspec.json.encode(status))
    else:
        typer.echo(f"Erased: {status.files} files, {status.bytes} bytes, {status.series} series in {status.studies} studies.")
    for line in status.undone:
        typer.echo(f"Left to do: {line}", err=True)
    raise typer.Exit(1 if status.undone else 0)


@app.command()
def withdraw(subject: Subject, as_json: AsJson = False) -> None:
    """Withdraw an erasure that was asked for, or confirmed and not begun.

    Example:

        anamnesis subject withdraw 8a1f9a52-5d1c-5e0f-8f3e-0d1d5f3b7a11
    """
    from server.subjects import status_of, withdraw_erasure

    token = ask_for_token()

    async def work(log: EventLog) -> ErasureStatus:
        await withdraw_erasure(log, _id(subject), (await person(log, token, SCOPE)).principal)
        return await status_of(log, _id(subject))

    status = with_log(work)
    typer.echo(msgspec.json.encode(status) if as_json else "Withdrawn.")


@app.command()
def erasures(as_json: AsJson = False) -> None:
    """List every erasure that was asked for, and how far it is. That somebody looked is recorded.

    Examples:

        anamnesis subject erasures

        anamnesis subject erasures --json
    """
    from server.subjects import erasures as all_erasures

    async def work(log: EventLog) -> list[ErasureStatus]:
        found = await all_erasures(log)
        await record_read(log, Action.READ, "subject erasures", subjects=[one.subject_id for one in found])
        return found

    found = with_log(work)
    if as_json:
        typer.echo(msgspec.json.encode(found))
        return
    table = Table("subject", "erasure", "legal basis", "asked for by", "confirmed by", "key destroyed", "purged", "left to do")
    for one in found:
        moments = (f"{at:%Y-%m-%d %H:%M}" if at else "" for at in (one.key_destroyed_at, one.purged_at))
        row = (one.subject_id, one.erasure, one.legal_basis or "", one.requested_by or "", one.confirmed_by or "")
        table.add_row(*row, *moments, "; ".join(one.undone))
    Console().print(table)


async def _carry_out(log: EventLog, subject_id: SubjectId) -> ErasureStatus:
    """Here, or by the server that took it up first. Raises ErasureWaits."""
    from archive.rejects import Rejects
    from archive.spool import Spool
    from archive.store import Store
    from projections.catalogue import projections
    from server.erasure.eraser import STEPS, Eraser
    from server.settings import ServerSettings
    from server.subjects import status_of

    settings = ServerSettings()
    console = Console(stderr=True)
    with console.status("Erasing") as shown:

        def heard(step: str) -> None:
            shown.update(f"Erasing: {step} ({STEPS.index(step) + 1} of {len(STEPS)})")

        spool, store = Spool(settings.spool_dir), Store(settings.store_url)
        eraser = Eraser(log, store, spool, Rejects(settings.rejects_dir), projections(), heard)
        while (status := await status_of(log, subject_id)).purged_at is None:
            if await eraser.carry_out(subject_id) is None:
                await asyncio.sleep(WATCH_S)
    return status


def _id(subject: UUID) -> SubjectId:
    return SubjectId(str(subject))
