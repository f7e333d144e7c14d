"""`anamnesis cohort save`, `saved` and `changes`: questions that are kept, and what entered and left since."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from anamnesis.client.datasets import SavedCohort
from anamnesis.client.kept import ChangedThing, SavedCohortRecord
from server.cli.cohort.asking import (
    AsJson,
    Ca,
    LevelAsked,
    QueryFile,
    Saved,
    Server,
    TokenFile,
    Where,
    cohort_of,
    connected,
    place,
)
from server.cli.cohort.text import as_text, table_of

app = typer.Typer()


@app.command()
def save(
    title: Annotated[str, typer.Argument(help="By which it is found again.")],
    where: Where = None,
    query: QueryFile = None,
    level: LevelAsked = "series",
    description: Annotated[str | None, typer.Option(help="In words.")] = None,
    share: Annotated[list[str] | None, typer.Option(help="A project whose members are to see it; several times.")] = None,
    replaces: Annotated[str | None, typer.Option(help="Title or id of a saved cohort of yours, of which this is the next version.")] = None,
    as_json: AsJson = False,
    server: Server = None,
    token_file: TokenFile = None,
    ca: Ca = None,
) -> None:
    """Keep a question under a title, and print its id.

    Example:

        anamnesis cohort save "whole livers" --where "Modality = CT and has finding (label = liver and whole = true)"
    """
    with connected(server, token_file, ca) as client:
        cohort = cohort_of(client, where, query, None, level, None)
        kept = cohort.save(title, description=description, cohort_id=client.cohort(replaces).cohort_id if replaces else None)
        for project in share or []:
            kept = kept.share(project)
    typer.echo(json.dumps({one.name: getattr(kept, one.name) for one in fields(SavedCohortRecord)}, ensure_ascii=False) if as_json else kept.cohort_id)


@app.command()
def saved(as_json: AsJson = False, server: Server = None, token_file: TokenFile = None, ca: Ca = None) -> None:
    """List saved cohorts: your own, and those shared in your projects.

    Example:

        anamnesis cohort saved
    """
    with connected(server, token_file, ca) as client:
        found = client.cohorts()
        rows = [(one.title, one.level, str(one.version), str(one.saved_at), ", ".join(one.shared_in), _condition(one)) for one in found]
    if as_json:
        for one in found:
            typer.echo(json.dumps({named.name: getattr(one, named.name) for named in fields(SavedCohortRecord)}, ensure_ascii=False))
        return
    table = table_of("title", "level", "version", "saved at", "shared in", "condition")
    for row in rows:
        table.add_row(*(escape(text) for text in row))
    Console().print(table)


@app.command()
def changes(
    since: Annotated[str, typer.Option(help="A position of the log, or a date or instant (its end).")],
    until: Annotated[str | None, typer.Option(help="The same; unset: now.")] = None,
    where: Where = None,
    query: QueryFile = None,
    saved: Saved = None,
    level: LevelAsked = "series",
    limit: Annotated[int, typer.Option(help="Name at most so many that entered, and that left.", min=0)] = 20,
    as_json: AsJson = False,
    server: Server = None,
    token_file: TokenFile = None,
    ca: Ca = None,
) -> None:
    """Show what entered and left since, and which events made it so.

    Example:

        anamnesis cohort changes --saved "whole livers" --since 2026-01-01
    """
    with connected(server, token_file, ca) as client:
        found = cohort_of(client, where, query, saved, level, None).changes(place(since) or 0, place(until), first=limit)
    if as_json:
        typer.echo(json.dumps(asdict(found), ensure_ascii=False))
        return
    title = f"{found.before_count:,} at position {found.since}, {found.after_count:,} at {found.until}: {found.entered_count:,} entered, {found.left_count:,} left"
    table = table_of("", found.level, "because of", title=title)
    for what, things in (("entered", found.entered), ("left", found.left)):
        for thing in things:
            table.add_row(what, escape(_name(thing)), escape("\n".join(f"{as_text(why.position)} {why.type}" for why in thing.reasons)))
    Console().print(table)


def _name(thing: ChangedThing) -> str:
    return thing.finding_key or thing.series_uid or thing.study_uid or thing.subject_id


def _condition(saved: SavedCohort) -> str:
    where = saved.cohort().question.where
    return "" if where is None else str(where)
