"""Conditional reads (RFC 9110, 13; R5 http.html#cread): what the client holds already is not sent again."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from starlette.requests import Request


def is_held(request: Request, etag: str, last_updated: datetime) -> bool:
    """Whether the client holds this version. If-None-Match goes before If-Modified-Since (RFC 9110, 13.1.3)."""
    tags = request.headers.get("if-none-match")
    if tags is not None:
        return not {tag.strip().removeprefix("W/") for tag in tags.split(",")}.isdisjoint({"*", etag.removeprefix("W/")})
    since = _instant(request.headers.get("if-modified-since", ""))
    return since is not None and last_updated.replace(microsecond=0) <= since


def _instant(text: str) -> datetime | None:
    """What is no date is as if it were not there (RFC 9110, 13.1.3)."""
    try:
        moment = parsedate_to_datetime(text)
    except ValueError:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
