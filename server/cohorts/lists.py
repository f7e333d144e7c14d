"""Lists of datasets in the archive: what a frozen version holds, and who is in which part of a split. Written once, under their digest."""

from __future__ import annotations

import asyncio
import hashlib
import os
import tempfile
from collections.abc import AsyncIterator, Iterable
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

import msgspec

from archive.errors import NotInArchive, ObjectDamaged
from archive.store import Store
from server.cohorts.errors import ListLost

CHUNK = 1 << 20
LINES = 500
"""Read at a time, in a thread."""
MARK_EVERY = 50
"""Lines of a list of members between two places that are remembered."""


class ListFile:
    """A list that is being written: a file beside the data folder until it is whole, then an object of the archive."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix="list-", suffix=".jsonl", dir=folder)
        self.path = Path(name)
        self._file: BinaryIO = os.fdopen(handle, "wb")

    def write(self, lines: Iterable[bytes]) -> None:
        self._file.writelines(lines)

    def keep(self, store: Store, sha256: str) -> None:
        """Durable before it is in the archive, and in the archive before any event names it."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        store.add(self.path, sha256)

    def discard(self) -> None:
        self._file.close()
        self.path.unlink(missing_ok=True)


def keep_list(store: Store, folder: Path, lines: bytes) -> str:
    """Puts a list that fits into memory into the archive; gives its digest."""
    sha256 = hashlib.sha256(lines).hexdigest()
    file = ListFile(folder)
    try:
        file.write([lines])
        file.keep(store, sha256)
    finally:
        file.discard()
    return sha256


async def lines_of(store: Store, sha256: str) -> AsyncIterator[list[bytes]]:
    """The list's lines, in batches. Its digest is checked before the first is given. Raises ListLost."""
    try:
        await asyncio.to_thread(store.verify, sha256)
        file = await asyncio.to_thread(store.open, sha256)
    except (NotInArchive, ObjectDamaged) as error:
        raise _lost(error) from None
    with file:
        while lines := await asyncio.to_thread(_some_lines, file, LINES):
            yield lines


async def members_after(store: Store, sha256: str, after: str) -> AsyncIterator[list[bytes]]:
    """Lines of a list of members, in small batches, from a little before that of a Series Instance UID on: for pages, in the middle of a long list.

    Its digest is checked when it is first read by this process. Raises ListLost.
    """
    try:
        marks = await asyncio.to_thread(_marks, store, sha256)
        file = await asyncio.to_thread(store.open, sha256)
    except (NotInArchive, ObjectDamaged) as error:
        raise _lost(error) from None
    with file:
        offset = next((offset for uid, offset in reversed(marks) if uid <= after), 0)
        await asyncio.to_thread(file.seek, offset)
        while lines := await asyncio.to_thread(_some_lines, file, MARK_EVERY):
            yield lines


class _Named(msgspec.Struct):
    series_uid: str


_NAMED = msgspec.json.Decoder(_Named)


@lru_cache(maxsize=64)
def _marks(store: Store, sha256: str) -> tuple[tuple[str, int], ...]:
    """Where some of the lines begin, and what they name; what is under a digest does not change. Raises NotInArchive, ObjectDamaged."""
    marks: list[tuple[str, int]] = []
    digest, offset = hashlib.sha256(), 0
    with store.open(sha256) as file:
        for number, line in enumerate(iter(file.readline, b"")):
            if number % MARK_EVERY == 0:
                try:
                    marks.append((_NAMED.decode(line).series_uid, offset))
                except msgspec.MsgspecError:
                    raise ObjectDamaged(f"object {sha256} is no list of members") from None
            digest.update(line)
            offset += len(line)
    if digest.hexdigest() != sha256:
        raise ObjectDamaged(f"the bytes of object {sha256} have the digest {digest.hexdigest()}")
    return tuple(marks)


def _some_lines(file: BinaryIO, count: int) -> list[bytes]:
    return [line for line in (file.readline() for _ in range(count)) if line]


def _lost(error: Exception) -> ListLost:
    return ListLost(f"{error}: `anamnesis dataset recover` makes it again from the log")
