"""The body of a STOW-RS request, part by part, straight to the spool (RFC 2387; PS3.18, 8.6.1.2 and 10.5.1).

Nothing but the first bytes of a part is in memory: they tell what the spool's header needs. What does not begin like a
DICOM file is written to a file of its own beside the spool, and never becomes an instance.
"""

from __future__ import annotations

import io
import os
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import msgspec
from pydicom import config
from pydicom.dataset import Dataset
from pydicom.filereader import read_partial
from pydicom.tag import Tag
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser

from archive.errors import Refused
from archive.part10 import Part10, part10_header, read_part10
from archive.spool import Reception, Spool, SpooledInstance
from server.dicomweb.errors import RequestInvalid

HEAD_BYTES = 64 * 1024
"""How much of a part is looked at before it goes to the spool."""
_SOP_INSTANCE_UID = Tag(0x0008, 0x0018)


class NoInstance(msgspec.Struct, frozen=True, kw_only=True):
    """A part that is no DICOM file, as the file ``path``; whoever takes it removes it."""

    path: Path
    reason: str
    detail: str


Arrived = SpooledInstance | NoInstance


class PartWriter:
    """One part: an instance in the spool, once it is closed."""

    def __init__(self, spool: Spool, sender: str) -> None:
        self._spool = spool
        self._sender = sender
        self._head = bytearray()
        self._reception: Reception | None = None
        self._other: BinaryIO | None = None
        self._other_path = Path()
        self._refused: Refused | None = None

    def write(self, chunk: bytes) -> None:
        """Raises SpoolFull."""
        if self._reception is not None:
            self._reception.write(chunk)
        elif self._other is not None:
            self._other.write(chunk)
        else:
            self._head += chunk
            if len(self._head) >= HEAD_BYTES:
                self._begin()

    def close(self) -> Arrived:
        """Durable on return, when it is an instance. Raises SpoolFull."""
        if self._reception is None and self._other is None:
            self._begin()
        if self._reception is not None:
            return self._reception.commit()
        assert self._other is not None and self._refused is not None
        self._other.close()
        return NoInstance(path=self._other_path, reason=self._refused.reason, detail=str(self._refused))

    def abort(self) -> None:
        """Removes what was written."""
        if self._reception is not None:
            self._reception.abort()
        if self._other is not None:
            self._other.close()
            self._other_path.unlink(missing_ok=True)

    def _begin(self) -> None:
        head = bytes(self._head)
        self._head.clear()
        try:
            part10 = identify(head)
        except Refused as error:
            self._refused = error
            self._other_path = self._spool.folder / f"{uuid.uuid4().hex}.part"  # which the spool removes after a crash
            self._other = os.fdopen(os.open(self._other_path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb")
            self._other.write(head)
            return
        self._reception = self._spool.receive(
            sop_class_uid=part10.sop_class_uid,
            sop_instance_uid=part10.sop_instance_uid,
            transfer_syntax_uid=part10.transfer_syntax_uid,
            door="stow",
            sender=self._sender,
        )
        self._reception.write(memoryview(head)[part10.dataset_offset :])


def identify(head: bytes) -> Part10:
    """What the beginning of a file says of it; the data set's own UIDs come before those of the meta information, so that
    the stored file is the same by whichever door it came. Raises NotDicom, Truncated."""
    part10 = read_part10(io.BytesIO(head))
    start = head[part10.dataset_offset :]
    meta = part10_header(sop_class_uid="", sop_instance_uid="", transfer_syntax_uid=part10.transfer_syntax_uid)
    try:
        with config.disable_value_validation():
            dataset: Dataset = read_partial(io.BytesIO(meta + start), stop_when=lambda tag, vr, length: tag > _SOP_INSTANCE_UID)
            sop_class_uid, sop_instance_uid = (str(dataset.get(name) or "") for name in ("SOPClassUID", "SOPInstanceUID"))
    except Exception:  # the intake reads the whole header, and says what is wrong with it
        return part10
    return Part10(
        sop_class_uid=_ascii(sop_class_uid) or part10.sop_class_uid,
        sop_instance_uid=_ascii(sop_instance_uid) or part10.sop_instance_uid,
        transfer_syntax_uid=part10.transfer_syntax_uid,
        dataset_offset=part10.dataset_offset,
    )


class PartsParser:
    """The parts of a multipart body as its bytes come in. ``arrived`` is called with each; blocks on files."""

    def __init__(self, boundary: str, spool: Spool, sender: str, arrived: Callable[[Arrived], None]) -> None:
        self._spool = spool
        self._sender = sender
        self._arrived = arrived
        self._part: PartWriter | None = None
        self._is_complete = False
        self.count = 0
        try:
            self._parser = MultipartParser(
                boundary.encode("latin-1"),
                {"on_headers_finished": self._on_start, "on_part_data": self._on_data, "on_part_end": self._on_end, "on_end": self._on_last},
            )
        except (FormParserError, UnicodeEncodeError) as error:
            raise RequestInvalid(f"the boundary is not usable ({type(error).__name__})") from error

    def write(self, data: bytes) -> None:
        """Raises RequestInvalid, SpoolFull."""
        if self._is_complete:  # an epilogue, which says nothing (RFC 2046, 5.1.1)
            return
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise RequestInvalid(f"the body is not multipart with the boundary that Content-Type names, after {self.count} parts") from error

    def finish(self) -> None:
        """Raises RequestInvalid when the body ends before its closing boundary."""
        if not self._is_complete:
            raise RequestInvalid(f"the body ends without its closing boundary, after {self.count} parts")

    def abort(self) -> None:
        if self._part is not None:
            self._part.abort()
            self._part = None

    def _on_start(self) -> None:
        self._part = PartWriter(self._spool, self._sender)

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        assert self._part is not None
        self._part.write(data[start:end])

    def _on_end(self) -> None:
        assert self._part is not None
        part, self._part = self._part, None
        try:
            arrived = part.close()
        except BaseException:
            part.abort()
            raise
        self.count += 1
        self._arrived(arrived)

    def _on_last(self) -> None:
        self._is_complete = True


def _ascii(uid: str) -> str:
    return uid if uid.isascii() else ""
