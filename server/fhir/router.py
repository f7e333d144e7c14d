"""The FHIR routes: a path goes to the first that it fits. What is asked for most comes first, the most particular before what is less."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, FastAPI, Request, Response
from fastapi.routing import APIRoute

from server.auth.principals import Authenticated, requires
from server.auth.token_endpoint import token_address
from server.fhir import compartments, everything, histories, meta, reading, searching, transactions, validating, writes
from server.fhir.access import INTERACTIONS
from server.fhir.capabilities import capability_statement
from server.fhir.export import routes as export
from server.fhir.outcome import FHIR_JSON
from server.fhir.representation import Representation
from server.fhir.route import READ, FhirRoute, Reader, base_url, given_in_url, known_only, services_of
from server.fhir.served import routes_of
from server.fhir.smart_configuration import router as smart_configuration
from server.fhir.state import reached_position

router = APIRouter(route_class=FhirRoute)


@router.api_route("/metadata", methods=READ)
async def metadata(request: Request, reader: Annotated[Authenticated, Depends(requires("fhir:read", or_some=INTERACTIONS))]) -> Response:
    given = known_only(request, given_in_url(request), ("_format", "_pretty"), "metadata")
    await reached_position(services_of(request))
    made = capability_statement(base_url(request), routes_of(request.app), token_address(request))
    return Response(Representation.asked(given).encode(made), media_type=FHIR_JSON)


@router.api_route("", methods=READ)
@router.api_route("/", methods=READ, include_in_schema=False)
async def search_system(request: Request, reader: Reader) -> Response:
    return await searching.answer_system_search(request, reader, given_in_url(request))


PARTS = (
    router,
    smart_configuration,
    reading.router,
    searching.router,
    export.files,
    export.router,
    everything.router,
    meta.router,
    validating.router,
    histories.router,
    compartments.router,
    transactions.router,
    writes.router,
)


def add_fhir(app: FastAPI) -> None:
    """Each route on its own: a router within the application is matched twice for every request."""
    for part in PARTS:
        for route in part.routes:
            assert isinstance(route, APIRoute)
            app.router.add_api_route(
                f"/fhir{route.path}",
                route.endpoint,
                dependencies=route.dependencies,
                methods=sorted(route.methods or ()),
                tags=["FHIR"],
                include_in_schema=route.include_in_schema,
                route_class_override=type(route),
            )
