"""History of a resource, of a type and of the system (R5 http.html#history), in pages as of one position."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import asyncpg
import msgspec
from fastapi import APIRouter, Request, Response

from eventlog.envelope import instant
from projections.fhir.projection import SCHEMA
from server.as_of import PARAMETER, position_when
from server.audit.reads import saw_resources
from server.auth.principals import Authenticated
from server.fhir.access import Access, access_of
from server.fhir.as_of import asked_position
from server.fhir.bundles import bundle, links, opened_page, shown_bodies
from server.fhir.changes import Changes, place_of
from server.fhir.gone import absent
from server.fhir.history import PARAMETERS, Period, Versions, is_earliest_first
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
    services_of,
)
from server.fhir.state import reached_position
from server.services import Services

DEFAULT_COUNT = 50
"""Of a type or the system; of one resource a page holds all versions, up to the most that a page may hold."""

# By LATERAL: one look into the primary key for each.
_AFTER_A_DELETION = f"""
    SELECT k.type, k.id, k.version FROM unnest($1::text[], $2::text[], $3::int[]) AS k (type, id, version) CROSS JOIN LATERAL (
        SELECT FROM {SCHEMA}.resource WHERE type = k.type AND id = k.id AND version = k.version - 1 AND body = '' OFFSET 0
    ) r
"""

router = APIRouter(route_class=FhirRoute)


@router.api_route("/_history", methods=READ)
async def system_history(request: Request, reader: Reader) -> Response:
    return await _changes(request, reader, access_of(reader).types("s"), "_history")


@router.api_route("/{resource_type}/_history", methods=READ)
async def type_history(request: Request, reader: Reader, resource_type: str) -> Response:
    services_for(request, reader, "s", resource_type)
    return await _changes(request, reader, (resource_type,), f"{resource_type}/_history")


@router.api_route("/{resource_type}/{resource_id}/_history", methods=READ)
async def instance_history(request: Request, reader: Reader, resource_type: str, resource_id: str) -> Response:
    services, access = services_for(request, reader, "r", resource_type), access_of(reader)
    page, is_first = await _page(request, services, access, f"{resource_type}/{resource_id}/_history", MAX_COUNT)
    shown = _representation(page, (resource_type,))
    period = await Period.asked(services.pool, page.position, page.parameters)
    versions = Versions(access, resource_type, resource_id, page.position, period, earliest_first=is_earliest_first(page.parameters))
    if is_first:
        if not await versions.exist(services.pool):
            raise at_position(page.position, await absent(services.pool, access, resource_type, resource_id, page.position))
        page = msgspec.structs.replace(page, total=await versions.count(services.pool))
    rows = await versions.page(services.pool, page.after, page.count + 1)
    last = str(rows[page.count - 1]["version"]) if len(rows) > page.count else None
    return await _answer(request, reader, page, is_first, rows[: page.count], last, shown)


async def _changes(request: Request, reader: Authenticated, types: tuple[str, ...], path: str) -> Response:
    services, access = services_of(request), access_of(reader)
    page, is_first = await _page(request, services, access, path, DEFAULT_COUNT)
    shown = _representation(page, types)
    period = await Period.asked(services.pool, page.position, page.parameters)
    # Up to there everything was recorded before `_since`: the index begins beyond it.
    begin = 1 if period.since is None else 1 + await position_when(services.pool, period.since - timedelta(microseconds=1))
    changes = Changes(access.groups("s", types), period, begin, earliest_first=is_earliest_first(page.parameters))
    rows = await changes.page(services.pool, page.after, page.count + 1)
    last = place_of(rows[page.count - 1]) if len(rows) > page.count else None
    return await _answer(request, reader, page, is_first, rows[: page.count], last, shown)


async def _page(request: Request, services: Services, access: Access, path: str, default_count: int) -> tuple[Page, bool]:
    """The page that is asked for, and whether it is a first one. Raises FhirError (400)."""
    given = given_in_url(request)
    page = opened_page(services, access, path, given)
    if page is not None:
        return page, False
    known = known_only(request, given, PARAMETERS, "_history")
    asked = await asked_position(services.pool, known)
    position = asked if asked is not None else await reached_position(services)
    used = [(name, value) for name, value in known if name != PARAMETER]
    count = count_asked(known, default_count)
    return Page(resource_type=path, parameters=used, position=position, count=count, total=None, access=access.name), True


async def _answer(
    request: Request,
    reader: Authenticated,
    page: Page,
    is_first: bool,
    rows: list[asyncpg.Record],
    last: str | None,
    shown: Representation,
) -> Response:
    services = services_of(request)
    saw_resources(request, (row["body"] for row in rows if row["body"]))
    bodies = await shown_bodies(services, reader, [row["type"] for row in rows], rows, page.position)
    back = await _brought_back(services, rows)
    entries = [_entry(request, row, body, shown, is_back=(row["type"], row["id"], row["version"]) in back) for row, body in zip(rows, bodies, strict=True)]
    return bundle("history", page, links(base_url(request), services, page, is_first, last), entries, shown)


async def _brought_back(services: Services, rows: list[asyncpg.Record]) -> set[tuple[str, str, int]]:
    """The versions of a page that came after a deletion: an update made the resource anew (R5 http.html#delete)."""
    asked = [row for row in rows if row["body"] and row["version"] > 1]
    if not asked:
        return set()
    columns = [[row[name] for row in asked] for name in ("type", "id", "version")]
    return {tuple(row) for row in await services.pool.fetch(_AFTER_A_DELETION, *columns)}


def _entry(request: Request, row: asyncpg.Record, body: str, shown: Representation, *, is_back: bool) -> dict[str, Any]:
    """A version, or a deletion, which has no resource (R5 bundle.html#history)."""
    key = f"{row['type']}/{row['id']}"
    method = "DELETE" if not body else "POST" if row["version"] == 1 else "PUT"
    entry: dict[str, Any] = {"fullUrl": f"{base_url(request)}/{key}"}
    if body:
        entry["resource"] = shown.of(row["type"], body)
    return entry | {
        "request": {"method": method, "url": row["type"] if method == "POST" else key},
        "response": {
            "status": "201" if is_back else {"DELETE": "204", "POST": "201", "PUT": "200"}[method],
            "etag": f'W/"{row["version"]}"',
            "lastModified": instant(row["last_updated"]),
        },
    }


def _representation(page: Page, types: tuple[str, ...]) -> Representation:
    shown = Representation.asked(page.parameters)
    if shown.is_count:
        raise FhirError(400, "value", "_summary=count counts what a search finds", "http._summary")
    shown.check(types)
    return shown
