"""`anamnesis projections`: how far the read models are, and how to build them anew."""

from __future__ import annotations

from typing import Annotated

import msgspec
import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from eventlog.log import EventLog
from projections.checkpoint import Status, statuses
from projections.runner import Runner
from server.cli.session import with_log

app = typer.Typer(help="The read models built from the log.", no_args_is_help=True)


@app.command()
def status(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """Show each projection's position, lag and state; exit code 1 when one is paused.

    Example:

        anamnesis projections status
    """
    rows: list[Status] = with_log(lambda log: statuses(log.pool))
    if as_json:
        typer.echo(msgspec.json.encode(rows))
    else:
        _show(rows)
    if any(row.state == "paused" for row in rows):
        raise typer.Exit(1)


def _show(rows: list[Status]) -> None:
    table = Table("projection", "version", "position", "lag", "state", "problem")
    for row in rows:
        table.add_row(row.name, str(row.version), str(row.position), str(row.lag), row.state, row.problem or "")
    Console().print(table)


@app.command()
def rebuild(name: Annotated[str, typer.Argument(help="As `anamnesis projections status` shows it.")]) -> None:
    """Build a projection anew from the log, beside the live one, then put it in its place. Readers notice nothing.

    Example:

        anamnesis projections rebuild fhir
    """
    from server.services import all_projections

    with Progress(console=Console(stderr=True)) as progress:
        task = progress.add_task(f"Rebuilding {name}", total=None)

        async def work(log: EventLog) -> int:
            runner = Runner(log, all_projections())
            return await runner.rebuild(name, lambda position, head: progress.update(task, completed=position, total=head))

        position = with_log(work)
    typer.echo(f"{name} is rebuilt up to position {position}.")


@app.command()
def resume(name: Annotated[str, typer.Argument(help="A paused projection.")]) -> None:
    """Let a paused projection try again, once its cause is mended.

    Example:

        anamnesis projections resume fhir
    """
    from server.services import all_projections

    with_log(lambda log: Runner(log, all_projections()).resume(name))
    typer.echo(f"{name} tries again.")
