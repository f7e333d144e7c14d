"""`anamnesis settings`: every setting, its value here, and what it is for."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from server.cli.known_settings import settings_classes, unknown_variables, variable


def settings() -> None:
    """Show every setting; secrets are hidden. Variables that no setting has are named.

    Example:

        ANAMNESIS_HTTP_PORT=9090 anamnesis settings
    """
    table = Table("variable", "value", "what it is")
    shown: set[str] = set()
    for cls in settings_classes():
        here = cls()
        for name, field in cls.model_fields.items():
            if name not in shown:
                table.add_row(variable(name), str(getattr(here, name)), field.description or "")
                shown.add(name)
    console = Console()
    console.print(table)
    if unknown := unknown_variables():
        console.print(f"[yellow]Not settings:[/yellow] {', '.join(unknown)}")
