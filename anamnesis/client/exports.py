"""Exports of a dataset's version: begun, waited for, and fetched file by file, each compared with its SHA-256 and taken up where it broke off."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from anamnesis.client.asking import Answer, Ask, Pause, Steps
from anamnesis.client.errors import BytesDiffer, ExportFailed, ServerUnreachable

ASK_AGAIN_S = 2.0
BREAKS = 3
"""How often in a row a file may break off without more of it being there."""
_SUMS = "SHA256SUMS"
Told = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class ExportRecord:
    """``state``: running, done, failed or erased; ``files`` and ``bytes`` are those that the server has written by now."""

    export_id: str
    state: str
    percent: int = 0
    files: int = 0
    bytes: int = 0
    problem: str = ""
    detail: str = ""


def begin(dataset_id: str, version: int, layouts: Sequence[str], purpose: str, more: Mapping[str, Any]) -> Steps[ExportRecord]:
    wanted = {"layouts": list(layouts), "purpose": purpose, **more}
    answer = yield Ask(path=f"/datasets/{dataset_id}/versions/{version}/exports", method="POST", body=wanted, is_safe=False)
    return _read(answer)


def status(export_id: str) -> Steps[ExportRecord]:
    answer = yield Ask(path=f"/datasets/exports/{export_id}")
    return _read(answer)


def finished(export_id: str, told: Told | None) -> Steps[ExportRecord]:
    """Once it is done. ``told``: percent, of 100. Raises ExportFailed."""
    while True:
        answer = yield Ask(path=f"/datasets/exports/{export_id}")
        record = _read(answer)
        if told is not None:
            told(record.percent, 100)
        if record.state == "done":
            return record
        if record.state != "running":
            why = record.detail or f"the export is {record.state}"
            raise ExportFailed(why, code=record.problem or record.state)
        said = answer.headers.get("retry-after", "")
        yield Pause(float(said) if said.isdigit() else ASK_AGAIN_S)


def fetch(export_id: str, folder: Path, told: Told | None) -> Steps[Path]:
    """Every file of an export, once it is done; those that are there already are kept. ``told``: files, of how many. Raises BytesDiffer."""
    yield from finished(export_id, None)
    folder.mkdir(parents=True, exist_ok=True)
    sums: Answer = yield Ask(path=f"/datasets/exports/{export_id}/files/{_SUMS}", accept="*/*")
    lines = [line.partition("  ") for line in sums.content.decode("utf-8").splitlines()]
    for number, (sha256, _, path) in enumerate(lines):
        if told is not None:
            told(number, len(lines))
        parts = PurePosixPath(path).parts
        if not parts or parts[0] == "/" or ".." in parts:
            raise BytesDiffer(f"{_SUMS} names a file outside of the export")
        yield from _fetch_file(f"/datasets/exports/{export_id}/files/{path}", folder.joinpath(*parts), sha256)
    (folder / _SUMS).write_bytes(sums.content)
    if told is not None:
        told(len(lines), len(lines))
    return folder


def _fetch_file(url: str, file: Path, sha256: str) -> Steps[None]:
    if file.exists() and _sha256(file) == sha256:
        return
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f"{file.name}.part")
    in_vain = 0
    while not (part.exists() and _sha256(part) == sha256):  # or it came whole, and was killed before it had its name
        begun = part.stat().st_size if part.exists() else 0
        headers = {"Range": f"bytes={begun}-"} if begun else {}
        try:
            yield Ask(path=url, accept="*/*", headers={**headers, "Accept-Encoding": "identity"}, is_safe=False, into=_Tail(part))
        except ServerUnreachable:
            in_vain = 0 if part.exists() and part.stat().st_size > begun else in_vain + 1
            if in_vain >= BREAKS:
                raise
            yield Pause(in_vain * 0.5)
        else:
            if _sha256(part) != sha256:
                part.unlink()
                raise BytesDiffer(f"{file.name} did not arrive as the server made it: its SHA-256 differs")
    os.replace(part, file)


class _Tail:
    """The rest of a file, or all of it where the server sends that."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None

    def begin(self, headers: Mapping[str, str]) -> None:
        mode = os.O_APPEND if "content-range" in headers else os.O_TRUNC
        self._file = os.fdopen(os.open(self._path, os.O_WRONLY | os.O_CREAT | mode, 0o600), "wb", buffering=0)

    def write(self, chunk: bytes) -> None:
        assert self._file is not None
        self._file.write(chunk)

    def end(self) -> None:
        assert self._file is not None
        self._file.close()


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _read(answer: Answer) -> ExportRecord:
    told = answer.json
    return ExportRecord(**{one.name: told[one.name] for one in fields(ExportRecord) if told.get(one.name) is not None})
