"""Making a backup while the server runs: first the log at one position, then the files that it names, then the manifest.

Objects are only ever added to the archive, so all that the log names at the position are there afterwards; but for those of a
subject that is erased meanwhile, and then the log is read again.
"""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import msgspec

from archive.rejects import Rejects
from archive.store import Store
from eventlog.database import migration_url
from eventlog.errors import NotSealed, SealRefused
from eventlog.leases import lease
from eventlog.log import EventLog
from eventlog.sealer import seal
from server.backup import files, manifest, objects, sealed_log, segments, tables
from server.backup.destination import Destination
from server.backup.errors import BackupRuns, LogNotAsSealed, LogTookAnotherCourse, ObjectsMissing
from server.backup.manifest import Manifest, TableFile
from server.backup.sealed import PURPOSE
from server.backup.segments import CopyRows, EventDamaged, Row, Segment, SegmentWriter
from server.settings import ServerSettings

Progress = Callable[[str, int, int], None]
"""Hears what is being done, how much of it is done, and how much there is."""
_LEASE = "backup"
_MAX_SHOWN = 5
_COPIED_AT_ONCE = 200
"""Events; they are held in memory, and one may be of a megabyte."""


class BackupMade(msgspec.Struct, frozen=True, kw_only=True):
    """What a backup came to. New: since the destination's backup before."""

    name: str
    position: int
    events_new: int
    objects_new: int
    objects: int
    files: int
    bytes_written: int
    removed: int
    """Files of the destination that are needed no more, those of erased subjects among them."""
    missing: int
    kek_id: str
    seconds: float


class _Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """What the database held at the position."""

    position: int
    revision: str
    last_digest: str | None
    checkpoint: tuple[int, str] | None
    checkpoint_subtrees: list[bytes]
    wrapped_site_secret: bytes
    kek_id: str
    tables: list[TableFile]
    sequences: dict[str, int]
    cover: list[Segment]
    events_new: int
    size: int
    """Bytes written for it."""
    destroyed: dict[str, bytes]
    """Erased subjects, with when, as COPY text."""


async def back_up(
    settings: ServerSettings, url: str, *, keep: int | None = None, in_spite_of_missing: bool = False,
    progress: Progress = lambda *_: None,
) -> BackupMade:  # fmt: skip
    """Raises BackupRuns, BackupOfAnotherSite, LogTookAnotherCourse, LogNotAsSealed, ObjectsMissing, EventDamaged, BackupDamaged."""
    log = await EventLog.open(settings)
    try:
        async with lease(log, _LEASE) as had:
            if not had:
                raise BackupRuns("another backup of this log is being made: wait until it has ended")
            await _seal(log)
            making = _Making(settings, log, Destination(url), progress)
            return await making.run(keep, in_spite_of_missing)
    finally:
        await log.close()


async def _seal(log: EventLog) -> None:
    """So that a signed checkpoint covers all that is there now."""
    with suppress(NotSealed):
        try:
            await seal(log)
        except SealRefused as error:
            raise LogNotAsSealed(f"the log is not what was sealed: {error}. No backup was made; run `anamnesis audit check`") from error


