"""The FHIR routes. The read path joins stored bytes; no model is built and nothing is parsed but what a search needs."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from email.utils import format_datetime
from typing import Annotated, Any
from urllib.parse import parse_qsl, urlencode

import asyncpg
import msgspec
from fastapi import APIRouter, Depends, Request, Response
from fastapi.routing import APIRoute

from domain.ids import Position
from eventlog.envelope import instant
from projections.checkpoint import reached
from projections.fhir.projection import TYPES, FhirProjection
from server.as_of import HEADER, PARAMETER
from server.audit.reads import saw_resources, saw_search
from server.auth.principals import Authenticated, requires
from server.errors import ScopeMissing
from server.fhir.as_of import Given, asked_position, single
from server.fhir.capabilities import capability_statement
from server.fhir.gone import absent
from server.fhir.history import PARAMETERS as HISTORY_PARAMETERS
from server.fhir.history import Versions, version_held, version_numbered
from server.fhir.identities import with_identities
from server.fhir.outcome import FHIR_JSON, FhirError, issue, outcome
from server.fhir.pages import Page, open_page, seal_page
from server.fhir.parameters import parse
from server.fhir.query import Statement
from server.read_models import reads
from server.services import Services

DEFAULT_COUNT = 50
MAX_COUNT = 1000
LAST_VERSION = 2**31 - 1
PAGE_PARAMETER = "_page"


class FhirRoute(APIRoute):
    """A route whose FhirErrors become OperationOutcomes, and that speaks JSON alone."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            try:
                _check_format(request)
                return await handler(request)
            except FhirError as error:
                return outcome(error.status, error.code, error.detail, expression=error.expression, headers=error.headers)

        return handle


Reader = Annotated[Authenticated, Depends(reads("fhir:read", "fhir"))]
router = APIRouter(prefix="/fhir", route_class=FhirRoute, tags=["FHIR"])


@router.api_route("/metadata", methods=["GET", "HEAD"])
async def metadata(request: Request, reader: Annotated[Authenticated, Depends(requires("fhir:read"))]) -> Response:
    return _json(capability_statement(_base(request)))


@router.api_route("/{resource_type}/{resource_id}", methods=["GET", "HEAD"])
async def read(request: Request, reader: Reader, resource_type: str, resource_id: str) -> Response:
    services = _services(request, resource_type)
    position = await asked_position(services.pool, request.query_params.multi_items())
    row = await version_held(services.pool, resource_type, resource_id, position)
    return await _one(request, reader, services, row, resource_type, resource_id)


@router.api_route("/{resource_type}/{resource_id}/_history/{version}", methods=["GET", "HEAD"])
async def vread(request: Request, reader: Reader, resource_type: str, resource_id: str, version: str) -> Response:
    services = _services(request, resource_type)
    position = await asked_position(services.pool, request.query_params.multi_items())
    number = int(version) if version.isascii() and version.isdigit() and len(version) < 9 else 0
    row = await version_numbered(services.pool, resource_type, resource_id, number, position)
    return await _one(request, reader, services, row, resource_type, f"{resource_id}/_history/{version}")


@router.get("/{resource_type}/{resource_id}/_history")
async def history(request: Request, reader: Reader, resource_type: str, resource_id: str) -> Response:
    services, given = _services(request, resource_type), request.query_params.multi_items()
    path = f"{resource_type}/{resource_id}/_history"
    page = await _opened(services, path, given)
    is_first = page is None
    if page is None:
        used, position = await _history_asked(services, given)
        page = Page(resource_type=path, parameters=used, position=position, count=_count(given, MAX_COUNT), total=0)
    versions = await Versions.asked(services.pool, resource_type, resource_id, page.position, page.parameters)
    if is_first:
        if not await versions.exist(services.pool):
            raise _as_of(page.position, await absent(services.pool, resource_type, resource_id))
        page = msgspec.structs.replace(page, total=await versions.count(services.pool))
    rows = await versions.page(services.pool, int(page.after or LAST_VERSION), page.count + 1)
    more, rows = len(rows) > page.count, rows[: page.count]
    saw_resources(request, (row["body"] for row in rows))
    links = _links(request, services, page, is_first, str(rows[-1]["version"]) if more else None)
    bodies = await _bodies(services, reader, resource_type, rows, page.position)
    entries = [_history_entry(request, resource_type, row, body) for row, body in zip(rows, bodies, strict=True)]
    return _bundle("history", page, links, entries)


