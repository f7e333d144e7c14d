"""The FHIR routes. The read path joins stored bytes; no model is built and nothing is parsed but what a search needs."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from email.utils import format_datetime
from typing import Annotated, Any
from urllib.parse import parse_qsl, urlencode

import msgspec
from fastapi import APIRouter, Depends, Request, Response
from fastapi.routing import APIRoute

from eventlog.envelope import instant
from projections.checkpoint import reached
from projections.fhir.projection import SCHEMA, TYPES
from server.auth.principals import Authenticated, requires
from server.fhir.capabilities import capability_statement
from server.fhir.identities import with_identities
from server.fhir.outcome import FHIR_JSON, FhirError, issue, outcome
from server.fhir.pages import Page, open_page, seal_page
from server.fhir.parameters import parse
from server.fhir.query import Statement
from server.services import Services

DEFAULT_COUNT = 50
MAX_COUNT = 1000
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
                return outcome(error.status, error.code, error.detail, expression=error.expression)

        return handle


Reader = Annotated[Authenticated, Depends(requires("fhir:read"))]
router = APIRouter(prefix="/fhir", route_class=FhirRoute, tags=["FHIR"])


@router.api_route("/metadata", methods=["GET", "HEAD"])
async def metadata(request: Request, reader: Reader) -> Response:
    return _json(capability_statement(_base(request)))


@router.api_route("/{resource_type}/{resource_id}", methods=["GET", "HEAD"])
async def read(request: Request, reader: Reader, resource_type: str, resource_id: str) -> Response:
    services = _services(request, resource_type)
    row = await services.pool.fetchrow(
        f"SELECT version, last_updated, body FROM {SCHEMA}.resource WHERE type = $1 AND id = $2 AND position_to IS NULL",
        resource_type,
        resource_id,
    )
    return await _one(request, reader, services, row, resource_type, resource_id)


@router.api_route("/{resource_type}/{resource_id}/_history/{version}", methods=["GET", "HEAD"])
async def vread(request: Request, reader: Reader, resource_type: str, resource_id: str, version: str) -> Response:
    services = _services(request, resource_type)
    row = None
    if version.isascii() and version.isdigit() and len(version) < 9:
        row = await services.pool.fetchrow(
            f"SELECT version, last_updated, body FROM {SCHEMA}.resource WHERE type = $1 AND id = $2 AND version = $3",
            resource_type,
            resource_id,
            int(version),
        )
    return await _one(request, reader, services, row, resource_type, f"{resource_id}/_history/{version}")


@router.get("/{resource_type}/{resource_id}/_history")
async def history(request: Request, reader: Reader, resource_type: str, resource_id: str) -> Response:
    services = _services(request, resource_type)
    rows = await services.pool.fetch(
        f"SELECT version, last_updated, body FROM {SCHEMA}.resource WHERE type = $1 AND id = $2 ORDER BY version DESC LIMIT $3",
        resource_type,
        resource_id,
        MAX_COUNT,
    )
    if not rows:
        raise FhirError(404, "not-found", f"there is no {resource_type}/{resource_id}")
    base = _base(request)
    bodies = await _bodies(services, reader, resource_type, [row["body"] for row in rows], None)
    entries = []
    for row, body in zip(rows, bodies, strict=True):
        method = "POST" if row["version"] == 1 else "PUT"
        entries.append(
            {
                "fullUrl": f"{base}/{resource_type}/{resource_id}",
                "resource": msgspec.Raw(body.encode("utf-8")),
                "request": {"method": method, "url": resource_type if method == "POST" else f"{resource_type}/{resource_id}"},
                "response": {
                    "status": "201" if method == "POST" else "200",
                    "etag": f'W/"{row["version"]}"',
                    "lastModified": instant(row["last_updated"]),
                },
            }
        )
    bundle = {
        "resourceType": "Bundle",
        "type": "history",
        "total": len(entries),
        "link": [{"relation": "self", "url": f"{base}/{resource_type}/{resource_id}/_history"}],
        "entry": entries,
    }
    return _json(bundle)


@router.get("/{resource_type}")
async def search(request: Request, reader: Reader, resource_type: str) -> Response:
    return await _search(request, reader, resource_type, request.query_params.multi_items())


@router.post("/{resource_type}/_search")
async def search_by_post(request: Request, reader: Reader, resource_type: str) -> Response:
    """Search values in the body stay out of the logs of every proxy on the way."""
    body = (await request.body()).decode("utf-8", "replace")
    given = request.query_params.multi_items() + parse_qsl(body, keep_blank_values=True)
    return await _search(request, reader, resource_type, given)


async def _search(request: Request, reader: Authenticated, resource_type: str, given: list[tuple[str, str]]) -> Response:
    services = _services(request, resource_type)
    lenient = "handling=lenient" in request.headers.get("prefer", "")
    page_text = next((value for name, value in given if name == PAGE_PARAMETER), None)
    ignored: list[str] = []
    if page_text is not None:
        page = open_page(services.log.vault, page_text)
        if page.resource_type != resource_type:
            raise FhirError(400, "value", "this page link belongs to another search", "http._page")
        conditions, _ = parse(resource_type, page.parameters, lenient=True)
    else:
        conditions, ignored = parse(resource_type, given, lenient=lenient)
        position = await reached(services.pool, "fhir", 1)
        used = [(name, value) for name, value in given if name not in ignored]
        total = await Statement(resource_type, conditions, position).count(services.pool)
        page = Page(resource_type=resource_type, parameters=used, position=position, count=_count(given), total=total)
    rows = await Statement(resource_type, conditions, page.position).page(services.pool, page.after, page.count + 1)
    more, rows = len(rows) > page.count, rows[: page.count]
    base = _base(request)
    own = _link(services, base, page) if page_text is not None else f"{base}/{resource_type}?{urlencode(page.parameters)}".rstrip("?")
    links = [{"relation": "self", "url": own}]
    if more and rows:
        following = msgspec.structs.replace(page, after=rows[-1]["id"])
        links.append({"relation": "next", "url": _link(services, base, following)})
    bodies = await _bodies(services, reader, resource_type, [row["body"] for row in rows], page.position)
    entries: list[dict[str, Any]] = [
        {
            "fullUrl": f"{base}/{resource_type}/{row['id']}",
            "resource": msgspec.Raw(body.encode("utf-8")),
            "search": {"mode": "match"},
        }
        for row, body in zip(rows, bodies, strict=True)
    ]
    if ignored:
        said = issue("not-supported", f"ignored, as preferred: {', '.join(ignored)}", severity="warning")
        entries.append({"resource": {"resourceType": "OperationOutcome", "issue": [said]}, "search": {"mode": "outcome"}})
    bundle: dict[str, Any] = {"resourceType": "Bundle", "type": "searchset", "total": page.total, "link": links}
    if entries:
        bundle["entry"] = entries
    return _json(bundle)


async def _one(request: Request, reader: Authenticated, services: Services, row: Any, resource_type: str, what: str) -> Response:
    if row is None:
        raise FhirError(404, "not-found", f"there is no {resource_type}/{what}")
    headers = {"ETag": f'W/"{row["version"]}"', "Last-Modified": format_datetime(row["last_updated"], usegmt=True)}
    if request.headers.get("if-none-match", "").strip() == headers["ETag"]:
        return Response(status_code=304, headers=headers)
    (body,) = await _bodies(services, reader, resource_type, [row["body"]], None)
    return Response(body, headers=headers, media_type=FHIR_JSON)


async def _bodies(
    services: Services, reader: Authenticated, resource_type: str, bodies: list[str], position: int | None
) -> list[str]:
    if resource_type != "Patient" or not reader.may("identities:read") or not bodies:
        return bodies
    at = position if position is not None else await reached(services.pool, "fhir", 1)
    return await with_identities(services.pool, bodies, at)


def _services(request: Request, resource_type: str) -> Services:
    if resource_type not in TYPES:
        raise FhirError(404, "not-supported", f"this server has no {resource_type}; it has {', '.join(TYPES)}")
    if "\0" in request.path_params.get("resource_id", ""):
        raise FhirError(404, "not-found", "no id holds a NUL character, nor can PostgreSQL look for one")
    services: Services = request.app.state.services
    return services


def _base(request: Request) -> str:
    services: Services = request.app.state.services
    return f"{(services.settings.public_url or str(request.base_url)).rstrip('/')}/fhir"


def _link(services: Services, base: str, page: Page) -> str:
    return f"{base}/{page.resource_type}?{PAGE_PARAMETER}={seal_page(services.log.vault, page)}"


def _count(given: list[tuple[str, str]]) -> int:
    text = next((value for name, value in given if name == "_count"), str(DEFAULT_COUNT))
    if not (text.isascii() and text.isdigit()) or int(text) < 1:
        raise FhirError(400, "value", "_count must be a whole number from 1", "http._count")
    return min(int(text), MAX_COUNT)


def _check_format(request: Request) -> None:
    wanted = request.query_params.get("_format") or request.headers.get("accept", "*/*")
    if not any(one in wanted for one in ("json", "*/*", "application/*")):
        raise FhirError(406, "not-supported", "this server answers in application/fhir+json alone")


def _json(body: Any) -> Response:
    return Response(msgspec.json.encode(body), media_type=FHIR_JSON)
