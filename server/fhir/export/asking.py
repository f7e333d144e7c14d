"""What a kick-off asks for (Bulk Data Access 2.0, "Bulk Data Export Operation Request Flow"), read and checked before anything is begun.

Parameters come in the URL, or as Parameters in the body. One that is not known is an error unless handling=lenient.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qsl

import asyncpg
import msgspec
from fastapi import Request

from domain.ids import Position
from projections.checkpoint import wait_for
from projections.fhir.definitions import is_resource_type
from projections.fhir.patients import patient_id
from projections.fhir.projection import SCHEMA
from projections.ledger.projection import SCHEMA as LEDGER
from projections.ledger.projection import LedgerProjection
from server.as_of import PARAMETER, position_when
from server.auth.principals import Authenticated
from server.fhir.access import Access, access_of
from server.fhir.as_of import Given, asked_period, asked_position, single
from server.fhir.export.contents import GROUP, PATIENT, SYSTEM, types_allowed
from server.fhir.export.jobs import Asked
from server.fhir.gone import is_version_reached
from server.fhir.history import version_held
from server.fhir.outcome import FhirError
from server.fhir.parameters import RESULT_PARAMETERS
from server.fhir.preferences import preferences
from server.fhir.reading import present
from server.fhir.representation import Representation
from server.fhir.route import given_in_url, services_for, services_of
from server.fhir.search import Search
from server.fhir.state import reached_position
from server.fhir.writing import incoming

OPERATION = "$export"
PARAMETERS = ("_outputFormat", "_since", "_type", "_elements", "_typeFilter", "patient", PARAMETER)
FORMATS = ("application/fhir+ndjson", "application/ndjson", "ndjson")
LEVELS = {"": SYSTEM, "Patient": PATIENT, "Group": GROUP}
MOST_FILTERS = 100

_INSTEAD = {
    "includeAssociatedData": "includeAssociatedData is not offered: ask for Provenance by _type",
    "_until": f"_until is not offered: {PARAMETER} gives everything as it was at an instant or a position",
}
_BETWEEN_FILTERS = re.compile(r",(?=[A-Z][A-Za-z]*\?)")
_LATEST_AT = f"SELECT latest_at FROM {LEDGER}.entry WHERE position <= $1 ORDER BY position DESC LIMIT 1"

Placed = tuple[str, str, str]
"""Name and value of a parameter, and where it stands."""


class _Reference(msgspec.Struct):
    reference: str = ""


class _Period(msgspec.Struct):
    start: str | None = None
    end: str | None = None


class _Member(msgspec.Struct):
    entity: _Reference = msgspec.field(default_factory=_Reference)
    inactive: bool = False
    period: _Period = msgspec.field(default_factory=_Period)


class _Group(msgspec.Struct):
    member: list[_Member] = []


async def asked_of(request: Request, reader: Authenticated, resource_type: str, resource_id: str) -> Asked:
    """``resource_type`` is empty for the whole system, or Patient, or Group with its id. Raises FhirError (400, 404, 410, 413, 415)."""
    services, access = services_of(request), access_of(reader)
    level, lenient = LEVELS[resource_type], preferences(request).is_lenient
    placed, ignored = _known(await _placed(request), level, lenient)
    given = [(name, value) for name, value, _ in placed]
    _check_format(single(given, "_outputFormat"))
    types = _types(given, access, level, lenient, ignored)
    reached = await reached_position(services)  # with what the site has added to the search parameters
    position = await asked_position(services.pool, given)
    position = position if position is not None else reached
    await wait_for(services.pool, LedgerProjection(), position)
    at = await services.pool.fetchval(_LATEST_AT, position) or datetime.now(UTC)
    elements = Representation.asked([one for one in given if one[0] == "_elements"])
    elements.check(types)
    return Asked(
        reader=reader,
        route="/".join(
            ["/fhir", *([resource_type] if resource_type else []), *(["{id}"] if resource_id else []), OPERATION]
        ),
        request=str(request.url),
        level=level,
        schema=SCHEMA,
        position=position,
        transaction_time=at,
        types=types,
        since=await _since(services.pool, given),
        patients=await _patients(request, reader, placed, level, resource_id, position, at),
        filters=_filters(given, reader, types, lenient, ignored),
        elements=elements.elements,
        ignored=tuple(dict.fromkeys(ignored)),
    )


async def _placed(request: Request) -> list[Placed]:
    """Of the URL, and of the body of a POST. Raises FhirError."""
    placed = [(name, value, f"http.{name}") for name, value in given_in_url(request)]
    if request.method != "POST" or not (await request.body()).strip():
        return placed
    body = incoming.decoded(await incoming.body_of(request))
    parameters = body.get("parameter", []) if isinstance(body, dict) else None
    if not isinstance(body, dict) or body.get("resourceType") != "Parameters" or not isinstance(parameters, list):
        raise FhirError(
            400, "structure", f"the body of {OPERATION} is Parameters, with an array of them", "Parameters.parameter"
        )
    return [*placed, *(_parameter(one, f"Parameters.parameter[{nth}]") for nth, one in enumerate(parameters))]


def _parameter(one: Any, at: str) -> Placed:
    name = one.get("name") if isinstance(one, dict) else None
    values = [value for key, value in one.items() if key.startswith("value")] if isinstance(one, dict) else []
    value = values[0] if len(values) == 1 else None
    if isinstance(value, dict):
        value = value.get("reference")
    if isinstance(value, bool):
        value = str(value).lower()
    if not isinstance(name, str) or not isinstance(value, str):
        raise FhirError(
            400, "value", "each parameter has a name and one value, a string, code, instant or Reference", at
        )
    return name, value, at


def _known(placed: Sequence[Placed], level: str, lenient: bool) -> tuple[list[Placed], list[str]]:
    """And the names of the others, where they may be ignored. Raises FhirError (400)."""
    known = [*(one for one in PARAMETERS if one != "patient" or level != SYSTEM), "_format", "_pretty"]
    ignored = [name for name, _, _ in placed if name not in known]
    for name, _, at in placed:
        if name in ignored and not lenient:
            said = _INSTEAD.get(name) or f"{OPERATION} has no parameter {name} here; there are {', '.join(known)}"
            raise FhirError(400, "not-supported", said, at)
        if name == "patient" and at.startswith("http."):
            raise FhirError(400, "invalid", "patient is given in the body of a POST, which keeps it out of URLs", at)
    return [one for one in placed if one[0] in known], ignored


def _check_format(asked: str | None) -> None:
    if asked is not None and asked.strip().replace(" ", "+") not in FORMATS:
        raise FhirError(400, "not-supported", f"_outputFormat is one of {', '.join(FORMATS)}", "http._outputFormat")


def _types(given: Given, access: Access, level: str, lenient: bool, ignored: list[str]) -> tuple[str, ...]:
    allowed = types_allowed(access, level)
    asked = [one.strip() for name, value in given if name == "_type" for one in value.split(",")]
    refused = sorted({*asked} - {*allowed})
    if refused and not lenient:
        readable = access.types("r")
        said = (
            "is never in the compartment of a Patient"
            if refused[0] in readable
            else "is no type that this token may read"
        )
        raise FhirError(400, "not-supported", f"_type: {refused[0]!r} {said}", "http._type")
    ignored += [f"_type={one}" for one in refused if is_resource_type(one)] or (["_type"] if refused else [])
    return tuple(one for one in allowed if not asked or one in asked)


async def _since(pool: asyncpg.Pool, given: Given) -> Position | None:
    """The position beyond which something has to have been made. Of an instant, the last one before anything that was recorded then or
    later: whoever gives the transaction time of an export misses nothing, and may see that last moment's resources again."""
    text = single(given, "_since")
    if text is None:
        return None
    if text.isascii() and text.isdigit() and len(text) < 19:
        return Position(int(text))
    found = asked_period(given, "_since")
    assert found is not None
    return await position_when(pool, found[0] - timedelta(microseconds=1))


