"""Conditional requests (RFC 9110, 13): what was retrieved once is not sent again while it is the same."""

from __future__ import annotations

from fastapi import Request, Response

from server.as_of import HEADER


def cached(request: Request, digest: str, position: int) -> Response | None:
    """304 Not Modified when the client holds this very representation; None otherwise. ``position``: as of which it was found."""
    held = request.headers.get("if-none-match")
    if held is None:
        return None
    tags = {tag.strip().removeprefix("W/") for tag in held.split(",")}
    return Response(status_code=304, headers=etag_headers(digest, position)) if tags & {"*", f'"{digest}"'} else None


def etag_headers(digest: str, position: int) -> dict[str, str]:
    """Keep it, for this user alone, and ask each time whether it still stands: access may have been withdrawn."""
    return {"ETag": f'"{digest}"', "Cache-Control": "private, no-cache", "Vary": "Accept, Authorization", HEADER: str(position)}
