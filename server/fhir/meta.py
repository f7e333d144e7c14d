"""`$meta` of a resource and of a version (R5 resource-operation-meta.html): its profiles, tags and security labels."""

from __future__ import annotations

import asyncpg
import msgspec
from fastapi import APIRouter, Request, Response

from server.as_of import HEADER, PARAMETER
from server.audit.reads import saw_resources
from server.auth.principals import Authenticated
from server.fhir.as_of import asked_position
from server.fhir.bundles import shown_bodies
from server.fhir.history import version_held, version_numbered
from server.fhir.outcome import FHIR_JSON
from server.fhir.reading import present, version_number
from server.fhir.representation import Representation
from server.fhir.route import READ, FhirRoute, Reader, given_in_url, known_only, services_for, services_of

OPERATION = "$meta"
PARAMETERS = (PARAMETER, "_format", "_pretty")

router = APIRouter(route_class=FhirRoute)


class _WithMeta(msgspec.Struct):
    meta: msgspec.Raw = msgspec.Raw(b"{}")


@router.api_route("/{resource_type}/{resource_id}/$meta", methods=READ)
async def meta(request: Request, reader: Reader, resource_type: str, resource_id: str) -> Response:
    services = services_for(request, reader, "r", resource_type)
    position = await asked_position(services.pool, given_in_url(request))
    row = await version_held(services.pool, resource_type, resource_id, position)
    return await _answer(request, reader, row, resource_type, resource_id)


@router.api_route("/{resource_type}/{resource_id}/_history/{version}/$meta", methods=READ)
async def meta_of_version(request: Request, reader: Reader, resource_type: str, resource_id: str, version: str) -> Response:
    services = services_for(request, reader, "r", resource_type)
    position = await asked_position(services.pool, given_in_url(request))
    row = await version_numbered(services.pool, resource_type, resource_id, version_number(version), position)
    return await _answer(request, reader, row, resource_type, f"{resource_id}/_history/{version}")


async def _answer(request: Request, reader: Authenticated, row: asyncpg.Record, resource_type: str, what: str) -> Response:
    services = services_of(request)
    shown = Representation.asked(known_only(request, given_in_url(request), PARAMETERS, OPERATION))
    await present(services, reader, row, resource_type, what)
    saw_resources(request, [row["body"]])
    (body,) = await shown_bodies(services, reader, [resource_type], [row], row["as_of"])
    found = msgspec.json.decode(body, type=_WithMeta).meta
    made = {"resourceType": "Parameters", "parameter": [{"name": "return", "valueMeta": found}]}
    return Response(shown.encode(made), headers={HEADER: str(row["as_of"])}, media_type=FHIR_JSON)
