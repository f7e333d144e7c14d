"""Keeps projections up with the log: batches in position order, the checkpoint in the same transaction, one leader by a lock.

An event that a projection cannot apply pauses it, with its position in the checkpoint's ``problem``, and is never skipped;
the events before it are applied. A rebuild fills a schema beside the live one and takes its place in one transaction.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence

import asyncpg

from domain.ids import Position
from eventlog.appender import CONNECTION_ERRORS
from eventlog.envelope import RecordedEvent
from eventlog.errors import EventLogError
from eventlog.leases import lease
from eventlog.log import EventLog
from projections.checkpoint import Status, statuses
from projections.errors import CheckpointMoved, UnknownProjection
from projections.projection import Projection, schema_name

BATCH = 500
LEADER_KEY = "projections"
RETRY_S = 0.5
GATHER_S = 0.2
"""While events stream in, batches begin at least this far apart: fewer and larger ones. A lone event does not wait."""

_logger = logging.getLogger(__name__)


class Runner:
    def __init__(self, log: EventLog, projections: Sequence[Projection], *, batch: int = BATCH) -> None:
        self._log = log
        self._batch = batch
        self.projections = tuple(projections)

    async def run(self) -> None:
        """Until cancelled: leads when nobody else does, and outlives a lost database."""
        while True:
            try:
                async with lease(self._log, LEADER_KEY) as leads:
                    if leads:
                        await self.prepare()
                        async with asyncio.TaskGroup() as group:
                            for projection in self.projections:
                                group.create_task(self._follow(projection))
            except* (*CONNECTION_ERRORS, CheckpointMoved) as lost:
                _logger.warning("projections stopped (%s); starting again", type(lost.exceptions[0]).__name__)
            await asyncio.sleep(RETRY_S)

    async def catch_up(self) -> Position:
        """Applies everything up to the head as it is now, and returns that position."""
        head = await self._log.head()
        await self.prepare()
        for projection in self.projections:
            while await self._step(projection):
                pass
        return head

    async def prepare(self) -> None:
        """Makes the schema and the checkpoint of each projection that has none yet."""
        for projection in self.projections:
            async with self._log.pool.acquire() as connection, connection.transaction():
                await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", f"prepare {projection.name}")
                if not await _exists(connection, schema_name(projection)):
                    await _create(connection, projection, schema_name(projection))
                    await connection.execute(
                        "INSERT INTO public.projection_checkpoint (name, version, position, state) VALUES ($1, $2, 0, 'building')"
                        " ON CONFLICT (name, version) DO UPDATE SET position = 0, state = 'building', problem = NULL",
                        projection.name,
                        projection.version,
                    )

    async def resume(self, name: str) -> None:
        """Lets a paused projection try again."""
        await self._log.pool.execute(
            "UPDATE projection_checkpoint SET state = 'building', problem = NULL WHERE name = $1 AND state = 'paused'", name
        )

    async def rebuild(self, name: str, progress: Callable[[Position, Position], None] | None = None) -> Position:
        """Builds the projection anew beside the live tables, then puts it in their place. Returns the position it holds.

        ``progress`` hears (position, head) after each batch. Raises UnknownProjection, and whatever apply raises.
        """
        projection = next((p for p in self.projections if p.name == name), None)
        if projection is None:
            raise UnknownProjection(f"there is no projection {name}: {', '.join(p.name for p in self.projections)} exist")
        await self.prepare()
        live, beside = schema_name(projection), f"{schema_name(projection)}_rebuild"
        async with self._log.pool.acquire() as connection:
            await connection.execute(f"DROP SCHEMA IF EXISTS {beside} CASCADE")
            async with connection.transaction():
                await _create(connection, projection, beside)
        position = Position(0)
        while True:
            head = await self._log.head()
            while events := await self._log.read(position, self._batch, projection.handles):
                async with self._log.pool.acquire() as connection, connection.transaction():
                    await connection.execute(f"SET LOCAL search_path = {beside}")
                    await projection.apply(events, connection)
                position = events[-1].position
                if progress is not None:
                    progress(position, head)
            position = max(position, head)
            async with self._log.pool.acquire() as connection, connection.transaction():
                reached = await connection.fetchval(
                    "SELECT position FROM projection_checkpoint WHERE name = $1 AND version = $2 FOR UPDATE",
                    projection.name,
                    projection.version,
                )
                if reached <= position:  # the live one waits on this lock: nothing moves while the schemas change places
                    await connection.execute(f"DROP SCHEMA {live} CASCADE")
                    await connection.execute(f"ALTER SCHEMA {beside} RENAME TO {live}")
                    await _move(connection, projection, reached, position, "live")
                    return position

    async def status(self) -> list[Status]:
        return await statuses(self._log.pool)

    async def _follow(self, projection: Projection) -> None:
        while True:
            heard = self._log.news()
            again_at = asyncio.get_running_loop().time() + GATHER_S
            if await self._step(projection):
                await asyncio.sleep(max(0, again_at - asyncio.get_running_loop().time()))
            else:
                await self._log.wait_for_news(heard)

    async def _step(self, projection: Projection, limit: int = 0) -> bool:
        """Applies one batch; False when there was nothing to do (or the projection is paused)."""
        limit = limit or self._batch
        row = await self._log.pool.fetchrow(
            "SELECT c.position, c.state, h.position AS head FROM projection_checkpoint c, log_head h"
            " WHERE c.name = $1 AND c.version = $2",
            projection.name,
            projection.version,
        )
        if row["state"] == "paused" or row["position"] >= row["head"]:
            return False
        try:
            events = await self._log.read(row["position"], limit, projection.handles)
        except EventLogError as error:
            if limit > 1:  # one event cannot be read: go up to it one by one
                return await self._step(projection, limit=1)
            await self._pause(projection, row["position"] + 1, error)
            return False
        to = events[-1].position if len(events) == limit else max(row["head"], events[-1].position if events else 0)
        try:
            await self._apply(projection, events, row["position"], Position(to))
        except (*CONNECTION_ERRORS, CheckpointMoved):
            raise
        except Exception as error:  # whatever a projection raises pauses it; the log and the others go on
            await self._apply_up_to_fault(projection, events, row["position"], error)
        return True

    async def _apply(self, projection: Projection, events: Sequence[RecordedEvent], at: int, to: Position) -> None:
        async with self._log.pool.acquire() as connection, connection.transaction():
            await _move(connection, projection, at, to, "live")
            if events:
                await connection.execute(f"SET LOCAL search_path = {schema_name(projection)}")
                await projection.apply(events, connection)

    async def _apply_up_to_fault(
        self, projection: Projection, events: Sequence[RecordedEvent], at: int, error: Exception
    ) -> None:
        for event in events:
            try:
                await self._apply(projection, [event], at, event.position)
            except (*CONNECTION_ERRORS, CheckpointMoved):
                raise
            except Exception as fault:
                await self._pause(projection, event.position, fault)
                return
            at = event.position
        _logger.warning("projection %s failed on a batch (%s) but not on its events", projection.name, type(error).__name__)

    async def _pause(self, projection: Projection, position: int, error: Exception) -> None:
        # The error's text may hold what the event holds; its class and the position are enough to look it up.
        problem = f"{type(error).__name__} at or after position {position}"
        _logger.error("projection %s is paused: %s", projection.name, problem)
        await self._log.pool.execute(
            "UPDATE projection_checkpoint SET state = 'paused', problem = $3 WHERE name = $1 AND version = $2",
            projection.name,
            projection.version,
            problem,
        )


async def _exists(connection: asyncpg.Connection, schema: str) -> bool:
    return bool(await connection.fetchval("SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)", schema))


async def _create(connection: asyncpg.Connection, projection: Projection, schema: str) -> None:
    await connection.execute(f"CREATE SCHEMA {schema}")
    await connection.execute(f"SET LOCAL search_path = {schema}")
    for statement in projection.statements:
        await connection.execute(statement)
    await connection.execute("RESET search_path")


async def _move(connection: asyncpg.Connection, projection: Projection, at: int, to: int, state: str) -> None:
    moved = await connection.execute(
        "UPDATE public.projection_checkpoint SET position = $4, state = $5, problem = NULL"
        " WHERE name = $1 AND version = $2 AND position = $3",
        projection.name,
        projection.version,
        at,
        to,
        state,
    )
    if moved != "UPDATE 1":
        raise CheckpointMoved(f"projection {projection.name} is not at position {at} any more")
