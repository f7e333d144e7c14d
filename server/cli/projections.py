"""`anamnesis projections`: how far the read models are, how to build them anew, and whether they are what the log says."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Column, Table
from rich.text import Text

from eventlog.log import EventLog
from projections import rebuild as rebuilding
from projections.checkpoint import statuses
from projections.errors import ProjectionIncomplete
from projections.fhir.projection import FhirProjection
from projections.projection import named
from projections.pruning import Pruned
from projections.pruning import prune as prune_old
from projections.runner import Runner
from projections.verification import Difference, TableVerdict, Verdict
from projections.verification import verify as verify_one
from server.cli.session import with_log

SAMPLE_S = 1.0
"""A build in progress is looked at twice, so far apart, to tell how long it will take."""

MANY_TYPES = 5
"""So many are shown as a number."""

Name = Annotated[str, typer.Argument(help="As `anamnesis projections status` shows it.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]

app = typer.Typer(help="The read models built from the log.", no_args_is_help=True)


@app.command()
def status(as_json: AsJson = False) -> None:
    """Show each read model's position, lag and state, and how long one that is being built will take; exit code 1 when one is paused.

    Examples:

        anamnesis projections status

        anamnesis projections status --json
    """
    from projections.catalogue import all_projections

    rows = with_log(_look)
    current = {projection.name: projection.version for projection in all_projections()}
    for row in rows:
        row["superseded"] = row["version"] < current.get(row["name"], 0)
    if as_json:
        typer.echo(json.dumps(rows))
    else:
        _show(rows)
    if any(row["state"] == "paused" and not row["superseded"] for row in rows):
        raise typer.Exit(1)


async def _look(log: EventLog) -> list[dict[str, Any]]:
    """The checkpoints with the share that is applied, events/s, and the seconds that remain of a build."""
    first = await statuses(log.pool)
    building = [status for status in first if status.state == "building"]
    before = {(status.name, status.version): status.position for status in first}
    if building:
        await asyncio.sleep(SAMPLE_S)
    rows = []
    for status in await statuses(log.pool) if building else first:
        row = {**msgspec.structs.asdict(status), "percent": status.percent, "events_per_s": None, "remaining_s": None}
        if status.state == "building":
            rate = (status.position - before.get((status.name, status.version), 0)) / SAMPLE_S
            row |= {"events_per_s": round(rate), "remaining_s": round(status.lag / rate) if rate > 0 else None}
        rows.append(row)
    return rows


def _show(rows: list[dict[str, Any]]) -> None:
    table = Table("projection", "version", "position", "lag", "done", "state", "remaining", "problem")
    for row in rows:
        state = "superseded" if row["superseded"] else row["state"]
        remaining = "" if row["remaining_s"] is None else f"{row['remaining_s'] // 60}:{row['remaining_s'] % 60:02d}"
        problem = "`anamnesis projections prune` removes it" if row["superseded"] else row["problem"] or ""
        done = f"{row['percent']} %"
        table.add_row(row["name"], str(row["version"]), str(row["position"]), str(row["lag"]), done, state, remaining, problem)
    Console().print(table)


@app.command()
def parameters(as_json: AsJson = False) -> None:
    """Show the search parameters that clients added, and how far each is indexed.

    Examples:

        anamnesis projections parameters

        anamnesis projections parameters --json
    """
    rows = with_log(_added)
    if as_json:
        typer.echo(json.dumps(rows))
        return
    table = Table(*(Column(head, overflow="fold") for head in ("SearchParameter", "of", "code", "type", "done", "problem")))
    for row in rows:
        bases = row["bases"] if len(row["bases"]) < MANY_TYPES else [f"{len(row['bases'])} types"]
        done = "" if row["percent"] is None else f"{row['percent']} %"
        table.add_row(row["id"], ", ".join(bases), row["code"], row["type"], done, row["problem"])
    Console().print(table)


async def _added(log: EventLog) -> list[dict[str, Any]]:
    """What is active; without percent where it cannot be used, and ``problem`` says why."""
    from projections.fhir.definitions import SearchParameter
    from server.fhir.state import added, indexed

    await Runner(log, [FhirProjection()]).prepare()
    found = await added(log.pool)
    waiting = await indexed(log.pool, found)
    rows: list[dict[str, Any]] = []
    for one in found:
        row: dict[str, Any] = {"id": one.id, "code": "", "type": "", "bases": [], "percent": None, "problem": one.problem}
        if one.definition:
            defined = msgspec.json.decode(one.definition, type=SearchParameter)
            percent = min((waiting[base, defined.code] for base in defined.base if (base, defined.code) in waiting), default=100)
            row |= {"code": defined.code, "type": defined.type, "bases": list(defined.base), "percent": percent}
        rows.append(row)
    return rows


@app.command()
def rebuild(name: Name, as_json: AsJson = False) -> None:
    """Build a read model anew from the log, beside the live one, then put it in its place. Readers notice nothing.

    Examples:

        anamnesis projections rebuild fhir

        anamnesis projections rebuild fhir --json
    """
    from projections.catalogue import all_projections

    with _progress_bar(f"Rebuilding {name}") as heard:
        position = with_log(lambda log: Runner(log, all_projections()).rebuild(name, heard))
    if as_json:
        typer.echo(json.dumps({"name": name, "version": named(all_projections(), name).version, "position": position}))
    else:
        typer.echo(f"{name} is rebuilt up to position {position}.")


@app.command()
def verify(
    name: Annotated[str, typer.Argument(help="A read model, or all.")] = "all",
    values: Annotated[bool, typer.Option("--values", help="Show the values that differ; they may identify a person.")] = False,
    as_json: AsJson = False,
) -> None:
    """Replay the log beside the live tables and compare; exit code 1 when a table differs, with its first row that does.

    Examples:

        anamnesis projections verify

        anamnesis projections verify fhir --json
    """
    from projections.catalogue import all_projections

    projections = all_projections() if name == "all" else [named(all_projections(), name)]
    verdicts: list[Verdict] = []
    for projection in projections:
        with _progress_bar(f"Verifying {projection.name}") as heard:
            try:
                verdicts.append(with_log(lambda log, p=projection, h=heard: verify_one(log, p, h, values=values)))  # type: ignore[misc]
            except ProjectionIncomplete as incomplete:  # nobody can have read from it (on a site without a worker: dispatch)
                if name != "all":
                    raise
                typer.echo(f"{incomplete}: there is nothing to compare.", err=True)
    if as_json:
        typer.echo(msgspec.json.encode([{**msgspec.to_builtins(one), "equal": one.is_equal} for one in verdicts]))
    else:
        for verdict in verdicts:
            _tell(verdict)
    if not all(verdict.is_equal for verdict in verdicts):
        raise typer.Exit(1)


def _tell(verdict: Verdict) -> None:
    equal = "equals" if verdict.is_equal else "DIFFERS from"
    typer.echo(f"{verdict.name} (version {verdict.version}) {equal} the log at position {verdict.position}.")
    for table in verdict.tables:
        typer.echo(f"  {table.table}: {_said(table)}")


def _said(table: TableVerdict) -> str:
    if table.is_equal:
        return f"equal, {table.live_sha256}"
    if table.first is None:
        return "the live table is missing"
    rows = f"{table.only_live} rows only live, {table.only_log} only as the log says"
    return f"DIFFERS ({rows}). {_first(table.first)}"


def _first(first: Difference) -> str:
    row = "row " + ", ".join(f"{name} {value}" for name, value in first.key.items()) if first.key else "a row (the table has no key)"
    what = {
        "both": f"differs in {', '.join(first.columns)}",
        "live": "is in the live table and does not come of the log",
        "log": "comes of the log and is not in the live table",
    }[first.side]
    values = [f"; {side}: {_shown(shown)}" for side, shown in (("live", first.live), ("log", first.log)) if shown is not None]
    return f"First: {row} {what}{''.join(values)}"


def _shown(values: Mapping[str, str | None]) -> str:
    return json.dumps(dict(values), ensure_ascii=False)


@app.command()
def resume(name: Annotated[str, typer.Argument(help="A paused read model.")]) -> None:
    """Let a paused read model try again, once its cause is mended.

    Example:

        anamnesis projections resume fhir
    """
    from projections.catalogue import all_projections

    if with_log(lambda log: Runner(log, all_projections()).resume(name)):
        typer.echo(f"{name} tries again.")
    else:
        typer.echo(f"{name} is not paused.")


@app.command()
def prune(as_json: AsJson = False) -> None:
    """Remove the tables of older versions of read models, and what died halfway. Nothing goes that a process still keeps up.

    Examples:

        anamnesis projections prune

        anamnesis projections prune --json
    """
    from projections.catalogue import all_projections

    found: list[Pruned] = with_log(lambda log: prune_old(log, all_projections()))
    if as_json:
        typer.echo(msgspec.json.encode(found))
        return
    for one in found:
        typer.echo(f"{one.schema} {'is removed' if one.removed else 'stays'}: {one.reason}.")
    if not found:
        typer.echo("There is nothing to remove.")


class _EventsPerSecond(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:,.0f} events/s" if task.speed else "")


@contextmanager
def _progress_bar(title: str) -> Iterator[rebuilding.Heard]:
    """Position, share, events/s and the time that remains, on standard error."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.completed:,.0f} of {task.fields[head]:,.0f}"),
        _EventsPerSecond(),
        TimeElapsedColumn(),
        TextColumn("remaining"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as progress:
        task = progress.add_task(title, total=None, head=0)

        def heard(now: rebuilding.Progress) -> None:
            description = title if now.stage == "replaying" else f"{title}: {now.stage}"
            progress.update(task, description=description, completed=now.position, total=now.head, head=now.head)

        yield heard
