"""The DICOM file format (PS3.10, 7): the header that we write before a data set, and the one that we find.

Every stored object is our header followed by the data set exactly as it was received. The header depends on nothing but the
three UIDs in it, so the same data set is the same file, and has the same digest, by whichever door it came.
"""

from __future__ import annotations

import struct
from typing import BinaryIO

import msgspec

from archive.errors import NotDicom, Truncated

IMPLEMENTATION_CLASS_UID = "2.25.147853017352916203486273340962118573041"
"""A UID derived from a UUID (PS3.5, B.2)."""
IMPLEMENTATION_VERSION_NAME = "ANAMNESIS_0"

IMPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2"
EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1"
EXPLICIT_VR_BIG_ENDIAN = "1.2.840.10008.1.2.2"
DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN = "1.2.840.10008.1.2.1.99"

_LONG_VRS = {b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"}
_KNOWN_VRS = _LONG_VRS | {
    b"AE", b"AS", b"AT", b"CS", b"DA", b"DS", b"DT", b"FL", b"FD", b"IS", b"LO", b"LT", b"PN", b"SH", b"SL", b"SS", b"ST",
    b"TM", b"UI", b"UL", b"US",
}  # fmt: skip


class Part10(msgspec.Struct, frozen=True, kw_only=True):
    """What a file's meta information says. ``dataset_offset`` counts bytes from the start of the file."""

    sop_class_uid: str
    sop_instance_uid: str
    transfer_syntax_uid: str
    dataset_offset: int


def part10_header(*, sop_class_uid: str, sop_instance_uid: str, transfer_syntax_uid: str) -> bytes:
    """Preamble, prefix and file meta information (PS3.10, 7.1): the same for the same UIDs."""
    elements = b"".join(
        (
            _element(0x0001, b"OB", b"\x00\x01"),
            _element(0x0002, b"UI", _uid(sop_class_uid)),
            _element(0x0003, b"UI", _uid(sop_instance_uid)),
            _element(0x0010, b"UI", _uid(transfer_syntax_uid)),
            _element(0x0012, b"UI", _uid(IMPLEMENTATION_CLASS_UID)),
            _element(0x0013, b"SH", _even(IMPLEMENTATION_VERSION_NAME.encode("ascii"), b" ")),
        )
    )
    return b"\x00" * 128 + b"DICM" + _element(0x0000, b"UL", struct.pack("<I", len(elements))) + elements


def read_part10(file: BinaryIO) -> Part10:
    """Reads the meta information from the start of ``file``. A data set without one is accepted where it looks like one.

    Raises NotDicom, Truncated.
    """
    start = file.read(132)
    if start[128:] == b"DICM":
        return _read_meta(file, 132)
    if start[:4] == b"DICM":  # written without the preamble
        file.seek(4)
        return _read_meta(file, 4)
    if len(start) >= 8 and start[:2] == b"\x02\x00" and start[4:6] in _KNOWN_VRS:  # the meta information alone
        file.seek(0)
        return _read_meta(file, 0)
    return _guess(start)


def _read_meta(file: BinaryIO, offset: int) -> Part10:
    values: dict[int, str] = {}
    while True:
        head = file.read(8)
        if len(head) < 8:
            if not values or head[:2] in (b"\x02", b"\x02\x00"):
                raise Truncated("the file ends in its meta information")
            break
        group, element = struct.unpack_from("<HH", head)
        if group != 0x0002:
            break
        vr = head[4:6]
        if vr in _LONG_VRS:
            more = file.read(4)
            if len(more) < 4:
                raise Truncated("the file ends in its meta information")
            (length,) = struct.unpack("<I", more)
            offset += 12
        else:
            (length,) = struct.unpack_from("<H", head, 6)
            offset += 8
        if length > 1 << 20:
            raise NotDicom(f"meta element (0002,{element:04X}) claims {length} bytes")
        value = file.read(length)
        if len(value) < length:
            raise Truncated("the file ends in its meta information")
        offset += length
        if vr == b"UI":
            values[element] = value.rstrip(b"\x00 ").decode("ascii", "replace")
    return Part10(
        sop_class_uid=values.get(0x0002, ""),
        sop_instance_uid=values.get(0x0003, ""),
        transfer_syntax_uid=values.get(0x0010, "") or IMPLICIT_VR_LITTLE_ENDIAN,
        dataset_offset=offset,
    )


def _guess(start: bytes) -> Part10:
    """A data set without any header: its first element must be plausible (group 0008, a small length)."""
    if len(start) < 16:
        raise NotDicom(f"{len(start)} bytes are no DICOM file")
    group, element = struct.unpack_from("<HH", start)
    if group in (0x0008, 0x0002, 0x0010) and element < 0x4000:
        syntax = EXPLICIT_VR_LITTLE_ENDIAN if start[4:6] in _KNOWN_VRS else IMPLICIT_VR_LITTLE_ENDIAN
        length = struct.unpack_from("<H", start, 6)[0] if start[4:6] in _KNOWN_VRS else struct.unpack_from("<I", start, 4)[0]
        if length < 1024:
            return Part10(sop_class_uid="", sop_instance_uid="", transfer_syntax_uid=syntax, dataset_offset=0)
    raise NotDicom("there is neither the DICM prefix (PS3.10, 7.1) nor a data set")


def _element(element: int, vr: bytes, value: bytes) -> bytes:
    if vr in _LONG_VRS:
        return struct.pack("<HH2sHI", 0x0002, element, vr, 0, len(value)) + value
    return struct.pack("<HH2sH", 0x0002, element, vr, len(value)) + value


def _uid(uid: str) -> bytes:
    return _even(uid.encode("ascii"), b"\x00")


def _even(value: bytes, padding: bytes) -> bytes:
    return value + padding if len(value) % 2 else value
