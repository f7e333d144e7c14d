"""GraphiQL, for people: its parts are shipped with us (vendor/README.md), so that it works where there is no Internet.

It needs no token, as it says nothing of the data; it asks for one, and sends it with what is asked.
"""

from __future__ import annotations

import gzip
import hashlib
from functools import lru_cache
from pathlib import Path

from starlette.responses import Response

_FOLDER = Path(__file__).parent
_KINDS = {".js": "text/javascript; charset=utf-8", ".css": "text/css; charset=utf-8", ".json": "application/json"}
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; font-src 'self' data:; img-src 'self' data:; connect-src 'self';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Styles are set inline by the editor. No script but ours."""
_SAFE = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}


def index() -> Response:
    return Response(_bytes("index.html"), media_type="text/html; charset=utf-8", headers={**_SAFE, "Content-Security-Policy": _POLICY, "Cache-Control": "no-cache"})
def asset(name: str, held: str) -> Response:
    """``held``: the entity tag of what the browser has."""
    tag = _tag(name)
    headers = {**_SAFE, "ETag": tag, "Cache-Control": "no-cache"}
    if tag in held:
        return Response(status_code=304, headers=headers)
    if (_FOLDER / "vendor" / f"{name}.gz").is_file():
        headers["Content-Encoding"] = "gzip"
    return Response(_bytes(name), media_type=_KINDS[Path(name).suffix], headers=headers)


@lru_cache
def _bytes(name: str) -> bytes:
    """As it is sent: what is vendored is compressed."""
    packed = _FOLDER / "vendor" / f"{name}.gz"
    return packed.read_bytes() if packed.is_file() else (_FOLDER / name).read_bytes()


@lru_cache
def _tag(name: str) -> str:
    return f'"{hashlib.sha256(_bytes(name)).hexdigest()[:32]}"'


def unpacked(name: str) -> bytes:
    """A vendored file as it was published."""
    return gzip.decompress(_bytes(name))
