"""GET /metrics for Prometheus. Labels are routes and codes, never ids and never names."""

from __future__ import annotations

import time

from fastapi import APIRouter, Depends, Request, Response
from prometheus_client import CONTENT_TYPE_LATEST, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from projections.checkpoint import statuses, without_old_versions
from server.auth.principals import requires
from server.fhir.state import added, indexed
from server.route_template import route_template
from server.services import Services

_HEAD = Gauge("anamnesis_log_position", "Position of the last event")
_LAG = Gauge("anamnesis_projection_lag_events", "Events that a projection has not applied yet", ["projection"])
_PAUSED = Gauge("anamnesis_projection_paused", "1 while a projection is paused", ["projection"])
_STATE = Gauge("anamnesis_projection_state", "1 for the state that a projection is in", ["projection", "state"])
_PARAMETERS = Gauge("anamnesis_search_parameters", "Search parameters that clients added: indexed, indexing, or unusable", ["state"])
_COLUMN_ROWS = Gauge("anamnesis_columns_rows", "Versions of entities that the columns hold", ["level"])
_COLUMN_BYTES = Gauge("anamnesis_columns_bytes", "Memory of the columns' arrays")
_COLUMN_POSITION = Gauge("anamnesis_columns_position", "Position up to which the columns hold what happened")
_COLUMN_BEHIND = Gauge("anamnesis_columns_behind_seconds", "How long ago the columns were compared with the rows")
_COLUMN_BUILDING = Gauge("anamnesis_columns_building", "Facets whose columns are being built")
_SPOOL = Gauge("anamnesis_spool_instances", "Committed instances that wait in the spool")
_DURATION = Histogram("anamnesis_http_request_seconds", "Time to the answer's first byte", ["method", "route", "status"])

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
"""Any other word is counted as one: a client could fill the memory with labels of its own."""

router = APIRouter(tags=["metrics"])


@router.get("/metrics", dependencies=[Depends(requires("metrics:read"))])
async def metrics(request: Request) -> Response:
    """The exposition format; needs the scope metrics:read."""
    services: Services = request.app.state.services
    _HEAD.set(await services.log.head())
    _SPOOL.set(services.spool.depth())
    for status in without_old_versions(await statuses(services.pool), services.runner.projections):
        _LAG.labels(status.name).set(status.lag)
        _PAUSED.labels(status.name).set(status.state == "paused")
        for state in ("building", "live", "paused"):
            _STATE.labels(status.name, state).set(status.state == state)
    rows = await added(services.pool)
    indexing, unusable = len({code for _, code in await indexed(services.pool, rows)}), sum(bool(one.problem) for one in rows)
    for state, count in (("indexed", len(rows) - indexing - unusable), ("indexing", indexing), ("unusable", unusable)):
        _PARAMETERS.labels(state).set(count)
    columns = services.columns
    if columns is not None:
        for level, count in columns.store.rows.items():
            _COLUMN_ROWS.labels(level).set(count)
        progress = columns.progress
        _COLUMN_BYTES.set(progress.bytes)
        _COLUMN_POSITION.set(progress.position)
        _COLUMN_BEHIND.set(progress.behind_s)
        _COLUMN_BUILDING.set(len(progress.facets))
    return Response(generate_latest(), media_type=CONTENT_TYPE_LATEST)


class Timing:
    """ASGI middleware: how long each route takes, under its template."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()

        async def observed(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = route_template(scope) or "none"
                method = scope["method"] if scope["method"] in _METHODS else "other"
                _DURATION.labels(method, route, message["status"]).observe(time.perf_counter() - began)
            await send(message)

        await self._app(scope, receive, observed)
