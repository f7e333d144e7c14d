"""WADO-RS metadata (PS3.18, 10.4.1.1.2): headers without bulk data, as DICOM JSON joined from stored bytes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import asyncpg
from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import StreamingResponse

from projections.dicom import splicing
from projections.dicom.projection import SCHEMA
from server.dicomweb.accept import json_type
from server.dicomweb.as_of import Rows, fetch
from server.dicomweb.caching import cached, etag_headers
from server.dicomweb.problem import ProblemRoute
from server.dicomweb.targets import not_found, refuse_impossible
from server.read_models import reads
from server.services import Services

router = APIRouter(route_class=ProblemRoute, dependencies=[Depends(reads("dicom:read", "dicom"))], tags=["WADO-RS"])

STREAMED_BEYOND = 1000
"""Instances: up to here an answer is one block of bytes, beyond it goes out series by series in pages of this size."""

_SHARED = f"SELECT position, pieces FROM {SCHEMA}.shared_header WHERE series_uid = $1"
_OWN = f"""
    SELECT position, own_pieces FROM {SCHEMA}.instance WHERE series_uid = $1 AND position <= $2
    ORDER BY instance_number, sop_instance_uid OFFSET $3 LIMIT $4
"""


def _series_of_study(rows: Rows) -> str:
    return f"""
        SELECT e.series_uid, e.position, e.instance_count, {rows.position} AS as_of FROM {rows.series} e
        WHERE e.study_uid = $1 AND {rows.held("e")} ORDER BY e.series_number, e.series_uid
    """


def _series(rows: Rows) -> str:
    return f"""
        SELECT e.series_uid, e.position, e.instance_count, {rows.position} AS as_of FROM {rows.series} e
        WHERE e.study_uid = $1 AND e.series_uid = $2 AND {rows.held("e")}
    """


def _instance(rows: Rows) -> str:
    return f"""
        SELECT i.sha256, i.own_pieces, h.pieces, {rows.position} AS as_of
        FROM {SCHEMA}.instance i JOIN {SCHEMA}.shared_header h USING (position)
        WHERE i.study_uid = $1 AND i.series_uid = $2 AND i.sop_instance_uid = $3 AND {rows.was_there("i")}
    """


@router.get("/studies/{study_uid}/metadata")
async def study_metadata(request: Request, study_uid: str) -> Response:
    """The headers of all instances of a study."""
    refuse_impossible(study_uid)
    rows = await fetch(request, _series_of_study, study_uid)
    if not rows:
        raise not_found(study_uid)
    return await _answer(request, rows)


@router.get("/studies/{study_uid}/series/{series_uid}/metadata")
async def series_metadata(request: Request, study_uid: str, series_uid: str) -> Response:
    """The headers of all instances of a series, by instance number."""
    refuse_impossible(study_uid, series_uid)
    rows = await fetch(request, _series, study_uid, series_uid)
    if not rows:
        raise not_found(study_uid, series_uid)
    return await _answer(request, rows)


@router.get("/studies/{study_uid}/series/{series_uid}/instances/{sop_instance_uid}/metadata")
async def instance_metadata(request: Request, study_uid: str, series_uid: str, sop_instance_uid: str) -> Response:
    """The header of one instance, in an array of one."""
    refuse_impossible(study_uid, series_uid, sop_instance_uid)
    media_type = json_type(request)
    rows = await fetch(request, _instance, study_uid, series_uid, sop_instance_uid)
    if not rows:
        raise not_found(study_uid, series_uid, sop_instance_uid)
    row = rows[0]
    digest = f"metadata-{row['sha256']}"
    if (unchanged := cached(request, digest, row["as_of"])) is not None:
        return unchanged
    body = b"[" + splicing.join(row["pieces"], row["own_pieces"]) + b"]"
    return Response(body, headers=etag_headers(digest, row["as_of"]), media_type=media_type)


async def _answer(request: Request, series: Sequence[asyncpg.Record]) -> Response:
    """The position of the last event of these series names what is answered: it moves when an instance comes."""
    services: Services = request.app.state.services
    media_type, position = json_type(request), series[0]["as_of"]
    digest = f"metadata-{max(row['position'] for row in series)}"
    if (unchanged := cached(request, digest, position)) is not None:
        return unchanged
    headers = etag_headers(digest, position)
    pages = _pages(services.pool, series)
    if sum(row["instance_count"] for row in series) > STREAMED_BEYOND:
        return StreamingResponse(pages, headers=headers, media_type=media_type)
    return Response(b"".join([page async for page in pages]), headers=headers, media_type=media_type)


async def _pages(pool: asyncpg.Pool, series: Sequence[asyncpg.Record]) -> AsyncIterator[bytes]:
    """What comes while the pages go out is left out: it would shift them, and belongs to another ETag."""
    separator = b"["
    for series_uid, position, *_ in series:
        offset = 0
        while True:
            async with pool.acquire() as connection:
                own = await connection.fetch(_OWN, series_uid, position, offset, STREAMED_BEYOND)
                shared = dict(await connection.fetch(_SHARED, series_uid))
            if own:
                yield separator + b",".join(splicing.join(shared[row["position"]], row["own_pieces"]) for row in own)
                separator = b","
            if len(own) < STREAMED_BEYOND:
                break
            offset += len(own)
    yield b"]"
