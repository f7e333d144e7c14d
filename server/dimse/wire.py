"""Bytes from a socket, and the PDUs and commands in them (PS3.8, 9.3; PS3.7, 6.3 and E), with no object for each PDU."""

from __future__ import annotations

import socket
import struct

import msgspec

from server.dimse.errors import PeerGone, ProtocolError

BUFFER_BYTES = 512 * 1024
MAX_COMMAND_BYTES = 64 * 1024

ASSOCIATE_RQ, P_DATA, RELEASE_RQ, ABORT = 0x01, 0x04, 0x05, 0x07
RELEASE_RP = bytes([6, 0, 0, 0, 0, 4, 0, 0, 0, 0])
C_STORE_RQ, C_STORE_RSP, C_ECHO_RQ, C_ECHO_RSP = 0x0001, 0x8001, 0x0030, 0x8030
NO_DATA_SET = 0x0101


class Wire:
    """A blocking socket behind one buffer."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._buffer = bytearray(BUFFER_BYTES)
        self._view = memoryview(self._buffer)
        self._start = self._end = 0

    def exactly(self, count: int) -> memoryview:
        """The next ``count`` bytes; valid until the next call. Raises PeerGone."""
        if count > BUFFER_BYTES:
            raise ProtocolError(f"an item of {count} bytes is too large")
        while self._end - self._start < count:
            self._fill(count)
        self._start += count
        return self._view[self._start - count : self._start]

    def some(self, at_most: int) -> memoryview:
        """Between 1 and ``at_most`` of the next bytes; valid until the next call. Raises PeerGone."""
        if self._start == self._end:
            self._fill(1)
        count = min(at_most, self._end - self._start)
        self._start += count
        return self._view[self._start - count : self._start]

    def send(self, data: bytes) -> None:
        """All of it, in one write. Raises PeerGone."""
        try:
            self._socket.sendall(data)
        except OSError as error:
            raise PeerGone(f"the peer takes no more ({type(error).__name__})") from error

    def _fill(self, needed: int) -> None:
        if self._start == self._end:
            self._start = self._end = 0
        elif self._start + needed > BUFFER_BYTES:
            rest = self._end - self._start
            self._buffer[:rest] = self._buffer[self._start : self._end]
            self._start, self._end = 0, rest
        try:
            got = self._socket.recv_into(self._view[self._end :])
        except OSError as error:
            raise PeerGone(f"the peer fell silent ({type(error).__name__})") from error
        if got == 0:
            raise PeerGone("the peer closed the connection")
        self._end += got


class Command(msgspec.Struct, frozen=True, kw_only=True):
    """A DIMSE command set, as far as C-STORE and C-ECHO need it (PS3.7, 9.3.1 and 9.3.5)."""

    field: int
    message_id: int
    sop_class_uid: str
    sop_instance_uid: str
    has_data_set: bool


def read_command(data: bytes) -> Command:
    """Implicit VR little endian, group 0000. Raises ProtocolError."""
    values: dict[int, bytes] = {}
    at = 0
    while at < len(data):
        if at + 8 > len(data):
            raise ProtocolError("the command set ends in an element")
        group, element, length = struct.unpack_from("<HHI", data, at)
        at += 8
        if group != 0x0000 or at + length > len(data):
            raise ProtocolError(f"element ({group:04X},{element:04X}) has no place in a command set")
        values[element] = data[at : at + length]
        at += length
    return Command(
        field=_number(values, 0x0100),
        message_id=_number(values, 0x0110),
        sop_class_uid=_uid(values, 0x0002),
        sop_instance_uid=_uid(values, 0x1000),
        has_data_set=_number(values, 0x0800) != NO_DATA_SET,
    )


def response(context_id: int, command: Command, field: int, status: int) -> bytes:
    """The whole P-DATA-TF of a response to ``command``."""
    elements = _element(0x0002, _padded(command.sop_class_uid)) if command.sop_class_uid else b""
    elements += _element(0x0100, struct.pack("<H", field))
    elements += _element(0x0120, struct.pack("<H", command.message_id))
    elements += _element(0x0800, struct.pack("<H", NO_DATA_SET))
    elements += _element(0x0900, struct.pack("<H", status))
    if command.sop_instance_uid and field == C_STORE_RSP:
        elements += _element(0x1000, _padded(command.sop_instance_uid))
    whole = _element(0x0000, struct.pack("<I", len(elements))) + elements
    value = struct.pack(">IBB", len(whole) + 2, context_id, 0x03) + whole
    return struct.pack(">BBI", P_DATA, 0, len(value)) + value


def abort(reason: int) -> bytes:
    """A-ABORT by the service provider (PS3.8, 9.3.8)."""
    return bytes([ABORT, 0, 0, 0, 0, 4, 0, 0, 2, reason])


def _element(element: int, value: bytes) -> bytes:
    return struct.pack("<HHI", 0x0000, element, len(value)) + value


def _padded(uid: str) -> bytes:
    raw = uid.encode("ascii")
    return raw + b"\x00" * (len(raw) % 2)


def _number(values: dict[int, bytes], element: int) -> int:
    raw = values.get(element)
    if raw is None or len(raw) < 2:
        raise ProtocolError(f"the command set has no (0000,{element:04X})")
    return int(struct.unpack_from("<H", raw)[0])


def _uid(values: dict[int, bytes], element: int) -> str:
    try:
        return values.get(element, b"").rstrip(b"\x00 ").decode("ascii")
    except UnicodeDecodeError:
        raise ProtocolError(f"(0000,{element:04X}) is no UID") from None
