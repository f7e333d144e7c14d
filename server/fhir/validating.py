"""`$validate` (R5 resource-operation-validate.html): a resource that is sent, or one that is here, against R5 and the guide's profiles.

The answer is 200 and an OperationOutcome whatever is found; only what cannot be asked is an error. Nothing is stored, and what is sent
may be of any type of R5.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Request, Response

from projections.fhir import guide
from projections.fhir.definitions import is_resource_type
from server.as_of import HEADER, PARAMETER
from server.audit.reads import saw_resources
from server.auth.principals import Authenticated, requires
from server.fhir.access import INTERACTIONS
from server.fhir.as_of import Given, asked_position, single
from server.fhir.history import version_held
from server.fhir.negotiation import check_format
from server.fhir.outcome import FHIR_JSON, FhirError
from server.fhir.reading import present
from server.fhir.representation import Representation
from server.fhir.route import READ, FhirRoute, Reader, given_in_url, known_only, services_for
from server.fhir.validation.issues import Issue, operation_outcome, sorted_issues
from server.fhir.validation.profiles import R5
from server.fhir.validation.validator import is_known_profile, issues_of
from server.fhir.writing import incoming
from server.services import Services

OPERATION = "$validate"
MODES = ("create", "update", "delete", "profile")
MOST_BYTES = 16 * 1024 * 1024

_OF_TYPE = ("mode", "profile", "_format", "_pretty")
_OF_INSTANCE = (*_OF_TYPE, PARAMETER)
_VALUES = {"mode": ("valueCode", "valueString"), "profile": ("valueCanonical", "valueUri", "valueUrl")}

router = APIRouter(route_class=FhirRoute)
Asker = Annotated[Authenticated, Depends(requires("fhir:read", or_some=INTERACTIONS))]
"""What is sent is looked at alone: nothing of what is here is told."""


class Asked(msgspec.Struct, kw_only=True):
    """``resource`` is None where none is sent."""

    mode: str | None = None
    profile: str | None = None
    resource: Any = None


@router.post("/{resource_type}/$validate")
async def validate(request: Request, asker: Asker, resource_type: str) -> Response:
    if not is_resource_type(resource_type):
        raise FhirError(404, "not-supported", "R5 has no resource type of this name")
    given = known_only(request, given_in_url(request), _OF_TYPE, OPERATION)
    asked = _checked(await _asked(request, resource_type, given), resource_type)
    if asked.mode in ("update", "delete"):
        said = f"mode={asked.mode} is asked of a resource that is here: /{resource_type}/ID/{OPERATION}"
        raise FhirError(400, "invalid", said, "http.mode")
    if asked.resource is None:
        raise FhirError(400, "required", "a resource is required: as the body, or as the parameter resource", "Parameters.parameter")
    services: Services = request.app.state.services
    issues = await _issues(services, asked.resource, resource_type, asked.profile)
    return _answer(given, issues, {})


@router.api_route("/{resource_type}/{resource_id}/$validate", methods=READ)
async def validate_stored(request: Request, reader: Reader, resource_type: str, resource_id: str) -> Response:
    return await _of_instance(request, reader, resource_type, resource_id)


@router.post("/{resource_type}/{resource_id}/$validate")
async def validate_against_stored(request: Request, reader: Reader, resource_type: str, resource_id: str) -> Response:
    return await _of_instance(request, reader, resource_type, resource_id)


async def _of_instance(request: Request, reader: Authenticated, resource_type: str, resource_id: str) -> Response:
    """What is sent in place of the resource of this id; where nothing is sent, the resource itself."""
    services = services_for(request, reader, "r", resource_type)
    if not incoming.is_id(resource_id):
        raise FhirError(404, "not-found", "an id has 1 to 64 letters, digits, hyphens and dots", "http.id")
    given = known_only(request, given_in_url(request), _OF_INSTANCE, OPERATION)
    asked = _checked(await _asked(request, resource_type, given), resource_type)
    if asked.mode == "create":
        raise FhirError(400, "invalid", f"mode=create is asked of a type: /{resource_type}/{OPERATION}", "http.mode")
    if asked.mode == "delete" and asked.resource is not None:
        raise FhirError(400, "invalid", "mode=delete takes no resource", "http.mode")
    position = await asked_position(services.pool, given)
    row = await version_held(services, resource_type, resource_id, position)
    headers = {HEADER: str(row["as_of"])}
    if asked.resource is not None and asked.mode != "update":
        return _answer(given, await _issues(services, asked.resource, resource_type, asked.profile, resource_id), headers)
    await present(services, reader, row, resource_type, resource_id)
    saw_resources(request, [row["body"]])
    stored = msgspec.json.decode(row["body"])
    own = guide.profile_of(stored) if resource_type in guide.PROFILES else None
    if asked.mode == "delete":
        return _answer(given, _of_deletion(resource_type, own), headers)
    if asked.resource is None:
        return _answer(given, await _issues(services, stored, resource_type, asked.profile or own), headers)
    issues = await _issues(services, asked.resource, resource_type, asked.profile, resource_id)
    return _answer(given, sorted_issues([*_of_update(resource_type, own), *issues]), headers)


async def _issues(
    services: Services, resource: Any, resource_type: str, profile: str | None, resource_id: str | None = None
) -> list[Issue]:
    """In the one thread that validates, so that however much is asked, the server goes on answering others."""
    profiles = [] if profile is None else [profile]
    issues = await asyncio.get_running_loop().run_in_executor(services.validating, issues_of, resource, profiles)
    kind = resource.get("resourceType") if isinstance(resource, dict) else None
    if isinstance(kind, str) and is_resource_type(kind):
        if kind != resource_type:
            issues = [Issue("error", "invalid", f"the URL says {resource_type}, and this is another type", kind), *issues]
        elif resource_id is not None and resource.get("id") != resource_id:
            issues = [Issue("error", "invalid", "the id is not that of the URL", f"{kind}.id"), *issues]
    return issues


def _of_deletion(resource_type: str, own_profile: str | None) -> list[Issue]:
    if own_profile is None:
        return []
    return [Issue("error", "business-rule", "this resource is made by curation, and nobody deletes it", resource_type)]


def _of_update(resource_type: str, own_profile: str | None) -> list[Issue]:
    if own_profile is None:
        return []
    text = "this resource is made by curation: of what is sent, only a review of a finding is taken"
    return [Issue("warning", "business-rule", text, resource_type)]


def _answer(given: Given, issues: Sequence[Issue], headers: dict[str, str]) -> Response:
    shown = Representation.asked([(name, value) for name, value in given if name in ("_format", "_pretty")])
    return Response(shown.encode(operation_outcome(issues)), headers=headers, media_type=FHIR_JSON)


async def _asked(request: Request, resource_type: str, given: Given) -> Asked:
    """From the URL and the body: the resource itself, or Parameters with it. Raises FhirError."""
    check_format(given)
    asked = Asked(mode=single(given, "mode"), profile=single(given, "profile"))
    body = await _body(request)
    if body is None:
        return asked
    if not _is_wrapper(body, resource_type):
        asked.resource = body
        return asked
    parameters = body.get("parameter", [])
    if not isinstance(parameters, list):
        raise FhirError(400, "structure", "parameter may repeat, so it is a JSON array", "Parameters.parameter")
    for nth, one in enumerate(parameters):
        _take(asked, one, f"Parameters.parameter[{nth}]")
    return asked


def _take(asked: Asked, one: Any, at: str) -> None:
    """One parameter of the body. Raises FhirError (400)."""
    name = one.get("name") if isinstance(one, dict) else None
    if name not in ("resource", *_VALUES):
        raise FhirError(400, "not-supported", f"{OPERATION} takes the parameters resource, {', '.join(_VALUES)}", at)
    value = one.get("resource") if name == "resource" else next((one[key] for key in _VALUES[name] if key in one), None)
    if value is None or (name != "resource" and not isinstance(value, str)):
        wanted = "resource" if name == "resource" else _VALUES[name][0]
        raise FhirError(400, "value", f"the parameter {name} has a {wanted}", at)
    if getattr(asked, name) is not None:
        raise FhirError(400, "value", f"{name} is given more than once", at)
    setattr(asked, name, value)


def _is_wrapper(body: Any, resource_type: str) -> bool:
    """Whether Parameters wrap what is asked; Parameters may also be what is to be validated."""
    if not isinstance(body, dict) or body.get("resourceType") != "Parameters":
        return False
    parameters = body.get("parameter")
    named = [one.get("name") for one in parameters if isinstance(one, dict)] if isinstance(parameters, list) else []
    return resource_type != "Parameters" or "resource" in named


def _checked(asked: Asked, resource_type: str) -> Asked:
    if asked.mode is not None and asked.mode not in MODES:
        raise FhirError(400, "value", f"mode is one of {', '.join(MODES)}", "http.mode")
    if asked.mode == "profile" and asked.profile is None:
        raise FhirError(400, "required", "mode=profile needs a profile", "http.profile")
    if asked.profile is not None and not is_known_profile(asked.profile):
        known = [f"{R5}{resource_type}", *map(guide.profile_url, guide.PROFILES.get(resource_type, ()))]
        raise FhirError(400, "not-found", f"this profile is not known here; there are {', '.join(known)}", "http.profile")
    return asked


async def _body(request: Request) -> Any:
    """The JSON that is sent; None where nothing is. Raises FhirError (400, 413, 415)."""
    if request.method != "POST" or not (await request.body()).strip():
        return None
    raw = await incoming.body_of(request)
    if len(raw) > MOST_BYTES:
        raise FhirError(413, "too-long", f"a body may have {MOST_BYTES} bytes to be validated")
    return incoming.decoded(raw)
