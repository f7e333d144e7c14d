"""The store: instances under the SHA-256 of their files, written once, never changed, and removed with an erased subject alone.

A folder of this machine, or anything that fsspec can write (s3://bucket/prefix). On the spool's own file system, an instance
is put in by a hard link: the spool lets go of its name only once the event is in the log, so no crash leaves it in neither.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import uuid
from pathlib import Path
from typing import BinaryIO, cast

import fsspec

from archive.errors import NotInArchive, ObjectDamaged
from archive.spool import SpooledInstance

_CHUNK = 1 << 20


class Store:
    def __init__(self, url: str) -> None:
        self._files, root = fsspec.core.url_to_fs(url)
        self._root: str = root.rstrip("/")
        self._local = Path(self._root) if "file" in _protocols(self._files) else None
        if self._local is not None:
            self._local.mkdir(mode=0o700, parents=True, exist_ok=True)

    def put(self, spooled: SpooledInstance) -> None:
        """Gives the store the spooled file; what is there already is kept. The spool keeps its own name for the file
        until `SpooledInstance.path` is unlinked, so that a crash between the two loses nothing."""
        self.add(spooled.path, spooled.sha256)

    def add(self, path: Path, sha256: str) -> None:
        """Gives the store a durable file that has this digest; its own name stays."""
        if self._local is not None:
            self._link(path, self._path(sha256))
            return
        name = self._name(sha256)
        if not self._files.exists(name):
            self._files.put_file(str(path), name)

    def open(self, sha256: str) -> BinaryIO:
        """The object, for reading from its start. Raises NotInArchive."""
        try:
            return cast(BinaryIO, self._files.open(self._name(sha256), "rb"))
        except FileNotFoundError:
            raise NotInArchive(f"the archive holds no object {sha256}") from None

    def local_path(self, sha256: str) -> Path | None:
        """The object as a file of this machine; None where the store is elsewhere. Raises NotInArchive."""
        if self._local is None:
            return None
        path = self._path(sha256)
        if not path.exists():
            raise NotInArchive(f"the archive holds no object {sha256}")
        return path

    def fetch(self, sha256: str, folder: Path) -> Path:
        """The object as a file: where it is, or a copy of it in ``folder``. Raises NotInArchive."""
        path = self.local_path(sha256)
        if path is not None:
            return path
        copy = folder / f"{sha256}.dcm"
        try:
            self._files.get_file(self._name(sha256), str(copy))
        except FileNotFoundError:
            raise NotInArchive(f"the archive holds no object {sha256}") from None
        return copy

    def has(self, sha256: str) -> bool:
        return bool(self._files.exists(self._name(sha256)))

    def size(self, sha256: str) -> int:
        """Bytes of the object. Raises NotInArchive."""
        try:
            return int(self._files.size(self._name(sha256)))
        except FileNotFoundError:
            raise NotInArchive(f"the archive holds no object {sha256}") from None

    def delete(self, sha256: str) -> int:
        """Removes an object for good, whole or left half-written; gives its bytes, 0 when there is none."""
        size = 0
        with contextlib.suppress(FileNotFoundError):
            size = self.size(sha256) if self.has(sha256) else 0
            self._files.rm_file(self._name(sha256))
        if self._local is not None:
            for partial in self._path(sha256).parent.glob(f".{sha256}.*"):
                partial.unlink(missing_ok=True)
            if self._path(sha256).parent.exists():
                _sync_folder(self._path(sha256).parent)
        return size

    def verify(self, sha256: str) -> None:
        """Reads the object and compares its digest. Raises NotInArchive, ObjectDamaged."""
        digest = hashlib.sha256()
        with self.open(sha256) as file:
            while chunk := file.read(_CHUNK):
                digest.update(chunk)
        if digest.hexdigest() != sha256:
            raise ObjectDamaged(f"the bytes of object {sha256} have the digest {digest.hexdigest()}")

    def _link(self, source: Path, target: Path) -> None:
        try:
            try:
                os.link(source, target)
            except FileNotFoundError:
                target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                os.link(source, target)
        except FileExistsError:
            pass
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP):
                raise
            if not target.exists():
                _copy_durably(source, target)

    def _name(self, sha256: str) -> str:
        return f"{self._root}/{sha256[:2]}/{sha256}"

    def _path(self, sha256: str) -> Path:
        return Path(self._name(sha256))


def _copy_durably(source: Path, target: Path) -> None:
    """Across file systems: a whole copy under another name, made durable, then renamed."""
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    partial = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
    with source.open("rb") as read, partial.open("wb") as write:
        shutil.copyfileobj(read, write, _CHUNK)
        write.flush()
        os.fsync(write.fileno())
    os.rename(partial, target)
    _sync_folder(target.parent)


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)


def _protocols(files: fsspec.AbstractFileSystem) -> tuple[str, ...]:
    return (files.protocol,) if isinstance(files.protocol, str) else tuple(files.protocol)