def _history_entry(request: Request, resource_type: str, row: asyncpg.Record, body: str) -> dict[str, Any]:
    method = "POST" if row["version"] == 1 else "PUT"
    return {
        "fullUrl": f"{_base(request)}/{resource_type}/{row['id']}",
        "resource": msgspec.Raw(body.encode("utf-8")),
        "request": {"method": method, "url": resource_type if method == "POST" else f"{resource_type}/{row['id']}"},
        "response": {
            "status": "201" if method == "POST" else "200",
            "etag": f'W/"{row["version"]}"',
            "lastModified": instant(row["last_updated"]),
        },
    }


async def _history_asked(services: Services, given: Given) -> tuple[list[tuple[str, str]], Position]:
    """The parameters of a history, less ``_asof``, and its position. Raises FhirError (400)."""
    unknown = sorted({name for name, _ in given} - set(HISTORY_PARAMETERS))
    if unknown:
        names = ", ".join(HISTORY_PARAMETERS)
        raise FhirError(400, "not-supported", f"_history has no parameter {unknown[0]}; there are {names}", f"http.{unknown[0]}")
    asked = await asked_position(services.pool, given)
    position = asked if asked is not None else await _reached(services)
    return [(name, value) for name, value in given if name != PARAMETER], position


@router.get("/{resource_type}")
async def search(request: Request, reader: Reader, resource_type: str) -> Response:
    return await _search(request, reader, resource_type, request.query_params.multi_items())


@router.post("/{resource_type}/_search")
async def search_by_post(request: Request, reader: Reader, resource_type: str) -> Response:
    """Search values in the body stay out of the logs of every proxy on the way."""
    body = (await request.body()).decode("utf-8", "replace")
    given = request.query_params.multi_items() + parse_qsl(body, keep_blank_values=True)
    return await _search(request, reader, resource_type, given)


async def _search(request: Request, reader: Authenticated, resource_type: str, given: Given) -> Response:
    services = _services(request, resource_type)
    ignored: list[str] = []
    page = await _opened(services, resource_type, given)
    is_first = page is None
    if page is None:
        lenient = "handling=lenient" in request.headers.get("prefer", "")
        conditions, ignored = parse(resource_type, given, lenient=lenient)
        count = _count(given, DEFAULT_COUNT)
        asked = await asked_position(services.pool, given)
        position = asked if asked is not None else await _reached(services)
        used = [(name, value) for name, value in given if name not in (*ignored, PARAMETER)]
        total = await Statement(resource_type, conditions, position).count(services.pool)
        page = Page(resource_type=resource_type, parameters=used, position=position, count=count, total=total)
    else:
        conditions, _ = parse(resource_type, page.parameters, lenient=True)
    rows = await Statement(resource_type, conditions, page.position).page(services.pool, page.after, page.count + 1)
    more, rows = len(rows) > page.count, rows[: page.count]
    saw_search(request, page.parameters)
    saw_resources(request, (row["body"] for row in rows))
    links = _links(request, services, page, is_first, rows[-1]["id"] if more else None)
    bodies = await _bodies(services, reader, resource_type, rows, page.position)
    entries: list[dict[str, Any]] = [
        {
            "fullUrl": f"{_base(request)}/{resource_type}/{row['id']}",
            "resource": msgspec.Raw(body.encode("utf-8")),
            "search": {"mode": "match"},
        }
        for row, body in zip(rows, bodies, strict=True)
    ]
    if ignored:
        said = issue("not-supported", f"ignored, as preferred: {', '.join(ignored)}", severity="warning")
        entries.append({"resource": {"resourceType": "OperationOutcome", "issue": [said]}, "search": {"mode": "outcome"}})
    return _bundle("searchset", page, links, entries)


async def _opened(services: Services, path: str, given: Given) -> Page | None:
    """The page that a link of ours leads to; None for a first page. Raises FhirError (400)."""
    text = single(given, PAGE_PARAMETER)
    if text is None:
        return None
    page = open_page(services.log.vault, text)
    if page.resource_type != path:
        raise FhirError(400, "value", "this page link belongs to another search", f"http.{PAGE_PARAMETER}")
    if single(given, PARAMETER) not in (None, str(page.position)):
        raise FhirError(400, "value", f"this page link is of a search as of {page.position}", f"http.{PARAMETER}")
    return page


