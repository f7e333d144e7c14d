"""The HTTP application: its routers, and the one place where errors become answers."""

from __future__ import annotations

import logging
from typing import Any

import asyncpg
import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

import server.audit.inquiries
import server.audit.proofs
import server.audit.reads
import server.auth.token_endpoint
import server.datasets.routes
import server.dicomweb.router
import server.graphql.router
import server.health
import server.metrics
import server.openapi.router
import server.reviews
import server.subjects
from eventlog.errors import LogUnavailable, VersionConflict
from projections.errors import ProjectionBehind, ProjectionIncomplete
from server.errors import ScopeMissing, TokenInvalid
from server.fhir.outcome import outcome
from server.fhir.router import add_fhir
from server.graphql.served import Served
from server.read_models import RETRY_AFTER_S
from server.services import Services

_logger = logging.getLogger(__name__)
_ISSUE_CODES = {400: "invalid", 401: "login", 403: "forbidden", 404: "not-found", 405: "not-supported", 406: "not-supported", 409: "conflict", 503: "transient"}

_METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE")
_ASKED_WITH = ("Authorization", "If-Match", "If-None-Match", "If-Modified-Since", "If-None-Exist", "Prefer", "X-Provenance")
"""What scripts of other origins may send beside what any page may (Accept, Content-Type, …)."""
_TOLD_IN = ("ETag", "Last-Modified", "Location", "Content-Location", "Anamnesis-Position", "X-Progress", "Retry-After", "Warning", "WWW-Authenticate")
"""What they may read beside the body."""


def create_app(services: Services) -> FastAPI:
    """The application over services that are open."""
    app = FastAPI(title="Anamnesis", docs_url=None, redoc_url=None, openapi_url=None)
    app.state.services = services
    audit = (server.audit.inquiries, server.audit.proofs)
    add_fhir(app)
    app.state.graphql = Served(services)
    for part in (server.dicomweb.router, server.graphql.router, *audit, server.auth.token_endpoint, server.reviews, server.subjects, server.datasets.routes, server.health, server.metrics, server.openapi.router):
        app.include_router(part.router)
    if services.recorder is not None:
        app.add_middleware(server.audit.reads.Reads, recorder=services.recorder)
    app.add_middleware(server.metrics.Timing)
    if services.settings.allowed_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=services.settings.allowed_origins,
            allow_methods=_METHODS,
            allow_headers=_ASKED_WITH,
            expose_headers=_TOLD_IN,
        )
    app.add_exception_handler(TokenInvalid, _unauthorized)
    app.add_exception_handler(ScopeMissing, _forbidden)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(RequestValidationError, _invalid)
    for unavailable in (LogUnavailable, ProjectionBehind, asyncpg.PostgresConnectionError, asyncpg.InterfaceError, ConnectionError):
        app.add_exception_handler(unavailable, _unavailable)
    app.add_exception_handler(ProjectionIncomplete, _incomplete)
    app.add_exception_handler(VersionConflict, _overtaken)
    app.add_exception_handler(Exception, _unexpected)
    return app


def _answer(request: Request, status: int, detail: str, headers: dict[str, str] | None = None) -> Response:
    """An OperationOutcome below /fhir, problem details (RFC 9457) elsewhere."""
    if f"{request.url.path}/".startswith("/fhir/"):
        return outcome(status, _ISSUE_CODES.get(status, "exception"), detail, headers=headers)
    body: dict[str, Any] = {"type": "about:blank", "status": status, "detail": detail}
    return Response(msgspec.json.encode(body), status, headers, media_type="application/problem+json")


async def _unauthorized(request: Request, error: Exception) -> Response:
    # RFC 6750, 3.1: no error code where no token was sent.
    code = ', error="invalid_token"' if "authorization" in request.headers else ""
    return _answer(request, 401, str(error), {"WWW-Authenticate": f'Bearer realm="anamnesis"{code}'})


async def _forbidden(request: Request, error: Exception) -> Response:
    assert isinstance(error, ScopeMissing)
    challenge = f'Bearer realm="anamnesis", error="insufficient_scope", scope="{error.scope}"'
    return _answer(request, 403, str(error), {"WWW-Authenticate": challenge})


async def _http(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return _answer(request, error.status_code, str(error.detail), dict(error.headers or {}))


async def _invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    where = "; ".join(".".join(str(part) for part in problem["loc"]) + f": {problem['msg']}" for problem in error.errors())
    return _answer(request, 400, where)


async def _unavailable(request: Request, error: Exception) -> Response:
    return _answer(request, 503, "the database does not answer, or is behind: try again", {"Retry-After": "1"})


async def _incomplete(request: Request, error: Exception) -> Response:
    return _answer(request, 503, str(error), {"Retry-After": str(RETRY_AFTER_S)})


async def _overtaken(request: Request, error: Exception) -> Response:
    return _answer(request, 409, "others wrote to the same thing at the same time, again and again: try again", {"Retry-After": "1"})


async def _unexpected(request: Request, error: Exception) -> Response:
    # The error's text may hold data: the log gets its class and the place (server.log_format), the client gets neither.
    _logger.error("%s %s failed", request.method, getattr(request.scope.get("route"), "path", "?"), exc_info=error)
    return _answer(request, 500, "the server failed; its log says where")
