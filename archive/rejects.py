"""The rejects folder: the bytes that were refused, each with a note that says why. Nothing that came to a door is lost, but what is of a
subject that was erased."""

from __future__ import annotations

import hashlib
import os
import shutil
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import msgspec

_CHUNK = 1 << 20


class RejectedFile(msgspec.Struct, frozen=True, kw_only=True):
    """``reason`` is a code, ``detail`` says where; neither names a person."""

    reject_id: str
    sha256: str
    size: int
    reason: str
    detail: str
    door: str
    refused_at: datetime


class Rejects:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    def keep(self, path: Path, *, reason: str, detail: str, door: str) -> RejectedFile:
        """Copies the bytes into the folder (the same bytes for the same reason are kept once). Durable on return."""
        digest, size = _digest(path)
        note = _note(digest, size, reason=reason, detail=detail, door=door)
        reject_id = note.reject_id
        if not self.note_path(reject_id).exists():
            partial = self.folder / f"{reject_id}.{uuid.uuid4().hex[:8]}.part"
            shutil.copyfile(path, partial)
            _sync(partial)
            os.rename(partial, self.path(reject_id))
            partial.write_bytes(msgspec.json.encode(note))
            _sync(partial)
            os.rename(partial, self.note_path(reject_id))
            _sync(self.folder)
        return note

    def name(self, path: Path, *, reason: str, detail: str, door: str) -> RejectedFile:
        """The note on bytes that may not be kept; nothing is written."""
        digest, size = _digest(path)
        return _note(digest, size, reason=reason, detail=detail, door=door)

    def remove(self, reject_id: str) -> None:
        """Removes the bytes, then the note, so that whoever is stopped between the two finds the note again."""
        self.path(reject_id).unlink(missing_ok=True)
        for partial in self.folder.glob(f"{reject_id}.*.part"):
            partial.unlink(missing_ok=True)
        _sync(self.folder)
        self.note_path(reject_id).unlink(missing_ok=True)
        _sync(self.folder)

    def listing(self) -> Iterator[RejectedFile]:
        """All that was refused, oldest first."""
        for note in sorted(self.folder.glob("*.json"), key=lambda p: p.stat().st_mtime_ns):
            yield msgspec.json.decode(note.read_bytes(), type=RejectedFile)

    def path(self, reject_id: str) -> Path:
        """Where the refused bytes are."""
        return self.folder / f"{reject_id}.bin"

    def note_path(self, reject_id: str) -> Path:
        return self.folder / f"{reject_id}.json"


def _note(digest: str, size: int, *, reason: str, detail: str, door: str) -> RejectedFile:
    return RejectedFile(
        reject_id=str(uuid.uuid5(uuid.NAMESPACE_OID, f"{digest}|{reason}")),
        sha256=digest,
        size=size,
        reason=reason,
        detail=detail,
        door=door,
        refused_at=datetime.now(UTC),
    )


def _digest(path: Path) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
            size += len(chunk)
    return digest.hexdigest(), size


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
