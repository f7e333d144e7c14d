"""The routes that write (R5 http.html#create, #update, #patch, #delete). What is answered is what a read would answer then."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from email.utils import format_datetime
from typing import Annotated, Any

import asyncpg
import msgspec
from fastapi import APIRouter, Depends, Request, Response

from projections.fhir.definitions import is_resource_type
from projections.fhir.projection import SCHEMA
from server.as_of import HEADER
from server.auth.principals import Authenticated
from server.direct_route import DirectRoute
from server.fhir.identities import shown_to
from server.fhir.negotiation import JSON_TYPES, check_accept
from server.fhir.outcome import FHIR_JSON, FhirError, issue, outcome
from server.fhir.preferences import preferences
from server.fhir.route import base_url, given_in_url, known_only
from server.fhir.writing import incoming
from server.fhir.writing.commit import Outcome, commit
from server.fhir.writing.interaction import Interaction, Patch, Written, condition_of, if_match
from server.fhir.writing.patches import JSON_PATCH, patch_of
from server.fhir.writing.rights import may_be_shown
from server.fhir.writing.told import told_with
from server.read_models import reads
from server.services import Services

SCOPE = "fhir:write"
HOW = ("_format", "_pretty")
"""Parameters of every write; those of a condition come beside them."""
Writer = Annotated[Authenticated, Depends(reads(SCOPE, "fhir", or_some="cud"))]
"""Who may write something: what, server.fhir.writing.rights says."""

_WRITTEN = f"""
SELECT k.type, k.id, k.version, r.* FROM unnest($1::text[], $2::text[], $3::int[]) AS k (type, id, version) CROSS JOIN LATERAL (
    SELECT body, last_updated, position_from FROM {SCHEMA}.resource WHERE type = k.type AND id = k.id AND version = k.version OFFSET 0
) r
"""

_Version = tuple[str, str, int]
"""Type, id and number."""


class WriteRoute(DirectRoute):
    """A route whose FhirErrors become OperationOutcomes with every issue that they have."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            try:
                check_accept(request)
                answer = await handler(request)
            except incoming.Refused as error:
                body = {"resourceType": "OperationOutcome", "issue": error.issues}
                answer = Response(msgspec.json.encode(body), error.status, error.headers, media_type=FHIR_JSON)
            except FhirError as error:
                answer = outcome(error.status, error.code, error.detail, expression=error.expression, headers=error.headers)
            answer.headers.setdefault("Cache-Control", "private, no-store")
            return answer

        return handle


router = APIRouter(route_class=WriteRoute)


@router.post("/{resource_type}")
async def create(request: Request, writer: Writer, resource_type: str) -> Response:
    """With If-None-Exist, only where the condition finds nothing. Search parameters in the URL are no such condition: they are refused."""
    known_only(request, given_in_url(request), HOW, "create")
    resource, _ = await _resource(request, resource_type)
    text = request.headers.get("if-none-exist")
    condition = None if text is None else condition_of(text, "http.if-none-exist")
    return await _write(request, writer, Interaction(method="POST", resource_type=resource_type, resource=resource, condition=condition))


@router.put("/{resource_type}/{resource_id}")
async def update(request: Request, writer: Writer, resource_type: str, resource_id: str) -> Response:
    """Creates it under this id where it is not there (R5 http.html#upsert)."""
    _check_id(resource_id)
    known_only(request, given_in_url(request), HOW, "update")
    resource, given_id = await _resource(request, resource_type)
    if given_id != resource_id:
        said = "the resource has no id: it has to be that of the URL" if given_id is None else "the id is not that of the URL"
        raise FhirError(400, "invalid", said, f"{resource_type}.id")
    asked = Interaction(
        method="PUT",
        resource_type=resource_type,
        resource_id=resource_id,
        resource=resource,
        if_match=if_match(request),
        must_be_new=_must_be_new(request),
    )
    return await _write(request, writer, asked)


@router.put("/{resource_type}")
async def conditional_update(request: Request, writer: Writer, resource_type: str) -> Response:
    resource, given_id = await _resource(request, resource_type)
    asked = Interaction(
        method="PUT",
        resource_type=resource_type,
        resource_id=given_id,
        resource=resource,
        condition=_condition(request),
        if_match=if_match(request),
    )
    return await _write(request, writer, asked)


@router.patch("/{resource_type}/{resource_id}")
async def patch(request: Request, writer: Writer, resource_type: str, resource_id: str) -> Response:
    _check_id(resource_id)
    known_only(request, given_in_url(request), HOW, "patch")
    asked = Interaction(
        method="PATCH",
        resource_type=resource_type,
        resource_id=resource_id,
        patch=await _patch(request, resource_type),
        if_match=if_match(request),
    )
    return await _write(request, writer, asked)


