"""`$everything` of a Patient and of an ImagingStudy (R5 patient-operation-everything.html), in pages as of one position.

Of a Patient: it, what is in its compartment (of a time of care, where one is asked for), and what these refer to. Of an ImagingStudy, for which R5 has no such operation: it and
its patient, its series and their index, findings with what was measured of them, what else refers to any of these (reports,
Provenance), and what all of these refer to. What is only referred to is left out where it is about another patient.
"""

from __future__ import annotations

from typing import Any

import asyncpg
from fastapi import APIRouter, Request, Response

from projections.fhir.projection import SCHEMA
from server.as_of import PARAMETER
from server.audit.reads import saw_resources
from server.fhir import representation
from server.fhir.access import access_of
from server.fhir.as_of import Given, asked_period, asked_position
from server.fhir.bundles import bundle, links, opened_page, shown_bodies
from server.fhir.care_dates import END, START, CareDates
from server.fhir.gone import absent
from server.fhir.neighbours import Found, Named, Neighbours
from server.fhir.outcome import FhirError
from server.fhir.pages import Page
from server.fhir.reading import at_position
from server.fhir.representation import Representation
from server.fhir.route import (
    MAX_COUNT,
    READ,
    FhirRoute,
    Reader,
    base_url,
    count_asked,
    given_in_url,
    known_only,
    services_for,
)
from server.fhir.state import reached_position

OPERATION = "$everything"
TYPES = ("ImagingStudy", "Patient")
PARAMETERS = ("_count", "_since", "_type", PARAMETER, *representation.PARAMETERS)
OF_PATIENT = (START, END, *PARAMETERS)
_OF_A_STUDY = ("BodyStructure", "ImagingSelection", "Observation")
"""Types of which a study's own are part of it, and so what refers to them too."""

_BODIES = f"""
    SELECT r.type, r.id, r.version, r.body, r.position_to, r.last_updated
    FROM unnest($1::bigint[]) WITH ORDINALITY AS k (key, nth) CROSS JOIN LATERAL (
        SELECT * FROM {SCHEMA}.resource WHERE key = k.key OFFSET 0
    ) r
    WHERE $2::timestamptz IS NULL OR r.last_updated >= $2
    ORDER BY k.nth LIMIT $3
"""

router = APIRouter(route_class=FhirRoute)


@router.api_route("/{resource_type}/{resource_id}/$everything", methods=READ)
async def everything(request: Request, reader: Reader, resource_type: str, resource_id: str) -> Response:
    if resource_type not in TYPES:
        raise FhirError(404, "not-supported", f"{OPERATION} is of {' and '.join(TYPES)}: a {resource_type} has none")
    services, access, given = services_for(request, reader, "r", resource_type), access_of(reader), given_in_url(request)
    page = opened_page(services, access, f"{resource_type}/{resource_id}/{OPERATION}", given)
    is_first = page is None
    if page is None:
        known = known_only(request, given, OF_PATIENT if resource_type == "Patient" else PARAMETERS, OPERATION)
        asked = await asked_position(services.pool, known)
        page = Page(
            resource_type=f"{resource_type}/{resource_id}/{OPERATION}",
            parameters=[(name, value) for name, value in known if name != PARAMETER],
            position=asked if asked is not None else await reached_position(services),
            count=count_asked(known, MAX_COUNT),
            total=None,
            access=access.name,
        )
    shown, since = Representation.asked(page.parameters), asked_period(page.parameters, "_since")
    types = _types(page.parameters, access.types("r"))
    shown.check(types)
    focal = (resource_type, resource_id)
    near, care = Neighbours(services.pool, access, page.position), CareDates.asked(page.parameters)
    found = await (_of_patient(services.pool, near, focal, care) if resource_type == "Patient" else _of_study(near, focal))
    if focal not in found:
        raise at_position(page.position, await absent(services.pool, access, resource_type, resource_id, page.position))
    beyond = [found[named] for named in sorted(found) if named[0] in types and "/".join(named) > page.after]
    rows = list(await services.pool.fetch(_BODIES, beyond, since[0] if since else None, page.count + 1))
    more, rows = len(rows) > page.count, rows[: page.count]
    saw_resources(request, (row["body"] for row in rows))
    last = f"{rows[-1]['type']}/{rows[-1]['id']}" if more else None
    bodies = await shown_bodies(services, reader, [row["type"] for row in rows], rows, page.position)
    base = base_url(request)
    entries: list[dict[str, Any]] = [
        {
            "fullUrl": f"{base}/{row['type']}/{row['id']}",
            "resource": shown.of(row["type"], body),
            "search": {"mode": "match"},
        }
        for row, body in zip(rows, bodies, strict=True)
    ]
    return bundle("searchset", page, links(base, services, page, is_first, last), entries, shown)


async def _of_patient(pool: asyncpg.Pool, near: Neighbours, focal: Named, care: CareDates | None) -> Found:
    own = await near.there([focal])
    if own:
        own |= await near.referring([focal], "Patient")
    kept = own if care is None else await care.within(pool, own)
    found = await _with_referred(near, kept, {focal[1]})
    return {named: key for named, key in found.items() if named in kept or named not in own}  # nor by a reference to it


async def _of_study(near: Neighbours, focal: Named) -> Found:
    own = await near.there([focal])
    patients = {patient for found in (await near.patients_of(own)).values() for patient in found}
    if own:
        own |= _parts(await near.referring([focal]) | await near.there(await near.referred(own)))
        own |= _parts(await near.there(await near.referred(own)))
        own |= await near.referring(own)
    about = await near.patients_of(own)
    return await _with_referred(near, {named: own[named] for named in own if about.get(named, patients) <= patients}, patients)


def _parts(found: Found) -> Found:
    return {named: key for named, key in found.items() if named[0] in _OF_A_STUDY}


async def _with_referred(near: Neighbours, own: Found, patients: set[str]) -> Found:
    """And what these refer to: of these patients, or of none."""
    referred = await near.there(await near.referred(own) - own.keys())
    about = await near.patients_of(referred)
    return own | {named: key for named, key in referred.items() if about.get(named, patients) <= patients}


def _types(given: Given, readable: tuple[str, ...]) -> tuple[str, ...]:
    """The types that are asked for, all unless ``_type`` says which; of those, the ones that may be read. Raises FhirError (400)."""
    asked = {one.strip() for name, value in given if name == "_type" for one in value.split(",")}
    unknown = sorted(asked - set(readable))
    if unknown:
        raise FhirError(400, "value", f"_type: there is no type {unknown[0]!r} that this token may read", "http._type")
    return tuple(one for one in readable if not asked or one in asked)
