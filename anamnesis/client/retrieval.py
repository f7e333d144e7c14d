"""The files of a series, by WADO-RS (PS3.18, 10.4): streamed to a folder, taken up again where they broke off, and compared with what was sent."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.message import Message
from pathlib import Path
from typing import BinaryIO

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser

from anamnesis.client.asking import POSITION, Answer, Ask, Steps
from anamnesis.client.errors import BytesDiffer, NotFound, ServerUnreachable

Told = Callable[[int, int], None]
"""How many instances are there, of how many."""
_UID = re.compile(r"[0-9.]{1,64}")
_SOP_INSTANCE_UID = "00080018"
_MULTIPART = 'multipart/related; type="application/dicom"; transfer-syntax=*'
_FEW = 4
"""Missing instances up to this many are asked for one by one."""


@dataclass(frozen=True)
class SeriesPath:
    study_uid: str
    series_uid: str

    def __post_init__(self) -> None:
        for uid in (self.study_uid, self.series_uid):
            if not _UID.fullmatch(uid):
                raise ValueError("a UID is digits and dots, at most 64 of them (PS3.5, 9.1)")

    def __str__(self) -> str:
        return f"/dicomweb/studies/{self.study_uid}/series/{self.series_uid}"


def retrieve(series: SeriesPath, folder: Path, as_of: int | str | None = None, told: Told | None = None) -> Steps[list[Path]]:
    """Every instance of the series as ``<SOP Instance UID>.dcm`` in the folder, by number. Those that are there already are kept.

    Raises NotFound, BytesDiffer, ServerUnreachable; what had come until then is taken up by the next call.
    """
    folder.mkdir(parents=True, exist_ok=True)
    uids, position = yield from _instances(series, as_of)
    files = {uid: folder / f"{uid}.dcm" for uid in uids}

    def tell() -> None:
        if told is not None:
            told(sum(file.exists() for file in files.values()), len(files))

    tell()
    missing = [uid for uid, file in files.items() if not file.exists()]
    if len(missing) > max(_FEW, len(uids) // 4):
        try:
            yield Ask(path=str(series), params={"_asof": position}, accept=_MULTIPART, is_safe=False, into=_Parts(folder, set(uids), tell))
        except ServerUnreachable:  # it broke off: what is whole is there, and only the rest is asked for again
            pass
    for uid in [uid for uid in missing if not files[uid].exists()]:
        yield Ask(path=f"{series}/instances/{uid}", params={"_asof": position}, accept="application/dicom", into=_OneFile(files[uid]))
        tell()
    return list(files.values())


def _instances(series: SeriesPath, as_of: int | str | None) -> Steps[tuple[list[str], int]]:
    answer: Answer = yield Ask(path=f"{series}/instances", params={"_asof": as_of}, accept="application/dicom+json")
    if answer.status == 204:
        raise NotFound(f"there is no series {series.series_uid} in that study", status=404)
    found = [str(instance[_SOP_INSTANCE_UID]["Value"][0]) for instance in answer.json]
    if not all(_UID.fullmatch(uid) for uid in found):
        raise BytesDiffer("the server names an instance by what is no UID")
    return found, int(answer.headers[POSITION])


class _OneFile:
    """A file that is there under its name only when it is whole, and is what its ETag says (the SHA-256 of an instance)."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO | None = None

    def begin(self, headers: Mapping[str, str]) -> None:
        self._abort()
        self._sha256 = headers.get("etag", "").strip('"')
        self._digest = hashlib.sha256()
        self._file = _private(self._path.with_suffix(".part"))

    def write(self, chunk: bytes) -> None:
        assert self._file is not None
        self._digest.update(chunk)
        self._file.write(chunk)

    def end(self) -> None:
        assert self._file is not None
        self._file.close()
        if self._digest.hexdigest() != self._sha256:
            self._abort()
            raise BytesDiffer(f"{self._path.stem} did not arrive as the server holds it: its SHA-256 differs")
        os.replace(self._path.with_suffix(".part"), self._path)
        self._file = None

    def _abort(self) -> None:
        if self._file is not None:
            self._file.close()
            self._path.with_suffix(".part").unlink(missing_ok=True)


class _Parts:
    """The instances of a multipart answer, each in its file as soon as it is whole; the ETag is over the digests of all of them."""

    def __init__(self, folder: Path, uids: set[str], tell: Callable[[], None]) -> None:
        self._folder, self._uids, self._tell = folder, uids, tell

    def begin(self, headers: Mapping[str, str]) -> None:
        self._etag = headers.get("etag", "").strip('"')
        self._whole = hashlib.sha256()
        self._is_complete = False
        self._written: list[Path] = []
        self._coming = self._folder / f"coming-{os.getpid()}.part"
        self._parser = MultipartParser(
            _boundary(headers.get("content-type", "")),
            {
                "on_part_begin": self._on_begin,
                "on_header_value": self._on_header_value,
                "on_part_data": self._on_data,
                "on_part_end": self._on_end,
                "on_end": self._on_last,
            },
        )

    def write(self, chunk: bytes) -> None:
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise BytesDiffer("the answer is no multipart message with the boundary that it names") from error

    def end(self) -> None:
        self._coming.unlink(missing_ok=True)
        if self._is_complete and self._whole.hexdigest() == self._etag:
            return
        for file in self._written:  # which of them it is, is not known
            file.unlink()
        raise BytesDiffer("the instances did not arrive as the server holds them: their digests differ, or the closing boundary is missing")

    def _on_begin(self) -> None:
        self._content_type = b""
        self._digest = hashlib.sha256()
        self._file = _private(self._coming)

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._content_type += data[start:end]  # the one header that parts have

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        self._digest.update(data[start:end])
        self._file.write(memoryview(data)[start:end])

    def _on_end(self) -> None:
        self._file.close()
        self._whole.update(b"%s %s\n" % (self._content_type, self._digest.hexdigest().encode()))
        uid = _sop_instance_uid(self._coming)
        if uid in self._uids:
            self._written.append(self._folder / f"{uid}.dcm")
            os.replace(self._coming, self._written[-1])
            self._tell()

    def _on_last(self) -> None:
        self._is_complete = True


def _private(path: Path) -> BinaryIO:
    """Headers and pixels hold identities: nobody else on this machine reads them."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb")


def _boundary(content_type: str) -> bytes:
    message = Message()
    message["Content-Type"] = content_type
    boundary = message.get_boundary()
    if boundary is None:
        raise BytesDiffer("the answer is not multipart/related with a boundary")
    return boundary.encode("latin-1")


def _sop_instance_uid(file: Path) -> str:
    from anamnesis.client.packages import pydicom

    dataset = pydicom().dcmread(file, stop_before_pixels=True, specific_tags=["SOPInstanceUID"], force=True)
    return str(dataset.get("SOPInstanceUID", ""))
