"""The spool's and the rejects' files in a backup: what was received and not yet decided, and what was refused.

Their bytes are kept among the objects, so an instance that leaves the spool for the archive is copied once.
"""

from __future__ import annotations

import hashlib
import uuid
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import msgspec

from archive.errors import NotInArchive, ObjectDamaged
from archive.rejects import Rejects
from archive.store import Store
from server.backup import objects
from server.backup.destination import Destination
from server.backup.errors import BackupDamaged
from server.backup.manifest import FileList, Manifest
from server.backup.sealed import SealedWriter, open_sealed, sealed_size
from server.backup.segments import unpacked

SPOOL, REJECTS = "spool", "rejects"
_LIST = "+files"  # no table's name


class KeptFile(msgspec.Struct, frozen=True, kw_only=True):
    """``folder`` is spool or rejects."""

    folder: str
    name: str
    sha256: str
    size: int


def spooled(folder: Path) -> list[tuple[KeptFile, Path]]:
    """What processes have committed to the spool and the log has not decided yet. The digest is in a file's name."""
    found = []
    for path in sorted(folder.glob("*/*.dcm")):
        sha256 = path.name.rsplit(".", 4)[1]
        with suppress(FileNotFoundError):  # decided meanwhile, so it is in the log
            found.append((KeptFile(folder=SPOOL, name=path.name, sha256=sha256, size=path.stat().st_size), path))
    return found


def refused(rejects: Rejects) -> Iterator[tuple[KeptFile, Path]]:
    """The refused files with their notes."""
    for note in rejects.listing():
        path = rejects.path(note.reject_id)
        yield KeptFile(folder=REJECTS, name=path.name, sha256=note.sha256, size=note.size), path
        path = rejects.note_path(note.reject_id)
        data = path.read_bytes()
        yield KeptFile(folder=REJECTS, name=path.name, sha256=hashlib.sha256(data).hexdigest(), size=len(data)), path


def copy(
    destination: Destination, key: bytes, store: Store, found: Iterable[tuple[KeptFile, Path]], copied: objects.Copied
) -> list[KeptFile]:
    """Copies what the destination lacks and adds to ``copied``; gives what the destination holds now. A file that left the spool
    meanwhile is in the archive or among the rejects."""
    kept: list[KeptFile] = []
    elsewhere: dict[str, Path] = {}
    for file, path in found:
        elsewhere[file.sha256] = path
        if destination.size(objects.path(file.sha256)) != sealed_size(file.size):
            opened = _open(store, file, path, elsewhere)
            if opened is None:
                continue
            try:
                with opened:
                    copied.bytes += objects.copy_in(destination, key, file.sha256, opened)
            except ObjectDamaged:
                copied.missing.append(file.sha256)
                continue
        kept.append(file)
    return kept


def _open(store: Store, file: KeptFile, path: Path, elsewhere: dict[str, Path]) -> BinaryIO | None:
    with suppress(FileNotFoundError):
        return path.open("rb")
    with suppress(NotInArchive):
        return store.open(file.sha256)
    with suppress(FileNotFoundError):
        return elsewhere[file.sha256].open("rb")
    return None  # the same bytes were there before, or it was refused after we looked: the sender has its answer


def write_list(destination: Destination, key: bytes, folder: str, kept: list[KeptFile]) -> FileList:
    """Under a new name each time: the list before stands until a manifest names this one."""
    file_name = f"{_LIST}-{uuid.uuid4().hex[:8]}"
    name = f"{folder}/{file_name}"
    data = msgspec.json.encode(kept)
    with destination.create(name) as file:
        sealed = SealedWriter(file, key, name)
        sealed.write(zlib.compress(data, 1))
        sealed.finish()
    return FileList(file=file_name, files=len(kept), bytes=sum(file.size for file in kept), sha256=hashlib.sha256(data).hexdigest())


def read_list(destination: Destination, key: bytes, manifest: Manifest) -> list[KeptFile]:
    """Raises BackupDamaged."""
    name = f"{manifest.folder}/{manifest.files.file}"
    with destination.open(name) as file:
        data = b"".join(unpacked(open_sealed(file, key, name), name))
    if hashlib.sha256(data).hexdigest() != manifest.files.sha256:
        raise BackupDamaged(f"{name} in the backup is damaged: it is not what {manifest.name} names")
    return msgspec.json.decode(data, type=list[KeptFile])
