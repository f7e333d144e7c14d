"""The log: append, read by stream and by position, subscribe. The only writer of events.

Positions are dense and in commit order, so a reader that has read up to p misses nothing by asking for what is beyond p.
NOTIFY is a hint only: a subscriber that hears nothing asks all the same.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from domain.event import EVENT_TYPES, Event
from domain.ids import Position, StreamName
from domain.principal import Principal
from eventlog import codec
from eventlog.appender import CONNECTION_ERRORS, Appender, Request, Row
from eventlog.database import database_url, server_settings
from eventlog.embedded import EmbeddedPostgres
from eventlog.envelope import Appended, RecordedEvent, StreamAppend, envelope_sha256, event_digest, new_event_id
from eventlog.errors import KeyEncryptionKeyWrong, LogUnavailable, SchemaOutdated
from eventlog.schema import HALF_RESTORED, SERVER_ROLE, check_revision, refuse_half_restored
from eventlog.sealing import SubjectKey
from eventlog.settings import LogSettings
from eventlog.together import Together
from eventlog.vault import Vault

CHANNEL = "anamnesis_log"
POLL_S = 1.0
"""How long a subscriber waits for a hint before it asks."""
NOTIFY_AFTER_S = 0.05
"""One NOTIFY for all appends of this time: each is a commit of its own. Subscribers in this process hear at once."""
GIVE_UP_AFTER_S = 30.0
POOL_SIZE = 10
FOR_READING = {"random_page_cost": "1.1", "max_parallel_workers_per_gather": "0", "jit": "off"}
"""For many small statements at once: a page of an index is mostly in memory, and other readers need the other cores."""

_logger = logging.getLogger(__name__)
_COLUMNS = (
    "position, event_id, stream, version, type, schema_version, occurred_at, recorded_at, principal, correlation_id,"
    " causation_id, origin, data, digest"
)


class _UnchangedConnection(asyncpg.Connection):  # type: ignore[misc]
    """Given back as it was taken, but for a transaction that is open: putting a session back in order takes as long as a read of one row
    does. What needs settings or locks of a session has one of its own (`EventLog.connect`)."""

    def get_reset_query(self) -> str:
        return ""


class EventLog:
    """Opened with ``await EventLog.open(settings)``; bound to the event loop that opened it."""

    def __init__(
        self, settings: LogSettings, url: str, session: dict[str, str], pool: asyncpg.Pool, vault: Vault
    ) -> None:
        self.settings = settings
        self.pool = pool
        self.vault = vault
        self.url = url
        self._session = session
        self._appender = Appender(self.connect, give_up_after_s=GIVE_UP_AFTER_S)
        self._keys: Together[str, SubjectKey] = Together(self._keys_for_opening)
        self._heard = asyncio.Event()
        self._listener: asyncio.Task[None] | None = None
        self._notifier: asyncio.Task[None] | None = None

    @classmethod
    async def open(cls, settings: LogSettings) -> EventLog:
        """Connects (and starts the embedded database where none is set).

        Raises SchemaOutdated, KeyEncryptionKeyMissing, KeyEncryptionKeyWrong, KmsUnknown, LogUnavailable.
        """
        try:
            url = await database_url(settings)
            session = await server_settings(url, SERVER_ROLE)
            pool = await asyncpg.create_pool(
                url, min_size=1, max_size=POOL_SIZE, server_settings=session, connection_class=_UnchangedConnection
            )
        except CONNECTION_ERRORS as error:
            raise LogUnavailable(f"PostgreSQL does not answer: {type(error).__name__}") from error
        try:
            async with pool.acquire() as connection:
                try:
                    refuse_half_restored(await connection.fetchval(f"SELECT to_regclass('public.{HALF_RESTORED}') IS NOT NULL"))
                    check_revision(await connection.fetchval("SELECT version_num FROM alembic_version"))
                except asyncpg.UndefinedTableError:
                    raise SchemaOutdated("the database has no schema yet: run `anamnesis db upgrade`") from None
                vault = await Vault.open(settings, connection)
        except BaseException:
            await pool.close()
            raise
        return cls(settings, url, session, pool, vault)

    async def close(self) -> None:
        """Appends what waits, closes every connection, and leaves the embedded database (the last user stops it)."""
        for task in (self._listener, self._notifier):
            if task is not None:
                task.cancel()
                await asyncio.gather(task, return_exceptions=True)
        await self._appender.close()
        try:
            async with asyncio.timeout(5):
                await self.pool.close()
        except TimeoutError:
            self.pool.terminate()
        if self.settings.database_url is None:
            await asyncio.to_thread(EmbeddedPostgres(self.settings.data_dir / "postgresql").leave)

    async def connect(self) -> asyncpg.Connection:
        """A session of its own, outside the pool (for a lease, a listener, a leader)."""
        return await asyncpg.connect(self.url, server_settings=self._session)

    async def reading_pool(self, **session: str) -> asyncpg.Pool:
        """Sessions for single statements, which leave nothing behind in them; with these settings too. To be closed by the caller."""
        settings = {**self._session, **FOR_READING, **session}
        return await asyncpg.create_pool(
            self.url, min_size=1, max_size=POOL_SIZE, server_settings=settings, connection_class=_UnchangedConnection
        )

    async def append(
        self, appends: Sequence[StreamAppend], *, principal: Principal, correlation_id: UUID | None = None
    ) -> Appended:
        """Appends to all the streams, or to none. Durable on return.

        Raises VersionConflict, EventIdReused, EventTooLarge, LogUnavailable, SubjectKeyDestroyed.
        """
        if not any(append.events for append in appends):
            raise ValueError("an append needs an event")
        if len({append.stream for append in appends}) < len(appends):
            raise ValueError("an append names each stream once")
        subjects = {s for append in appends for new in append.events if (s := codec.subject_of(new.event))}
        keys = self.vault.keys_at_hand(subjects)
        if keys is None:
            try:
                keys = await self._keys_for_sealing(subjects)
            except CONNECTION_ERRORS as error:
                raise LogUnavailable(f"PostgreSQL does not answer: {type(error).__name__}") from error
        request = self._request(appends, keys, principal, correlation_id or new_event_id())
        appended = await self._appender.append(request)
        self._tell()
        return appended

    async def _keys_for_sealing(self, subjects: Collection[str]) -> Mapping[str, SubjectKey]:
        """Raises SubjectKeyDestroyed, KeyEncryptionKeyWrong."""
        if len(subjects) == 1:  # as most writes have; many of them at once ask as one
            (subject,) = subjects
            key = None
            with contextlib.suppress(KeyEncryptionKeyWrong):  # it may be another's that we do not have
                key = await self._keys.get(subject)
            if key is not None:
                return {subject: key}
        async with self.pool.acquire() as connection:
            return await self.vault.keys_for_sealing(subjects, connection)

    async def _keys_for_opening(self, subjects: Collection[str]) -> Mapping[str, SubjectKey]:
        async with self.pool.acquire() as connection:
            return await self.vault.keys_for_opening(subjects, connection)

    def _request(
        self, appends: Sequence[StreamAppend], keys: Mapping[str, SubjectKey], principal: Principal, correlation_id: UUID
    ) -> Request:
        recorded_at = datetime.now(UTC)
        acting = msgspec.json.encode(principal).decode("utf-8")
        origin = self.settings.site
        rows: list[Row] = []
        for stream_index, append in enumerate(appends):
            for ordinal, new in enumerate(append.events, start=1):
                event_type = type(new.event)
                subject = codec.subject_of(new.event)
                data = codec.encode(new.event, new.event_id, keys[subject] if subject else None)
                sha256 = envelope_sha256(
                    event_id=new.event_id,
                    stream=append.stream,
                    type=event_type.__name__,
                    schema_version=event_type.SCHEMA_VERSION,
                    occurred_at=new.occurred_at,
                    recorded_at=recorded_at,
                    principal=principal,
                    correlation_id=correlation_id,
                    causation_id=new.causation_id,
                    origin=origin,
                    data=data,
                )
                digest = event_digest(sha256, new.event_id, new.event.scope())
                rows.append(
                    Row(
                        stream_index,
                        ordinal,
                        new.event_id,
                        event_type.__name__,
                        event_type.SCHEMA_VERSION,
                        new.occurred_at,
                        recorded_at,
                        acting,
                        correlation_id,
                        new.causation_id,
                        origin,
                        data,
                        digest,
                    )
                )
        return Request(
            [append.stream for append in appends],
            [append.expected_version for append in appends],
            rows,
            asyncio.get_running_loop().create_future(),
        )

    async def read_stream(self, stream: str, after_version: int = 0) -> list[RecordedEvent]:
        """The stream's events beyond ``after_version``, in order."""
        return await self._fetch(
            f"SELECT {_COLUMNS} FROM event WHERE stream = $1 AND version > $2 ORDER BY version", stream, after_version
        )

    async def read_streams(self, streams: Sequence[str]) -> list[RecordedEvent]:
        """All events of these streams, those of each in order."""
        return await self._fetch(
            f"SELECT e.* FROM unnest($1::text[]) AS s (stream) CROSS JOIN LATERAL (SELECT {_COLUMNS} FROM event WHERE stream = s.stream"
            " ORDER BY version OFFSET 0) e",
            streams,
        )

    async def read_last(self, streams: Sequence[str]) -> list[RecordedEvent]:
        """The last event of each of these streams that has one."""
        return await self._fetch(
            f"SELECT e.* FROM unnest($1::text[]) AS s (stream) CROSS JOIN LATERAL (SELECT {_COLUMNS} FROM event WHERE stream = s.stream"
            " ORDER BY version DESC LIMIT 1) e",
            streams,
        )

    async def read(
        self, after: int, limit: int = 500, types: Collection[type[Event]] | None = None
    ) -> list[RecordedEvent]:
        """At most ``limit`` events beyond position ``after``, in order, of these types (or of all)."""
        if types is None:
            return await self._fetch(
                f"SELECT {_COLUMNS} FROM event WHERE position > $1 ORDER BY position LIMIT $2", after, limit
            )
        return await self._fetch(
            f"SELECT {_COLUMNS} FROM event WHERE position > $1 AND type = ANY($3) ORDER BY position LIMIT $2",
            after,
            limit,
            [event_type.__name__ for event_type in types],
        )

    async def read_batch(
        self, after: int, up_to: int, *, types: Collection[type[Event]], limit: int, max_bytes: int
    ) -> tuple[list[RecordedEvent], Position]:
        """Events in (after, up_to] of these types, in order: at most ``limit``, and about ``max_bytes`` of data. With them the
        position up to which there are no others.

        An event of a type that the running code does not know is never passed over. Raises UnknownEventType, SealBroken.
        """
        wanted = {event_type.__name__ for event_type in types}
        query = (
            f"SELECT {_COLUMNS} FROM (SELECT {_COLUMNS}, sum(octet_length(data)) OVER (ORDER BY position) - octet_length(data) AS before"
            "  FROM event WHERE position > $1 AND position <= $2 AND type <> ALL($3) ORDER BY position LIMIT $4) e"
            " WHERE before < $5 ORDER BY position"
        )
        async with self.pool.acquire() as connection:
            rows = await connection.fetch(query, after, up_to, [name for name in EVENT_TYPES if name not in wanted], limit, max_bytes)
            cut = len(rows) == limit or sum(len(row["data"]) for row in rows) >= max_bytes
            return await self.recorded(rows, connection), Position(rows[-1]["position"] if cut and rows else up_to)

    async def head(self) -> Position:
        """The position of the last event; 0 in an empty log."""
        return Position(await self.pool.fetchval("SELECT position FROM log_head"))

    async def subscribe(
        self, after: int, types: Collection[type[Event]] | None = None, batch: int = 500
    ) -> AsyncIterator[list[RecordedEvent]]:
        """Endless: batches of events beyond ``after`` as they come. Outlives a lost connection."""
        position = after
        while True:
            heard = self.news()  # before reading: what is appended meanwhile is not slept through
            try:
                head = await self.head()
                events = await self.read(position, batch, types)
            except CONNECTION_ERRORS as error:
                _logger.warning("the log cannot be read (%s); asking again", type(error).__name__)
                await asyncio.sleep(POLL_S)
                continue
            if events:
                position = events[-1].position
                yield events
            else:
                position = max(position, head)  # nothing of these types up to the head, read before
                await self.wait_for_news(heard)

    def news(self) -> asyncio.Event:
        """What the next append will set. Take it before reading, and wait for it after finding nothing."""
        return self._heard

    async def wait_for_news(self, heard: asyncio.Event, timeout_s: float = POLL_S) -> None:
        """Returns at a hint that something was appended (here or elsewhere), or after ``timeout_s``."""
        if self._listener is None or self._listener.done():
            self._listener = asyncio.create_task(self._listen())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):  # Python 3.11's wait_for may swallow a cancellation that comes with the news
                await heard.wait()

    async def recorded(self, rows: Sequence[asyncpg.Record], connection: asyncpg.Connection) -> list[RecordedEvent]:
        """Rows of the event table, decoded and opened. Raises UnknownEventType, SealBroken."""
        subjects = {s for row in rows if (s := _subject_in(row["data"]))}
        keys = await self.vault.keys_for_opening(subjects, connection)
        return [_recorded(row, keys) for row in rows]

    async def _fetch(self, query: str, *arguments: Any) -> list[RecordedEvent]:
        async with self.pool.acquire() as connection:
            return await self.recorded(await connection.fetch(query, *arguments), connection)

    def _tell(self) -> None:
        """Wakes the subscribers in this process at once, and those in others by one NOTIFY for all appends of a moment."""
        self.hint()
        if self._notifier is None or self._notifier.done():
            self._notifier = asyncio.create_task(self._notify())

    async def _notify(self) -> None:
        await asyncio.sleep(NOTIFY_AFTER_S)
        try:
            await self.pool.execute("SELECT pg_notify($1, '')", CHANNEL)
        except CONNECTION_ERRORS:
            pass  # a hint only

    async def _listen(self) -> None:
        try:
            connection = await self.connect()
        except CONNECTION_ERRORS:
            return  # asked for again at the next wait
        try:
            lost = asyncio.Event()
            connection.add_termination_listener(lambda _: lost.set())
            await connection.add_listener(CHANNEL, lambda *_: self.hint())
            await lost.wait()
        finally:
            connection.terminate()

    def hint(self) -> None:
        """Wakes the subscribers in this process: something was appended, perhaps elsewhere."""
        heard, self._heard = self._heard, asyncio.Event()
        heard.set()


class _SubjectOnly(msgspec.Struct):
    subject_id: str | None = None
    sealed: msgspec.Raw = msgspec.Raw(b"")


_SUBJECT = msgspec.json.Decoder(_SubjectOnly)


def _subject_in(data: bytes) -> str | None:
    found = _SUBJECT.decode(data)
    return found.subject_id if bytes(found.sealed) else None


def _recorded(row: asyncpg.Record, keys: Any) -> RecordedEvent:
    return RecordedEvent(
        position=Position(row["position"]),
        event_id=row["event_id"],
        stream=StreamName(row["stream"]),
        version=row["version"],
        type=row["type"],
        schema_version=row["schema_version"],
        occurred_at=row["occurred_at"],
        recorded_at=row["recorded_at"],
        principal=msgspec.json.decode(row["principal"], type=Principal),
        correlation_id=row["correlation_id"],
        causation_id=row["causation_id"],
        origin=row["origin"],
        event=codec.decode(row["type"], row["schema_version"], row["data"], row["event_id"], keys, row["position"]),
        digest=row["digest"],
    )
