"""Little-endian data sets (PS3.5, 7) to DICOM JSON by hand: one pass over the bytes before the pixel data.

Anything out of the ordinary raises Unusual, and pydicom reads the file instead: another transfer syntax, a character set with
code extensions, a value that is not what its VR says, an undefined length where none may be.
"""

from __future__ import annotations

import base64
import os
import struct
from typing import Any

from pydicom.datadict import dictionary_VR, private_dictionary_VR

from archive.part10 import (
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    EXPLICIT_VR_BIG_ENDIAN,
    IMPLICIT_VR_LITTLE_ENDIAN,
    Part10,
)

FIRST_READ_BYTES = 16 * 1024
MAX_HEADER_BYTES = 4 * 1024 * 1024
MAX_INLINE_BYTES = 1024
MAX_DEPTH = 16
_UNDEFINED = 0xFFFFFFFF

_LONG = frozenset({b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV"})
_BINARY = frozenset({"OB", "OD", "OF", "OL", "OV", "OW", "UN"})
_TEXT = frozenset({"LO", "SH", "UC"})
_ASCII = frozenset({"AE", "AS", "CS", "DA", "DT", "TM"})
_LONG_TEXT = frozenset({"LT", "ST", "UT"})
_NUMBERS = {"US": ("H", 2), "SS": ("h", 2), "UL": ("I", 4), "SL": ("i", 4), "FL": ("f", 4), "FD": ("d", 8), "UV": ("Q", 8), "SV": ("q", 8)}
_CHARACTER_SETS = {"": "latin-1", "ISO_IR 6": "latin-1", "ISO_IR 100": "latin-1", "ISO_IR 192": "utf-8"}
_VR_NAMES = {vr: vr.decode("ascii") for vr in _LONG} | {
    name.encode("ascii"): name
    for name in (*_TEXT, *_ASCII, *_LONG_TEXT, *(n for n in _NUMBERS), "AT", "DS", "IS", "PN", "UI")
}
_PIXEL_GROUP = 0x7FE0
_OTHER_LAYOUTS = (
    EXPLICIT_VR_BIG_ENDIAN,
    DEFLATED_EXPLICIT_VR_LITTLE_ENDIAN,
    "1.2.840.10008.1.2.8.1",  # Deflated Image Frame Compression: its frames alone are deflated, but leave it to pydicom
    "1.2.840.10008.1.2.4.95",  # JPIP Referenced Deflate
    "1.2.840.10008.1.2.4.205",  # JPIP HTJ2K Referenced Deflate
)


class Unusual(Exception):
    """Raised when this reader leaves a file to pydicom."""


class _NeedMore(Exception):
    """Raised inside when the bytes read so far end before the header does."""


def read_little_endian(fd: int, part10: Part10, size: int) -> tuple[dict[str, Any], tuple[int, int] | None]:
    """The elements before the pixel data, and (value offset, length) of the pixel data where there are any. Raises Unusual."""
    syntax = part10.transfer_syntax_uid
    if syntax in _OTHER_LAYOUTS or part10.dataset_offset == 0:
        raise Unusual
    implicit = syntax == IMPLICIT_VR_LITTLE_ENDIAN
    wanted = FIRST_READ_BYTES
    while True:
        data = os.pread(fd, min(wanted, size - part10.dataset_offset), part10.dataset_offset)
        whole = part10.dataset_offset + len(data) >= size
        try:
            return _Parser(data, implicit, part10.dataset_offset).run()
        except (_NeedMore, struct.error, IndexError):
            if whole or wanted >= MAX_HEADER_BYTES:
                raise Unusual from None
            wanted *= 8
        except (UnicodeDecodeError, ValueError, KeyError):
            raise Unusual from None


class _Parser:
    def __init__(self, data: bytes, implicit: bool, offset: int) -> None:
        self.data = data
        self.implicit = implicit
        self.offset = offset
        self.encoding = "latin-1"
        self.signed: bool | None = None
        self.pixels: tuple[int, int] | None = None

    def run(self) -> tuple[dict[str, Any], tuple[int, int] | None]:
        elements, _ = self.elements(0, len(self.data), 0, top=True)
        if "00080005" in elements:
            elements["00080005"] = {"vr": "CS", "Value": ["ISO_IR 192"]}
        return elements, self.pixels

    def elements(self, at: int, end: int, depth: int, *, top: bool = False, delimited: bool = False) -> tuple[dict[str, Any], int]:
        """Elements from ``at`` to ``end`` (or to the item delimiter); gives them and where they ended."""
        if depth > MAX_DEPTH:
            raise Unusual
        data, last = self.data, -1
        result: dict[str, Any] = {}
        creators: dict[int, str] = {}
        while at < end:
            if at + 8 > len(data):
                raise _NeedMore
            group, element = struct.unpack_from("<HH", data, at)
            if group == 0xFFFE:
                if delimited and element == 0xE00D:
                    return result, at + 8
                raise Unusual
            number = group << 16 | element
            if number <= last:
                raise Unusual
            last = number
            vr, length, start = self.head(at, number, creators)
            if group >= _PIXEL_GROUP and top:
                if number in (0x7FE00010, 0x7FE00008, 0x7FE00009):
                    self.pixels = (self.offset + start, length)
                elif group == _PIXEL_GROUP:
                    raise Unusual
                return result, at
            if vr == "SQ" or (length == _UNDEFINED and vr != "UN"):
                if vr != "SQ":
                    raise Unusual
                items, at = self.items(start, length, depth)
                result[f"{number:08X}"] = {"vr": "SQ", "Value": items} if items else {"vr": "SQ"}
                continue
            if length == _UNDEFINED:
                raise Unusual
            at = start + length
            if at > end and not top:
                raise Unusual
            if vr in _BINARY and length > MAX_INLINE_BYTES:
                result[f"{number:08X}"] = {"vr": vr}
                continue
            if at > len(data):
                raise _NeedMore
            if element == 0x0000:
                continue
            read = self.value(number, vr, data[start:at])
            if number == 0x00280103:
                self.signed = read.get("Value") == [1]
            if group & 1 and 0x10 <= element <= 0xFF:
                creators[group << 8 | element] = read.get("Value", [""])[0] or ""
            result[f"{number:08X}"] = read
        if delimited:
            raise _NeedMore
        if at > end:
            raise Unusual
        return result, at

    def head(self, at: int, number: int, creators: dict[int, str]) -> tuple[str, int, int]:
        """VR, length and value offset of the element at ``at``."""
        if self.implicit:
            return self.implied_vr(number, creators), struct.unpack_from("<I", self.data, at + 4)[0], at + 8
        raw = self.data[at + 4 : at + 6]
        vr = _VR_NAMES[raw]
        if vr == "UN" and not number >> 16 & 1:  # a public element whose VR was lost on the way: pydicom restores it
            raise Unusual
        if raw in _LONG:
            return vr, struct.unpack_from("<I", self.data, at + 8)[0], at + 12
        return vr, struct.unpack_from("<H", self.data, at + 6)[0], at + 8

    def implied_vr(self, number: int, creators: dict[int, str]) -> str:
        group, element = number >> 16, number & 0xFFFF
        if element == 0:
            return "UL"
        if group & 1:
            if element <= 0xFF:
                return "LO" if element >= 0x10 else "UN"
            try:
                return private_dictionary_VR(number, creators.get(group << 8 | element >> 8, ""))
            except KeyError:
                return "UN"
        if number == 0x7FE00010:
            return "OW"
        vr = dictionary_VR(number)
        if vr == "US or SS" and self.signed is not None:  # PS3.5, A.1: as (0028,0103) says
            return "SS" if self.signed else "US"
        if len(vr) > 2:
            raise Unusual
        return vr

    def items(self, at: int, length: int, depth: int) -> tuple[list[dict[str, Any]], int]:
        items: list[dict[str, Any]] = []
        end = len(self.data) if length == _UNDEFINED else at + length
        if end > len(self.data):
            raise _NeedMore
        while at < end:
            group, element, item_length = struct.unpack_from("<HHI", self.data, at)
            at += 8
            if (group, element) == (0xFFFE, 0xE0DD) and length == _UNDEFINED:
                return items, at
            if (group, element) != (0xFFFE, 0xE000):
                raise Unusual
            outer = self.encoding
            if item_length == _UNDEFINED:
                item, at = self.elements(at, len(self.data), depth + 1, delimited=True)
            else:
                if at + item_length > len(self.data):
                    raise _NeedMore
                item, at = self.elements(at, at + item_length, depth + 1)
            if "00080005" in item:
                item["00080005"] = {"vr": "CS", "Value": ["ISO_IR 192"]}
            self.encoding = outer
            items.append(item)
        if length == _UNDEFINED:
            raise _NeedMore
        return items, at

    def value(self, number: int, vr: str, raw: bytes) -> dict[str, Any]:
        if not raw:
            return {"vr": vr}
        if vr in _BINARY:
            return {"vr": vr, "InlineBinary": base64.b64encode(raw).decode("ascii")}
        if vr in _NUMBERS:
            form, width = _NUMBERS[vr]
            return {"vr": vr, "Value": list(struct.unpack(f"<{len(raw) // width}{form}", raw))}
        if vr == "AT":
            words = struct.unpack(f"<{len(raw) // 2}H", raw)
            return {"vr": vr, "Value": [f"{g:04X}{e:04X}" for g, e in zip(words[::2], words[1::2], strict=True)]}
        text = raw.decode(self.encoding if vr in _TEXT or vr in _LONG_TEXT or vr == "PN" else "latin-1")
        if number == 0x00080005:
            self.encoding = _CHARACTER_SETS[text.strip(" \x00")]
        return _text_element(vr, text)


def _text_element(vr: str, text: str) -> dict[str, Any]:
    if vr in _LONG_TEXT:
        stripped = text.rstrip("\x00 ")
        return {"vr": vr, "Value": [stripped]} if stripped else {"vr": vr}
    parts = [part.rstrip("\x00 ") for part in text.rstrip("\x00 ").split("\\")]
    if parts == [""]:
        return {"vr": vr}
    if vr == "DS":
        return {"vr": vr, "Value": [float(part) if part.strip() else None for part in parts]}
    if vr == "IS":
        return {"vr": vr, "Value": [int(part) if part.strip() else None for part in parts]}
    if vr == "PN":
        return {"vr": vr, "Value": [_person_name(part) for part in parts]}
    return {"vr": vr, "Value": [part or None for part in parts]}


def _person_name(text: str) -> dict[str, str] | None:
    if not text:
        return None
    groups = zip(("Alphabetic", "Ideographic", "Phonetic"), text.split("="), strict=False)
    return {name: group for name, group in groups if group}