def _filters(
    given: Given, reader: Authenticated, types: Sequence[str], lenient: bool, ignored: list[str]
) -> dict[str, tuple[tuple[tuple[str, str], ...], ...]]:
    """By type, the searches that ``_typeFilter`` names. Raises FhirError (400), ScopeMissing."""
    found: dict[str, tuple[tuple[tuple[str, str], ...], ...]] = {}
    written = [one for name, value in given if name == "_typeFilter" for one in _BETWEEN_FILTERS.split(value)]
    if len(written) > MOST_FILTERS:
        raise FhirError(400, "too-costly", f"_typeFilter: there may be {MOST_FILTERS} filters", "http._typeFilter")
    for one in written:
        resource_type, is_query, query = one.partition("?")
        parameters = parse_qsl(query, keep_blank_values=True)
        if resource_type not in types or not is_query or not parameters:
            raise FhirError(
                400, "value", "_typeFilter: write Type?parameter=value, of a type that is exported", "http._typeFilter"
            )
        kept = _filter(resource_type, parameters, reader, lenient, ignored)
        found[resource_type] = (*found.get(resource_type, ()), kept)
    return found


def _filter(
    resource_type: str, parameters: Given, reader: Authenticated, lenient: bool, ignored: list[str]
) -> tuple[tuple[str, str], ...]:
    unusable = sorted({name for name, _ in parameters if name in RESULT_PARAMETERS})
    if unusable and not lenient:
        raise FhirError(
            400,
            "not-supported",
            f"_typeFilter: {unusable[0]} says how to answer, and not what to look for",
            "http._typeFilter",
        )
    try:
        search, left_out = Search.parsed(
            resource_type, [one for one in parameters if one[0] not in unusable], lenient=lenient
        )
    except FhirError as error:
        raise FhirError(error.status, error.code, f"_typeFilter: {error.detail}", "http._typeFilter") from None
    search.check(reader)
    search.within(access_of(reader))
    ignored += [f"_typeFilter {resource_type}?{name}" for name in (*unusable, *left_out)]
    return tuple(one for one in parameters if one[0] not in (*unusable, *left_out))


