"""The spool: where an instance is made safe before its sender hears "success".

A reception is written to a file of its own, hashed on the way, and committed by fsync of the file, an atomic rename to a name
that says all that a restart needs, and fsync of the folder. What a crash leaves is then either a whole instance
(`pending` gives it) or a ``.part`` file that was never acknowledged.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType

import msgspec

from archive.errors import SpoolFull
from archive.part10 import part10_header, read_part10
from archive.process_folder import is_alive, own_name

_PART = ".part"
_WHOLE = ".dcm"


class SpooledInstance(msgspec.Struct, frozen=True, kw_only=True):
    """A committed instance. ``sha256`` and ``size`` are of the whole file; the UIDs are those that the door knew."""

    path: Path
    sha256: str
    size: int
    door: str
    sender: str | None
    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str


class Spool:
    """Safe for many threads and processes: each process writes into a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.root = folder
        self.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.folder = folder / own_name()
        self.folder.mkdir(mode=0o700, exist_ok=True)
        self._sync = _FolderSync(self.folder)
        _sync_folder(self.root)

    def receive(
        self,
        *,
        sop_class_uid: str,
        sop_instance_uid: str,
        transfer_syntax_uid: str,
        door: str,
        sender: str | None = None,
    ) -> Reception:
        """Begins one instance. Use it as a context manager: leaving without commit removes what was written."""
        return Reception(
            self.folder,
            self._sync,
            {
                "door": door,
                "sender": sender,
                "sop_class_uid": sop_class_uid,
                "sop_instance_uid": sop_instance_uid,
                "transfer_syntax_uid": transfer_syntax_uid,
            },
        )

    def pending(self) -> Iterator[SpooledInstance]:
        """What processes that are gone have committed and nobody has taken; their unfinished files are removed."""
        for folder in sorted(self.root.iterdir()):
            if not folder.is_dir() or folder == self.folder or is_alive(folder.name):
                continue
            for path in sorted(folder.iterdir()):
                if path.suffix == _PART:
                    path.unlink(missing_ok=True)
                elif path.suffix == _WHOLE:
                    yield _read_back(path)
            try:
                folder.rmdir()
            except OSError:  # its instances have not been taken yet
                pass

    def files(self) -> Iterator[tuple[Path, bool]]:
        """Every committed instance of all processes, and whether the process that received it still runs."""
        for folder in sorted(self.root.iterdir()):
            if folder.is_dir():
                alive = is_alive(folder.name)
                yield from ((path, alive) for path in sorted(folder.iterdir()) if path.suffix == _WHOLE)

    @staticmethod
    def sha256(path: Path) -> str:
        """The digest of a committed instance, which its name carries."""
        return path.name.removesuffix(_WHOLE).rsplit(".", 3)[1]

    def depth(self) -> int:
        """How many committed instances wait to be taken, of all processes."""
        return sum(1 for folder in self.root.iterdir() if folder.is_dir() for p in folder.iterdir() if p.suffix == _WHOLE)


class Reception:
    """One instance while it comes in."""

    def __init__(self, folder: Path, sync: _FolderSync, note: dict[str, str | None]) -> None:
        self._note = note
        self._sync = sync
        self._stem = f"{folder}/{time.time_ns():x}-{uuid.uuid4().hex[:8]}"  # plain text: a Path for each costs 20 µs
        self._part = self._stem + _PART
        self._hash = hashlib.sha256()
        self.size = 0
        self._fd: int | None = None
        self._committed = False
        with _full_disk_named():
            self._fd = os.open(self._part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        self.write(
            part10_header(
                sop_class_uid=note["sop_class_uid"] or "",
                sop_instance_uid=note["sop_instance_uid"] or "",
                transfer_syntax_uid=note["transfer_syntax_uid"] or "",
            )
        )

    def write(self, chunk: bytes | bytearray | memoryview) -> None:
        """Adds bytes of the data set. Raises SpoolFull."""
        assert self._fd is not None
        self._hash.update(chunk)
        view = memoryview(chunk)
        self.size += len(view)
        with _full_disk_named():
            while view:
                view = view[os.write(self._fd, view) :]

    def commit(self) -> SpooledInstance:
        """Durable on return. Raises SpoolFull."""
        assert self._fd is not None
        sha256 = self._hash.hexdigest()
        # The name carries what the file's own header does not: no second file, no second fsync.
        sender = (self._note["sender"] or "").encode("utf-8").hex()[:64]
        whole = f"{self._stem}.{sha256}.{self._note['door']}.{sender}{_WHOLE}"
        with _full_disk_named():
            os.fsync(self._fd)
            os.close(self._fd)
            self._fd = None
            os.rename(self._part, whole)
            self._sync.sync()
        self._committed = True
        return SpooledInstance(path=Path(whole), sha256=sha256, size=self.size, **self._note)  # type: ignore[arg-type]

    def abort(self) -> None:
        """Removes what was written."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None
        if not self._committed:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._part)

    def __enter__(self) -> Reception:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.abort()


class _FolderSync:
    """fsync of one folder for many threads: one that starts after a rename covers it, whoever asked for it."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._turn = threading.Lock()
        self._counting = threading.Lock()
        self._asked = 0
        self._covered = 0

    def sync(self) -> None:
        with self._counting:
            self._asked += 1
            mine = self._asked
        with self._turn:
            if self._covered >= mine:
                return
            with self._counting:
                covers = self._asked
            _sync_folder(self._folder)
            self._covered = covers


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _read_back(path: Path) -> SpooledInstance:
    _, sha256, door, sender = path.name.removesuffix(_WHOLE).rsplit(".", 3)
    with path.open("rb") as file:
        meta = read_part10(file)
    return SpooledInstance(
        path=path,
        sha256=sha256,
        size=path.stat().st_size,
        door=door,
        sender=bytes.fromhex(sender).decode("utf-8", "replace") or None,
        sop_class_uid=meta.sop_class_uid,
        sop_instance_uid=meta.sop_instance_uid,
        transfer_syntax_uid=meta.transfer_syntax_uid,
    )


@contextlib.contextmanager
def _full_disk_named() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise SpoolFull("the spool's disk is full: make room, and send the instance again") from error
        raise