class _Making:
    def __init__(self, settings: ServerSettings, log: EventLog, destination: Destination, progress: Progress) -> None:
        self._settings = settings
        self._destination = destination
        self._progress = progress
        self._key = log.vault.derive(PURPOSE)
        self._store = Store(settings.store_url)
        self._began = time.monotonic()

    async def run(self, keep: int | None, in_spite_of_missing: bool) -> BackupMade:
        before = await asyncio.to_thread(self._earlier)
        spooled = await asyncio.to_thread(files.spooled, self._settings.spool_dir)  # before the log: what leaves the spool is in it
        created = datetime.now(UTC)
        while True:
            async with self._connection() as connection:
                name, snapshot = await self._read_log(connection, before, created)
            wanted = await asyncio.to_thread(self._wanted, snapshot)
            copied = await asyncio.to_thread(
                objects.copy_missing, self._store, self._destination, self._key, wanted.needed,
                lambda done, total: self._progress("objects", done, total),
            )  # fmt: skip
            kept = await asyncio.to_thread(self._files, spooled, copied)
            async with self._connection() as connection:
                if set(await _destroyed(connection)) == set(snapshot.destroyed):
                    break
            await asyncio.to_thread(self._destination.remove_folder, f"tables/{name}")
        if copied.missing and not in_spite_of_missing:
            raise ObjectsMissing(_missing(copied.missing))
        return await asyncio.to_thread(self._finish, name, created, before, kept, snapshot, wanted, copied, keep)

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[asyncpg.Connection]:
        """As the owner of the tables: the server's role may not read all of them in a later version."""
        connection = await asyncpg.connect(await migration_url(self._settings))
        try:
            yield connection
        finally:
            await connection.close()

    def _earlier(self) -> list[Manifest]:
        """The backups that are there already, all of this site."""
        earlier = manifest.read_all(self._destination)
        for one in earlier:
            manifest.authenticate(one, self._key)
        segments.remove_others(self._destination, segments.cover(self._destination, earlier[-1].position if earlier else 0))
        for folder in ("manifests", segments.EVENTS, segments.NAMED):
            self._destination.remove_leftovers(folder)
        for folder in set(self._destination.folders("tables")) - {one.folder for one in earlier}:
            self._destination.remove_folder(folder)
        return earlier

    async def _read_log(self, connection: asyncpg.Connection, before: list[Manifest], created: datetime) -> tuple[str, _Snapshot]:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            position = await connection.fetchval("SELECT position FROM log_head")
            await _check_course(connection, before[-1] if before else None, position)
            name = f"{position:016}-{created:%Y%m%dT%H%M%S%fZ}"
            checkpoint = await connection.fetchrow("SELECT size, note FROM checkpoint ORDER BY size DESC LIMIT 1")
            subtrees: list[bytes] = []
            if checkpoint is not None:
                last = before[-1] if before else None
                subtrees = await sealed_log.checked_subtrees(connection, last, checkpoint["size"], checkpoint["note"])
            cover, written = await self._events(connection, before[-1].position if before else 0, position)
            written_tables, size = await tables.dump(connection, self._destination, self._key, f"tables/{name}")
            self._progress("tables", len(written_tables), len(written_tables))
            secret = await connection.fetchrow("SELECT wrapped, kek_id FROM site_secret WHERE name = 'site'")
            last_digest = await connection.fetchval("SELECT digest FROM event WHERE position = $1", position)
            return name, _Snapshot(
                position=position,
                revision=await connection.fetchval("SELECT version_num FROM alembic_version"),
                last_digest=last_digest.hex() if last_digest else None,
                checkpoint=(checkpoint["size"], checkpoint["note"]) if checkpoint else None,
                checkpoint_subtrees=subtrees,
                wrapped_site_secret=secret["wrapped"],
                kek_id=secret["kek_id"],
                tables=written_tables,
                sequences=await tables.sequences(connection),
                cover=cover,
                events_new=position - (before[-1].position if before else 0),
                size=written + size,
                destroyed=await _destroyed(connection),
            )

    async def _events(self, connection: asyncpg.Connection, before: int, position: int) -> tuple[list[Segment], int]:
        """Writes the events that the destination lacks; a short last segment is replaced by a longer one."""
        there = await asyncio.to_thread(segments.cover, self._destination, position)
        if there and there[-1].last < position and segments.is_short(self._destination, there[-1]):
            there.pop()
        reached = there[-1].last if there else 0
        writer, done = SegmentWriter(self._destination, self._key), reached
        while done < position:
            rows = await _copied(connection, done, min(position, done + _COPIED_AT_ONCE))
            if not rows:
                break
            for row in rows:
                writer.add(row)
                done = row.position
            self._progress("events", done - before if done > before else 0, position - before)
        writer.flush()
        if done != position:
            raise EventDamaged(f"the log's head is at {position}, but its last event is at {done}: events are missing")
        self._progress("events", position - before, position - before)
        return segments.cover(self._destination, position), writer.bytes

    def _wanted(self, snapshot: _Snapshot) -> objects.Wanted:
        wanted = objects.Wanted()
        for segment in snapshot.cover:
            wanted.add(segments.named_objects(self._destination, self._key, segment), set(snapshot.destroyed))
        wanted.settle_unclear(self._store.has)
        return wanted

    def _files(self, spooled: list[tuple[files.KeptFile, Path]], copied: objects.Copied) -> list[files.KeptFile]:
        refused = list(files.refused(Rejects(self._settings.rejects_dir)))
        return files.copy(self._destination, self._key, self._store, [*refused, *spooled], copied)

    def _finish(
        self, name: str, created: datetime, before: list[Manifest], kept: list[files.KeptFile], snapshot: _Snapshot,
        wanted: objects.Wanted, copied: objects.Copied, keep: int | None,
    ) -> BackupMade:  # fmt: skip
        wanted.without(copied.missing)
        made = manifest.write(
            self._destination,
            Manifest(
                name=name,
                site=self._settings.site,
                created=created,
                position=snapshot.position,
                revision=snapshot.revision,
                last_digest=snapshot.last_digest,
                checkpoint_size=snapshot.checkpoint[0] if snapshot.checkpoint else None,
                checkpoint_note=snapshot.checkpoint[1] if snapshot.checkpoint else None,
                checkpoint_subtrees=[one.hex() for one in snapshot.checkpoint_subtrees],
                wrapped_site_secret=base64.b64encode(snapshot.wrapped_site_secret).decode("ascii"),
                kek_id=snapshot.kek_id,
                tables=snapshot.tables,
                sequences=snapshot.sequences,
                objects=len(wanted.needed),
                objects_bytes=sum(wanted.needed.values()),
                missing=sorted(copied.missing),
                files=files.write_list(self._destination, self._key, f"tables/{name}", kept),
                keys_destroyed=len(snapshot.destroyed),
            ),
            self._key,
        )
        keeping = {*wanted.needed, *(bytes.fromhex(file.sha256) for file in kept)}
        removed = self._purge(before, snapshot, keeping, keep)
        return BackupMade(
            name=made.name,
            position=made.position,
            events_new=snapshot.events_new,
            objects_new=copied.objects,
            objects=made.objects,
            files=made.files.files,
            bytes_written=snapshot.size + copied.bytes,
            removed=removed,
            missing=len(made.missing),
            kek_id=made.kek_id,
            seconds=round(time.monotonic() - self._began, 3),
        )

    def _purge(self, before: list[Manifest], snapshot: _Snapshot, keeping: set[bytes], keep: int | None) -> int:
        """Erasure reaches earlier backups: their keys of destroyed subjects go, then all files that none needs any more."""
        if keep is not None:
            leaving, before = before[: max(0, len(before) + 1 - keep)], before[max(0, len(before) + 1 - keep) :]
            for one in leaving:
                self._destination.remove(manifest.path(one.name))
                self._destination.remove_folder(one.folder)
        for one in before:
            self._purge_earlier(one, snapshot, keeping)
        self._destination.settle()
        removed = objects.remove_others(self._destination, keeping)
        return removed + segments.remove_others(self._destination, snapshot.cover)

    def _purge_earlier(self, earlier: Manifest, snapshot: _Snapshot, keeping: set[bytes]) -> None:
        """What the rewritten manifest does not name any more goes last, and goes at the next backup should this one be killed."""
        listed = files.read_list(self._destination, self._key, earlier)
        still = [file for file in listed if bytes.fromhex(file.sha256) in keeping]
        if earlier.keys_destroyed != len(snapshot.destroyed):
            keys = tables.without_keys(self._destination, self._key, earlier, snapshot.destroyed)
            replaced = [keys if keys is not None and t.name == keys.name else t for t in earlier.tables]
            earlier = msgspec.structs.replace(earlier, tables=replaced, keys_destroyed=len(snapshot.destroyed))
            manifest.write(self._destination, earlier, self._key)
        if len(still) != len(listed):
            trimmed = files.write_list(self._destination, self._key, earlier.folder, still)
            earlier = msgspec.structs.replace(earlier, files=trimmed)
            manifest.write(self._destination, earlier, self._key)
        for name in set(self._destination.listing(earlier.folder)) - earlier.own_files:
            self._destination.remove(name)


