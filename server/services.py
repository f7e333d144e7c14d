"""The composition root: every part of the server, opened in order and closed in the opposite one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field

import asyncpg

from archive.rejects import Rejects
from archive.spool import Spool
from archive.store import Store
from eventlog.database import database_url
from eventlog.errors import EmbeddedDatabaseFailed
from eventlog.log import EventLog
from eventlog.schema import migrate
from eventlog.sealer import run_sealer
from eventlog.tree import Tree
from projections.dicom.projection import DicomProjection
from projections.dispatch.projection import DispatchProjection
from projections.fhir.projection import FhirProjection
from projections.fhir.search.site import Known
from projections.ledger.projection import LedgerProjection
from projections.projection import Projection
from projections.runner import Runner
from server.audit.recorder import AccessRecorder, record_refused_association
from server.auth.allowance import Allowance
from server.auth.clients import ClientKeys
from server.auth.oidc import OidcVerifier
from server.auth.principals import Verifiers
from server.auth.tokens import TokenVerifier
from server.dimse.own_process import DimseProcess
from server.erasure.eraser import Eraser
from server.intake import Intake
from server.settings import ServerSettings

WATCH_DATABASE_S = 0.5
_logger = logging.getLogger(__name__)


def projections() -> Sequence[Projection]:
    """The read models that this server keeps."""
    return (FhirProjection(), DicomProjection(), LedgerProjection())


def all_projections() -> Sequence[Projection]:
    """Every read model that can be rebuilt: this server's, and the one that the workers' dispatcher keeps for itself."""
    return (*projections(), DispatchProjection())


@dataclass
class Services:
    settings: ServerSettings
    log: EventLog
    pool: asyncpg.Pool
    """For single statements alone: its sessions are not put in order between two uses."""
    searches: asyncpg.Pool
    """The same, where each statement is planned for its own values: how many resources have a code decides how to find them."""
    store: Store
    spool: Spool
    rejects: Rejects
    intake: Intake
    verifiers: Verifiers
    runner: Runner
    tree: Tree
    client_keys: ClientKeys = field(default_factory=ClientKeys)
    """Public keys of registered clients."""
    allowance: Allowance = field(default_factory=Allowance)
    """How many tokens registered clients have had."""
    recorder: AccessRecorder | None = None
    """None where reads are not audited."""
    dimse: DimseProcess | None = None
    validating: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "validate"))
    """Where resources are validated, one after the other."""
    export_asked: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when an export is asked for here: it need not wait until somebody looks."""
    complete: set[str] = field(default_factory=set)
    """Read models that are known to have held the whole log once."""
    known: Known = field(default_factory=Known)
    """What the site has added to the search parameters, as the last request found it (server.fhir.state)."""


@asynccontextmanager
async def open_services(settings: ServerSettings, *, dimse: bool = True) -> AsyncIterator[Services]:
    """Everything that `anamnesis serve` needs but HTTP itself. Raises SettingRefused and what opening the log raises."""
    settings.refuse_unsafe()
    await migrate(settings)
    async with AsyncExitStack() as stack:
        log = await EventLog.open(settings)
        stack.push_async_callback(log.close)
        pool = await stack.enter_async_context(await log.reading_pool())
        searches = await stack.enter_async_context(await log.reading_pool(plan_cache_mode="force_custom_plan"))
        spool, store = Spool(settings.spool_dir), Store(settings.store_url)
        rejects = Rejects(settings.rejects_dir)
        intake = Intake(
            log,
            store,
            spool,
            rejects,
            linger_s=settings.intake_linger_s,
            patient_id_systems=settings.patient_id_systems,
        )
        stack.push_async_callback(intake.close)
        oidc = None
        if settings.oidc_issuer is not None:
            oidc = OidcVerifier(settings.oidc_issuer, settings.oidc_audience or settings.public_url or "anamnesis")
            stack.push_async_callback(oidc.close)
        runner = Runner(log, projections())
        await runner.prepare()
        _background(stack, runner.run())
        _background(stack, run_sealer(log, settings.seal_every_s))
        if settings.database_url is None:
            _background(stack, _keep_database_up(settings))
        recorder = None
        if settings.audit_reads:
            recorder = AccessRecorder(log)
            stack.push_async_callback(recorder.close)
            _background(stack, recorder.run())
        services = Services(
            settings=settings,
            log=log,
            pool=pool,
            searches=searches,
            store=store,
            spool=spool,
            rejects=rejects,
            intake=intake,
            verifiers=Verifiers(tokens=TokenVerifier(log.pool), oidc=oidc),
            runner=runner,
            tree=Tree(log.pool),
            recorder=recorder,
        )
        stack.push_async_callback(services.client_keys.close)
        stack.callback(services.validating.shutdown, wait=False, cancel_futures=True)
        _background(stack, Eraser(log, store, spool, rejects, projections()).run())
        from server.fhir.export.exporter import Exporter  # it answers as a search does, by these services

        _background(stack, Exporter(services).run())
        taken_up = intake.resume()
        if taken_up:
            _logger.info("%d instances of the spool are taken up", taken_up)
        if dimse:
            loop = asyncio.get_running_loop()
            services.dimse = DimseProcess(
                settings,
                intake,
                lambda: loop.call_soon_threadsafe(intake.resume),
                lambda: loop.call_soon_threadsafe(record_refused_association, recorder),
            )
            await asyncio.to_thread(services.dimse.start)
            stack.callback(services.dimse.stop)
        yield services


def _background(stack: AsyncExitStack, work: object) -> None:
    task = asyncio.ensure_future(work)  # type: ignore[call-overload]

    async def stop() -> None:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    stack.push_async_callback(stop)


async def _keep_database_up(settings: ServerSettings) -> None:
    """The embedded database is ours to restart when something killed it."""
    while True:
        await asyncio.sleep(WATCH_DATABASE_S)
        try:
            await database_url(settings)
        except EmbeddedDatabaseFailed as error:
            _logger.error("%s", error)
