"""Dates, Periods and Timings as intervals [low, high) in UTC (R5 search.html#date)."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

Interval = tuple[datetime, datetime]

EARLIEST = datetime(1, 1, 1, tzinfo=UTC)
LATEST = datetime(9999, 12, 31, tzinfo=UTC)
"""Of what has no beginning, or no end."""


def interval(value: str) -> Interval:
    """A FHIR date or dateTime as the interval that its precision covers. Raises ValueError or OverflowError."""
    if "T" in value:
        moment = datetime.fromisoformat(value.replace("Z", "+00:00"))
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        parts = value.split("T")[1].split("+")[0].split("-")[0].rstrip("Z")
        step = timedelta(microseconds=1) if "." in parts else timedelta(seconds=1) if parts.count(":") == 2 else timedelta(minutes=1)
        return moment, moment + step
    year, *rest = (int(part) for part in value.split("-"))
    if not rest:
        return _midnight(date(year, 1, 1)), _midnight(date(year + 1, 1, 1))
    if len(rest) == 1:
        following = date(year + rest[0] // 12, rest[0] % 12 + 1, 1)
        return _midnight(date(year, rest[0], 1)), _midnight(following)
    day = date(year, rest[0], rest[1])
    if day == date.max:
        return _midnight(day), datetime.max.replace(tzinfo=UTC)
    return _midnight(day), _midnight(day + timedelta(days=1))


def interval_of(value: Any, value_type: str) -> Interval | None:
    """Of an element's value; None where it is no date."""
    if value_type == "Period":
        return _period(value)
    if value_type == "Timing":
        return _timing(value)
    return _point(value)


def _point(value: Any) -> Interval | None:
    if not isinstance(value, str):
        return None
    try:
        low, high = interval(value)
        low, high = max(low, EARLIEST), min(high, LATEST)
    except (ValueError, OverflowError):
        return None
    return (low, high) if low <= high else None


def _period(value: Any) -> Interval | None:
    if not isinstance(value, dict):
        return None
    start, end = _point(value.get("start")), _point(value.get("end"))
    if start is None and end is None:
        return None
    low, high = start[0] if start else EARLIEST, end[1] if end else LATEST
    return (low, high) if low <= high else None


def _timing(value: Any) -> Interval | None:
    """From the first event to the last one, and what bounds the repetition."""
    if not isinstance(value, dict):
        return None
    events = value.get("event")
    repeat = value.get("repeat")
    found = [_point(event) for event in events] if isinstance(events, list) else []
    if isinstance(repeat, dict):
        found.append(_period(repeat.get("boundsPeriod")))
    known = [one for one in found if one is not None]
    return (min(low for low, _ in known), max(high for _, high in known)) if known else None


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)
