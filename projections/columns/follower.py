"""Keeps the columns up with the rows: from a snapshot on disk or from all rows, then whatever began, ended or vanished since.

One task writes. What takes long (all rows, a new column) is read by a thread of its own with its own connection and event loop, so that
the server goes on; until the columns are there, others answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

import asyncpg
import msgspec
import numpy as np

from domain.condition import Level
from domain.event import Event
from domain.facet import FACETS_STREAM, FacetAdded, FacetRemoved, Facets, evolve
from eventlog.aggregate import load
from eventlog.appender import CONNECTION_ERRORS
from eventlog.log import EventLog
from projections.cohort.fields import field_named
from projections.columns import snapshot
from projections.columns.adding import Built, build, continued, placed
from projections.columns.copying import copy_rows
from projections.columns.layout import DEFAULT_ELEMENTS, LAID
from projections.columns.reading import all_rows, changes
from projections.columns.snapshot import Captured, Description
from projections.columns.store import NO_ENDS, Changes, Store
from projections.columns.table import Rows

FOLDER = "columns"
"""Of snapshots, in the data folder."""
GATHER_S = 0.2
"""While events stream in, the rows are asked this often."""
SOON_S = 0.02
"""An event was appended: the rows will have it in a moment."""
RETRY_S = 1.0
STALE_S = 2.0
"""Columns that nobody has compared with the rows for so long do not say what the latest position is."""

_logger = logging.getLogger(__name__)
T = TypeVar("T")
Loaded = tuple[Path, Description, Store]


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """``state``: waiting (for the rows to be complete), reading, following, or stopped by what ``problem`` says.

    ``facets``: elements that are becoming columns, and how many rows of each are read.
    """

    state: str
    rows: int
    bytes: int
    position: int
    behind_s: float
    facets: dict[str, int]
    problem: str = ""


class Follower:
    """Of the rows of the projection of this name and version, which events of these types change. ``ahead``: a snapshot that is being loaded
    already."""

    def __init__(
        self,
        log: EventLog,
        folder: Path,
        name: str,
        version: int,
        handles: Collection[type[Event]],
        *,
        snapshot_every_s: float = 600.0,
        most_bytes: int | None = None,
        ahead: asyncio.Future[Loaded | None] | None = None,
    ) -> None:
        self._ahead = ahead
        self.store = Store({})
        self._log, self._folder = log, folder
        self._name, self._version, self._schema = name, version, f"{name}_v{version}"
        self._types = sorted(one.__name__ for one in handles)
        self._snapshot_every_s, self._most_bytes = snapshot_every_s, most_bytes
        self._state, self._problem = "waiting", ""
        self._level_at = 0.0
        """When the columns were last seen to hold all that the rows hold."""
        self._building: dict[str, int] = {}
        self._wanted: dict[Level, list[str]] = {}
        self._written_at, self._written = time.monotonic(), -1
        self._turn = asyncio.Lock()
        """Of who changes the store."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._applying: asyncio.Future[bool] | None = None
        """What a thread is taking in: to be waited for, whoever was cancelled."""

    @property
    def is_level(self) -> bool:
        """The columns hold what the rows held a moment ago."""
        return self.store.is_ready and time.monotonic() - self._level_at < STALE_S

    @property
    def progress(self) -> Progress:
        ready = self.store.is_ready
        return Progress(
            state=self._state,
            rows=sum(self.store.rows.values()),
            bytes=self.store.nbytes,
            position=self.store.position if ready else 0,
            behind_s=max(0.0, time.monotonic() - self._level_at) if ready else 0.0,
            facets=dict(self._building),
            problem=self._problem,
        )

    async def run(self) -> None:
        """Until cancelled; outlives a lost database."""
        while True:
            try:
                if not self.store.is_ready:
                    await self._begin()
                await self._follow()
            except CONNECTION_ERRORS as lost:
                _logger.warning("the columns cannot follow the rows (%s); trying again", type(lost).__name__)
            except _ReadAnew as reason:
                _logger.info("the columns are read anew: %s", reason)
                await self._forget()
            except asyncpg.PostgresError as error:  # the rows are of another version, or go at this moment
                _logger.warning("the rows cannot be read (%s); trying again", type(error).__name__)
            except MemoryExceeded as exceeded:
                self._state, self._problem = "stopped", str(exceeded)
                _logger.error("the columns are given up: %s", exceeded)
                self.store.take_over(Store({}))
                return
            except Exception as error:  # what is in memory may be half of something
                _logger.exception("the columns could not follow the rows (%s)", type(error).__name__)
                await self._forget()
            await asyncio.sleep(RETRY_S)

    async def close(self) -> None:
        """Keeps what is here for the next start."""
        if self._applying is not None:
            await asyncio.gather(self._applying, return_exceptions=True)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self.store.is_ready and self._written != self.store.position:
            try:
                await self.write_snapshot()
            except (OSError, *CONNECTION_ERRORS) as error:
                _logger.warning("no snapshot of the columns could be written (%s)", type(error).__name__)

    async def write_snapshot(self) -> None:
        captured = await self._capture()
        await asyncio.to_thread(snapshot.write, self._folder, captured)
        self._written, self._written_at = captured.description.position, time.monotonic()

    async def _capture(self) -> Captured:
        first, last = await identity(self._log.pool, self.store.position)
        return snapshot.capture(self.store, self._schema, first, last)

    async def _begin(self) -> None:
        while not await self._log.pool.fetchval(_BUILT, self._name, self._version):
            self._state = "waiting"
            await asyncio.sleep(RETRY_S)
        self._state = "reading"
        self._wanted = await wanted_elements(self._log)
        began = time.monotonic()
        if await self._from_snapshot():
            source = "a snapshot"
        else:
            store = await self._beside(lambda connection: read_all(connection, self._schema, self._name, self._version, self._wanted))
            self.store.take_over(store)
            source = "the rows"
        self._check_memory()
        _logger.info("columns of %d rows were read from %s in %.1f s", sum(self.store.rows.values()), source, time.monotonic() - began)

    async def _from_snapshot(self) -> bool:
        ahead, self._ahead = self._ahead, None
        loaded = await (ahead if ahead is not None else asyncio.to_thread(snapshot.load, self._folder))
        if loaded is None:
            return False
        path, description, store = loaded
        refused = await self._refused(description)
        if refused:
            await asyncio.to_thread(snapshot.discard, path, refused)
            return False
        # Before anybody is answered: an erasure may have come since.
        async with self._turn:
            connection = await self._connection()
            try:
                await self._step(connection, store)
            finally:
                await connection.close()
        self.store.take_over(store)
        self._written = description.position
        return True

    async def _refused(self, description: Description) -> str:
        """Why a snapshot cannot be used; empty where it can."""
        reached = await self._log.pool.fetchval(_POSITION, self._name, self._version)
        if description.schema != self._schema or (description.first, description.last) != await identity(self._log.pool, description.position):
            return "is of another log"
        return "is of a later position than the rows" if description.position > reached else ""

    async def _follow(self) -> None:
        connection = await self._connection()
        try:
            self._state = "following"
            await self._take_facets()
            while True:
                heard = self._log.news()
                async with self._turn:
                    stepped = await self._step(connection, self.store)
                self._level_at = time.monotonic()
                self._check_memory()
                if time.monotonic() - self._written_at > self._snapshot_every_s and self._written != self.store.position:
                    await self.write_snapshot()
                if stepped:
                    await asyncio.sleep(GATHER_S)
                elif await connection.fetchval(_HEAD) > self.store.position and not await connection.fetchval(_PAUSED, self._name, self._version):
                    await asyncio.sleep(SOON_S)
                else:
                    await self._log.wait_for_news(heard)
        finally:
            connection.terminate()

    async def _forget(self) -> None:
        """All that is known, here and on disk: the rows say it anew."""
        self.store.take_over(Store({}))
        path = await asyncio.to_thread(snapshot.newest, self._folder)
        if path is not None:
            await asyncio.to_thread(snapshot.discard, path, "does not go with the rows")

    async def _connection(self) -> asyncpg.Connection:
        connection = await self._log.connect()
        await connection.execute("SET plan_cache_mode = force_custom_plan")
        return connection

    async def _step(self, connection: asyncpg.Connection, store: Store) -> bool:
        """Takes in what the rows have become. False when nothing has. Raises _ReadAnew."""
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            reached = await connection.fetchval(_POSITION, self._name, self._version)
            before = store.position
            if reached is None or reached < before:
                raise _ReadAnew("the rows are behind them")
            if reached == before:
                return False
            # What is read goes into the log too, without a word to these rows.
            told = await connection.fetchval(_TOLD, before, reached, self._types)
            read = [each async for each in changes(connection, self._schema, store.tables, before)] if told else []
            erased = await connection.fetch(f"SELECT level, id FROM {self._schema}.entity_erased WHERE position > {before:d}") if told else []
            facets_changed = await connection.fetchval(_FACETS_CHANGED, before, reached)
        self._applying = asyncio.ensure_future(asyncio.to_thread(_apply, store, read, [(row["level"], row["id"]) for row in erased], reached))
        if not await asyncio.shield(self._applying):
            raise _ReadAnew("rows came out of order")
        if erased:
            await asyncio.to_thread(snapshot.forget_before, self._folder, reached)
            if store is self.store:
                await self.write_snapshot()
        if facets_changed and store is self.store:
            await self._take_facets()
        return True

    async def _take_facets(self) -> None:
        """Begins to build the columns that are wanted and not there, and drops those that are not wanted any more."""
        self._wanted = await wanted_elements(self._log)
        for level, keys in self._wanted.items():
            table = self.store.tables[level]
            for key in [key for key in self.store.elements.get(level, []) if key not in keys]:
                table.columns.pop(key, None)
                self.store.elements[level].remove(key)
            missing = [key for key in keys if key not in table.columns and key not in self._building]
            if missing:
                self._building.update(dict.fromkeys(missing, 0))
                task = asyncio.create_task(self._add_columns(level, missing))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _add_columns(self, level: Level, keys: list[str]) -> None:
        try:
            while any(key in self._wanted[level] for key in keys):
                built = await self._beside(lambda connection: build(connection, self._schema, level, keys, lambda rows: self._building.update(dict.fromkeys(keys, rows))))
                if await self._put_in_place(level, built):
                    return
        except (asyncpg.PostgresError, *CONNECTION_ERRORS) as error:
            _logger.warning("columns of %d facets could not be built (%s)", len(keys), type(error).__name__)
        finally:
            for key in keys:
                self._building.pop(key, None)

    async def _put_in_place(self, level: Level, built: Built) -> bool:
        """False when the rows have changed so much meanwhile that they are to be read again."""
        async with self._turn:
            connection = await self._connection()
            try:
                async with connection.transaction(isolation="repeatable_read", readonly=True):
                    built = await continued(connection, self._schema, level, built, self.store.position)
            finally:
                await connection.close()
            columns = await asyncio.to_thread(placed, self.store.tables[level], built)
            if columns is None:
                return False
            for key, column in columns.items():
                if key in self._wanted[level]:
                    self.store.tables[level].columns[key] = column
                    self.store.elements.setdefault(level, []).append(key)
            return True

    async def _beside(self, work: Callable[[asyncpg.Connection], Awaitable[T]]) -> T:
        """In a thread with an event loop and a connection of its own. Cancelled here it ends there, so that a stopping server need not wait."""

        async def with_connection() -> T:
            connection = await self._log.connect()
            try:
                async with connection.transaction(isolation="repeatable_read", readonly=True):
                    return await work(connection)
            finally:
                await connection.close()

        begun: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[T]]] = []
        given_up = threading.Event()

        def in_thread() -> T:
            with asyncio.Runner() as runner:
                task = runner.get_loop().create_task(with_connection())
                begun.append((runner.get_loop(), task))
                if given_up.is_set():
                    task.cancel()
                return runner.get_loop().run_until_complete(task)

        try:
            return await asyncio.to_thread(in_thread)
        except asyncio.CancelledError:
            given_up.set()
            for loop, task in begun:
                with contextlib.suppress(RuntimeError):  # it has ended
                    loop.call_soon_threadsafe(task.cancel)
            raise

    def _check_memory(self) -> None:
        if self._most_bytes is not None and self.store.nbytes > self._most_bytes:
            raise MemoryExceeded(f"they take {self.store.nbytes >> 20} MiB, and may take {self._most_bytes >> 20}")


