"""Keeps projections up with the log: batches in position order, the checkpoint in the same transaction, one leader each by a lock.

A read model that is new (or whose code has a new version) is *building* until it has held the whole log once, with large batches
and without the indexes that only readers need. An event that a projection cannot apply, or that the running code does not know,
pauses it, with the event's position in the checkpoint's ``problem``, and is never skipped; the events before it are applied.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence

import asyncpg

from domain.ids import Position
from eventlog.appender import CONNECTION_ERRORS
from eventlog.envelope import RecordedEvent
from eventlog.errors import EventLogError, UnknownEventType
from eventlog.leases import lease
from eventlog.log import EventLog
from projections import checkpoint, schemas
from projections.checkpoint import Status
from projections.errors import CheckpointMoved, ProjectionBehind
from projections.projection import Projection, WorksLater, named, schema_name
from projections.rebuild import GRACE_S, Progress, rebuild, switch_key
from projections.replay import BYTES_A_BATCH, EVENTS_A_BATCH, FOR_WRITING

BATCH = 500
FAR_BEHIND = 2000
"""Events of lag beyond which batches are large."""
RETRY_S = 0.5
ASK_S = 0.05
"""Who waits for a position asks the database this often, in case another process keeps the projection up."""
GATHER_S = 0.2
"""While events stream in, batches begin at least this far apart: fewer and larger ones. A lone event does not wait."""
UNKNOWN = "unknown event type"

_logger = logging.getLogger(__name__)


class Runner:
    def __init__(self, log: EventLog, projections: Sequence[Projection], *, batch: int = BATCH) -> None:
        self._log = log
        self._batch = batch
        self.projections = tuple(projections)
        self._reached: dict[str, int] = {}
        self._applied = asyncio.Event()
        self._hurried = {projection.name: asyncio.Event() for projection in projections}
        self.wanted: dict[str, int] = {}
        """By the name of the projection: the furthest position that somebody waits for, or has waited for."""
        self.tell_wanted: Callable[[str, int], None] = self._hurry
        """What does so at once where another process of ours keeps the projections up; it says what it has reached by `hear`."""
        self.tell_reached: Callable[[str, int], None] = lambda name, position: None
        """Called with what this process has applied."""

    async def run(self) -> None:
        """Until cancelled: leads where nobody else does, and outlives a lost database."""
        async with asyncio.TaskGroup() as group:
            for projection in self.projections:
                group.create_task(self._keep(projection))

    async def catch_up(self) -> Position:
        """Applies everything up to the head as it is now, and returns that position."""
        head = await self._log.head()
        await self.prepare()
        for projection in self.projections:
            while await self._step(projection):
                pass
            while await self._work(projection):
                pass
        return head

    async def catch_up_unless_led(self) -> None:
        """The same, for those projections that no running process keeps up: what reads them would wait in vain."""
        for projection in self.projections:
            async with lease(self._log, _leadership(projection)) as leads:
                if leads:
                    await Runner(self._log, [projection]).catch_up()

    async def wait_for(self, projection: Projection, position: int, timeout_s: float = 10.0) -> None:
        """As projections.checkpoint.wait_for, for who has just written: where this process keeps the projection up, or one of ours beside
        it, what was appended is applied at once and not gathered, and nobody has to ask the database whether it is.

        Raises ProjectionBehind."""
        deadline = asyncio.get_running_loop().time() + timeout_s
        self.want(projection.name, position)
        while self._reached.get(projection.name, 0) < position:
            applied = self._applied
            try:
                async with asyncio.timeout(ASK_S):
                    await applied.wait()
            except TimeoutError:
                at = await checkpoint.reached(self._log.pool, projection.name, projection.version)
                if at >= position:
                    return
                if asyncio.get_running_loop().time() > deadline:
                    raise ProjectionBehind(projection.name, position, at) from None

    def want(self, name: str, position: int) -> None:
        """Somebody waits until the projection has applied this position."""
        if position > self.wanted.get(name, 0):
            self.wanted[name] = position
            self.tell_wanted(name, position)

    def hear(self, name: str, position: int) -> None:
        """A projection has reached this position."""
        self._reached[name] = position
        applied, self._applied = self._applied, asyncio.Event()
        applied.set()

    def _hurry(self, name: str, position: int) -> None:
        if name in self._hurried:
            self._hurried[name].set()
            self._log.hint()

    async def prepare(self) -> None:
        """Makes the schema and the checkpoint of each projection that has none yet."""
        for projection in self.projections:
            async with self._log.pool.acquire() as connection, connection.transaction():
                await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", f"prepare {projection.name}")
                if not await schemas.exists(connection, schema_name(projection)):
                    await schemas.create(connection, projection, schema_name(projection))
                    await checkpoint.start(connection, projection)
                    if await connection.fetchval("SELECT position = 0 FROM public.log_head"):
                        await schemas.complete(connection, projection, schema_name(projection))

    async def resume(self, name: str) -> bool:
        """Lets a paused projection try again; False when it is not paused. Raises UnknownProjection."""
        return await checkpoint.resume(self._log.pool, named(self.projections, name))

    async def rebuild(
        self, name: str, heard: Callable[[Progress], None] = lambda progress: None, *, grace_s: float = GRACE_S
    ) -> Position:
        """Builds the projection anew beside the live tables, then puts it in their place (see projections.rebuild)."""
        projection = named(self.projections, name)
        await self.prepare()
        limit = EVENTS_A_BATCH if self._batch == BATCH else self._batch
        return await rebuild(self._log, projection, heard, limit=limit, grace_s=grace_s)

    async def status(self) -> list[Status]:
        return await checkpoint.statuses(self._log.pool)

    async def _keep(self, projection: Projection) -> None:
        while True:
            try:
                async with lease(self._log, _leadership(projection)) as leads:
                    if leads:
                        await self.prepare()
                        await schemas.sweep_unless_in_use(self._log, projection)
                        # An event type that another version of the code did not know may be known to this one.
                        await checkpoint.resume(self._log.pool, projection, f"{UNKNOWN}%")
                        await self._follow(projection)
            except (*CONNECTION_ERRORS, CheckpointMoved) as lost:
                _logger.warning("projection %s stopped (%s); starting again", projection.name, type(lost).__name__)
            await asyncio.sleep(RETRY_S)

    async def _follow(self, projection: Projection) -> None:
        if isinstance(projection, WorksLater):
            projection.may_have_work = True  # whoever led before may have left some
        while True:
            heard = self._log.news()
            again_at = asyncio.get_running_loop().time() + GATHER_S
            stepped = await self._step(projection)
            worked = await self._work(projection)  # also while events stream in
            if worked:
                continue  # there may be more, and a piece of it takes as long as events need to gather
            if stepped:
                await self._gather(projection, again_at)
            else:
                await self._log.wait_for_news(heard)

    async def _gather(self, projection: Projection, until: float) -> None:
        hurried = self._hurried[projection.name]
        hurried.clear()
        if self.wanted.get(projection.name, 0) > self._reached[projection.name]:
            return
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout_at(until):
                await hurried.wait()

    async def _step(self, projection: Projection, limit: int = 0) -> bool:
        """Applies one batch; False when there was nothing to do (or the projection is paused)."""
        row = await self._log.pool.fetchrow(
            "SELECT c.position, c.state, c.built, h.position AS head FROM projection_checkpoint c, log_head h"
            " WHERE c.name = $1 AND c.version = $2",
            projection.name,
            projection.version,
        )
        at, head = row["position"], row["head"]
        if self._reached.get(projection.name) != at:
            self._has_reached(projection.name, at)
        if row["state"] == "paused" or (at >= head and row["built"]):
            return False
        limit = limit or (max(self._batch, EVENTS_A_BATCH) if head - at > FAR_BEHIND else self._batch)
        try:
            events, to = await self._log.read_batch(at, head, types=projection.handles, limit=limit, max_bytes=BYTES_A_BATCH)
        except EventLogError as error:
            if limit > 1:  # one event cannot be read: go up to it by halves
                return await self._step(projection, limit // 2)
            if isinstance(error, UnknownEventType) and error.position - 1 > at:  # nothing before it is for this projection
                await self._apply(projection, [], at, error.position - 1, built=row["built"])
                at = error.position - 1
            await self._pause(projection, at + 1, error)
            return False
        to = Position(max(at, to))
        built = row["built"] or to >= head
        try:
            await self._apply(projection, events, at, to, built=built, complete=built and not row["built"])
        except (*CONNECTION_ERRORS, CheckpointMoved):
            raise
        except Exception as error:  # whatever a projection raises pauses it; the log and the others go on
            await self._apply_up_to_fault(projection, events, at, error, built=row["built"])
        else:
            self._has_reached(projection.name, to)
        return True

    def _has_reached(self, name: str, position: int) -> None:
        self.hear(name, position)
        self.tell_reached(name, position)

    async def _work(self, projection: Projection) -> bool:
        """Does a piece of what the projection left for later; False when nothing is left, or it does not live."""
        if not isinstance(projection, WorksLater) or not projection.may_have_work:
            return False
        position = 0
        try:
            async with self._log.pool.acquire() as connection, connection.transaction():
                await self._to_write(connection, projection)
                row = await connection.fetchrow(
                    "SELECT position, state FROM public.projection_checkpoint WHERE name = $1 AND version = $2 FOR UPDATE",
                    projection.name,
                    projection.version,
                )
                position = row["position"]
                return row["state"] == "live" and await projection.work(connection)
        except CONNECTION_ERRORS:
            raise
        except Exception as error:  # as of an event: it pauses this projection, and the log and the others go on
            await self._pause(projection, position, error)
            return False

    async def _to_write(self, connection: asyncpg.Connection, projection: Projection) -> None:
        """Settings of a transaction that writes the live tables, and the lock that keeps a rebuild from changing places with them."""
        settings = {**FOR_WRITING, "search_path": schema_name(projection)}
        await connection.execute(
            "SELECT pg_advisory_xact_lock_shared(hashtextextended($1, 0)), set_config(name, value, true)"
            " FROM unnest($2::text[], $3::text[]) AS s (name, value)",
            switch_key(projection),
            list(settings),
            list(settings.values()),
        )

    async def _apply(
        self, projection: Projection, events: Sequence[RecordedEvent], at: int, to: int, *, built: bool, complete: bool = False
    ) -> None:
        async with self._log.pool.acquire() as connection, connection.transaction():
            await self._to_write(connection, projection)
            await checkpoint.move(connection, projection, at, to, built=built)
            if not built and schemas.needs_all_indexes(events):
                await schemas.complete(connection, projection, schema_name(projection))
            if events:
                await projection.apply(events, connection)
            if complete:
                await schemas.complete(connection, projection, schema_name(projection))

    async def _apply_up_to_fault(
        self, projection: Projection, events: Sequence[RecordedEvent], at: int, error: Exception, *, built: bool
    ) -> None:
        for event in events:
            try:
                await self._apply(projection, [event], at, event.position, built=built)
            except (*CONNECTION_ERRORS, CheckpointMoved):
                raise
            except Exception as fault:
                await self._pause(projection, event.position, fault)
                return
            at = event.position
        _logger.warning("projection %s failed on a batch (%s) but not on its events", projection.name, type(error).__name__)

    async def _pause(self, projection: Projection, position: int, error: Exception) -> None:
        if isinstance(error, UnknownEventType):
            problem = (
                f"{UNKNOWN} {error.event_type} (schema version {error.schema_version}) at position {error.position}:"
                " a newer Anamnesis wrote it; update this one"
            )
        else:
            # The error's text may hold what the event holds; its class and the position are enough to look it up.
            problem = f"{type(error).__name__} at or after position {position}"
        _logger.error("projection %s is paused: %s", projection.name, problem)
        await checkpoint.pause(self._log.pool, projection, problem)


def _leadership(projection: Projection) -> str:
    """Of the lease that the one process holds which keeps the projection up."""
    return f"projection {schema_name(projection)}"
