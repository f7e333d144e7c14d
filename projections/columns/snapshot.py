"""Columns on disk, so that a start does not read every row again: arrays as they are in memory, behind a description and before a digest.

A file belongs to one log: it names the digests of its first event and of the one at its position. What is damaged, of another version
or of another log is thrown away. It holds persons' data: it is for its owner alone (mode 0600), and what was written before an erasure
is removed by it. ``not-before`` says up to which position, so that nobody who is slow puts an old one back.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import fasteners
import msgspec
import numpy as np

from domain.condition import Level
from projections.columns.column import Encoded, Plain
from projections.columns.dictionary import Dictionary
from projections.columns.errors import SnapshotRefused
from projections.columns.growing import Growing
from projections.columns.layout import LAID
from projections.columns.store import Store
from projections.columns.table import Table

MAGIC = b"ANAMNESIS COLUMNS 1\n"
SUFFIX, PART = ".columns", ".part"
_DIGEST_BYTES = hashlib.sha256().digest_size
_MAX_DESCRIPTION = 1 << 24

_logger = logging.getLogger(__name__)


class Part(msgspec.Struct, frozen=True):
    """An array: what it is of a table, and of what type and length."""

    name: str
    dtype: str
    length: int


class TableDescription(msgspec.Struct, frozen=True):
    level: Level
    low: int
    base_position: int
    changed_at: int
    encoded: list[str]
    plain: list[str]
    parts: list[Part]


class Description(msgspec.Struct, frozen=True, kw_only=True):
    """``first`` and ``last``: digests of the log's first event, and of the one at ``position``, in hexadecimal digits."""

    schema: str
    position: int
    first: str
    last: str
    tables: list[TableDescription]


class Captured(msgspec.Struct, frozen=True):
    """A store as it is at this moment, to be written while others go on."""

    description: Description
    arrays: list[list[np.ndarray]]


def capture(store: Store, schema: str, first: str, last: str) -> Captured:
    """To be called by the writer of the store: only the ends of rows change later, and they are copied."""
    described, arrays = [], []
    for level, table in store.tables.items():
        size = len(table)
        parts: dict[str, np.ndarray] = {
            "entities": table.entities.values,
            "entity": table.entity.values,
            "begins": table.begins.buffer[:size],
            "ends": table.ends.buffer[:size].copy(),
            **{f"belongs {above}": ordinals.buffer[:size] for above, ordinals in table.belongs.items()},
        }
        encoded = [name for name, column in table.columns.items() if isinstance(column, Encoded)]
        plain = [name for name in table.columns if name not in encoded]
        for name, column in table.columns.items():
            if isinstance(column, Encoded):
                parts[f"codes {name}"] = column.kept[:size]
                entries = msgspec.json.encode(column.dictionary.entries[1 : len(column.dictionary)])
                parts[f"entries {name}"] = np.frombuffer(entries, np.uint8)
            else:
                parts[f"values {name}"] = column.values(0, size)
        listed = [Part(name, array.dtype.str, len(array)) for name, array in parts.items()]
        described.append(TableDescription(level, table.low, table.base_position, table.changed_at, encoded, plain, listed))
        arrays.append(list(parts.values()))
    return Captured(Description(schema=schema, position=store.position, first=first, last=last, tables=described), arrays)


def write(folder: Path, captured: Captured) -> Path | None:
    """In place of what was written before. None when an erasure came in between: what was captured may hold what is gone."""
    position = captured.description.position
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with _locked(folder):
        if position < _not_before(folder):
            return None
        path = folder / f"{position:020d}{SUFFIX}"
        part = path.with_suffix(PART)
        with contextlib.suppress(FileNotFoundError):
            part.unlink()
        try:
            descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                _write(file, captured)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        for other in _files(folder):
            if other != path:
                other.unlink(missing_ok=True)
    return path


def _write(file: BinaryIO, captured: Captured) -> None:
    digest = hashlib.sha256()
    description = msgspec.json.encode(captured.description)
    head = MAGIC + len(description).to_bytes(8, "little") + description
    file.write(head)
    digest.update(head)
    for arrays in captured.arrays:
        for array in arrays:
            data = np.ascontiguousarray(array).view(np.uint8).data
            file.write(data)
            digest.update(data)
    file.write(digest.digest())


def newest(folder: Path) -> Path | None:
    """What there is to be read, if anything. Removes what was not written to its end."""
    if not folder.is_dir():
        return None
    with _locked(folder):
        for part in folder.glob(f"*{PART}"):
            part.unlink(missing_ok=True)
        files = sorted(path for path in _files(folder) if path.suffix == SUFFIX)
    return files[-1] if files else None


