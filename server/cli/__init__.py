"""The command line: `anamnesis`. Commands of other packages come in by the entry point group anamnesis.commands."""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import sys
import warnings
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from pydantic_settings import SettingsError

app = typer.Typer(
    help="Anamnesis: an event-sourced, FHIR-native server for curating medical images.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"anamnesis {importlib.metadata.version('anamnesis')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show tracebacks of errors.")] = False,
) -> None: ...


COMMANDS = {
    "init": "server.cli.init:init",
    "serve": "server.cli.serve:serve",
    "ingest": "server.cli.ingest:ingest",
    "demo": "server.cli.demo:demo",
    "events": "server.cli.events:events",
    "review": "server.cli.review:review",
    "settings": "server.cli.show_settings:settings",
    "restore": "server.cli.restore:restore",
}
GROUPS = {
    "audit": "server.cli.audit:app",
    "sign": "server.cli.sign:app",
    "token": "server.cli.token:app",
    "client": "server.cli.client:app",
    "dataset": "server.cli.dataset:app",
    "project": "server.cli.project:app",
    "cohort": "server.cli.cohort:app",
    "subject": "server.cli.subject:app",
    "keys": "server.cli.keys:app",
    "projections": "server.cli.projections:app",
    "db": "server.cli.db:app",
    "backup": "server.cli.backup:app",
}


def _load(target: str) -> Any:
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module), name)


def build(wanted: str | None = None) -> typer.Typer:
    """The application; with ``wanted``, only that command's module is imported (`--help` and errors need them all)."""
    known = {*COMMANDS, *GROUPS}
    others = {e.name: e for e in importlib.metadata.entry_points(group="anamnesis.commands")}
    everything = wanted not in known | set(others)
    for name, target in COMMANDS.items():
        if everything or name == wanted:
            app.command(name)(_load(target))
    for name, target in GROUPS.items():
        if everything or name == wanted:
            app.add_typer(_load(target), name=name)
    for name, entry_point in others.items():
        if everything or name == wanted:
            app.add_typer(entry_point.load(), name=name)
    return app


def main() -> None:
    """Errors are one line on stderr and an exit code: 2 for what the user can mend, 1 for the rest."""
    os.umask(0o077)  # spool, archive and keys hold identities: nobody else on this machine reads them
    warnings.filterwarnings("ignore", module="platformdirs")  # no XDG_RUNTIME_DIR: it finds another
    arguments = sys.argv[1:]
    debug = "--debug" in arguments
    wanted = next((a for a in arguments if not a.startswith("-")), None)
    try:
        build(wanted)()
    except (ValidationError, SettingsError) as error:
        if debug:
            raise
        typer.echo(f"anamnesis: {_bad_settings(error)}", err=True)
        raise SystemExit(2) from None
    except Exception as error:
        if debug:
            raise
        named = type(error).__module__.split(".")[0] in {"domain", "eventlog", "archive", "projections", "workers", "server", "anamnesis"}
        detail = f": {error}" if named or isinstance(error, (OSError, ValueError)) else " (--debug shows where)"
        typer.echo(f"anamnesis: {type(error).__name__}{detail}", err=True)
        raise SystemExit(2 if named else 1) from None


def _bad_settings(error: Exception) -> str:
    """Which variable, and what is wrong with it; never its value, which may be a secret."""
    if not isinstance(error, ValidationError):
        return f"{error}: a list is written as JSON, as in [\"MODALITY1\"]"
    problems = error.errors(include_url=False, include_context=False, include_input=False)
    return "; ".join(f"ANAMNESIS_{'_'.join(map(str, p['loc'])).upper()}: {p['msg']}" for p in problems)
