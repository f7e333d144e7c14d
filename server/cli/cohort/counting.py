"""`anamnesis cohort count`, `facets`, `histogram` and `explain`: how many meet a condition, how they are spread, and how that was found."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from server.cli.cohort.asking import (
    AsJson,
    AsOf,
    Ca,
    LevelAsked,
    QueryFile,
    Saved,
    Server,
    TokenFile,
    Where,
    cohort_of,
    connected,
)
from server.cli.cohort.text import as_text, bar, table_of

app = typer.Typer()


@app.command()
def count(
    where: Where = None,
    query: QueryFile = None,
    saved: Saved = None,
    level: LevelAsked = "series",
    as_of: AsOf = None,
    as_json: AsJson = False,
    server: Server = None,
    token_file: TokenFile = None,
    ca: Ca = None,
) -> None:
    """Count what meets a condition: subjects, studies, series, findings, instances and bytes.

    Example:

        anamnesis cohort count --where "Modality = CT and has finding (label = liver and whole = true)"
    """
    with connected(server, token_file, ca) as client:
        cohort = cohort_of(client, where, query, saved, level, as_of).pinned()
        counts = asdict(cohort.counts())
        position = cohort.question.as_of
    if as_json:
        typer.echo(json.dumps({"position": position, **counts}))
        return
    table = Table("", "", show_header=False, title=f"as of position {position}")
    for name, number in counts.items():
        table.add_row(name, f"{number:,}")
    Console().print(table)


@app.command()
def facets(
    field: Annotated[list[str], typer.Argument(help="Fields: Modality, ManufacturerModelName, verdict, ….")],
    where: Where = None,
    query: QueryFile = None,
    saved: Saved = None,
    level: LevelAsked = "series",
    as_of: AsOf = None,
    size: Annotated[int, typer.Option(help="So many values of each.", min=1, max=1000)] = 10,
    subjects: Annotated[bool, typer.Option("--subjects", help="Also of how many persons.")] = False,
    as_json: AsJson = False,
    server: Server = None,
    token_file: TokenFile = None,
    ca: Ca = None,
) -> None:
    """Count the values of fields, the most frequent first.

    Example:

        anamnesis cohort facets Modality ManufacturerModelName --where "SliceThickness <= 1.5"
    """
    with connected(server, token_file, ca) as client:
        found = cohort_of(client, where, query, saved, level, as_of).facets(*field, size=size, subjects=subjects)
    if as_json:
        typer.echo(json.dumps({name: asdict(facet) for name, facet in found.items()}, ensure_ascii=False))
        return
    for name, facet in found.items():
        hidden = facet.distinct - len(facet.values)
        caption = "; ".join(text for text in (f"{hidden:,} values more" * (hidden > 0), f"{facet.missing:,} without one" * (facet.missing > 0)) if text)
        table = table_of("value", level, *(["subjects"] if subjects else []), "", title=escape(name), caption=caption)
        most = max((value.count for value in facet.values), default=0)
        for value in facet.values:
            persons = [f"{value.subjects:,}"] if value.subjects is not None else []
            table.add_row(escape(as_text(value.value)), f"{value.count:,}", *persons, bar(value.count, most))
        Console().print(table)


@app.command()
def histogram(
    field: Annotated[str, typer.Argument(help="A field of numbers or dates.")],
    where: Where = None,
    query: QueryFile = None,
    saved: Saved = None,
    level: LevelAsked = "series",
    as_of: AsOf = None,
    bins: Annotated[int, typer.Option(help="So many bins.", min=1, max=1000)] = 12,
    as_json: AsJson = False,
    server: Server = None,
    token_file: TokenFile = None,
    ca: Ca = None,
) -> None:
    """Show how a field's numbers or dates are spread.

    Example:

        anamnesis cohort histogram volume_ml --level finding --where "label = liver"
    """
    with connected(server, token_file, ca) as client:
        found = cohort_of(client, where, query, saved, level, as_of).histogram(field, bins)
    if as_json:
        typer.echo(json.dumps(asdict(found)))
        return
    table = table_of("from", "to", level, "", title=escape(field), caption=f"{found.missing:,} without one" if found.missing else None)
    most = max((one.count for one in found.bins), default=0)
    for one in found.bins:
        table.add_row(as_text(one.low), as_text(one.high), f"{one.count:,}", bar(one.count, most))
    Console().print(table)


@app.command()
def explain(
    where: Where = None,
    query: QueryFile = None,
    saved: Saved = None,
    level: LevelAsked = "series",
    as_of: AsOf = None,
    as_json: AsJson = False,
    server: Server = None,
    token_file: TokenFile = None,
    ca: Ca = None,
) -> None:
    """Show what was used to answer, how many met each condition, and how long it took.

    Example:

        anamnesis cohort explain --where "Modality = CT and has finding (label = liver)"
    """
    with connected(server, token_file, ca) as client:
        cohort = cohort_of(client, where, query, saved, level, as_of)
        found = cohort.explain()
    if as_json:
        typer.echo(json.dumps({"where": None if cohort.question.where is None else str(cohort.question.where), **asdict(found)}))
        return
    table = table_of("step", "met it", "ms", title=f"answered by {found.engine}")
    for step in found.steps:
        table.add_row(escape(step.what), f"{step.rows:,}", f"{step.milliseconds:.1f}")
    Console().print(table)