@router.patch("/{resource_type}")
async def conditional_patch(request: Request, writer: Writer, resource_type: str) -> Response:
    asked = Interaction(
        method="PATCH",
        resource_type=resource_type,
        patch=await _patch(request, resource_type),
        condition=_condition(request),
        if_match=if_match(request),
    )
    return await _write(request, writer, asked)


@router.delete("/{resource_type}/{resource_id}")
async def delete(request: Request, writer: Writer, resource_type: str, resource_id: str) -> Response:
    _check_type(resource_type)
    _check_id(resource_id)
    known_only(request, given_in_url(request), HOW, "delete")
    asked = Interaction(method="DELETE", resource_type=resource_type, resource_id=resource_id, if_match=if_match(request))
    return await _write(request, writer, asked)


@router.delete("/{resource_type}")
async def conditional_delete(request: Request, writer: Writer, resource_type: str) -> Response:
    """Of the one that the condition finds; more than one is refused (412)."""
    _check_type(resource_type)
    asked = Interaction(method="DELETE", resource_type=resource_type, condition=_condition(request), if_match=if_match(request))
    return await _write(request, writer, asked)


async def _resource(request: Request, resource_type: str) -> tuple[dict[str, Any], str | None]:
    """The resource in the body, checked, and the id that stands in it."""
    _check_type(resource_type)
    tree = incoming.resource_in(incoming.decoded(await incoming.body_of(request)), resource_type)
    return incoming.checked(tree), incoming.id_given(tree)


async def _patch(request: Request, resource_type: str) -> Patch:
    _check_type(resource_type)
    body = await incoming.body_of(request, (JSON_PATCH, *JSON_TYPES))
    return patch_of(incoming.media_type_of(request), incoming.decoded(body))


async def _write(request: Request, writer: Authenticated, asked: Interaction) -> Response:
    services: Services = request.app.state.services
    done = await commit(services, writer, base_url(request), [asked], told_with(request))
    return await answer(request, services, writer, done, done.written[0])


async def answer(request: Request, services: Services, writer: Authenticated, done: Outcome, written: Written) -> Response:
    """By what the client prefers to be answered with (R5 http.html#ops): the resource, where it does not say."""
    headers = {} if done.position is None else {HEADER: str(done.position)}
    row = await services.ask(_as_stored, (written.resource_type, written.resource_id, written.version))
    if written.version:
        headers["ETag"] = f'W/"{written.version}"'
    if row is not None:
        headers["Last-Modified"] = format_datetime(row["last_updated"], usegmt=True)
    named = f"{written.resource_type}/{written.resource_id}"
    if written.status == 204:
        return Response(status_code=204, headers=headers)
    headers["Location"] = f"{base_url(request)}/{named}/_history/{written.version}"
    wanted = preferences(request).returns
    if wanted == "minimal" or (wanted != "OperationOutcome" and not await may_be_shown(services, writer, written)):
        return Response(status_code=written.status, headers=headers)
    if row is None:
        said = issue("incomplete", f"{named} is written, and can be read in a moment", severity="warning")
    elif wanted == "OperationOutcome":
        said = issue("informational", f"{named} is at version {written.version}", severity="information")
    else:
        (shown,) = await shown_to(services.pool, writer, [(written.resource_type, row["body"], row["position_from"])])
        return Response(shown, written.status, headers, media_type=FHIR_JSON)
    body = {"resourceType": "OperationOutcome", "issue": [said]}
    return Response(msgspec.json.encode(body), written.status, headers, media_type=FHIR_JSON)


async def _as_stored(services: Services, versions: list[_Version]) -> dict[_Version, asyncpg.Record]:
    types, ids, numbers = zip(*versions, strict=True)
    rows = await services.pool.fetch(_WRITTEN, types, ids, numbers)
    return {(row["type"], row["id"], row["version"]): row for row in rows}


def _check_type(resource_type: str) -> None:
    if not is_resource_type(resource_type):
        raise FhirError(404, "not-supported", "R5 has no resource type of this name")


def _check_id(resource_id: str) -> None:
    if not incoming.is_id(resource_id):
        raise FhirError(400, "value", "an id has 1 to 64 letters, digits, hyphens and dots", "http.id")


def _must_be_new(request: Request) -> bool:
    value = request.headers.get("if-none-match")
    if value is None:
        return False
    if value.strip() != "*":
        raise FhirError(400, "not-supported", "a write takes If-None-Match: * alone", "http.if-none-match")
    return True


def _condition(request: Request) -> list[tuple[str, str]]:
    given = [(name, value) for name, value in request.query_params.multi_items() if name not in HOW]
    if not given:
        raise FhirError(400, "required", "without an id in the URL there have to be search parameters", "http")
    return given