class MemoryExceeded(Exception):
    """Raised when the columns have become larger than they may be."""


class _ReadAnew(Exception):
    """Raised when the rows do not continue what is in memory."""


async def wanted_elements(log: EventLog) -> dict[Level, list[str]]:
    """Keys of all elements that are columns: the usual ones, and those that the site has added."""
    added, _ = await load(log, FACETS_STREAM, Facets(), evolve)
    wanted: dict[Level, list[str]] = {Level.STUDY: [], Level.SERIES: []}
    for name in (*(each for names in DEFAULT_ELEMENTS.values() for each in names), *added.elements):
        field = field_named(name, Level.SERIES)
        if field.key and field.key not in wanted[field.level]:
            wanted[field.level].append(field.key)
    return wanted


async def identity(pool: asyncpg.Pool, position: int) -> tuple[str, str]:
    """Digests of the log's first event and of the one at a position: no other log has both."""
    rows = await pool.fetch("SELECT position, digest FROM event WHERE position = ANY($1::bigint[])", [1, position])
    found = {row["position"]: bytes(row["digest"]).hex() for row in rows}
    return found.get(1, ""), found.get(position, "")


async def read_all(connection: asyncpg.Connection, schema: str, name: str, version: int, elements: dict[Level, list[str]]) -> Store:
    """All rows as they are in the transaction."""
    position = await connection.fetchval(_POSITION, name, version)
    store = Store({level: tuple(keys) for level, keys in elements.items()})
    for level in LAID:
        if LAID[level].has_elements:
            async for rows in all_rows(connection, schema, level, store.tables):
                store.add(level, Changes(NO_ENDS, rows), position)
        else:
            await copy_rows(connection, schema, level, partial(_add, store, level, position))
        table = store.tables[level]
        if table.may_have_ended:
            store.tables[level] = table.put_in_order(position)
    store.settle(position)
    return store