async def _copied(connection: asyncpg.Connection, after: int, to: int) -> list[Row]:
    """The events after one position up to another, checked. Raises EventDamaged."""
    splitter, rows, problems = CopyRows(), list[Row](), list[EventDamaged]()

    async def take(data: bytes) -> None:
        """Raises nothing: asyncpg may wait for ever for a COPY that it is to break off."""
        for fields in splitter.feed(data):
            try:
                rows.append(segments.checked(fields))
            except EventDamaged as error:
                problems.append(error)

    query = f"SELECT {segments.COLUMNS} FROM event WHERE position > $1 AND position <= $2 ORDER BY position"
    await connection.copy_from_query(query, after, to, output=take, format="binary")
    if problems:
        raise problems[0]
    return rows


async def _destroyed(connection: asyncpg.Connection) -> dict[str, bytes]:
    rows = await connection.fetch("SELECT subject_id, destroyed_at::text AS at FROM subject_key WHERE wrapped IS NULL")
    return {row["subject_id"]: (row["at"] or "").encode("ascii") or b"\\N" for row in rows}


async def _check_course(connection: asyncpg.Connection, before: Manifest | None, position: int) -> None:
    """Raises LogTookAnotherCourse unless the log goes on from the last backup."""
    if before is None or before.last_digest is None:
        return
    digest = await connection.fetchval("SELECT digest FROM event WHERE position = $1", before.position)
    if digest is None or digest.hex() != before.last_digest:
        raise LogTookAnotherCourse(
            f"the log (at position {position}) is not the continuation of backup {before.name}: it was restored to an earlier"
            " position, or altered. Back up into a new destination, and keep this one until you know why"
        )


def _missing(digests: list[str]) -> str:
    shown = ", ".join(digests[:_MAX_SHOWN]) + (f" and {len(digests) - _MAX_SHOWN} more" if len(digests) > _MAX_SHOWN else "")
    return (
        f"the log names {len(digests)} instances that the archive does not hold whole: {shown}. No backup was made;"
        " mend the archive (what an earlier backup holds is still there), or use --in-spite-of-missing"
    )