def load(folder: Path) -> tuple[Path, Description, Store] | None:
    """The newest that can be read; what cannot is thrown away. To be compared with the log before it is used."""
    path = newest(folder)
    if path is None:
        return None
    try:
        return path, *read(path)
    except SnapshotRefused as refused:
        discard(path, str(refused))
        return None


def read(path: Path) -> tuple[Description, Store]:
    """Raises SnapshotRefused. The description is to be compared with the log before the store is used."""
    try:
        with path.open("rb") as file:
            return _read(file)
    except (OSError, ValueError, msgspec.MsgspecError) as error:
        raise SnapshotRefused(f"cannot be read ({type(error).__name__})") from None


def _read(file: BinaryIO) -> tuple[Description, Store]:
    digest = hashlib.sha256()

    def take(size: int) -> bytes:
        data = file.read(size)
        if len(data) < size:
            raise SnapshotRefused("ends too early")
        digest.update(data)
        return data

    if take(len(MAGIC)) != MAGIC:
        raise SnapshotRefused("is of another version")
    size = int.from_bytes(take(8), "little")
    if size > _MAX_DESCRIPTION:
        raise SnapshotRefused("is damaged")
    description = msgspec.json.decode(take(size), type=Description)
    left = os.fstat(file.fileno()).st_size - file.tell()
    if left != _DIGEST_BYTES + sum(np.dtype(part.dtype).itemsize * part.length for table in description.tables for part in table.parts):
        raise SnapshotRefused("is damaged")
    raw: list[dict[str, Growing]] = []
    for table in description.tables:
        arrays: dict[str, Growing] = {}
        for part in table.parts:
            array = arrays[part.name] = Growing.to_fill(np.dtype(part.dtype), part.length)
            if part.length:
                view = array.values.view(np.uint8).data
                if file.readinto(view) != len(view):  # type: ignore[attr-defined]
                    raise SnapshotRefused("ends too early")
                digest.update(view)
        raw.append(arrays)
    if file.read() != digest.digest():
        raise SnapshotRefused("is damaged")
    store = Store({})
    for table, arrays in zip(description.tables, raw, strict=True):
        store.tables[table.level] = _table(table, arrays)
        store.elements[table.level] = [name for name in table.encoded if name not in LAID[table.level].columns]
    if set(store.tables) != set(LAID) or any(set(LAID[level].columns) - set(table.columns) for level, table in store.tables.items()):
        raise SnapshotRefused("is of another version")
    store.publish(description.position)
    return description, store


def _table(described: TableDescription, arrays: Mapping[str, Growing]) -> Table:
    table = Table(described.level)
    table.entities, table.entity, table.begins, table.ends = (arrays[name] for name in ("entities", "entity", "begins", "ends"))
    table.belongs = {level: arrays[f"belongs {level}"] for level in LAID[described.level].belongs}
    for name in described.encoded:
        entries: list[Any] = msgspec.json.decode(arrays[f"entries {name}"].values.tobytes(), type=list[tuple[str | bool | int | float, ...]])
        dictionary = Dictionary(entries)
        if len(dictionary) != len(entries) + 1:
            raise SnapshotRefused("is damaged")
        table.columns[name] = Encoded(dictionary, arrays[f"codes {name}"] if len(dictionary) > 1 else None, 0 if len(dictionary) > 1 else arrays["entity"].size)
    for name in described.plain:
        values = arrays[f"values {name}"]
        table.columns[name] = Plain(values.buffer.dtype, values)
    table.low, table.base_position, table.changed_at = described.low, described.base_position, described.changed_at
    table.may_have_ended = len(table)
    table.stand()
    return table


def forget_before(folder: Path, position: int) -> int:
    """Removes every file that was written before an erasure at this position, whole or not. Gives how many there were."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    removed = 0
    with _locked(folder):
        if position > _not_before(folder):
            (folder / "not-before").write_text(f"{position}\n", encoding="ascii")
        for path in _files(folder):
            if path.suffix == PART or int(path.stem) < position:
                path.unlink(missing_ok=True)
                removed += 1
    return removed


def discard(path: Path, reason: str) -> None:
    """A file that nobody can use."""
    _logger.warning("the snapshot of the columns %s: they are read from the rows", reason)
    path.unlink(missing_ok=True)


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.iterdir() if path.suffix in (SUFFIX, PART) and path.stem.isdecimal()]


def _not_before(folder: Path) -> int:
    try:
        return int((folder / "not-before").read_text(encoding="ascii"))
    except (FileNotFoundError, ValueError):
        return 0


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    with fasteners.InterProcessLock(folder / "lock"):
        yield
