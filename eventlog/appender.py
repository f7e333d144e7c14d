"""Group commit: appends that wait at the same time are one call of append_events, and one commit carries them all.

Each request keeps its own verdict. A request that shares a stream or an event id with one in the same call waits for the
next. When the connection breaks in a call, its outcome is not known: the same call is made again, and whatever was
committed answers "duplicate" by its event ids.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any
from uuid import UUID

import asyncpg
import msgspec
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_delay, wait_random_exponential

from domain.ids import Position
from eventlog.envelope import Appended
from eventlog.errors import EventIdReused, EventLogError, LogUnavailable, VersionConflict

MAX_EVENTS_PER_COMMIT = 512
MAX_BYTES_PER_COMMIT = 8 * 1024 * 1024
CONNECTION_ERRORS = (
    OSError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # the connection broke between two messages of the protocol
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,
    asyncpg.CannotConnectNowError,
    asyncpg.TooManyConnectionsError,
)


class Row(msgspec.Struct, frozen=True):
    """One event as append_events takes it, but for its place in the call."""

    stream_index: int
    ordinal: int
    event_id: UUID
    type: str
    schema_version: int
    occurred_at: datetime
    recorded_at: datetime
    principal: str
    correlation_id: UUID
    causation_id: UUID | None
    origin: str
    data: bytes
    digest: bytes


class Request(msgspec.Struct, frozen=True, eq=False):
    """One append: all of its rows, or none."""

    streams: Sequence[str]
    expected: Sequence[int | None]
    rows: Sequence[Row]
    done: asyncio.Future[Appended]

    @property
    def is_plain(self) -> bool:
        """Every stream has its version and an event: the unique keys alone then refuse what must be refused."""
        return None not in self.expected and len({row.stream_index for row in self.rows}) == len(self.streams)

    @property
    def size(self) -> int:
        return sum(len(row.data) for row in self.rows)


Verdict = Mapping[str, Any]
"""What append_events returns of one request."""


class Appender:
    """Owns the one connection through which this process appends."""

    def __init__(self, connect: Callable[[], Awaitable[asyncpg.Connection]], *, give_up_after_s: float) -> None:
        self._connect = connect
        self._give_up_after_s = give_up_after_s
        self._connection: asyncpg.Connection | None = None
        self._waiting: list[Request] = []
        self._flusher: asyncio.Task[None] | None = None
        self.last_position: Position = Position(0)
        """The highest position that this process has appended."""

    async def append(self, request: Request) -> Appended:
        """Waits for the verdict. Raises VersionConflict, EventIdReused, LogUnavailable."""
        self._waiting.append(request)
        if self._flusher is None or self._flusher.done():
            self._flusher = asyncio.create_task(self._flush())
        return await request.done

    async def close(self) -> None:
        """Appends what waits, then closes the connection."""
        if self._flusher is not None:
            await asyncio.gather(self._flusher, return_exceptions=True)
        if self._connection is not None and not self._connection.is_closed():
            await self._connection.close()

    async def _flush(self) -> None:
        while self._waiting:
            batch, self._waiting = _next_batch(self._waiting)
            try:
                rows = await self._call(batch)
            except Exception as error:  # every waiting append must hear of it, whatever it is
                for request in batch:
                    if not request.done.done():
                        request.done.set_exception(_named(error))
                continue
            self._answer(batch, rows)

    async def _call(self, batch: Sequence[Request]) -> Sequence[Verdict]:
        """The verdicts on a batch. When all of it is plain, one statement appends all or nothing, which takes half as
        long as the function; where it cannot say yes, the function says to whom and why not."""
        if all(request.is_plain for request in batch):
            try:
                if len(batch) == 1 and len(batch[0].rows) == 1:  # without arrays: a tenth faster
                    rows = await self._attempt(_APPEND_ONE, _one_arguments(batch[0]))
                else:
                    rows = await self._attempt(_APPEND_EXPECTED, _expected_arguments(batch))
            except asyncpg.UniqueViolationError:
                rows = []
            if rows:
                return _all_appended(batch, rows[0]["before"])
        return await self._attempt(_APPEND, _arguments(batch))

    async def _attempt(self, statement: str, arguments: Sequence[object]) -> list[asyncpg.Record]:
        if self._connection is not None and not self._connection.is_closed():
            try:
                return list(await self._connection.fetch(statement, *arguments))
            except CONNECTION_ERRORS:
                self._connection.terminate()
        async for attempt in AsyncRetrying(
            retry=retry_if_exception_type(CONNECTION_ERRORS),
            stop=stop_after_delay(self._give_up_after_s),
            wait=wait_random_exponential(multiplier=0.05, max=1.0),
            reraise=True,
        ):
            with attempt:
                if self._connection is None or self._connection.is_closed():
                    self._connection = await self._connect()
                    # Plans made while the table is small must not scan it when it is large.
                    await self._connection.execute("SET enable_seqscan = off; SET plan_cache_mode = force_generic_plan")
                try:
                    return list(await self._connection.fetch(statement, *arguments))
                except CONNECTION_ERRORS:
                    self._connection.terminate()
                    raise
        raise AssertionError("unreachable: the last attempt raises")

    def _answer(self, batch: Sequence[Request], rows: Sequence[Verdict]) -> None:
        for row in rows:
            request = batch[row["request"]]
            if request.done.done():  # the caller was cancelled; the append stands all the same
                continue
            match row["verdict"]:
                case "appended" | "duplicate":
                    last = Position(row["last_position"])
                    self.last_position = max(self.last_position, last)
                    request.done.set_result(
                        Appended(
                            first=Position(row["first_position"]), last=last, duplicate=row["verdict"] == "duplicate"
                        )
                    )
                case "conflict":
                    expected = request.expected[list(request.streams).index(row["at_stream"])]
                    request.done.set_exception(
                        VersionConflict(row["at_stream"], expected or 0, row["actual_version"])
                    )
                case _:
                    request.done.set_exception(
                        EventIdReused(f"an event id of this append to {row['at_stream']} is in the log with another content")
                    )


_APPEND = """SELECT * FROM append_events(
    $1::int[], $2::text[], $3::int[], $4::uuid[], $5::text[], $6::smallint[], $7::timestamptz[], $8::timestamptz[],
    $9::text[], $10::uuid[], $11::uuid[], $12::text[], $13::bytea[], $14::bytea[], $15::int[],
    $16::int[], $17::text[], $18::int[])"""

# Positions and versions are as right here as in append_events: the head's row lock orders commits, the version before must
# be there, and the unique keys refuse a version or an event id that is taken.
_APPEND_EXPECTED = """
WITH head AS (
    UPDATE log_head SET position = position + cardinality($1::uuid[])
    WHERE NOT EXISTS (
        SELECT FROM unnest($14::text[], $15::int[]) AS s (stream, version)
        WHERE NOT EXISTS (SELECT FROM event e WHERE e.stream = s.stream AND e.version = s.version))
    RETURNING position - cardinality($1::uuid[]) AS before
), written AS (
    INSERT INTO event
    SELECT head.before + n.nth, n.id, n.stream, n.version, n.type, n.schema, n.occurred, n.recorded, n.principal, n.correlation,
           n.causation, n.origin, n.data, n.digest
    FROM head, unnest($1::uuid[], $2::text[], $3::int[], $4::text[], $5::smallint[], $6::timestamptz[], $7::timestamptz[],
                      $8::text[], $9::uuid[], $10::uuid[], $11::text[], $12::bytea[], $13::bytea[])
         WITH ORDINALITY AS n (id, stream, version, type, schema, occurred, recorded, principal, correlation, causation,
                               origin, data, digest, nth)
)
SELECT before FROM head"""


_APPEND_ONE = """
WITH head AS (
    UPDATE log_head SET position = position + 1
    WHERE $3::int = 0 OR EXISTS (SELECT FROM event WHERE stream = $1 AND version = $3)
    RETURNING position
)
INSERT INTO event
SELECT position, $2, $1, $3::int + 1, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13 FROM head
RETURNING position - 1 AS before"""


def _described(row: Row) -> tuple[object, ...]:
    """What all three statements take of an event in this order, after what places it."""
    return (
        row.type,
        row.schema_version,
        row.occurred_at,
        row.recorded_at,
        row.principal,
        row.correlation_id,
        row.causation_id,
        row.origin,
        row.data,
        row.digest,
    )


def _one_arguments(request: Request) -> list[object]:
    row = request.rows[0]
    return [request.streams[0], row.event_id, request.expected[0], *_described(row)]


def _expected_arguments(batch: Sequence[Request]) -> list[list[object]]:
    """Thirteen columns of events, then the streams that must be there with the version that they must have."""
    events: list[tuple[object, ...]] = [
        (
            row.event_id,
            request.streams[row.stream_index],
            (request.expected[row.stream_index] or 0) + row.ordinal,
            *_described(row),
        )
        for request in batch
        for row in request.rows
    ]
    known = [(s, e) for request in batch for s, e in zip(request.streams, request.expected, strict=True) if e]
    return [*map(list, zip(*events, strict=True)), [s for s, _ in known], [e for _, e in known]]


def _all_appended(batch: Sequence[Request], before: int) -> list[Verdict]:
    """Rows took their positions in the order in which they were sent."""
    verdicts: list[Verdict] = []
    for n, request in enumerate(batch):
        last = before + len(request.rows)
        verdicts.append({"request": n, "verdict": "appended", "first_position": before + 1, "last_position": last})
        before = last
    return verdicts


def _next_batch(waiting: Sequence[Request]) -> tuple[list[Request], list[Request]]:
    """What goes into the next call, and what has to wait: first come, first served within a stream."""
    if len(waiting) == 1:
        return [waiting[0]], []
    batch: list[Request] = []
    later: list[Request] = []
    taken: set[object] = set()
    events = size = 0
    for request in waiting:
        marks: set[object] = {*request.streams, *(row.event_id for row in request.rows)}
        full = events + len(request.rows) > MAX_EVENTS_PER_COMMIT or size + request.size > MAX_BYTES_PER_COMMIT
        if (batch and full) or marks & taken:
            later.append(request)
        else:
            batch.append(request)
            events += len(request.rows)
            size += request.size
        taken |= marks
    return batch, later


def _arguments(batch: Sequence[Request]) -> list[list[object]]:
    """The columns of append_events: fifteen of events, three of streams. Stream indices count from 1 over the whole call."""
    events: list[tuple[object, ...]] = []
    streams: list[tuple[object, ...]] = []
    for n, request in enumerate(batch):
        before = len(streams)
        streams.extend((n, stream, expected) for stream, expected in zip(request.streams, request.expected, strict=True))
        events.extend(
            (
                n,
                request.streams[row.stream_index],
                row.ordinal,
                row.event_id,
                *_described(row),
                before + row.stream_index + 1,
            )
            for row in request.rows
        )
    return [list(column) for column in zip(*events, strict=True)] + [list(column) for column in zip(*streams, strict=True)]


def _named(error: Exception) -> Exception:
    if isinstance(error, EventLogError) or not isinstance(error, CONNECTION_ERRORS):
        return error
    unavailable = LogUnavailable(f"PostgreSQL does not answer ({type(error).__name__}): append again with the same event ids")
    unavailable.__cause__ = error
    return unavailable
