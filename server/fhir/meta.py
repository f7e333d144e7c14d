"""`$meta` (R5 resource-operation-meta.html): the profiles, tags and security labels of a resource or a version; of a type or the system,
all that are there, in whatever version up to a position."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import asyncpg
import msgspec
from fastapi import APIRouter, Request, Response

from projections.fhir.projection import SCHEMA
from projections.fhir.search.parameters import parameters
from projections.fhir.search.rows import LABEL
from projections.fhir.versions import VERSION_BITS
from server.as_of import HEADER, PARAMETER
from server.audit.reads import saw_resources
from server.auth.principals import Authenticated
from server.errors import ScopeMissing
from server.fhir.access import access_of
from server.fhir.as_of import asked_position
from server.fhir.bundles import shown_bodies
from server.fhir.history import version_held, version_numbered
from server.fhir.outcome import FHIR_JSON, FhirError
from server.fhir.reading import present, version_number
from server.fhir.representation import Representation
from server.fhir.route import READ, FhirRoute, Reader, given_in_url, known_only, services_for, services_of
from server.fhir.state import reached_position

OPERATION = "$meta"
PARAMETERS = (PARAMETER, "_format", "_pretty")
MOST_LABELS = 5000

# From each label to the next one in its index, however many resources have it.
_LABELS = """
    WITH RECURSIVE label AS (
        SELECT s.source, l.* FROM unnest($1::int[]) AS s (source) CROSS JOIN LATERAL (
            SELECT {columns} FROM {schema}.{table} WHERE source = s.source AND nth = {label} ORDER BY {columns} LIMIT 1
        ) l
        UNION ALL
        SELECT b.source, l.* FROM label b CROSS JOIN LATERAL (
            SELECT {columns} FROM {schema}.{table} WHERE source = b.source AND nth = {label} AND ({columns}) > ({before})
            ORDER BY {columns} LIMIT 1
        ) l
    )
    SELECT {columns}, EXISTS (
        SELECT FROM {schema}.{table} t WHERE t.source = b.source AND t.nth = {label} AND {same} AND t.key < $2
    ) AS was_there FROM (SELECT * FROM label LIMIT $3) b
"""
_CODINGS = _LABELS.format(
    schema=SCHEMA, table="token", label=LABEL, columns="code, system", before="b.code, b.system", same="t.code = b.code AND t.system = b.system"
)
_PROFILES = _LABELS.format(schema=SCHEMA, table="reference", label=LABEL, columns="target", before="b.target", same="t.target = b.target")

router = APIRouter(route_class=FhirRoute)


class _WithMeta(msgspec.Struct):
    meta: msgspec.Raw = msgspec.Raw(b"{}")


@router.api_route("/$meta", methods=READ)
async def meta_of_system(request: Request, reader: Reader) -> Response:
    """Of the types that this asker may read whole: of the others a label might be of what is out of reach."""
    access = access_of(reader)
    return await _answer_labels(request, [one for one in access.types("r") if access.condition("r", one) is None])


@router.api_route("/{resource_type}/$meta", methods=READ)
async def meta_of_type(request: Request, reader: Reader, resource_type: str) -> Response:
    services_for(request, reader, "r", resource_type)
    if access_of(reader).condition("r", resource_type) is not None:
        raise ScopeMissing(f"system/{resource_type}.r")
    return await _answer_labels(request, [resource_type])


@router.api_route("/{resource_type}/{resource_id}/$meta", methods=READ)
async def meta(request: Request, reader: Reader, resource_type: str, resource_id: str) -> Response:
    services = services_for(request, reader, "r", resource_type)
    position = await asked_position(services.pool, given_in_url(request))
    row = await version_held(services, resource_type, resource_id, position)
    return await _answer(request, reader, row, resource_type, resource_id)


@router.api_route("/{resource_type}/{resource_id}/_history/{version}/$meta", methods=READ)
async def meta_of_version(request: Request, reader: Reader, resource_type: str, resource_id: str, version: str) -> Response:
    services = services_for(request, reader, "r", resource_type)
    position = await asked_position(services.pool, given_in_url(request))
    row = await version_numbered(services.pool, resource_type, resource_id, version_number(version), position)
    return await _answer(request, reader, row, resource_type, f"{resource_id}/_history/{version}")


async def _answer_labels(request: Request, types: Sequence[str]) -> Response:
    pool, given = services_of(request).pool, known_only(request, given_in_url(request), PARAMETERS, OPERATION)
    shown = Representation.asked(given)
    position = await asked_position(pool, given)
    position = position if position is not None else await reached_position(services_of(request))
    made: dict[str, list[Any]] = {}
    for element, statement in (("profile", _PROFILES), ("security", _CODINGS), ("tag", _CODINGS)):
        rows = await pool.fetch(statement, _sources(types, f"_{element}"), (position + 1) << VERSION_BITS, MOST_LABELS + 1)
        if len(rows) > MOST_LABELS:
            raise FhirError(400, "too-costly", f"there are more than {MOST_LABELS} labels of one kind: ask type by type, or search for one")
        made[element] = [_label(one) for one in sorted({tuple(row)[:-1] for row in rows if row["was_there"]})]
    found = {element: labels for element, labels in made.items() if labels}
    body = {"resourceType": "Parameters", **({"parameter": [{"name": "return", "valueMeta": found}]} if found else {})}
    return Response(shown.encode(body), headers={HEADER: str(position)}, media_type=FHIR_JSON)


def _sources(types: Sequence[str], code: str) -> list[int]:
    return sorted({look.source.number for one in types for look in parameters(one)[code].looks})


def _label(found: tuple[str, ...]) -> Any:
    """A canonical; or, of a code and a system, a Coding of what there is of them."""
    if len(found) == 1:
        return found[0]
    code, system = found
    return {name: value for name, value in (("system", system), ("code", code)) if value}


async def _answer(request: Request, reader: Authenticated, row: asyncpg.Record, resource_type: str, what: str) -> Response:
    services = services_of(request)
    shown = Representation.asked(known_only(request, given_in_url(request), PARAMETERS, OPERATION))
    await present(services, reader, row, resource_type, what)
    saw_resources(request, [row["body"]])
    (body,) = await shown_bodies(services, reader, [resource_type], [row], row["as_of"])
    found = msgspec.json.decode(body, type=_WithMeta).meta
    made = {"resourceType": "Parameters", "parameter": [{"name": "return", "valueMeta": found}]}
    return Response(shown.encode(made), headers={HEADER: str(row["as_of"])}, media_type=FHIR_JSON)
