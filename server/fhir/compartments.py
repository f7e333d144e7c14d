"""Searching within a compartment (R5 compartmentdefinition.html): ``/fhir/Patient/{id}/Observation``, with all that a search takes."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from projections.fhir.definitions import compartment, is_resource_type
from server.auth.principals import Authenticated
from server.fhir.as_of import Given
from server.fhir.outcome import FhirError
from server.fhir.route import READ, FhirRoute, Reader, given_in_url, services_of
from server.fhir.searching import answer_search, given_in_form
from server.fhir.within import InCompartment

router = APIRouter(route_class=FhirRoute)


@router.api_route("/{resource_type}/{resource_id}/{searched_type}", methods=READ)
async def search_compartment(request: Request, reader: Reader, resource_type: str, resource_id: str, searched_type: str) -> Response:
    return await _search(request, reader, given_in_url(request))


@router.post("/{resource_type}/{resource_id}/{searched_type}/_search")
async def search_compartment_by_post(
    request: Request, reader: Reader, resource_type: str, resource_id: str, searched_type: str
) -> Response:
    return await _search(request, reader, await given_in_form(request))


async def _search(request: Request, reader: Authenticated, given: Given) -> Response:
    named, resource_id, searched_type = (request.path_params[one] for one in ("resource_type", "resource_id", "searched_type"))
    services_of(request)
    found = compartment(named)
    if found is None or not is_resource_type(searched_type):
        raise FhirError(404, "not-supported", "there is no such compartment, operation or type: compartments are those of R5")
    if searched_type not in found.parameters:
        raise FhirError(404, "not-supported", f"a {searched_type} is never in the compartment of a {named}")
    within = InCompartment(named, resource_id, (searched_type,))
    return await answer_search(request, reader, [searched_type], given, path=f"{named}/{resource_id}/{searched_type}", within=[within])
