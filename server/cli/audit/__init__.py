"""`anamnesis audit`: prove the log, follow what happened, hand it to an auditor."""

from __future__ import annotations

import typer

from server.cli.audit import keys
from server.cli.audit.export import export
from server.cli.audit.lineage import lineage
from server.cli.audit.seals import check, checkpoint, consistency, inclusion, seal
from server.cli.audit.show import show
from server.cli.audit.verify import verify

app = typer.Typer(help="Prove the log, follow what happened, hand it to an auditor.", no_args_is_help=True)
for command in (show, lineage, check, checkpoint, seal, inclusion, consistency, export, verify):
    app.command()(command)
app.add_typer(keys.app, name="keys")
