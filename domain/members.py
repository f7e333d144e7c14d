"""What a frozen dataset holds, as lines that anybody can hash: a series each, with the digests of its instances' files.

Lines are canonical JSON (RFC 8785: sorted keys, no spaces, strings and integers alone) in UTF-8, each ended by a line feed, in the
order of Series Instance UIDs. So the digest of a dataset is the SHA-256 of its list, which `sha256sum` computes too. A line names what
the log has in the clear, and no person: the list stays provable when a subject is erased.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping

import msgspec


class FrozenInstance(msgspec.Struct, frozen=True, kw_only=True):
    """``sha256`` and ``size`` (bytes) are of the stored Part 10 file."""

    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    sha256: str
    size: int
    number_of_frames: int


class FrozenSeries(msgspec.Struct, frozen=True, kw_only=True):
    """``instances`` in the order of their SOP Instance UIDs; ``series_digest`` as domain.series has it."""

    subject_id: str
    study_uid: str
    series_uid: str
    modality: str
    series_digest: str
    instances: tuple[FrozenInstance, ...]

    @property
    def size(self) -> int:
        return sum(one.size for one in self.instances)


class Tally(msgspec.Struct, kw_only=True):
    """What a list of members adds up to, counted and hashed while it is written."""

    subjects: set[str] = msgspec.field(default_factory=set)
    studies: set[str] = msgspec.field(default_factory=set)
    series: int = 0
    instances: int = 0
    size: int = 0
    """Bytes of the instances' files."""
    list_size: int = 0
    """Bytes of the list."""
    last: str = ""
    hashed: hashlib._Hash = msgspec.field(default_factory=hashlib.sha256)

    @property
    def sha256(self) -> str:
        return self.hashed.hexdigest()

    def line(self, member: FrozenSeries) -> bytes:
        """The member's line, taken into account. Members come in order, each once."""
        assert self.last < member.series_uid, "members come in the order of their UIDs, each once"
        self.last = member.series_uid
        line = member_line(member)
        self.subjects.add(member.subject_id)
        self.studies.add(member.study_uid)
        self.series += 1
        self.instances += len(member.instances)
        self.size += member.size
        self.list_size += len(line)
        self.hashed.update(line)
        return line


_ENCODER = msgspec.json.Encoder(order="sorted")
_DECODER = msgspec.json.Decoder(FrozenSeries)


def member_line(member: FrozenSeries) -> bytes:
    return _ENCODER.encode(member) + b"\n"


def members_in(lines: Iterable[bytes]) -> Iterator[FrozenSeries]:
    """The members that a list names."""
    return (_DECODER.decode(line) for line in lines if line.strip())


class Assigned(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A line of a split's list: in which part a subject is. Of everybody who was ever in one, in the order of their ids.

    ``left_out``: in this split the subject is in none; the part is that of an earlier one.
    """

    part: str
    subject_id: str
    left_out: bool = False


def assignment_lines(part_of: Mapping[str, str], left_out: Collection[str] = ()) -> bytes:
    """The list of a split. Who is left out of it and was never in a part is not in the list either."""
    lines = (Assigned(part=part, subject_id=subject, left_out=subject in left_out) for subject, part in sorted(part_of.items()))
    return b"".join(_ENCODER.encode(line) + b"\n" for line in lines)


def assignment_in(lines: Iterable[bytes]) -> Iterator[Assigned]:
    """What a split's list says."""
    return (msgspec.json.decode(line, type=Assigned) for line in lines if line.strip())
