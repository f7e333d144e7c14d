"""The composition root: every part of the server, opened in order and closed in the opposite one."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Hashable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import asyncpg

from archive.rejects import Rejects
from archive.spool import Spool
from archive.store import Store
from eventlog.database import database_url
from eventlog.errors import EmbeddedDatabaseFailed
from eventlog.log import EventLog
from eventlog.schema import migrate
from eventlog.sealer import run_sealer
from eventlog.together import Together
from eventlog.tree import Tree
from projections.catalogue import projections
from projections.cohort.postgresql import PostgresEngine
from projections.cohort.projection import CohortProjection
from projections.columns.follower import FOLDER as COLUMNS
from projections.columns.follower import Follower
from projections.columns.snapshot import load as load_snapshot
from projections.fhir.search.site import Known
from projections.runner import Runner
from server.audit.recorder import AccessRecorder, record_refused_association
from server.auth.allowance import Allowance
from server.auth.clients import ClientKeys
from server.auth.oidc import OidcVerifier
from server.auth.principals import Verifiers
from server.auth.tokens import TokenVerifier
from server.cohorts.engine import Cohorts
from server.dimse.own_process import DimseProcess
from server.erasure.eraser import Eraser
from server.fhir.plans import Plans
from server.intake import Intake
from server.projecting import ProjectingProcess
from server.settings import ServerSettings

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")
WATCH_DATABASE_S = 0.5
_logger = logging.getLogger(__name__)


@dataclass
class Services:
    settings: ServerSettings
    log: EventLog
    pool: asyncpg.Pool
    """For single statements alone: its sessions are not put in order between two uses."""
    searches: asyncpg.Pool
    """The same, where each statement is planned for its own values: how many resources have a code decides how to find them."""
    plans: Plans
    store: Store
    spool: Spool
    rejects: Rejects
    intake: Intake
    verifiers: Verifiers
    runner: Runner
    tree: Tree
    cohorts: Cohorts
    """What counts and lists cohorts."""
    columns: Follower | None = None
    """What keeps the columns in memory; None where they are turned off."""
    client_keys: ClientKeys = field(default_factory=ClientKeys)
    """Public keys of registered clients."""
    allowance: Allowance = field(default_factory=Allowance)
    """How many tokens registered clients have had."""
    recorder: AccessRecorder | None = None
    """None where reads are not audited."""
    dimse: DimseProcess | None = None
    projecting: ProjectingProcess | None = None
    """None where this process keeps the read models up itself."""
    validating: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "validate"))
    """Where resources are validated, one after the other."""
    export_asked: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when an export is asked for here: it need not wait until somebody looks."""
    dataset_export_asked: asyncio.Event = field(default_factory=asyncio.Event)
    """The same of exports of datasets."""
    complete: set[str] = field(default_factory=set)
    """Read models that are known to have held the whole log once."""
    together: dict[Callable[..., object], Together[Any, Any]] = field(default_factory=dict)
    """By what asks the database."""
    known: Known = field(default_factory=Known)
    """What the site has added to the search parameters, as the last request found it (server.fhir.state)."""

    async def ask(self, ask: Callable[[Services, list[K]], Awaitable[Mapping[K, V]]], key: K, *, most: int = 100) -> V | None:
        """``ask`` for this key and those that others ask for at the same time (eventlog.together), at most so many."""
        if ask not in self.together:
            self.together[ask] = Together(partial(ask, self), most)
        answer: V | None = await self.together[ask].get(key)
        return answer


@asynccontextmanager
async def open_services(settings: ServerSettings, *, dimse: bool = True, projecting: bool = False) -> AsyncIterator[Services]:
    """Everything that `anamnesis serve` needs but HTTP itself. ``projecting``: read models are kept up in a process of their own.

    Raises SettingRefused and what opening the log raises.
    """
    settings.refuse_unsafe()
    async with AsyncExitStack() as stack:
        ahead = None
        if settings.cohort_columns:  # it takes as long as all else does
            ahead = asyncio.ensure_future(asyncio.to_thread(load_snapshot, settings.data_dir / COLUMNS))
            stack.callback(ahead.cancel)
        await migrate(settings)
        log = await EventLog.open(settings)
        stack.push_async_callback(log.close)
        pool = await stack.enter_async_context(await log.reading_pool())
        searches = await stack.enter_async_context(await log.reading_pool(plan_cache_mode="force_custom_plan"))
        plans = Plans(searches, await stack.enter_async_context(await log.reading_pool(plan_cache_mode="force_generic_plan")))
        _background(stack, plans.run())
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
        projecting_process = ProjectingProcess(log, runner) if projecting else None
        _background(stack, projecting_process.run() if projecting_process is not None else runner.run())
        _background(stack, run_sealer(log, settings.seal_every_s))
        if settings.database_url is None:
            _background(stack, _keep_database_up(settings))
        recorder = None
        if settings.audit_reads:
            recorder = AccessRecorder(log)
            stack.push_async_callback(recorder.close)
            _background(stack, recorder.run())
        columns = None
        if settings.cohort_columns:
            columns = Follower(
                log,
                settings.data_dir / COLUMNS,
                CohortProjection.name,
                CohortProjection.version,
                CohortProjection.handles,
                snapshot_every_s=settings.cohort_snapshot_every_s,
                ahead=ahead,
                most_bytes=settings.cohort_columns_mb << 20 if settings.cohort_columns_mb is not None else None,
            )
            stack.push_async_callback(columns.close)
            _background(stack, columns.run())
        cohorts = Cohorts(PostgresEngine(searches), columns)
        stack.callback(cohorts.close)
        services = Services(
            settings=settings,
            log=log,
            pool=pool,
            searches=searches,
            plans=plans,
            store=store,
            spool=spool,
            rejects=rejects,
            intake=intake,
            verifiers=Verifiers(tokens=TokenVerifier(log.pool), oidc=oidc),
            runner=runner,
            tree=Tree(log.pool),
            cohorts=cohorts,
            columns=columns,
            recorder=recorder,
            projecting=projecting_process,
        )
        stack.push_async_callback(services.client_keys.close)
        stack.callback(services.validating.shutdown, wait=False, cancel_futures=True)
        _background(stack, Eraser(log, store, spool, rejects, projections()).run())
        from server.fhir.export.exporter import exporter  # it answers as a search does, by these services

        _background(stack, exporter(services).run())
        from server.datasets.exporting import exporter as dataset_exporter

        _background(stack, dataset_exporter(services).run())
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
        if projecting_process is not None:
            await projecting_process.started()
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
