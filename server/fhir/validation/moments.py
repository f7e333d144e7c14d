"""The earliest and the latest moment that a date or dateTime may mean (FHIRPath lowBoundary and highBoundary)."""

from __future__ import annotations

import re
from calendar import monthrange
from datetime import UTC, datetime, timedelta, timezone, tzinfo

_PARTS = re.compile(r"(\d{4})(?:-(\d\d)(?:-(\d\d)(?:T(\d\d):(\d\d):(\d\d)(?:\.(\d+))?(.*))?)?)?")
_DAY = timedelta(days=1)
_EASTMOST, _WESTMOST = timedelta(hours=14), timedelta(hours=-12)
"""Where a day begins first, and where it ends last."""


def earliest(text: str) -> datetime:
    """Raises ValueError for what is no date of R5's form."""
    return _moment(text, is_latest=False)


def latest(text: str) -> datetime:
    """Raises ValueError for what is no date of R5's form."""
    return _moment(text, is_latest=True)


def _moment(text: str, *, is_latest: bool) -> datetime:
    found = _PARTS.fullmatch(text)
    if found is None:
        raise ValueError("no date")
    year = int(found[1])
    month = int(found[2] or (12 if is_latest else 1))
    day = int(found[3] or (monthrange(year, month)[1] if is_latest else 1))
    if found[4] is None:
        begins = datetime(year, month, day, tzinfo=timezone(_WESTMOST if is_latest else _EASTMOST))
        return begins + _DAY if is_latest else begins
    missing = "9" if is_latest else "0"
    micros = int((found[7] or "").ljust(6, missing)[:6])
    second = min(int(found[6]), 59)  # a leap second
    return datetime(year, month, day, int(found[4]), int(found[5]), second, micros, tzinfo=_zone(found[8]))


def _zone(text: str) -> tzinfo:
    if text == "Z":
        return UTC
    sign = -1 if text.startswith("-") else 1
    return timezone(sign * timedelta(hours=int(text[1:3]), minutes=int(text[4:6])))
