"""`anamnesis dataset export`: has a server make the files of a dataset's version, and fetches them, each compared with its digest."""

from __future__ import annotations

import json
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from anamnesis.client.datasets import Export
from domain.dataset import Purpose
from server.cli.cohort.asking import AsJson, Ca, Server, TokenFile, connected
from server.cli.progress import showing_progress


class Layout(StrEnum):
    """As server.datasets.plan.Layout, which would bring along what writes them."""

    DICOM = "dicom"
    NNUNET = "nnunet"
    BIDS = "bids"
    CSV = "csv"
    XLSX = "xlsx"
    PARQUET = "parquet"
    JSONL = "jsonl"


def export(
    dataset: Annotated[str, typer.Argument(help="Its id or its title, as `anamnesis dataset list` shows them.")],
    folder: Annotated[Path, typer.Argument(help="Where the files go; what is there already is kept.", file_okay=False)],
    layout: Annotated[list[Layout], typer.Option(help="The form in which it leaves; several times.")],
    purpose: Annotated[Purpose, typer.Option(help="What for; the dataset's terms have to intend it.")],
    version: Annotated[int | None, typer.Option(help="Unset: the latest.", min=1)] = None,
    field: Annotated[list[str] | None, typer.Option(help="A column of the table of series, in place of the usual ones; several times.")] = None,
    nnunet_id: Annotated[int | None, typer.Option(help="The number of the nnU-Net dataset.", min=1, max=999)] = None,
    without_withdrawn: Annotated[bool, typer.Option("--without-withdrawn", help="Leave out who does not consent any more, rather than be refused.")] = False,
    export_id: Annotated[str | None, typer.Option(help="Go on with this export, rather than begin another one.")] = None,
    as_json: AsJson = False,
    server: Server = None,
    token_file: TokenFile = None,
    ca: Ca = None,
) -> None:
    """Export a version of a dataset: the server makes its files, which are then fetched.

    Examples:

        anamnesis dataset export "Livers, venous" livers --layout nnunet --layout parquet --purpose research

        anamnesis dataset export "Livers, venous" livers --layout dicom --purpose research --version 2 --without-withdrawn
    """
    with connected(server, token_file, ca) as client:
        if export_id is None:
            frozen = client.dataset(dataset).version(version)
            begun = frozen.export(*layout, purpose=purpose, fields=field or (), nnunet_id=nnunet_id, without_withdrawn=without_withdrawn)
        else:
            begun = Export(export_id=export_id, _transport=client._transport)
        typer.echo(f"export {begun.export_id}: with --export-id it goes on where it was interrupted", err=True)
        with showing_progress(as_json) as shown:
            made = begun.wait(told=partial(shown, "made"))
            begun.fetch(folder, told=partial(shown, "fetched"))
    if as_json:
        typer.echo(json.dumps({"export_id": made.export_id, "files": made.files, "bytes": made.bytes}))
    else:
        typer.echo(f"{made.files} files, {made.bytes:,} bytes, each as its SHA-256 says; manifest.json says where each comes from")
