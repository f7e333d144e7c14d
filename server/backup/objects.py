"""The archive's objects in a backup: which ones the log names, and the copying of those that the destination lacks."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Callable, Container, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO

import msgspec

from archive.errors import NotInArchive, ObjectDamaged
from archive.store import Store
from server.backup.destination import Destination
from server.backup.errors import BackupDamaged
from server.backup.sealed import CHUNK, SealedWriter, open_sealed, sealed_size
from server.backup.segments import NamedObject

OBJECTS = "objects"
THREADS = 4
"""Hashing, sealing and fsync leave the interpreter to the others."""


class Wanted:
    """Digests in binary: a million of them take 150 MB as they are here."""

    def __init__(self) -> None:
        self.needed: dict[bytes, int] = {}
        """Digest → bytes of the object, where a subject that is not erased has it."""
        self.unclear: dict[bytes, int] = {}
        """Those of which no event says whose they are (InstanceConflicted of version 1): kept if they are there."""

    def add(self, objects: Iterable[NamedObject], erased: set[str]) -> None:
        for one in objects:
            if one.subject_id not in erased:
                (self.needed if one.subject_id else self.unclear)[bytes.fromhex(one.sha256)] = one.size

    def without(self, missing: Iterable[str]) -> None:
        for sha256 in missing:
            self.needed.pop(bytes.fromhex(sha256), None)

    def settle_unclear(self, has: Callable[[str], bool]) -> None:
        for digest, size in self.unclear.items():
            if digest not in self.needed and has(digest.hex()):
                self.needed[digest] = size


class Copied(msgspec.Struct):
    objects: int = 0
    bytes: int = 0
    missing: list[str] = msgspec.field(default_factory=list)
    """Digests of those that the archive does not hold, or not whole."""


def path(sha256: str) -> str:
    return f"{OBJECTS}/{sha256[:2]}/{sha256}"


def copy_missing(
    store: Store, destination: Destination, key: bytes, wanted: Mapping[bytes, int], progress: Callable[[int, int], None]
) -> Copied:
    """Copies what the destination lacks. ``progress`` hears how many of all are safe."""
    copied = Copied()
    done = 0

    def one(sha256: str) -> int | None:
        try:
            with store.open(sha256) as source:
                return copy_in(destination, key, sha256, source)
        except (NotInArchive, ObjectDamaged):
            return None

    with ThreadPoolExecutor(THREADS, "backup") as threads:
        for folder, digests in _by_folder(wanted):
            destination.remove_leftovers(folder)
            there = destination.listing(folder)
            needed = {digest.hex(): wanted[digest] for digest in digests}
            lacking = [sha256 for sha256, size in needed.items() if there.get(path(sha256)) != sealed_size(size)]
            done += len(needed) - len(lacking)
            for sha256, size in zip(lacking, threads.map(one, lacking), strict=True):
                if size is None:
                    copied.missing.append(sha256)
                else:
                    copied.objects += 1
                    copied.bytes += size
                done += 1
                progress(done, len(wanted))
    progress(done, len(wanted))
    return copied


def _by_folder(wanted: Iterable[bytes]) -> Iterator[tuple[str, list[bytes]]]:
    for first, digests in itertools.groupby(sorted(wanted), key=lambda digest: digest[0]):
        yield f"{OBJECTS}/{first:02x}", list(digests)


def copy_in(destination: Destination, key: bytes, sha256: str, source: BinaryIO) -> int:
    """Seals a file under its digest; gives the bytes written. Raises ObjectDamaged when it does not have that digest."""
    name = path(sha256)
    digest = hashlib.sha256()
    with destination.create(name) as file:
        sealed = SealedWriter(file, key, name)
        while chunk := source.read(CHUNK):
            digest.update(chunk)
            sealed.write(chunk)
        sealed.finish()
        if digest.hexdigest() != sha256:
            raise ObjectDamaged(f"the bytes of object {sha256} have the digest {digest.hexdigest()}")
        return file.tell()


def copy_out(destination: Destination, key: bytes, sha256: str, target: BinaryIO | None = None) -> int:
    """Writes an object to ``target`` (or only checks it); gives its bytes. Raises BackupDamaged."""
    name = path(sha256)
    digest, size = hashlib.sha256(), 0
    with destination.open(name) as file:
        for chunk in open_sealed(file, key, name):
            digest.update(chunk)
            size += len(chunk)
            if target is not None:
                target.write(chunk)
    if digest.hexdigest() != sha256:
        raise BackupDamaged(f"{name} in the backup is damaged: its bytes have the digest {digest.hexdigest()}")
    return size


def remove_others(destination: Destination, keep: Container[bytes]) -> int:
    """Removes every object that is not to be kept (its subject was erased, or a refused file was removed); says how many."""
    removed = 0
    for folder in destination.folders(OBJECTS):
        for name in destination.listing(folder):
            if bytes.fromhex(name.rsplit("/", 1)[1]) not in keep:
                destination.remove(name)
                removed += 1
    return removed
