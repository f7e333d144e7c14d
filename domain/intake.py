"""What came to a door and could not become an instance: refused with a reason, the bytes kept in the rejects folder."""

from __future__ import annotations

from domain.event import Event, event


@event
class FileRefused(Event, frozen=True, kw_only=True):
    """``reason`` is a code: not-dicom, truncated, missing-uid, unreadable, other-study, subject-erased.

    ``reject_id`` names the kept bytes in the rejects folder; of an erased subject nothing is kept. A file's own name may identify and is not recorded here.
    """

    reject_id: str
    sha256: str
    size: int
    reason: str
    detail: str
    door: str
    sop_instance_uid: str | None = None
