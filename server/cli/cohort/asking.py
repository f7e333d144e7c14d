"""What every command of `anamnesis cohort` takes: the question, the server, and the token."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from anamnesis.client import Client, Cohort, Condition
from anamnesis.client.connection import SERVER_VARIABLE, TOKEN_VARIABLE
from anamnesis.client.errors import QuestionRefused
from anamnesis.client.records import RECORDS

Where = Annotated[str | None, typer.Option(help="The condition: Modality = CT and SliceThickness <= 1.5 and not has finding (…).")]
QueryFile = Annotated[Path | None, typer.Option("--query", help="File with a question as JSON, instead of --where and --level.", exists=True, dir_okay=False)]
Saved = Annotated[str | None, typer.Option(help="Title or id of a saved cohort, instead of --where and --level.")]
LevelAsked = Annotated[str, typer.Option(help=f"What is asked for: {', '.join(RECORDS)}.")]
AsOf = Annotated[str | None, typer.Option(help="A position of the log, or a date or instant (its end).")]
Server = Annotated[str | None, typer.Option(help=f"The server's URL; unset: {SERVER_VARIABLE}, or the server of this machine's settings.")]
TokenFile = Annotated[Path | None, typer.Option(help=f"File with the token; unset: {TOKEN_VARIABLE}, or typed.", exists=True, dir_okay=False)]
Ca = Annotated[Path | None, typer.Option(help="Certificates (PEM) that the server's has to be signed by.", exists=True, dir_okay=False)]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@contextmanager
def connected(server: str | None, token_file: Path | None, ca: Path | None) -> Iterator[Client]:
    with Client(server or os.environ.get(SERVER_VARIABLE) or _server_of_settings(), token=_typed_token(token_file), token_file=token_file, ca=ca) as client:
        yield client


def _server_of_settings() -> str:
    from server.settings import ServerSettings

    settings = ServerSettings()
    scheme = "https" if settings.tls_certificate else "http"
    return settings.public_url or f"{scheme}://{settings.http_host}:{settings.http_port}"


def _typed_token(file: Path | None) -> str | None:
    """Typed where there is none and somebody sits there; never an argument, since those are seen by everybody."""
    if file is None and not os.environ.get(TOKEN_VARIABLE) and sys.stdin.isatty():
        return str(typer.prompt("Access token", hide_input=True))
    return None


def cohort_of(client: Client, where: str | None, query: Path | None, saved: str | None, level: str, as_of: str | None) -> Cohort[Any]:
    """Raises ConditionUnreadable, QuestionRefused and NotFound."""
    at = place(as_of)
    if sum(one is not None for one in (where, query, saved)) > 1:
        raise QuestionRefused("--where, --query and --saved are three ways to say the same: give one of them")
    if saved is not None:
        return client.cohort(saved).cohort(as_of=at)
    condition: Condition | str | None = where
    if query is not None:
        level, condition = _read_query(query)
    match level:
        case "subject":
            return client.subjects(condition, as_of=at)
        case "study":
            return client.studies(condition, as_of=at)
        case "series":
            return client.series(condition, as_of=at)
        case "finding":
            return client.findings(condition, as_of=at)
    raise QuestionRefused(f"{level} is not listed: ask for {', '.join(RECORDS)}")


def place(as_of: str | None) -> int | str | None:
    """A position, or what is an instant or a date."""
    return int(as_of) if as_of and as_of.isdigit() else as_of


def _read_query(file: Path) -> tuple[str, Condition | None]:
    """As `anamnesis cohort` and GraphQL save them: {"level": "series", "where": {…}}."""
    try:
        query = json.loads(file.read_text(encoding="utf-8"))
        return str(query["level"]), Condition(query["where"]) if query.get("where") else None
    except (ValueError, KeyError, TypeError, AttributeError):
        raise QuestionRefused(f'{file.name} holds no question: it is JSON like {{"level": "series", "where": {{"is": "present", "field": "KVP"}}}}') from None
