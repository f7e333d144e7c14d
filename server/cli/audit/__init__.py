"""`anamnesis audit`: prove the log, follow what happened, hand it to an auditor."""

from __future__ import annotations

import typer

from server.cli.audit.export import export
from server.cli.audit.lineage import lineage
from server.cli.audit.show import show
from server.cli.audit.verify import verify

app = typer.Typer(help="Prove the log, follow what happened, hand it to an auditor.", no_args_is_help=True)
app.command()(show)
app.command()(lineage)
app.command()(export)
app.command()(verify)
