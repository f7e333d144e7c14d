"""`anamnesis events`: what the log holds, as a table or as JSON lines. Sealed fields stay sealed unless asked for."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.table import Table

from domain.access import Action
from domain.event import identifying_fields
from eventlog.envelope import RecordedEvent
from eventlog.log import EventLog
from server.cli.console import record_read, subjects_of
from server.cli.session import with_log


def events(
    stream: Annotated[str | None, typer.Argument(help="A stream (series-UID, study-UID, subject-ID, intake); without it the whole log.")] = None,
    after: Annotated[int, typer.Option(help="Only beyond this position (or version, for a stream).")] = 0,
    limit: Annotated[int, typer.Option(min=1, help="At most this many.")] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON lines with the events' data.")] = False,
    opened: Annotated[bool, typer.Option("--open", help="With --json: show what identifies a person too.")] = False,
) -> None:
    """Show events with their positions. With --json, that somebody read them is recorded, too.

    Examples:

        anamnesis events series-1.2.840.113619.2.1

        anamnesis events --after 100 --json
    """

    async def read(log: EventLog) -> list[RecordedEvent]:
        found = (await log.read_stream(stream, after) if stream else await log.read(after, limit))[:limit]
        subjects = subjects_of(one.event for one in found)
        if as_json and subjects:
            await record_read(log, Action.EXPORT, "events", subjects=subjects)
        return found

    found = with_log(read)
    if as_json:
        for event in found:
            typer.echo(msgspec.json.encode(_plain(event, opened)).decode("utf-8"))
        return
    table = Table("position", "recorded", "stream", "version", "event", "principal")
    for event in found:
        principal = event.principal.id + (f" for {event.principal.on_behalf_of}" if event.principal.on_behalf_of else "")
        table.add_row(str(event.position), f"{event.recorded_at:%Y-%m-%d %H:%M:%S}", event.stream, str(event.version), event.type, principal)
    Console().print(table)


def _plain(event: RecordedEvent, opened: bool) -> dict[str, Any]:
    tree: dict[str, Any] = msgspec.to_builtins(event)
    tree["digest"] = event.digest.hex()
    if not opened:
        tree["event"] = {k: v for k, v in tree["event"].items() if k not in identifying_fields(type(event.event))}
    return tree