async def _patients(
    request: Request,
    reader: Authenticated,
    placed: Sequence[Placed],
    level: str,
    group_id: str,
    position: Position,
    at: datetime,
) -> tuple[str, ...] | None:
    """Whose resources are exported; None for those of all. Raises FhirError (400, 404, 410)."""
    asked = {_patient(value, where): where for name, value, where in placed if name == "patient"}
    members = await _members(request, reader, group_id, position, at) if level == GROUP else None
    services, access = services_of(request), access_of(reader)
    for one, where in asked.items():
        if members is not None and one not in members:
            raise FhirError(400, "not-found", "this Patient is no member of the Group", where)
        held = (await version_held(services, "Patient", one, position))["version"]
        if held is None or not await is_version_reached(services.pool, access, ("Patient", one, held), position):
            raise FhirError(400, "not-found", "there is no such Patient", where)
    return tuple(sorted(asked)) if asked else members


def _patient(written: str, at: str) -> str:
    found = patient_id(written)
    if found is None:
        raise FhirError(400, "value", "patient is a reference: Patient/ID", at)
    return found


async def _members(
    request: Request, reader: Authenticated, group_id: str, position: Position, at: datetime
) -> tuple[str, ...]:
    """The Patients that are members of a Group: neither inactive, nor out of their period. A member that is a Group itself is refused:
    who is in that one is asked of it."""
    services = services_for(request, reader, "r", "Group")
    row = await version_held(services, "Group", group_id, position)
    await present(services, reader, row, "Group", group_id)
    group = msgspec.json.decode(row["body"], type=_Group)
    found = set()
    for nth, member in enumerate(group.member):
        if member.inactive or not _is_within(member.period, at):
            continue
        if member.entity.reference.startswith("Group/"):
            said = "a member of the Group is a Group itself: export that one by its own id"
            raise FhirError(422, "not-supported", said, f"Group.member[{nth}].entity")
        one = patient_id(member.entity.reference)
        if one is not None:
            found.add(one)
    return tuple(sorted(found))


def _is_within(period: _Period, at: datetime) -> bool:
    begins, ends = (asked_period([("period", text)], "period") if text else None for text in (period.start, period.end))
    return (begins is None or begins[0] <= at) and (ends is None or at < ends[1])
