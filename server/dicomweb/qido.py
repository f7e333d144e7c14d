"""QIDO-RS (PS3.18, 10.6): searches for studies, series and instances, on all or within a study or a series."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request, Response
from fastapi.concurrency import run_in_threadpool

from server.as_of import HEADER
from server.audit.reads import saw_studies
from server.dicomweb import answers
from server.dicomweb.accept import json_type
from server.dicomweb.as_of import asked_position
from server.dicomweb.keys import Level
from server.dicomweb.problem import ProblemRoute
from server.dicomweb.search import Search, parse_search
from server.dicomweb.statements import COUNT_AHEAD, statement
from server.read_models import reads
from server.services import Services

router = APIRouter(route_class=ProblemRoute, dependencies=[Depends(reads("dicom:read", "dicom"))], tags=["QIDO-RS"])


@router.get("/studies")
async def search_studies(request: Request) -> Response:
    """Studies, the latest first."""
    return await _answer(request, parse_search(Level.STUDY, request.query_params.multi_items()))


@router.get("/series")
async def search_all_series(request: Request) -> Response:
    """Series of all studies."""
    return await _answer(request, parse_search(Level.SERIES, request.query_params.multi_items()))


@router.get("/instances")
async def search_all_instances(request: Request) -> Response:
    """Instances of all studies."""
    return await _answer(request, parse_search(Level.INSTANCE, request.query_params.multi_items()))


@router.get("/studies/{study_uid}/series")
async def search_series(request: Request, study_uid: str) -> Response:
    """Series of a study, by number."""
    return await _answer(request, parse_search(Level.SERIES, request.query_params.multi_items(), study_uid))


@router.get("/studies/{study_uid}/instances")
async def search_instances_of_study(request: Request, study_uid: str) -> Response:
    """Instances of a study, by series and number."""
    return await _answer(request, parse_search(Level.INSTANCE, request.query_params.multi_items(), study_uid))


@router.get("/studies/{study_uid}/series/{series_uid}/instances")
async def search_instances(request: Request, study_uid: str, series_uid: str) -> Response:
    """Instances of a series, by number."""
    return await _answer(request, parse_search(Level.INSTANCE, request.query_params.multi_items(), study_uid, series_uid))


async def _answer(request: Request, search: Search) -> Response:
    """200 with the matches, or 204 when there are none (PS3.18, 8.3.4.4.1); a Warning says that there are more."""
    media_type = json_type(request)
    services: Services = request.app.state.services
    sql, parameters = statement(search, await asked_position(request))
    rows = await services.pool.fetch(sql, *parameters)
    headers = {"Cache-Control": "no-store", HEADER: str(rows[0]["as_of"])}
    if rows[0]["study_uid"] is None:
        rows = []
    saw_studies(request, (row["study_uid"] for row in rows))
    warnings = list(search.warnings)
    if rows and (remaining := rows[0]["found"] - len(rows)):
        at_least = "at least " if remaining >= COUNT_AHEAD else ""
        warnings.append(f"There are {at_least}{remaining} additional results that can be requested")
    if warnings:
        headers["Warning"] = ", ".join(f'299 anamnesis "{text}"' for text in warnings)
    if not rows:
        return Response(status_code=204, headers=headers)
    service = answers.service_url(request)
    if search.is_ready_made:
        body = answers.ready_made(rows, search, service)
    else:
        body = await run_in_threadpool(answers.put_together, rows, search, service)
    return Response(body, headers=headers, media_type=media_type)
