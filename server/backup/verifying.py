"""Verifying a destination without a database: every file is read, and every problem is named."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import msgspec

from eventlog.errors import EventLogError
from eventlog.kek import KeyEncryptionKeys
from eventlog.notes import NoteKey
from server.backup import checking, files, manifest, objects, sealed_log, segments, tables
from server.backup.destination import Destination
from server.backup.errors import BackupError, BackupNotFound
from server.backup.making import Progress
from server.backup.manifest import Manifest


class Verified(msgspec.Struct, frozen=True, kw_only=True):
    """What was read. Without problems, each of the backups can be restored."""

    backups: int
    position: int
    events: int
    objects: int
    bytes: int
    checkpoint_size: int | None
    problems: list[str]


def verify(url: str, keks: KeyEncryptionKeys, progress: Progress = lambda *_: None) -> Verified:
    """Raises BackupNotFound, KeyEncryptionKeyWrong (no backup here was made with this one)."""
    return _Verifying(Destination(url), keks, progress).run()


class _Verifying:
    def __init__(self, destination: Destination, keks: KeyEncryptionKeys, progress: Progress) -> None:
        self._destination = destination
        self._keks = keks
        self._key = b""
        self._progress = progress
        self._problems: list[str] = []
        self._bytes = 0

    def run(self) -> Verified:
        manifests = self._manifests()
        newest = manifests[-1] if manifests else None
        wanted = objects.Wanted()
        events = checked = 0
        for one in manifests:
            self._own_files(one)
        if newest is not None:
            events = self._events(manifests, newest, wanted)
            checked = self._objects(manifests, newest, wanted)
        return Verified(
            backups=len(manifests),
            position=newest.position if newest else 0,
            events=events,
            objects=checked,
            bytes=self._bytes,
            checkpoint_size=newest.checkpoint_size if newest else None,
            problems=self._problems,
        )

    def _manifests(self) -> list[Manifest]:
        names = manifest.names(self._destination)
        if not names:
            raise BackupNotFound("there is no backup at this destination")
        found: list[Manifest] = []
        wrong_key: EventLogError | None = None
        for name in names:
            with self._noting():
                one = manifest.read(self._destination, name)
                try:
                    self._key = self._key or manifest.key_of(one, self._keks)
                except EventLogError as error:  # made before the key-encryption key was changed, perhaps
                    wrong_key = error
                    continue
                found.append(one)
        if wrong_key is not None and not self._key:
            raise wrong_key
        for one in found:
            with self._noting():
                manifest.authenticate(one, self._key)
        return found

    def _own_files(self, one: Manifest) -> None:
        for table in one.tables:
            with self._noting():
                for data in tables.content(self._destination, self._key, one, table):
                    self._bytes += len(data)
        with self._noting():
            files.read_list(self._destination, self._key, one)

    def _events(self, manifests: list[Manifest], newest: Manifest, wanted: objects.Wanted) -> int:
        keys: dict[str, list[NoteKey]] = {}
        for one in manifests:
            with self._noting():
                keys[one.name] = sealed_log.keys_in(self._destination, self._key, one)
        expected: checking.Expected | None = checking.Expected([one for one in manifests if one.name in keys], keys)
        erased: set[str] = set()
        events = 0
        with self._noting():
            erased = tables.destroyed_subjects(self._destination, self._key, newest)
        with self._noting():
            for segment in segments.needed(self._destination, newest.position):
                rows: list[segments.Row] = []
                with self._noting() as noted:
                    for row in segments.rows(self._destination, self._key, segment, newest.position):
                        events += 1
                        self._bytes += len(row.raw)
                        wanted.add(row.named, erased)
                        rows.append(msgspec.structs.replace(row, raw=b""))
                        if expected is not None:
                            self._problems += expected.compare(row)
                    checking.check_list(self._destination, self._key, segment, rows)
                if noted:
                    expected = None  # without these events no later root can be computed
                self._progress("events", events, newest.position)
        wanted.settle_unclear(lambda sha256: self._destination.size(objects.path(sha256)) is not None)
        wanted.without(newest.missing)
        return events

    def _objects(self, manifests: list[Manifest], newest: Manifest, wanted: objects.Wanted) -> int:
        names = [digest.hex() for digest in wanted.needed]
        for one in manifests:
            with self._noting():
                listed = {file.sha256 for file in files.read_list(self._destination, self._key, one)}
                names += sorted(sha256 for sha256 in listed if bytes.fromhex(sha256) not in wanted.needed)
        names = list(dict.fromkeys(names))

        def one_object(sha256: str) -> int:
            with self._noting():
                return objects.copy_out(self._destination, self._key, sha256)
            return 0

        with ThreadPoolExecutor(objects.THREADS, "verify") as threads:
            for done, size in enumerate(threads.map(one_object, names), start=1):
                self._bytes += size
                self._progress("objects", done, len(names))
        return len(names)

    @contextmanager
    def _noting(self) -> Iterator[list[str]]:
        """Notes the problem that ends the block; what it gives says afterwards whether there was one."""
        noted: list[str] = []
        try:
            yield noted
        except BackupError as error:
            noted.append(str(error))
            if str(error) not in self._problems:
                self._problems.append(str(error))
