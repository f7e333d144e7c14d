"""What became of an instance that came to a door."""

from __future__ import annotations

import msgspec


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """``outcome``: stored, duplicate, conflict or refused; ``reason`` is a code."""

    outcome: str
    reason: str = ""
    detail: str = ""
    study_uid: str = ""
    series_uid: str = ""
    sop_instance_uid: str = ""
    sop_class_uid: str = ""
    position: int | None = None
