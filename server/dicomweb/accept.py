"""Which media types a client accepts (RFC 9110, 12.5.1; PS3.18, 8.7), read with patience: viewers quote parameters or do not."""

from __future__ import annotations

import re
from functools import lru_cache

import msgspec
from fastapi import Request

from server.dicomweb.errors import NotAcceptable

DICOM = "application/dicom"
DICOM_JSON = "application/dicom+json"
JSON = "application/json"
MULTIPART = "multipart/related"
OCTET_STREAM = "application/octet-stream"
PROBLEM = "application/problem+json"


class MediaRange(msgspec.Struct, frozen=True):
    """One acceptable media type, lower case; ``parameters`` without q, their names lower case and their values unquoted."""

    media_type: str
    parameters: dict[str, str]
    quality: float = 1.0

    @property
    def is_multipart(self) -> bool:
        return self.media_type in ("multipart/related", "multipart/*")

    @property
    def part_type(self) -> str:
        """The media type of the parts of a multipart answer, as PS3.18 8.7.3 puts it into the parameter ``type``."""
        return self.parameters.get("type", "*/*").lower()

    @property
    def transfer_syntax(self) -> str | None:
        return self.parameters.get("transfer-syntax")

    def includes(self, media_type: str) -> bool:
        return covers(self.media_type, media_type)


def covers(wanted: str, media_type: str) -> bool:
    """Whether a media type such as ``image/*`` takes this one in."""
    return wanted in ("*/*", media_type) or (wanted.endswith("/*") and media_type.startswith(wanted[:-1]))


_LIST = re.compile(r',(?=(?:[^"]*"[^"]*")*[^"]*$)')
_PARAMETERS = re.compile(r';(?=(?:[^"]*"[^"]*")*[^"]*$)')


def accepted(request: Request) -> list[MediaRange]:
    """What the client accepts, the most wanted first; anything when it does not say.

    The query parameter ``accept`` stands in the header's place (PS3.18, 8.3.3.1).
    """
    return list(_ranges((request.query_params.get("accept") or request.headers.get("accept") or "*/*")[:4000]))


@lru_cache(maxsize=256)
def _ranges(text: str) -> tuple[MediaRange, ...]:
    ranges = [r for part in _LIST.split(text) if (r := _range(part)) is not None and r.quality > 0]
    return tuple(sorted(ranges, key=lambda r: -r.quality))


def _range(text: str) -> MediaRange | None:
    media_type, *rest = (piece.strip() for piece in _PARAMETERS.split(text))
    if "/" not in media_type:
        return None
    parameters: dict[str, str] = {}
    for piece in rest:
        name, _, value = piece.partition("=")
        parameters[name.strip().lower()] = value.strip().strip('"')
    try:
        quality = float(parameters.pop("q", "1"))
    except ValueError:
        quality = 1.0
    return MediaRange(media_type.lower(), parameters, quality)


def json_type(request: Request) -> str:
    """The media type of a JSON answer: application/dicom+json, or application/json where only that is accepted.

    Raises NotAcceptable.
    """
    for one in accepted(request):
        if one.includes(DICOM_JSON):
            return DICOM_JSON
        if one.includes(JSON):
            return JSON
    raise NotAcceptable(f"this resource is given as {DICOM_JSON} only: accept that (XML is not offered)")
