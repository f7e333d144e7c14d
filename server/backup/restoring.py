"""Restoring a backup into an empty database and an empty archive, on either kind of PostgreSQL.

Everything is checked before it is believed: each event's digest and the tree before anything is written, each object while it is
copied. Files come first and the database's tables last, in one transaction, so a restore that is killed leaves tables that are
empty and a mark that keeps the server away; run again, it goes on.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import asyncpg
import fsspec
import msgspec
from alembic.script.revision import ResolutionError
from alembic.util.exc import CommandError

from archive.errors import ArchiveError
from archive.store import Store
from eventlog.database import migration_url
from eventlog.embedded import EmbeddedPostgres
from eventlog.kek import load_keys
from eventlog.log import EventLog
from eventlog.schema import HALF_RESTORED, migrate
from projections.catalogue import all_projections
from projections.checkpoint import statuses
from projections.runner import Runner
from server.backup import checking, files, manifest, objects, segments, tables
from server.backup.destination import Destination
from server.backup.errors import BackupDamaged, BackupOfNewerVersion, TargetNotEmpty
from server.backup.making import Progress
from server.backup.manifest import Manifest
from server.settings import ServerSettings

_STAGING = "restoring"
_WATCH_S = 0.2
_SEEDED = frozenset({"alembic_version", "log_head", "projection_checkpoint", HALF_RESTORED})
"""Tables that have rows in an empty database of ours."""


class Restored(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    site: str
    position: int
    checkpoint_size: int | None
    objects: int
    bytes: int
    files: int
    missing: list[str]


async def restore(
    settings: ServerSettings, url: str, *, position: int | None = None, progress: Progress = lambda *_: None
) -> Restored:
    """Raises TargetNotEmpty, BackupNotFound, BackupDamaged, BackupOfNewerVersion, KeyEncryptionKeyMissing, KeyEncryptionKeyWrong."""
    keks = load_keys(settings)
    destination = Destination(url)
    chosen = await asyncio.to_thread(manifest.newest, destination, position)
    key = manifest.key_of(chosen, keks)
    try:
        resumed = await _prepare(settings, chosen)
        wanted = await asyncio.to_thread(
            checking.check_events, destination, key, chosen, lambda done, total: progress("check events", done, total)
        )
        kept = await asyncio.to_thread(files.read_list, destination, key, chosen)
        copying = _Copying(settings, destination, key, resumed)
        size = await asyncio.to_thread(copying.run, wanted, kept, progress)
        await _load(settings, destination, key, chosen, progress)
        await migrate(settings)
        await _project(settings, progress)
    finally:
        if settings.database_url is None:
            await asyncio.to_thread(EmbeddedPostgres(settings.data_dir / "postgresql").leave)
    return Restored(
        name=chosen.name,
        site=chosen.site,
        position=chosen.position,
        checkpoint_size=chosen.checkpoint_size,
        objects=len(wanted.needed),
        bytes=size,
        files=len(kept),
        missing=chosen.missing,
    )


async def _prepare(settings: ServerSettings, chosen: Manifest) -> bool:
    """Makes the tables and the mark, unless they are there from the same restore, killed (then True). Raises TargetNotEmpty."""
    connection = await asyncpg.connect(await migration_url(settings))
    try:
        if await connection.fetchval(f"SELECT to_regclass('public.{HALF_RESTORED}') IS NOT NULL"):
            name = await connection.fetchval(f"SELECT backup FROM public.{HALF_RESTORED}")
            if name != chosen.name:
                raise TargetNotEmpty(f"a restore of backup {name} into this database was begun: end that one, or give another an empty one")
            return True
        there = [*await _filled_tables(connection), *await asyncio.to_thread(_filled_folders, settings)]
        if there:
            raise TargetNotEmpty(f"a restore needs an empty database and an empty archive, and there is: {'; '.join(there)}")
        await _make_schema(settings, chosen, connection)
        async with connection.transaction():
            await connection.execute(f"CREATE TABLE public.{HALF_RESTORED} (backup text NOT NULL)")
            await connection.execute(f"INSERT INTO public.{HALF_RESTORED} VALUES ($1)", chosen.name)
    finally:
        await connection.close()
    return False


async def _make_schema(settings: ServerSettings, chosen: Manifest, connection: asyncpg.Connection) -> None:
    """The tables as they were when the backup was made; later migrations follow when their rows are there."""
    try:
        await migrate(settings, chosen.revision)
    except (CommandError, ResolutionError):
        raise BackupOfNewerVersion(
            f"backup {chosen.name} has schema {chosen.revision}, which this version does not know: restore it with the version that made it"
        ) from None
    found = await connection.fetchval("SELECT version_num FROM public.alembic_version")
    if found != chosen.revision:
        raise TargetNotEmpty(f"the database is at schema {found} already, and the backup at {chosen.revision}: give it an empty database")


async def _filled_tables(connection: asyncpg.Connection) -> list[str]:
    found = []
    for table in await tables.columns_of_tables(connection):
        if table not in _SEEDED and await connection.fetchval(f'SELECT EXISTS (SELECT FROM public."{table}")'):
            found.append(f"rows in table {table}")
    return found


def _filled_folders(settings: ServerSettings) -> Iterator[str]:
    archive, root = fsspec.core.url_to_fs(settings.store_url)
    with suppress(FileNotFoundError):
        for _, _, names in archive.walk(root):
            if names:
                yield f"objects in {settings.store_url}"
                break
    if next(settings.spool_dir.glob("*/*.dcm"), None) is not None:
        yield f"instances in {settings.spool_dir}"
    if next(settings.rejects_dir.glob("*"), None) is not None:
        yield f"refused files in {settings.rejects_dir}"


class _Copying:
    """Files out of the backup, each by a staging file that is durable before it has its name."""

    def __init__(self, settings: ServerSettings, destination: Destination, key: bytes, resumed: bool) -> None:
        self._settings = settings
        self._destination = destination
        self._key = key
        self._resumed = resumed
        self._store = Store(settings.store_url)
        self._staging = settings.data_dir / _STAGING
        self._staging.mkdir(mode=0o700, parents=True, exist_ok=True)

    def run(self, wanted: objects.Wanted, kept: list[files.KeptFile], progress: Progress) -> int:
        """Gives the bytes of all. Raises BackupDamaged."""
        for left in self._staging.iterdir():
            left.unlink()
        size = 0
        with ThreadPoolExecutor(objects.THREADS, "restore") as threads:
            try:
                for done, one in enumerate(threads.map(self._object, sorted(wanted.needed)), start=1):
                    size += one
                    progress("objects", done, len(wanted.needed))
            except BaseException:
                threads.shutdown(cancel_futures=True)
                raise
        for file in kept:
            size += self._file(file)
        os.sync()  # the names of all these files
        self._staging.rmdir()
        return size

    def _object(self, digest: bytes) -> int:
        sha256 = digest.hex()
        if self._resumed and self._is_there(sha256):
            return self._store.size(sha256)
        staged = self._staging / sha256
        size = self._stage(sha256, staged)
        self._store.add(staged, sha256)
        staged.unlink()
        return size

    def _is_there(self, sha256: str) -> bool:
        try:
            self._store.verify(sha256)
        except ArchiveError:
            return False
        return True

    def _file(self, file: files.KeptFile) -> int:
        folders = {files.SPOOL: self._settings.spool_dir / "restored", files.REJECTS: self._settings.rejects_dir}
        folder = folders[file.folder]
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        staged = self._staging / Path(file.name).name
        size = self._stage(file.sha256, staged)
        os.replace(staged, folder / staged.name)
        return size

    def _stage(self, sha256: str, staged: Path) -> int:
        with staged.open("wb") as target:
            size = objects.copy_out(self._destination, self._key, sha256, target)
            target.flush()
            os.fsync(target.fileno())
        return size


async def _load(settings: ServerSettings, destination: Destination, key: bytes, chosen: Manifest, progress: Progress) -> None:
    """All rows and the end of the mark, in one transaction."""
    connection = await asyncpg.connect(await migration_url(settings))
    try:
        async with connection.transaction():
            columns = await tables.columns_of_tables(connection)
            for table in chosen.tables:
                if not set(table.columns) <= set(columns.get(table.name, ())):
                    raise BackupDamaged(f"backup {chosen.name} has a table {table.name} that schema {chosen.revision} does not have")
                await tables.load(connection, destination, key, chosen, table)
            for segment in segments.needed(destination, chosen.position):
                await connection.copy_to_table(
                    "event", schema_name="public", columns=segments.COLUMNS.replace(" ", "").split(","), format="binary",
                    source=_each(segments.copy_stream(destination, key, segment, chosen.position)),
                )  # fmt: skip
                progress("load events", min(segment.last, chosen.position), chosen.position)
            for sequence, value in chosen.sequences.items():
                await connection.execute("SELECT setval(format('public.%I', $1::text)::regclass, $2)", sequence, value)
            head = await connection.fetchval("SELECT position FROM public.log_head")
            if head != chosen.position:
                raise BackupDamaged(f"backup {chosen.name} says that its position is {chosen.position}, and its log_head says {head}")
            await connection.execute(f"DROP TABLE public.{HALF_RESTORED}")
        await connection.execute("ANALYZE")
    finally:
        await connection.close()


async def _each(chunks: Iterable[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk


async def _project(settings: ServerSettings, progress: Progress) -> None:
    """Builds the read models. Killed here, nothing is lost: the server goes on with them when it starts."""
    log = await EventLog.open(settings)
    try:
        head = await log.head()
        building = asyncio.create_task(Runner(log, all_projections()).catch_up())
        while not building.done():
            await asyncio.wait([building], timeout=_WATCH_S)
            for one in await statuses(log.pool):
                progress(f"projection {one.name}", one.position, head)
        await building
    finally:
        await log.close()
