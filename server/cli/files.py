"""The files that `anamnesis ingest` is given: folders, zip archives (in each other, too), DICOMDIRs, and single files.

A zip's members are read as streams, and bounded: what claims or grows to more than the limits is reported and not unpacked
(a zip bomb of 42 kB unpacks to 4 PB).
"""

from __future__ import annotations

import os
import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

import msgspec
import pydicom
from pydicom import config

from archive.errors import Refused
from archive.part10 import read_part10

MEDIA_STORAGE_DIRECTORY = "1.2.840.10008.1.3.10"
MAX_MEMBER_BYTES = 8 * 1024**3
MAX_ARCHIVE_BYTES = 512 * 1024**3
"""All members of one outermost zip together."""
MAX_MEMBERS = 2_000_000
MAX_RATIO = 1_000
"""Unpacked to packed, beyond the first 100 MiB: DEFLATE reaches 1,032 for zeros, images stay below 50."""
MAX_DEPTH = 3
_FREE_BYTES = 100 * 1024**2
_CHUNK = 1 << 20
_ZIP = b"PK\x03\x04"


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """A file to be taken in: ``path`` is where it can be read until the next one is asked for. ``shown`` names it for the
    person who asked; a name may identify, so it goes nowhere else."""

    path: Path
    shown: str


class Unusable(msgspec.Struct, frozen=True, kw_only=True):
    """What could not be looked into. ``reason``: missing-file, unsafe-archive, unreadable."""

    shown: str
    reason: str
    detail: str


def count_files(paths: list[Path]) -> int:
    """How many files there are, a zip and its members apart: for a progress bar, not exact."""
    return sum(1 for path in paths for _ in _walk(path))


def find_files(paths: list[Path]) -> Iterator[Found | Unusable]:
    """Every file below these paths, each once, in the order of their names."""
    seen: set[Path] = set()
    for path in paths:
        for file in _walk(path):
            real = file.resolve()
            if real not in seen:
                seen.add(real)
                yield from _open(file, str(file), seen)


def _walk(path: Path) -> Iterator[Path]:
    if not path.is_dir():
        yield path
        return
    for folder, folders, names in os.walk(path):
        folders.sort()
        for name in sorted(names):
            file = Path(folder) / name
            if file.is_file():  # no sockets, no pipes, no links to nowhere
                yield file


def _open(file: Path, shown: str, seen: set[Path]) -> Iterator[Found | Unusable]:
    try:
        with file.open("rb") as opened:
            start = opened.read(132)
    except OSError as error:
        yield Unusable(shown=shown, reason="unreadable", detail=f"the file cannot be opened ({error.strerror})")
        return
    if start[:4] == _ZIP:
        yield from _unzip(file, shown, _Budget(), 1)
    elif start[128:] == b"DICM" and _is_directory(file):
        yield from _directory(file, shown, seen)
    else:
        yield Found(path=file, shown=shown)


def _is_directory(file: Path) -> bool:
    try:
        with file.open("rb") as opened:
            return read_part10(opened).sop_class_uid == MEDIA_STORAGE_DIRECTORY
    except Refused:
        return False


def _referenced(file: Path) -> list[tuple[str, ...]] | None:
    """The file ids in a DICOMDIR (PS3.10, 8.6); None when it cannot be read."""
    try:
        with config.disable_value_validation():
            records = pydicom.dcmread(file).get("DirectoryRecordSequence") or []
            ids = [record.get("ReferencedFileID") for record in records]
    except Exception:  # pydicom raises whatever broken bytes lead it to
        return None
    return [(one,) if isinstance(one, str) else tuple(str(part) for part in one) for one in ids if one]


def _directory(file: Path, shown: str, seen: set[Path]) -> Iterator[Found | Unusable]:
    """The files that a DICOMDIR names; it is no instance itself."""
    listed = _referenced(file)
    if listed is None:
        yield Unusable(shown=shown, reason="unreadable", detail="the DICOMDIR cannot be read: name the folder instead")
        return
    root = file.parent.resolve()
    for parts in listed:
        referenced = _on_disk(root, parts)
        if referenced is None:
            yield Unusable(shown=f"{shown}: {'/'.join(parts)}", reason="missing-file", detail="the DICOMDIR names a file that is not there")
        elif referenced not in seen:
            seen.add(referenced)
            yield Found(path=referenced, shown=str(referenced))


