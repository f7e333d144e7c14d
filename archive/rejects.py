"""The rejects folder: the bytes that were refused, each with a note that says why. Nothing that came to a door is lost."""

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
        reject_id = str(uuid.uuid5(uuid.NAMESPACE_OID, f"{digest}|{reason}"))
        note = RejectedFile(
            reject_id=reject_id,
            sha256=digest,
            size=size,
            reason=reason,
            detail=detail,
            door=door,
            refused_at=datetime.now(UTC),
        )
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

    def listing(self) -> Iterator[RejectedFile]:
        """All that was refused, oldest first."""
        for note in sorted(self.folder.glob("*.json"), key=lambda p: p.stat().st_mtime_ns):
            yield msgspec.json.decode(note.read_bytes(), type=RejectedFile)

    def path(self, reject_id: str) -> Path:
        """Where the refused bytes are."""
        return self.folder / f"{reject_id}.bin"

    def note_path(self, reject_id: str) -> Path:
        return self.folder / f"{reject_id}.json"


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
