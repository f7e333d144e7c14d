"""Reading one resource (R5 http.html#read, #vread): as it stands, as of a position, or at a version."""

from __future__ import annotations

from email.utils import format_datetime

import asyncpg
from fastapi import APIRouter, Request, Response

from projections.fhir import guide, shipped
from projections.fhir.search.dates import LATEST
from server.as_of import HEADER, PARAMETER
from server.audit.reads import saw_resources
from server.auth.principals import Authenticated
from server.fhir import representation
from server.fhir.access import access_of
from server.fhir.as_of import asked_position
from server.fhir.bundles import shown_bodies
from server.fhir.conditional import is_held
from server.fhir.gone import absent, is_version_reached, never_was
from server.fhir.history import version_held, version_numbered
from server.fhir.outcome import FHIR_JSON, FhirError
from server.fhir.representation import Representation
from server.fhir.route import READ, FhirRoute, Reader, given_in_url, known_only, services_for, services_of
from server.services import Services

PARAMETERS = (PARAMETER, *representation.PARAMETERS)

router = APIRouter(route_class=FhirRoute)


@router.api_route("/{resource_type:name}/{resource_id:name}", methods=READ)
async def read(request: Request, reader: Reader, resource_type: str, resource_id: str) -> Response:
    services = services_for(request, reader, "r", resource_type)
    given = known_only(request, given_in_url(request), PARAMETERS, "read")
    shown = _representation(given, resource_type)
    position = await asked_position(services.pool, given)
    row = await version_held(services, resource_type, resource_id, position)
    return await _one(request, reader, row, resource_type, resource_id, shown)


@router.api_route("/{resource_type}/{resource_id}/_history/{version}", methods=READ)
async def vread(request: Request, reader: Reader, resource_type: str, resource_id: str, version: str) -> Response:
    services = services_for(request, reader, "r", resource_type)
    given = known_only(request, given_in_url(request), PARAMETERS, "vread")
    shown = _representation(given, resource_type)
    position = await asked_position(services.pool, given)
    row = await version_numbered(services.pool, resource_type, resource_id, version_number(version), position)
    return await _one(request, reader, row, resource_type, f"{resource_id}/_history/{version}", shown)


async def _one(
    request: Request, reader: Authenticated, row: asyncpg.Record, resource_type: str, what: str, shown: Representation
) -> Response:
    services, position = services_of(request), row["as_of"]
    await present(services, reader, row, resource_type, what)
    ships = row["version"] == shipped.VERSION
    etag = f'W/"{guide.version() if ships else row["version"]}"'
    headers = {"ETag": etag, HEADER: str(position)}
    if not ships:
        headers["Last-Modified"] = format_datetime(row["last_updated"], usegmt=True)
    saw_resources(request, [row["body"]])
    if is_held(request, etag, LATEST if ships else row["last_updated"]):
        return Response(status_code=304, headers=headers)
    (body,) = await shown_bodies(services, reader, [resource_type], [row], position)
    if shown == Representation():
        return Response(body, headers=headers, media_type=FHIR_JSON)
    return Response(shown.encode(shown.of(resource_type, body)), headers=headers, media_type=FHIR_JSON)


async def present(services: Services, reader: Authenticated, row: asyncpg.Record, resource_type: str, what: str) -> None:
    """Raises FhirError (404, 410) where the row is no version, the one that says that the resource was deleted, or out of reach."""
    access, position = access_of(reader), row["as_of"]
    if row["version"] is None:
        raise at_position(position, await absent(services.pool, access, resource_type, what, position))
    if not await is_version_reached(services.pool, access, (resource_type, row["id"], row["version"]), position):
        raise at_position(position, never_was(resource_type, what))
    if not row["body"]:
        raise at_position(position, FhirError(410, "deleted", f"{resource_type}/{what} is the deletion: it has no content"))


def at_position(position: int, error: FhirError) -> FhirError:
    """The error, with the header that says which position it is as of."""
    error.headers = {HEADER: str(position)}
    return error


def version_number(text: str) -> int:
    """0, which no version has, where it is no number."""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 9 else 0


def _representation(given: list[tuple[str, str]], resource_type: str) -> Representation:
    shown = Representation.asked(given)
    if shown.is_count:
        raise FhirError(400, "value", "_summary=count counts what a search finds: a read finds one resource", "http._summary")
    shown.check([resource_type])
    return shown