def _add(store: Store, level: Level, position: int, rows: Rows) -> None:
    store.add(level, Changes(NO_ENDS, rows), position)


def _apply(store: Store, read: Sequence[tuple[Level, Changes]], erased: Sequence[tuple[str, int]], reached: int) -> bool:
    """False when the rows do not continue what is there."""
    for level, change in read:
        if not store.add(level, change, reached):
            return False
    if erased:
        store.drop(gone(store, erased), reached)
    else:
        store.settle(reached)
    return True


def gone(store: Store, erased: Sequence[tuple[str, int]]) -> dict[Level, np.ndarray]:
    """Of each level, which rows vanish with these entities: their own, and those of what belongs to them."""
    masks: dict[Level, np.ndarray] = {}
    flags: dict[Level, np.ndarray] = {}
    for level in (Level.SUBJECT, Level.STUDY, Level.SERIES):
        table = store.tables[level]
        flags[level] = np.zeros(table.entities.size + 1, bool)
        ordinals = table.ordinals(np.array([id_ for of, id_ in erased if of == level], np.int64))
        flags[level][ordinals[ordinals >= 0]] = True
    for level, table in store.tables.items():
        mask = np.zeros(len(table), bool)
        if level in flags:
            mask |= flags[level].take(table.entity.values)
        for above, owners in table.belongs.items():
            known = flags.get(above)
            if above == Level.FINDING:
                known = np.zeros(store.tables[above].entities.size + 1, bool)
                known[store.tables[above].entity.values[masks[above]]] = True
            if known is not None:
                mask |= known.take(owners.values)
        masks[level] = mask
    return masks


_POSITION = "SELECT position FROM public.projection_checkpoint WHERE name = $1 AND version = $2"
_BUILT = "SELECT built FROM public.projection_checkpoint WHERE name = $1 AND version = $2"
_PAUSED = "SELECT state <> 'live' FROM public.projection_checkpoint WHERE name = $1 AND version = $2"
_HEAD = "SELECT position FROM public.log_head"
_TOLD = "SELECT EXISTS (SELECT FROM public.event WHERE position > $1 AND position <= $2 AND type = ANY($3))"
_FACETS_CHANGED = (
    "SELECT EXISTS (SELECT FROM public.event WHERE position > $1 AND position <= $2"
    f" AND type IN ('{FacetAdded.__name__}', '{FacetRemoved.__name__}'))"
)
