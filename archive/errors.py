"""What can go wrong with files, by name. Messages hold tags, UIDs and sizes, never values that name a person."""

from __future__ import annotations


class ArchiveError(Exception):
    """The root of the archive's errors."""


class Refused(ArchiveError):
    """The root of the reasons for which bytes cannot become an instance; ``reason`` is the code in the event."""

    reason = "unreadable"


class NotDicom(Refused):
    """Raised when bytes are no DICOM data set."""

    reason = "not-dicom"


class Truncated(Refused):
    """Raised when a data set ends in the middle of an element."""

    reason = "truncated"


class MissingUID(Refused):
    """Raised when a data set lacks a UID without which it cannot be stored."""

    reason = "missing-uid"


class Unreadable(Refused):
    """Raised when a data set's structure is broken."""

    reason = "unreadable"


class SpoolFull(ArchiveError):
    """Raised when the spool's disk is full: nothing was kept of this instance, and the sender is told so."""


class NotInArchive(ArchiveError):
    """Raised when the store has no object under a digest."""


class ObjectDamaged(ArchiveError):
    """Raised when an object's bytes do not have the digest under which it is stored."""


class FrameOutOfRange(ArchiveError):
    """Raised when an instance has fewer frames than asked for."""


class NoPixelData(ArchiveError):
    """Raised when an instance has no pixels."""


class Undecodable(ArchiveError):
    """Raised when no decoder can read the pixels."""


class GeometryRefused(ArchiveError):
    """Raised when slices do not make a volume; ``reason`` is a code, ``detail`` says where."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class MaskRefused(ArchiveError):
    """Raised when a segmentation cannot be laid over its series; ``reason`` is a code, ``detail`` says where."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail
