"""Rows of the read model as an answer: joined from ready-made bytes, or put together where the client asked for more."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any
from urllib.parse import quote

import asyncpg
import msgspec
from fastapi import Request

from domain.series import DicomJson
from projections.dicom import attributes as a
from projections.dicom import splicing
from server.dicomweb.keys import Level
from server.dicomweb.search import Search


def service_url(request: Request) -> str:
    """Where this DICOMweb service is for the client: the public URL that is set, or the one that was asked."""
    public = getattr(request.app.state.services.settings, "public_url", None)
    base = str(public or request.base_url).rstrip("/")
    return f"{base}/dicomweb"


def ready_made(rows: Iterable[asyncpg.Record], search: Search, service: str) -> bytes:
    """The stored answers with the Retrieve URL put in: no JSON is read or written."""
    start = b'"' + a.RETRIEVE_URL.encode("ascii") + b'":{"Value":[' + msgspec.json.encode(f"{service}/studies/")[:-1]
    objects = []
    for row in rows:
        path = _path(row, search.level).encode("ascii")
        objects.append(b"".join((b"{", row["answer_before"], start, path, b'"],"vr":"UR"}', row["answer_beyond"], b"}")))
    return b"[" + b",".join(objects) + b"]"


def put_together(rows: Iterable[asyncpg.Record], search: Search, service: str) -> bytes:
    """Answers with attributes beyond the ready-made ones, and of the levels above that the path does not fix."""
    return msgspec.json.encode([_whole(row, search, service) for row in rows])


def _path(row: asyncpg.Record, level: Level) -> str:
    path = quote(row["study_uid"])
    if level >= Level.SERIES:
        path += f"/series/{quote(row['series_uid'])}"
    if level is Level.INSTANCE:
        path += f"/instances/{quote(row['sop_instance_uid'])}"
    return path


def _whole(row: asyncpg.Record, search: Search, service: str) -> dict[str, Any]:
    level = search.level
    known: DicomJson = {}
    answer: DicomJson = {}
    for above, fixed_by in ((Level.STUDY, search.study_uid), (Level.SERIES, search.series_uid)):
        if above > level:
            continue
        name = above.name.lower()
        attributes: DicomJson = msgspec.json.decode(row[f"{name}_attributes"])
        ready: DicomJson = _object(row[f"{name}_before"], row[f"{name}_beyond"])
        known |= attributes | ready
        if above is level or fixed_by is None:
            answer |= (attributes | ready) if search.everything else ready
    if level is Level.INSTANCE:
        header: DicomJson = msgspec.json.decode(splicing.join(row["pieces"], row["own_pieces"]))
        ready = _object(row["instance_before"], row["instance_beyond"])
        known |= header | ready
        answer |= (header | ready) if search.everything else ready
    answer |= {tag: known[tag] for tag in search.include if tag in known}
    answer[a.RETRIEVE_URL] = a.element("UR", f"{service}/studies/{_path(row, level)}")
    return dict(sorted(answer.items()))


def _object(before: bytes, beyond: bytes) -> DicomJson:
    found: DicomJson = msgspec.json.decode(b"{" + (before + beyond[1:] if beyond else before[:-1]) + b"}")
    return found