def _on_disk(root: Path, parts: tuple[str, ...]) -> Path | None:
    """A file id is upper case; file systems and copying tools change that. Nothing outside the medium is followed."""
    at = root
    for part in parts:
        exact = at / part
        if exact.exists():
            at = exact
            continue
        names = {p.name.upper(): p for p in at.iterdir()} if at.is_dir() else {}
        found = names.get(part.upper())
        if found is None:
            return None
        at = found
    at = at.resolve()
    return at if at.is_file() and at.is_relative_to(root) else None


class _Budget:
    """What one outermost zip may still unpack to."""

    def __init__(self) -> None:
        self.bytes = MAX_ARCHIVE_BYTES
        self.members = MAX_MEMBERS


class _TooLarge(Exception):
    pass


def _unzip(file: Path, shown: str, budget: _Budget, depth: int) -> Iterator[Found | Unusable]:
    try:
        archive = zipfile.ZipFile(file)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        yield Unusable(shown=shown, reason="unreadable", detail=f"the zip archive is broken ({type(error).__name__})")
        return
    with archive, tempfile.TemporaryDirectory(prefix="anamnesis-zip-") as folder:
        unpacked = Path(folder) / "member"
        for member in archive.infolist():
            if member.is_dir():
                continue
            name = f"{shown}: {member.filename}"
            try:
                _unpack(archive, member, unpacked, budget)
            except _TooLarge as error:
                yield Unusable(shown=name, reason="unsafe-archive", detail=str(error))
                continue
            except (zipfile.BadZipFile, OSError, RuntimeError, NotImplementedError, EOFError, ValueError) as error:
                yield Unusable(shown=name, reason="unreadable", detail=f"the member cannot be unpacked ({type(error).__name__})")
                continue
            except Exception as error:  # zlib.error and lzma.LZMAError have no base in common
                yield Unusable(shown=name, reason="unreadable", detail=f"the member cannot be unpacked ({type(error).__name__})")
                continue
            yield from _member(unpacked, name, budget, depth)


def _member(unpacked: Path, name: str, budget: _Budget, depth: int) -> Iterator[Found | Unusable]:
    with unpacked.open("rb") as opened:
        start = opened.read(132)
    if start[:4] == _ZIP:
        if depth >= MAX_DEPTH:
            yield Unusable(shown=name, reason="unsafe-archive", detail=f"zip archives lie in each other deeper than {MAX_DEPTH}")
        else:
            yield from _unzip(unpacked, name, budget, depth + 1)
    elif not (start[128:] == b"DICM" and _is_directory(unpacked)):  # its files are members themselves
        yield Found(path=unpacked, shown=name)


def _unpack(archive: zipfile.ZipFile, member: zipfile.ZipInfo, target: Path, budget: _Budget) -> None:
    """Into ``target``, over what was there. Raises _TooLarge, and what zipfile raises."""
    budget.members -= 1
    if budget.members < 0:
        raise _TooLarge(f"the archive has more than {MAX_MEMBERS} members")
    with archive.open(member) as packed, target.open("wb") as unpacked:
        copy_bounded(cast(BinaryIO, packed), unpacked, member.compress_size, budget)


def copy_bounded(packed: BinaryIO, unpacked: BinaryIO, packed_bytes: int, budget: _Budget) -> None:
    """Counts what comes out rather than believing what the archive says. Raises _TooLarge."""
    size = 0
    while chunk := packed.read(_CHUNK):
        size += len(chunk)
        budget.bytes -= len(chunk)
        if size > MAX_MEMBER_BYTES or budget.bytes < 0:
            raise _TooLarge("the archive unpacks to more than the limit")
        if size > _FREE_BYTES and size > MAX_RATIO * max(1, packed_bytes):
            raise _TooLarge(f"a member unpacks to more than {MAX_RATIO} times its packed size")
        if shutil.disk_usage(tempfile.gettempdir()).free < _FREE_BYTES:
            raise _TooLarge("the temporary folder has no room left")
        unpacked.write(chunk)
