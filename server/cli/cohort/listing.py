"""`anamnesis cohort list` and `fields`: what meets a condition, and what conditions may name."""

from __future__ import annotations

import json
from dataclasses import asdict, fields
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from anamnesis.client.records import RECORDS
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
from server.cli.cohort.text import as_text, table_of

app = typer.Typer()
COLUMNS = {
    "subject": ("subject_id", "sex"),
    "study": ("study_uid", "study_date", "age_years", "description"),
    "series": ("series_uid", "modality", "body_part", "model", "slice_thickness_mm", "instance_count"),
    "finding": ("series_uid", "label", "volume_ml", "whole", "verdict", "segmenter"),
}
"""What `list` shows of each level; --json has all of it."""


@app.command("list")
def list_(
    where: Where = None,
    query: QueryFile = None,
    saved: Saved = None,
    level: LevelAsked = "series",
    as_of: AsOf = None,
    limit: Annotated[int, typer.Option(help="At most so many.", min=1)] = 20,
    element: Annotated[list[str] | None, typer.Option(help="A DICOM element to show too, by keyword or number; several times.")] = None,
    order_by: Annotated[str | None, typer.Option(help="A field to order by; unset: as they came.")] = None,
    descending: Annotated[bool, typer.Option("--descending", help="Largest first.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON Lines, with every field.")] = False,
    server: Server = None,
    token_file: TokenFile = None,
    ca: Ca = None,
) -> None:
    """List what meets a condition.

    Examples:

        anamnesis cohort list --where "Modality = CT and every SliceThickness <= 1.5" --order-by instance_count --descending

        anamnesis cohort list --level finding --where "label = liver and verdict = accepted" --limit 1000 --json
    """
    with connected(server, token_file, ca) as client:
        cohort = cohort_of(client, where, query, saved, level, as_of)
        if order_by:
            cohort = cohort.order_by(order_by, descending=descending)
        if element:
            cohort = cohort.with_elements(*element)
        shown = [*COLUMNS[cohort.question.level], *(element or [])]
        table = table_of(*shown)
        for record in cohort.records(limit):
            if as_json:
                typer.echo(json.dumps({one.name: getattr(record, one.name) for one in fields(RECORDS[cohort.question.level])}, ensure_ascii=False))
            else:
                table.add_row(*(_shown(record, name) for name in shown))
    if not as_json:
        Console().print(table)


@app.command("fields")
def fields_(
    like: Annotated[str, typer.Argument(help="A part of their names.")] = "",
    level: Annotated[str, typer.Option(help="That can be asked of things of this level.")] = "series",
    limit: Annotated[int, typer.Option(help="At most so many.", min=1)] = 50,
    as_json: AsJson = False,
    server: Server = None,
    token_file: TokenFile = None,
    ca: Ca = None,
) -> None:
    """List the fields that can be asked for.

    Example:

        anamnesis cohort fields thickness
    """
    with connected(server, token_file, ca) as client:
        found = client.fields(like, level=level, first=limit)
    if as_json:
        typer.echo(json.dumps([asdict(one) for one in found], ensure_ascii=False))
        return
    table = table_of("field", "level", "kind", "unit", "what it says")
    for one in found:
        table.add_row(*(escape(text) for text in (one.name, one.level, one.kind, one.unit, one.description)))
    Console().print(table)


def _shown(record: Any, name: str) -> str:
    elements = getattr(record, "elements", {})
    if name in elements:
        return escape(", ".join(as_text(value) for value in elements[name]))
    return escape(as_text(getattr(record, name, None)))
