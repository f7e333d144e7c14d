"""Carrying out a confirmed erasure, step by step. Each step may be done again, so this may be killed anywhere and taken up.

    begin      in the log: no hold stands, nothing more is taken in, no way back
    rejects    what names the person though it cannot be read, while the names are still known
    key        destroyed; a second later nobody can open or seal anything of the subject
    record     SubjectErased, in one append with the end of every study and series
    read-models    each drops the subject's rows
    files      archive, rejects, spool, copies, exports
    database   tables rewritten, old write-ahead log gone
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec

from archive.rejects import Rejects
from archive.spool import Spool
from archive.store import Store
from domain import subject
from domain.errors import DomainError
from domain.ids import Position, SubjectId, subject_stream
from domain.principal import device
from domain.subject import Erasure, ErasureConfirmed, Subject, SubjectErased
from eventlog.aggregate import execute, load
from eventlog.appender import CONNECTION_ERRORS
from eventlog.envelope import RecordedEvent
from eventlog.errors import EventLogError, VersionConflict
from eventlog.leases import lease
from eventlog.log import EventLog
from eventlog.scrub import scrub
from eventlog.vault import TRUSTED_S
from projections.checkpoint import statuses, without_old_versions
from projections.columns import snapshot
from projections.columns.follower import FOLDER as COLUMNS
from projections.projection import Projection, schema_name
from projections.pruning import prune
from projections.runner import Runner
from server.datasets.jobs import kept as dataset_exports
from server.erasure.files import remove_objects, remove_rejects, sweep_spool
from server.erasure.holdings import Holdings, appends, find_holdings, identities
from server.errors import ErasureWaits
from server.fhir.export.jobs import kept as fhir_exports

ERASER = device("eraser")
LEASE_KEY = "erasure"
LOOK_S = 1.0
RETRY_S = 30.0
SPOOL_PATIENCE_S = 60.0
REBUILD_PATIENCE_S = 600.0
STEPS = ("begin", "rejects", "key", "record", "read-models", "files", "database")

_logger = logging.getLogger(__name__)
_PENDING = """
SELECT DISTINCT e.stream FROM event e LEFT JOIN subject_key k ON k.subject_id = substr(e.stream, 9)
WHERE e.type = 'ErasureConfirmed' AND k.purged_at IS NULL ORDER BY e.stream
"""


class Carried(msgspec.Struct, frozen=True, kw_only=True):
    """``undone``: what the database did not let us do, in words."""

    subject_id: str
    files: int
    bytes: int
    undone: Sequence[str]


class Eraser:
    """``projections``: the read models that hold subjects; ``heard`` is told each step as it begins."""

    def __init__(
        self,
        log: EventLog,
        store: Store,
        spool: Spool,
        rejects: Rejects,
        projections: Sequence[Projection],
        heard: Callable[[str], None] = lambda step: None,
    ) -> None:
        self._log = log
        self._store = store
        self._spool = spool
        self._rejects = rejects
        self._projections = projections
        self._heard = heard

    async def run(self) -> None:
        """Until cancelled: carries out what was confirmed, here or elsewhere, and what another process began and left."""
        again_at: dict[SubjectId, float] = {}
        while True:
            try:
                for subject_id in await self.pending():
                    if time.monotonic() >= again_at.get(subject_id, 0.0):
                        again_at[subject_id] = time.monotonic() + RETRY_S
                        await self.carry_out(subject_id)
            except DomainError as error:
                _logger.info("an erasure waits: %s", type(error).__name__)  # a legal hold, or it was withdrawn
            except (ErasureWaits, EventLogError, *CONNECTION_ERRORS) as error:
                _logger.warning("an erasure could not be carried out yet (%s)", type(error).__name__)
            except Exception as error:
                _logger.exception("an erasure could not be carried out (%s)", type(error).__name__)
            await asyncio.sleep(LOOK_S)

    async def pending(self) -> list[SubjectId]:
        """Subjects whose erasure is confirmed, and not carried out to its end."""
        found: list[SubjectId] = []
        for row in await self._log.pool.fetch(_PENDING):
            subject_id = SubjectId(row["stream"].removeprefix("subject-"))
            state, _ = await load(self._log, row["stream"], Subject(), subject.evolve)
            if state.erasure in (Erasure.CONFIRMED, Erasure.STARTED, Erasure.ERASED) and not (state.holds and not state.is_going):
                found.append(subject_id)
        return found

    async def carry_out(self, subject_id: SubjectId) -> Carried | None:
        """To the end; None when another process is at it.

        Raises SubjectUnknown, ErasureNotRequested, SubjectOnHold, ErasureWaits.
        """
        async with lease(self._log, LEASE_KEY) as ours:
            return await self._carry_out(subject_id) if ours else None

    async def _carry_out(self, subject_id: SubjectId) -> Carried:
        self._heard("begin")
        confirmed = await self._begin(subject_id)
        if not await self._log.vault.is_destroyed(subject_id, self._log.pool):
            self._heard("rejects")
            holdings = await find_holdings(self._log, subject_id)
            names = await identities(self._log, holdings)
            await asyncio.to_thread(remove_rejects, self._rejects, self._store, self._log.vault, holdings.known_as, names)
            self._heard("key")
            async with self._log.pool.acquire() as connection:
                await self._log.vault.destroy(subject_id, connection)
            del names
        await asyncio.sleep(TRUSTED_S + 0.2)
        self._heard("record")
        holdings, position = await self._record(subject_id, confirmed)
        self._heard("read-models")
        await self._until_read_models_hold(position)
        self._heard("files")
        await self._remove_files(holdings)
        for exports in (fhir_exports, dataset_exports):
            await exports(self._log, self._log.settings.data_dir).forget_before(position)
        await asyncio.to_thread(snapshot.forget_before, self._log.settings.data_dir / COLUMNS, position)
        self._heard("database")
        undone = await self._scrub()
        await self._log.pool.execute(
            "UPDATE subject_key SET purged_at = now(), undone = $2 WHERE subject_id = $1", subject_id, undone
        )
        erased = holdings.erased()
        return Carried(subject_id=subject_id, files=erased.files, bytes=erased.bytes, undone=undone)

    async def _begin(self, subject_id: SubjectId) -> RecordedEvent:
        stream = subject_stream(subject_id)
        recorded = await self._log.read_stream(stream)
        confirmed = [one for one in recorded if isinstance(one.event, ErasureConfirmed)]
        await execute(
            self._log,
            stream,
            Subject(),
            subject.evolve,
            lambda state: subject.start_erasure(state, subject_id),
            principal=ERASER.acting_for(confirmed[-1].principal) if confirmed else ERASER,
            correlation_id=confirmed[-1].correlation_id if confirmed else None,
            causation_id=confirmed[-1].event_id if confirmed else None,
        )
        return confirmed[-1]  # else start_erasure has refused

    async def _record(self, subject_id: SubjectId, confirmed: RecordedEvent) -> tuple[Holdings, Position]:
        """SubjectErased, once; gives its position."""
        while True:
            holdings = await find_holdings(self._log, subject_id)
            recorded = await self._log.read_stream(subject_stream(subject_id))
            there = [one.position for one in recorded if isinstance(one.event, SubjectErased)]
            if there:
                return holdings, there[0]
            made = appends(holdings, holdings.erased(), recorded[-1].version)
            made = [
                msgspec.structs.replace(
                    append,
                    events=[
                        new if new.causation_id else msgspec.structs.replace(new, causation_id=confirmed.event_id)
                        for new in append.events
                    ],
                )
                for append in made
            ]
            try:
                principal = ERASER.acting_for(confirmed.principal)
                appended = await self._log.append(made, principal=principal, correlation_id=confirmed.correlation_id)
            except VersionConflict:  # a worker was faster
                continue
            return holdings, appended.first

    async def _until_read_models_hold(self, position: int) -> None:
        """Keeps them up itself where no server does. Raises ErasureWaits when one is paused."""
        async with _kept_up(self._log, self._projections):
            while True:
                found = without_old_versions(await statuses(self._log.pool), self._projections)
                behind = [one for one in found if one.position < position and one.name in {p.name for p in self._projections}]
                if not behind:
                    return
                for one in behind:
                    if one.state == "paused":
                        raise ErasureWaits(f"the read model {one.name} is paused: mend it, and run `anamnesis projections resume {one.name}`")
                await asyncio.sleep(0.1)

    async def _remove_files(self, holdings: Holdings) -> None:
        settings, vault = self._log.settings, self._log.vault
        fetched = Path(settings.data_dir) / "fetched"
        deadline = time.monotonic() + SPOOL_PATIENCE_S
        # The spool first: a living process puts what it has received into the store before it refuses it.
        while await asyncio.to_thread(sweep_spool, self._spool, self._store, vault, holdings.known_as):
            if time.monotonic() > deadline:
                raise ErasureWaits("instances of the subject wait in the spool of a process that does not decide on them")
            await asyncio.sleep(0.3)
        await asyncio.to_thread(remove_rejects, self._rejects, self._store, vault, holdings.known_as, [])
        await asyncio.to_thread(remove_objects, self._store, holdings.files, fetched)

    async def _scrub(self) -> list[str]:
        deadline = time.monotonic() + REBUILD_PATIENCE_S
        undone: list[str] = []
        while True:
            undone = [f"schema {one.schema} is still there: {one.reason}" for one in await prune(self._log, self._projections) if not one.removed]
            left = await self._schemas_beside()
            if not left:
                break
            if time.monotonic() > deadline:
                raise ErasureWaits(f"a rebuild has not ended: {', '.join(left)}")
            await asyncio.sleep(0.5)
        return undone + await scrub(self._log.settings, [schema_name(p) for p in self._projections])

    async def _schemas_beside(self) -> list[str]:
        """What a rebuild or verification works on at this moment: it may have read what is gone now."""
        live = [schema_name(p) for p in self._projections]
        rows = await self._log.pool.fetch("SELECT nspname FROM pg_namespace ORDER BY nspname")
        return [row["nspname"] for row in rows if any(row["nspname"].startswith(f"{name}_") for name in live)]


@asynccontextmanager
async def _kept_up(log: EventLog, projections: Sequence[Projection]) -> AsyncIterator[None]:
    keeping = asyncio.create_task(Runner(log, projections).run())
    try:
        yield
    finally:
        keeping.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.gather(keeping, return_exceptions=True)
