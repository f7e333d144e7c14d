"""The events in a backup: immutable segments, each a piece of PostgreSQL's binary COPY stream, and beside each the list of the
objects that its events name.

Every event's digest is computed again when it is written and when it is read, so a backup never holds an event that a restore
would refuse.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

import msgspec

from domain.principal import Principal
from eventlog import codec
from eventlog.envelope import envelope_sha256, event_digest
from eventlog.errors import EventLogError
from server.backup.destination import Destination
from server.backup.errors import BackupDamaged
from server.backup.sealed import SealedWriter, open_sealed

COLUMNS = (
    "position, event_id, stream, version, type, schema_version, occurred_at, recorded_at, principal, correlation_id,"
    " causation_id, origin, data, digest"
)
EVENTS, NAMED = "events", "named"
MAX_EVENTS = 10_000
MAX_BYTES = 32 * 1024 * 1024
"""Of a segment, compressed; it is held in memory while it grows."""
COPY_HEAD = b"PGCOPY\n\xff\r\n\x00" + bytes(8)
COPY_END = b"\xff\xff"
_LEVEL = 1  # sealed fields are deflated already: higher levels gain nothing
_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
_FIELDS = 14


class EventDamaged(BackupDamaged):
    """Raised when an event does not have the digest that stands beside it."""


class Segment(msgspec.Struct, frozen=True, order=True):
    first: int
    last: int

    @property
    def path(self) -> str:
        return f"{EVENTS}/{self._range}"

    @property
    def named_path(self) -> str:
        return f"{NAMED}/{self._range}"

    @property
    def _range(self) -> str:
        return f"{self.first:016}-{self.last:016}"


class NamedObject(msgspec.Struct, frozen=True):
    """What an event put into the archive: an instance, or a list of a dataset (whose ``subject_id`` is the dataset's id).

    ``subject_id`` is empty where the event does not say whose it is.
    """

    sha256: str
    size: int
    subject_id: str


class Row(msgspec.Struct, frozen=True):
    """An event as COPY gives it: the bytes of the row, and what we need of it."""

    raw: bytes
    position: int
    digest: bytes
    named: Sequence[NamedObject]


class CopyRows:
    """Splits a binary COPY stream (PostgreSQL documentation, COPY, "Binary Format") of the event table into rows."""

    def __init__(self) -> None:
        self._waiting = bytearray()
        self._begun = False

    def feed(self, data: bytes) -> Iterator[list[bytes | None]]:
        """The rows that are complete by now, each as its fields."""
        waiting = self._waiting
        waiting += data
        at = 0
        if not self._begun and len(waiting) >= len(COPY_HEAD):
            at, self._begun = len(COPY_HEAD), True
        while self._begun and (row := _fields(waiting, at)) is not None:
            fields, at = row
            if fields:
                yield fields
            else:
                break
        del waiting[:at]


def _fields(waiting: bytearray, at: int) -> tuple[list[bytes | None], int] | None:
    """The fields of the row that begins here and where it ends; no fields at the end of the stream; None: more has to come."""
    if len(waiting) < at + 2:
        return None
    (count,) = struct.unpack_from(">h", waiting, at)
    at += 2
    if count == -1:
        return [], at
    fields: list[bytes | None] = []
    for _ in range(count):
        if len(waiting) < at + 4:
            return None
        (size,) = struct.unpack_from(">i", waiting, at)
        at += 4
        if size == -1:
            fields.append(None)
        elif len(waiting) < at + size:
            return None
        else:
            fields.append(bytes(waiting[at : at + size]))
            at += size
    return fields, at


def checked(fields: Sequence[bytes | None]) -> Row:
    """A row whose event has its digest. Raises EventDamaged."""
    if len(fields) != _FIELDS:
        raise EventDamaged(f"an event has {len(fields)} columns instead of {_FIELDS}")
    position, event_id, stream, _, kind, schema, occurred, recorded, principal, correlation, causation, origin, data, digest = fields
    assert position is not None and event_id is not None and data is not None and digest is not None
    at = int.from_bytes(position, "big")
    type_name, schema_version, id_ = _text(kind), int.from_bytes(schema or b"", "big"), UUID(bytes=event_id)
    try:
        sha256 = envelope_sha256(
            event_id=id_,
            stream=_text(stream),
            type=type_name,
            schema_version=schema_version,
            occurred_at=_instant(occurred),
            recorded_at=_instant(recorded),
            principal=msgspec.json.decode(principal or b"", type=Principal),
            correlation_id=UUID(bytes=correlation),
            causation_id=UUID(bytes=causation) if causation is not None else None,
            origin=_text(origin),
            data=data,
        )
        computed = event_digest(sha256, id_, codec.decode(type_name, schema_version, data, id_, {}, at).scope())
    except (msgspec.MsgspecError, ValueError, EventLogError) as error:
        raise EventDamaged(f"the event at position {at} (stream {_text(stream)}) cannot be read: {type(error).__name__}") from None
    if computed != digest:
        raise EventDamaged(f"the event at position {at} (stream {_text(stream)}) does not have its digest: it was altered")
    return Row(_row(fields), at, digest, _named(type_name, data))


def _row(fields: Sequence[bytes | None]) -> bytes:
    parts = [struct.pack(">h", len(fields))]
    for field in fields:
        parts.append(struct.pack(">i", -1) if field is None else struct.pack(">i", len(field)) + field)
    return b"".join(parts)


def _text(field: bytes | None) -> str:
    return (field or b"").decode("utf-8")


def _instant(field: bytes | None) -> datetime:
    return _EPOCH + timedelta(microseconds=int.from_bytes(field or b"", "big", signed=True))


class _Instance(msgspec.Struct):
    sha256: str
    size: int


class _Naming(msgspec.Struct):
    subject_id: str = ""
    instances: list[_Instance] = []
    conflicting_sha256: str = ""
    conflicting_size: int = 0
    dataset_id: str = ""
    members_sha256: str = ""
    members_bytes: int = 0
    assignment_sha256: str = ""
    assignment_bytes: int = 0


_NAMING = msgspec.json.Decoder(_Naming)


_NAMES_OBJECTS = frozenset({"InstancesStored", "InstanceConflicted", "DatasetFrozen", "DatasetSplit"})


def _named(type_name: str, data: bytes) -> Sequence[NamedObject]:
    if type_name not in _NAMES_OBJECTS:
        return ()
    naming = _NAMING.decode(data)
    if naming.members_sha256:
        return [NamedObject(naming.members_sha256, naming.members_bytes, naming.dataset_id)]
    if naming.assignment_sha256:
        return [NamedObject(naming.assignment_sha256, naming.assignment_bytes, naming.dataset_id)]
    if naming.conflicting_sha256:
        return [NamedObject(naming.conflicting_sha256, naming.conflicting_size, naming.subject_id)]
    return [NamedObject(i.sha256, i.size, naming.subject_id) for i in naming.instances]


class SegmentWriter:
    """Takes rows in the order of their positions and writes segments as they become full."""

    def __init__(self, destination: Destination, key: bytes) -> None:
        self._destination = destination
        self._key = key
        self.bytes = 0
        """Bytes written so far."""
        self._begin()

    def _begin(self) -> None:
        self._first = self._last = 0
        self._packer = zlib.compressobj(_LEVEL)
        self._packed = [self._packer.compress(COPY_HEAD)]
        self._size = 0
        self._named: list[NamedObject] = []

    def add(self, row: Row) -> None:
        """Raises EventDamaged where a position is missing."""
        if self._last and row.position != self._last + 1:
            raise EventDamaged(f"after position {self._last} comes {row.position}: events are missing")
        self._first, self._last = self._first or row.position, row.position
        packed = self._packer.compress(row.raw)
        if packed:
            self._packed.append(packed)
            self._size += len(packed)
        self._named += row.named
        if self._last - self._first + 1 >= MAX_EVENTS or self._size >= MAX_BYTES:
            self.flush()

    def flush(self) -> None:
        """Writes what there is as a segment."""
        if not self._last:
            return
        segment = Segment(self._first, self._last)
        self._packed += [self._packer.compress(COPY_END), self._packer.flush()]
        self._write(segment.named_path, [zlib.compress(msgspec.json.encode(self._named), _LEVEL)])
        self._write(segment.path, self._packed)
        self._begin()

    def _write(self, name: str, parts: Iterable[bytes]) -> None:
        with self._destination.create(name) as file:
            sealed = SealedWriter(file, self._key, name)
            for part in parts:
                sealed.write(part)
            sealed.finish()
            self.bytes += file.tell()


def cover(destination: Destination, up_to: int) -> list[Segment]:
    """The segments from position 1 on without a gap that hold nothing beyond ``up_to``, in order."""
    return covering(_segments(destination), up_to)


def covering(there: Iterable[Segment], up_to: int) -> list[Segment]:
    longest: dict[int, Segment] = {}
    for segment in sorted(there):
        if segment.last <= up_to:
            longest[segment.first] = segment
    chosen: list[Segment] = []
    position = 0
    while position + 1 in longest:
        chosen.append(longest[position + 1])
        position = chosen[-1].last
    return chosen


def needed(destination: Destination, position: int) -> list[Segment]:
    """The segments that hold the events 1 to ``position``; the last may hold more. Raises BackupDamaged."""
    longest = {segment.first: segment for segment in sorted(_segments(destination))}
    chosen: list[Segment] = []
    reached = 0
    while reached < position:
        if reached + 1 not in longest:
            raise BackupDamaged(f"the events from position {reached + 1} on are missing in the backup (folder {EVENTS})")
        chosen.append(longest[reached + 1])
        reached = chosen[-1].last
    return chosen


def is_short(destination: Destination, segment: Segment) -> bool:
    """Whether a segment was the log's end when it was written, so that the next backup writes a longer one in its place."""
    if segment.last - segment.first + 1 >= MAX_EVENTS:
        return False
    return destination.listing(EVENTS).get(segment.path, 0) < MAX_BYTES


def remove_others(destination: Destination, keep: Iterable[Segment]) -> int:
    """Removes every other segment; says how many."""
    others = set(_segments(destination)) - set(keep)
    for segment in others:
        destination.remove(segment.path)
        destination.remove(segment.named_path)
    return len(others)


def rows(destination: Destination, key: bytes, segment: Segment, position: int) -> Iterator[Row]:
    """The segment's events up to ``position``, each checked. Raises BackupDamaged."""
    for at, fields in _rows(destination, key, segment):
        row = checked(fields)
        if at <= position:
            yield row


def copy_stream(destination: Destination, key: bytes, segment: Segment, position: int) -> Iterator[bytes]:
    """The segment's events up to ``position`` as a binary COPY stream; their digests are not computed. Raises BackupDamaged."""
    yield COPY_HEAD
    for at, fields in _rows(destination, key, segment):
        if at <= position:
            yield _row(fields)
    yield COPY_END


def _rows(destination: Destination, key: bytes, segment: Segment) -> Iterator[tuple[int, list[bytes | None]]]:
    splitter = CopyRows()
    expected = segment.first
    with destination.open(segment.path) as file:
        for data in unpacked(open_sealed(file, key, segment.path), segment.path):
            for fields in splitter.feed(data):
                position = int.from_bytes(fields[0] or b"", "big")
                if position != expected:
                    raise EventDamaged(f"{segment.path} in the backup is damaged: position {position} stands where {expected} should")
                yield position, fields
                expected += 1
    if expected != segment.last + 1:
        raise EventDamaged(f"{segment.path} in the backup is damaged: it ends before position {expected}")


def named_objects(destination: Destination, key: bytes, segment: Segment) -> list[NamedObject]:
    """The objects that the segment's events name. Raises BackupDamaged."""
    name = segment.named_path
    with destination.open(name) as file:
        return msgspec.json.decode(b"".join(unpacked(open_sealed(file, key, name), name)), type=list[NamedObject])


def unpacked(chunks: Iterable[bytes], name: str) -> Iterator[bytes]:
    """Inflates a stream. Raises BackupDamaged."""
    unpacker = zlib.decompressobj()
    try:
        for chunk in chunks:
            yield unpacker.decompress(chunk)
        yield unpacker.flush()
    except zlib.error:
        raise BackupDamaged(f"{name} in the backup is damaged: it does not inflate") from None
    if not unpacker.eof:
        raise BackupDamaged(f"{name} in the backup is damaged: it is cut off")


def _segments(destination: Destination) -> list[Segment]:
    """Those that are there with their lists."""
    lists = destination.listing(NAMED)
    found = []
    for path in destination.listing(EVENTS):
        first, _, last = path.rsplit("/", 1)[1].partition("-")
        if first.isdigit() and last.isdigit() and Segment(int(first), int(last)).named_path in lists:
            found.append(Segment(int(first), int(last)))
    return found
