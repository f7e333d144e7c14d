"""The folder of an export while it is written: each file whole or not there, and a journal that says which are.

A file is written under another name, made durable, and renamed; then what made it is noted with its digest. Who goes on after a kill
takes what is noted and still has its digest, and makes the rest again.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec

from archive.errors import ObjectDamaged
from server.datasets.plan import LeftOut

STATE = ".export"
"""Folder of what is no part of the export: its plan, the journal, and files that are being written."""
PLAN, JOURNAL, PARTIAL = f"{STATE}/plan.json", f"{STATE}/journal", f"{STATE}/partial"
_CHUNK = 1 << 20


class File(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A file. ``entity`` is what it shows (``series:1.2.3``), ``positions`` those of the events that it comes from."""

    path: str
    bytes: int
    sha256: str
    entity: str
    positions: Sequence[int] = ()


class Made(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one step came to."""

    step: str
    files: Sequence[File] = ()
    left_out: Sequence[LeftOut] = ()


class Folder:
    """Of one writer at a time."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.made: dict[str, Made] = {}
        self.files = self.bytes = 0
        """That are made."""

    def take_up(self) -> None:
        """Reads what is done, and drops what is not whole."""
        shutil.rmtree(self.root / PARTIAL, ignore_errors=True)
        self._make_folders()
        noted = self.root / JOURNAL
        for line in noted.read_bytes().splitlines() if noted.is_file() else []:
            with contextlib.suppress(msgspec.MsgspecError):  # the last line, of a kill
                one = msgspec.json.decode(line, type=Made)
                self.made[one.step] = one
        self.made = {name: one for name, one in self.made.items() if all(self._is_whole(file) for file in one.files)}
        self.files = sum(len(one.files) for one in self.made.values())
        self.bytes = sum(file.bytes for one in self.made.values() for file in one.files)
        with self.durable(noted) as journal:
            journal.write_bytes(b"".join(msgspec.json.encode(one) + b"\n" for one in self.made.values()))

    def keep_plan(self, plan: bytes) -> None:
        """Before anything is made of it."""
        self._make_folders()
        with self.durable(self.root / PLAN) as partial:
            partial.write_bytes(plan)

    def plan(self) -> bytes | None:
        """What was kept."""
        path = self.root / PLAN
        return path.read_bytes() if path.is_file() else None

    def forget(self) -> None:
        """Only the files of the export are left."""
        shutil.rmtree(self.root / STATE, ignore_errors=True)

    def step(self, name: str) -> Step:
        return Step(self, name)

    def note(self, made: Made) -> None:
        self.made[made.step] = made
        self.files += len(made.files)
        self.bytes += sum(file.bytes for file in made.files)
        descriptor = os.open(self.root / JOURNAL, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(descriptor, msgspec.json.encode(made) + b"\n")
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def finish(self) -> None:
        """Removes what is no file of the export, but what says how it was made."""
        listed = {file.path for one in self.made.values() for file in one.files}
        for path in sorted(self.root.rglob("*"), reverse=True):
            if path.is_dir() and not path.is_symlink():
                with contextlib.suppress(OSError):  # it holds something
                    path.rmdir()
            elif path.relative_to(self.root).as_posix() not in {*listed, PLAN, JOURNAL}:
                path.unlink()

    @contextlib.contextmanager
    def durable(self, target: Path) -> Iterator[Path]:
        """A name to write to; what is there becomes ``target`` at the end of the block, or nothing does."""
        partial = self.root / PARTIAL / f"{os.getpid()}-{target.name}"
        try:
            yield partial
            descriptor = os.open(partial, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            partial.chmod(0o600)
            os.replace(partial, target)
        finally:
            partial.unlink(missing_ok=True)

    def _make_folders(self) -> None:
        for path in (self.root, self.root / STATE, self.root / PARTIAL):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)

    def _is_whole(self, file: File) -> bool:
        path = self.root / file.path
        return path.is_file() and path.stat().st_size == file.bytes and sha256_of(path) == file.sha256


class Step:
    """Files that are made together, and count once all of them are there."""

    def __init__(self, folder: Folder, name: str) -> None:
        self._folder = folder
        self._name = name
        self._files: list[File] = []
        self.left_out: list[LeftOut] = []

    @contextlib.contextmanager
    def file(self, path: str, entity: str, positions: Sequence[int] = (), sha256: str | None = None) -> Iterator[Path]:
        """A name to write to, with the suffixes of ``path``; the file has its own once the block has ended.

        Raises ObjectDamaged where the digest has to be ``sha256`` and is not.
        """
        with self._folder.durable(self._folder.root / path) as partial:
            yield partial
            found = sha256_of(partial)
            if sha256 not in (None, found):
                raise ObjectDamaged(f"the bytes of object {sha256} have the digest {found}")
            size = partial.stat().st_size
        self._files.append(File(path=path, bytes=size, sha256=found, entity=entity, positions=sorted(set(positions))))

    def copy(self, path: str, again: str) -> None:
        """A file that this step has written, under a second name."""
        written = next(file for file in self._files if file.path == path)
        with self.file(again, written.entity, written.positions, written.sha256) as partial:
            shutil.copyfile(self._folder.root / path, partial)

    def text(self, path: str, content: str | bytes, entity: str, positions: Sequence[int] = ()) -> None:
        with self.file(path, entity, positions) as partial:
            partial.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))

    def done(self) -> Made:
        made = Made(step=self._name, files=self._files, left_out=self.left_out)
        self._folder.note(made)
        return made


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
