"""The FHIR routes, the most particular first: a path goes to the first route that it fits."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from server.auth.principals import Authenticated, requires
from server.auth.token_endpoint import token_address
from server.fhir import everything, histories, meta, reading, searching, validating
from server.fhir.access import INTERACTIONS
from server.fhir.capabilities import capability_statement
from server.fhir.compartments import router as compartments
from server.fhir.export import routes as export
from server.fhir.outcome import FHIR_JSON
from server.fhir.representation import Representation
from server.fhir.route import READ, FhirRoute, Reader, base_url, given_in_url, known_only, services_of
from server.fhir.served import routes_of
from server.fhir.smart_configuration import router as smart_configuration
from server.fhir.state import reached_position

router = APIRouter(prefix="/fhir", route_class=FhirRoute, tags=["FHIR"])
router.include_router(smart_configuration)


@router.api_route("/metadata", methods=READ)
async def metadata(request: Request, reader: Annotated[Authenticated, Depends(requires("fhir:read", or_some=INTERACTIONS))]) -> Response:
    given = known_only(request, given_in_url(request), ("_format", "_pretty"), "metadata")
    await reached_position(services_of(request))
    made = capability_statement(base_url(request), routes_of(request.app), token_address(request))
    return Response(Representation.asked(given).encode(made), media_type=FHIR_JSON)


router.include_router(export.files)
for _part in (export, everything, meta, validating, histories, searching, reading):
    router.include_router(_part.router)


@router.api_route("", methods=READ)
@router.api_route("/", methods=READ, include_in_schema=False)
async def search_system(request: Request, reader: Reader) -> Response:
    return await searching.answer_system_search(request, reader, given_in_url(request))


router.include_router(compartments)
