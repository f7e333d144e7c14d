"""`anamnesis cohort`: count, list and save what meets a condition, by the Python client, from this machine or from another one."""

from __future__ import annotations

import typer

from server.cli.cohort import columns, counting, listing, saving

app = typer.Typer(
    help="Ask what meets a condition: `--where 'Modality = CT and has finding (label = liver and volume_ml > 1200)'`.",
    no_args_is_help=True,
)
for _part in (counting, listing, saving, columns):
    app.add_typer(_part.app)
