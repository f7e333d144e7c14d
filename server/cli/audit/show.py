"""`anamnesis audit show`: the timeline of anything that has an id."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.markup import escape

from domain.access import Access, Action
from domain.principal import Principal
from eventlog.log import EventLog
from server.audit.differences import Change
from server.audit.timeline import DEFAULT_LIMIT, MAX_LIMIT, Entry, Timeline
from server.cli.console import record_read
from server.cli.person import ask_for_token, person
from server.cli.session import with_ledger

SHOWN = 120
"""Characters of a value."""
ID = "A study, series or SOP Instance UID, subject, finding, FHIR resource (Type/id), event, dataset or principal."


def show(
    wanted: Annotated[str, typer.Argument(metavar="ID", help=ID)],
    as_of: Annotated[str | None, typer.Option(help="What was known at this position or instant.")] = None,
    after: Annotated[int, typer.Option(min=0, help="Only beyond this position: the next page.")] = 0,
    limit: Annotated[int, typer.Option(min=1, max=MAX_LIMIT, help="At most this many events.")] = DEFAULT_LIMIT,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
    identities: Annotated[
        bool, typer.Option("--identities", help="Show what identifies a person; takes a token with identities:read, and is recorded.")
    ] = False,
) -> None:
    """Show every event that touched something: who acted, for whom, what led to it, and what it changed.

    Examples:

        anamnesis audit show 1.2.840.113619.2.1

        anamnesis audit show BodyStructure/5f0c6a52-6c3e-5f0a-9c1e-2d7a4b1f8e11 --as-of 2026-11-01
    """
    from server.audit.inquiries import asked_position
    from server.audit.timeline import timeline

    token = ask_for_token() if identities else None

    async def work(log: EventLog) -> Timeline:
        reader = await person(log, token, "identities:read") if token is not None else None
        position = await asked_position(log, as_of)
        found = await timeline(log, wanted, as_of=position, after=after, limit=limit, identities=identities)
        await record_read(log, Action.AUDIT, "audit show", subjects=found.subjects, by=reader.principal if reader else None)
        return found

    found = with_ledger(work)
    if as_json:
        typer.echo(msgspec.json.encode(found))
        return
    console = Console(highlight=False, soft_wrap=True)  # a digest or a UID is copied whole, however narrow the screen
    console.print(f"[bold]{escape(found.id)}[/bold] ({', '.join(found.kinds)}) as of position {found.as_of}")
    for entry in found.entries:
        console.print(_heading(entry))
        for line in _lines(entry):
            console.print(f"        {escape(line)}")
    if found.next is not None:
        console.print(f"More: --after {found.next}")


def _heading(entry: Entry) -> str:
    cause = f", caused by {entry.caused_by}" if entry.caused_by else ""
    return (
        f"{entry.position:>7} {entry.recorded_at[:19].replace('T', ' ')} [bold]{entry.type}[/bold] {escape(_who(entry.principal))}{cause}"
    )


def _who(principal: Principal) -> str:
    return principal.id + (f" for {principal.on_behalf_of}" if principal.on_behalf_of else "")


def _lines(entry: Entry) -> list[str]:
    if entry.accesses:
        return [_access(access) for access in entry.accesses]
    return [_change(change) for change in entry.changes] or [f"{name}: {value}" for name, value in entry.detail.items()]


def _access(access: Access) -> str:
    times = f" {access.count} times" if access.count > 1 else ""
    return f"{access.principal.id}: {access.action.value}{times}, {access.outcome.value} {access.resource_type or access.route}".rstrip()


def _change(change: Change) -> str:
    if change.withheld:
        return f"{change.path}: changed (identifies a person)"
    counts = [f"{sign}{number}" for sign, number in (("+", change.added), ("-", change.removed), ("~", change.changed)) if number]
    said = f" ({', '.join(counts)})" if counts else ""
    return f"{change.path}{said}: {_value(change.before)} → {_value(change.after)}"


def _value(value: object) -> str:
    if value is None:
        return "–"
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode("utf-8")
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}… (whole with --json)"
