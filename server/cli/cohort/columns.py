"""`anamnesis cohort columns`, `add-facet` and `remove-facet`: what is counted in memory at the server that is asked."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from anamnesis.client import Client
from server.cli.cohort.asking import AsJson, Ca, Server, TokenFile, connected
from server.cli.cohort.text import table_of

app = typer.Typer()
ASK_EVERY_S = 0.5
COUNTING = ("reading", "following", "waiting")
"""States of columns that get an element sooner or later."""


@app.command()
def columns(as_json: AsJson = False, server: Server = None, token_file: TokenFile = None, ca: Ca = None) -> None:
    """Show the columns in memory by which the server counts, and the elements that were added to them.

    Example:

        anamnesis cohort columns
    """
    with connected(server, token_file, ca) as client:
        found = client.columns()
    if as_json:
        typer.echo(json.dumps(asdict(found), ensure_ascii=False))
        return
    table = table_of("element", "is", title=f"{found.state}, at position {found.position:,}: {found.rows:,} rows, {found.bytes:,} bytes")
    for one in found.facets:
        table.add_row(escape(one.element), "in memory" if one.in_memory else "waiting" if one.rows is None else f"being built, {one.rows:,} rows read")
    Console().print(table)


@app.command("add-facet")
def add_facet(
    element: Annotated[str, typer.Argument(help="A DICOM element, by keyword or number; a private one by group, creator and number.")],
    wait: Annotated[bool, typer.Option(help="Until it is in memory.")] = True,
    server: Server = None,
    token_file: TokenFile = None,
    ca: Ca = None,
) -> None:
    """Let a DICOM element be counted in memory, as the usual ones are; print its name.

    Everything can be asked for without: this makes it fast. It holds for every server of this log.

    Examples:

        anamnesis cohort add-facet SoftwareVersions

        anamnesis cohort add-facet '(0019,"SIEMENS MR HEADER",0C)' --no-wait
    """
    with connected(server, token_file, ca) as client:
        name = client.add_facet(element)
        if wait:
            _wait(client, name)
    typer.echo(name)


@app.command("remove-facet")
def remove_facet(
    element: Annotated[str, typer.Argument(help="One that was added.")],
    server: Server = None,
    token_file: TokenFile = None,
    ca: Ca = None,
) -> None:
    """Give an added element's column up. It can be asked for as before, slower.

    Example:

        anamnesis cohort remove-facet SoftwareVersions
    """
    with connected(server, token_file, ca) as client:
        typer.echo(client.remove_facet(element))


def _wait(client: Client, name: str) -> None:
    with Console(stderr=True).status(f"{escape(name)} is being read") as status:
        while True:
            found = client.columns()
            facet = found.facet(name)
            if found.state not in COUNTING or facet is None or facet.in_memory:
                return
            if facet.rows:
                status.update(f"{escape(name)} is being read: {facet.rows:,} of {found.rows:,} rows")
            time.sleep(ASK_EVERY_S)
