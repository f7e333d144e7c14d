"""Where backups lie: a folder of this machine, or anything that fsspec can write (s3://bucket/prefix).

A file appears under its name only when it is whole; on this machine it is durable by then, too, and its name is once
``settle`` has returned.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

import fsspec

from server.backup.errors import BackupDamaged

_PART = ".part-"


class Destination:
    """Names are relative, with slashes. Safe for many threads."""

    def __init__(self, url: str) -> None:
        self._files, root = fsspec.core.url_to_fs(url)
        self._root: str = root.rstrip("/")
        protocol = self._files.protocol
        self._is_local = "file" in ((protocol,) if isinstance(protocol, str) else protocol)
        self._touched: set[Path] = set()
        self._touching = threading.Lock()

    @contextlib.contextmanager
    def create(self, name: str) -> Iterator[BinaryIO]:
        """A file to be written; it takes its name (from another, where there is one) when the block ends without an error."""
        if not self._is_local:
            with tempfile.TemporaryFile() as whole:  # an upload that breaks off must not leave half of an object
                yield cast(BinaryIO, whole)
                whole.seek(0)
                self._files.makedirs(self._path(name).rsplit("/", 1)[0], exist_ok=True)
                with self._files.open(self._path(name), "wb") as remote:
                    while chunk := whole.read(1 << 20):
                        remote.write(chunk)
            return
        path = Path(self._path(name))
        self._make_folder(path.parent)
        part = path.with_name(f"{_PART}{uuid.uuid4().hex}")
        try:
            with part.open("xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.rename(part, path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        with self._touching:
            self._touched.add(path.parent)

    def open(self, name: str) -> BinaryIO:
        """Raises BackupDamaged when it is not there."""
        try:
            return cast(BinaryIO, self._files.open(self._path(name), "rb"))
        except FileNotFoundError:
            raise BackupDamaged(f"{name} is missing in the backup") from None

    def listing(self, folder: str) -> dict[str, int]:
        """Name → bytes, of the files right in this folder; what a broken off backup left half-written is not counted."""
        try:
            entries = self._files.ls(self._path(folder), detail=True)
        except FileNotFoundError:
            return {}
        named = {str(e["name"]).rsplit("/", 1)[1]: e for e in entries if e["type"] == "file"}
        return {f"{folder}/{name}": int(e["size"]) for name, e in named.items() if not name.startswith(_PART)}

    def size(self, name: str) -> int | None:
        """Bytes of a file; None where there is none."""
        try:
            return int(self._files.size(self._path(name)))
        except FileNotFoundError:
            return None

    def folders(self, folder: str) -> list[str]:
        """The folders right in this one."""
        try:
            entries = self._files.ls(self._path(folder), detail=True)
        except FileNotFoundError:
            return []
        return sorted(f"{folder}/{str(e['name']).rstrip('/').rsplit('/', 1)[1]}" for e in entries if e["type"] == "directory")

    def remove(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._files.rm_file(self._path(name))

    def remove_folder(self, folder: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._files.rm(self._path(folder), recursive=True)

    def remove_leftovers(self, folder: str) -> None:
        """What a backup that was killed left half-written in this folder."""
        if self._is_local:
            for path in Path(self._path(folder)).glob(f"{_PART}*"):
                path.unlink(missing_ok=True)

    def settle(self) -> None:
        """Makes the names of all files that were created so far durable."""
        with self._touching:
            touched, self._touched = self._touched, set()
        for folder in touched:
            _sync(folder)

    def _make_folder(self, folder: Path) -> None:
        if not folder.is_dir():
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            with self._touching:
                self._touched.update(p for p in folder.parents if p.is_relative_to(self._root))

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}"


def _sync(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
