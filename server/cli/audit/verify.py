"""`anamnesis audit verify`: checks a bundle, offline."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import Progress


def verify(
    bundle: Annotated[Path, typer.Argument(help="The folder or the zip.", exists=True)],
    key: Annotated[str | None, typer.Option(help="A verification key of the site that you had from elsewhere than from this bundle.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Check a bundle: that nothing in it was altered, and that nothing about its scope was left out.

    It needs no database and no network, as the verify.py in the bundle does. Exit code 1 when something does not hold.

    Examples:

        anamnesis audit verify study.zip

        anamnesis audit verify study.zip --key "anamnesis/hospital+1f2e3d4c+AT…"
    """
    from server.audit import verifier

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("Verifying", total=None)
        try:
            result = verifier.verify(bundle, key, lambda at, size: progress.update(task, completed=at, total=size))
        except (verifier.NotABundle, ValueError) as error:
            typer.echo(f"anamnesis: {error}", err=True)
            raise typer.Exit(2) from None
    if as_json:
        typer.echo(json.dumps({"holds": result.holds, **result.facts, "problems": [vars(one) for one in result.problems]}))
    else:
        typer.echo("\n".join(verifier.describe(result)))
    if not result.holds:
        raise typer.Exit(1)
