"""WADO-RS metadata (PS3.18, 10.4.1.1.2): headers without bulk data, as DICOM JSON joined from stored bytes."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import asyncpg
from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import StreamingResponse

from projections.dicom import splicing
from server.auth.principals import requires
from server.dicomweb.accept import json_type
from server.dicomweb.caching import cached, etag_headers
from server.dicomweb.problem import ProblemRoute
from server.dicomweb.targets import not_found, refuse_impossible
from server.services import Services

router = APIRouter(route_class=ProblemRoute, dependencies=[Depends(requires("dicom:read"))], tags=["WADO-RS"])

STREAMED_BEYOND = 1000
"""Instances: up to here an answer is one block of bytes, beyond it goes out series by series in pages of this size."""

_SERIES_OF_STUDY = """
    SELECT series_uid, position, instance_count FROM dicom_v1.series WHERE study_uid = $1 ORDER BY series_number, series_uid
"""
_SERIES = "SELECT series_uid, position, instance_count FROM dicom_v1.series WHERE study_uid = $1 AND series_uid = $2"
_SHARED = "SELECT position, pieces FROM dicom_v1.shared_header WHERE series_uid = $1"
_OWN = """
    SELECT position, own_pieces FROM dicom_v1.instance WHERE series_uid = $1 AND position <= $2
    ORDER BY instance_number, sop_instance_uid OFFSET $3 LIMIT $4
"""
_INSTANCE = """
    SELECT i.sha256, i.own_pieces, h.pieces FROM dicom_v1.instance i JOIN dicom_v1.shared_header h USING (position)
    WHERE i.study_uid = $1 AND i.series_uid = $2 AND i.sop_instance_uid = $3
"""


@router.get("/studies/{study_uid}/metadata")
async def study_metadata(request: Request, study_uid: str) -> Response:
    """The headers of all instances of a study."""
    refuse_impossible(study_uid)
    services: Services = request.app.state.services
    rows = await services.pool.fetch(_SERIES_OF_STUDY, study_uid)
    if not rows:
        raise not_found(study_uid)
    return await _answer(request, services.pool, rows)


@router.get("/studies/{study_uid}/series/{series_uid}/metadata")
async def series_metadata(request: Request, study_uid: str, series_uid: str) -> Response:
    """The headers of all instances of a series, by instance number."""
    refuse_impossible(study_uid, series_uid)
    services: Services = request.app.state.services
    rows = await services.pool.fetch(_SERIES, study_uid, series_uid)
    if not rows:
        raise not_found(study_uid, series_uid)
    return await _answer(request, services.pool, rows)


@router.get("/studies/{study_uid}/series/{series_uid}/instances/{sop_instance_uid}/metadata")
async def instance_metadata(request: Request, study_uid: str, series_uid: str, sop_instance_uid: str) -> Response:
    """The header of one instance, in an array of one."""
    refuse_impossible(study_uid, series_uid, sop_instance_uid)
    services: Services = request.app.state.services
    media_type = json_type(request)
    row = await services.pool.fetchrow(_INSTANCE, study_uid, series_uid, sop_instance_uid)
    if row is None:
        raise not_found(study_uid, series_uid, sop_instance_uid)
    digest = f"metadata-{row['sha256']}"
    if (unchanged := cached(request, digest)) is not None:
        return unchanged
    body = b"[" + splicing.join(row["pieces"], row["own_pieces"]) + b"]"
    return Response(body, headers=etag_headers(digest), media_type=media_type)


async def _answer(request: Request, pool: asyncpg.Pool, series: Sequence[asyncpg.Record]) -> Response:
    """The position of the last event of these series names what is answered: it moves when an instance comes."""
    media_type = json_type(request)
    digest = f"metadata-{max(row['position'] for row in series)}"
    if (unchanged := cached(request, digest)) is not None:
        return unchanged
    headers = etag_headers(digest)
    pages = _pages(pool, series)
    if sum(row["instance_count"] for row in series) > STREAMED_BEYOND:
        return StreamingResponse(pages, headers=headers, media_type=media_type)
    return Response(b"".join([page async for page in pages]), headers=headers, media_type=media_type)


async def _pages(pool: asyncpg.Pool, series: Sequence[asyncpg.Record]) -> AsyncIterator[bytes]:
    """What comes while the pages go out is left out: it would shift them, and belongs to another ETag."""
    separator = b"["
    for series_uid, position, _ in series:
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