def _links(request: Request, services: Services, page: Page, is_first: bool, last: str | None) -> list[dict[str, str]]:
    """To this page, and to the next one when there is something beyond ``last``. Each names the position that is used."""
    path = f"{_base(request)}/{page.resource_type}"

    def link(one: Page) -> str:
        return f"{path}?{urlencode([(PARAMETER, str(one.position)), (PAGE_PARAMETER, seal_page(services.log.vault, one))])}"

    own = f"{path}?{urlencode([*page.parameters, (PARAMETER, str(page.position))])}" if is_first else link(page)
    links = [{"relation": "self", "url": own}]
    if last is not None:
        links.append({"relation": "next", "url": link(msgspec.structs.replace(page, after=last))})
    return links


def _bundle(kind: str, page: Page, links: list[dict[str, str]], entries: list[dict[str, Any]]) -> Response:
    bundle: dict[str, Any] = {"resourceType": "Bundle", "type": kind, "total": page.total, "link": links}
    if entries:
        bundle["entry"] = entries
    return _json(bundle, {HEADER: str(page.position)})


async def _one(
    request: Request, reader: Authenticated, services: Services, row: asyncpg.Record, resource_type: str, what: str
) -> Response:
    position = row["as_of"]
    if row["version"] is None:
        raise _as_of(position, await absent(services.pool, resource_type, what))
    saw_resources(request, [row["body"]])
    headers = {
        "ETag": f'W/"{row["version"]}"',
        "Last-Modified": format_datetime(row["last_updated"], usegmt=True),
        HEADER: str(position),
    }
    # What identifies changes without a new version, so those who may see it are always sent it.
    is_identified = resource_type == "Patient" and reader.may("identities:read")
    if not is_identified and request.headers.get("if-none-match", "").strip() == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    (body,) = await _bodies(services, reader, resource_type, [row], position)
    return Response(body, headers=headers, media_type=FHIR_JSON)


def _as_of(position: int, error: FhirError) -> FhirError:
    error.headers = {HEADER: str(position)}
    return error


async def _bodies(
    services: Services, reader: Authenticated, resource_type: str, rows: Sequence[asyncpg.Record], position: int
) -> list[str]:
    """What is answered; a Patient with what was known of the person at the position, but no later than the version held."""
    bodies = [row["body"] for row in rows]
    if resource_type != "Patient" or not reader.may("identities:read") or not bodies:
        return bodies
    ends = [position if row["position_to"] is None else min(position, row["position_to"] - 1) for row in rows]
    return await with_identities(services.pool, bodies, ends)


async def _reached(services: Services) -> Position:
    return await reached(services.pool, FhirProjection.name, FhirProjection.version)


def _services(request: Request, resource_type: str) -> Services:
    if resource_type not in TYPES:
        raise FhirError(404, "not-supported", f"this server has no {resource_type}; it has {', '.join(TYPES)}")
    if "\0" in request.path_params.get("resource_id", ""):
        raise FhirError(404, "not-found", "no id holds a NUL character, nor can PostgreSQL look for one")
    if resource_type == "AuditEvent" and not request.state.authenticated.may("audit:read"):
        raise ScopeMissing("audit:read")
    services: Services = request.app.state.services
    return services


def _base(request: Request) -> str:
    services: Services = request.app.state.services
    return f"{(services.settings.public_url or str(request.base_url)).rstrip('/')}/fhir"


def _count(given: Given, default: int) -> int:
    text = next((value for name, value in given if name == "_count"), str(default))
    if not (text.isascii() and text.isdigit()) or int(text) < 1:
        raise FhirError(400, "value", "_count must be a whole number from 1", "http._count")
    return min(int(text), MAX_COUNT)


def _check_format(request: Request) -> None:
    wanted = request.query_params.get("_format") or request.headers.get("accept", "*/*")
    if not any(one in wanted for one in ("json", "*/*", "application/*")):
        raise FhirError(406, "not-supported", "this server answers in application/fhir+json alone")


def _json(body: Any, headers: dict[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(body), headers=headers, media_type=FHIR_JSON)
