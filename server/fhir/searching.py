"""Searching a type, and several types at once (R5 http.html#search), in pages that are a snapshot of one position."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from fastapi import APIRouter, Request, Response

from projections.fhir.definitions import is_resource_type
from projections.fhir.search.site import CURRENT, Known
from server.as_of import PARAMETER
from server.audit.reads import saw_resources, saw_search
from server.auth.principals import Authenticated
from server.fhir import representation
from server.fhir.access import access_of
from server.fhir.as_of import Given, asked_position, single
from server.fhir.bundles import bundle, links, opened_page, shown_bodies
from server.fhir.conditions import Condition
from server.fhir.includes import included
from server.fhir.matches import Matches
from server.fhir.negotiation import check_format
from server.fhir.outcome import FhirError, issue
from server.fhir.pages import Page
from server.fhir.parameters import OWN_BASE
from server.fhir.preferences import preferences
from server.fhir.representation import Representation
from server.fhir.route import READ, FhirRoute, Reader, base_url, count_asked, given_in_url, services_for, services_of
from server.fhir.search import Search
from server.fhir.state import reached_position
from server.services import Services

DEFAULT_COUNT = 50
TOTALS = ("accurate", "estimate", "none")
TYPE_PARAMETER = "_type"
PARAMETERS = ("_total", *representation.PARAMETERS)
"""What says how to answer, beside the search itself."""

router = APIRouter(route_class=FhirRoute)


@router.post("/_search")
async def search_system_by_post(request: Request, reader: Reader) -> Response:
    return await answer_system_search(request, reader, await given_in_form(request))


@router.api_route("/{resource_type:name}", methods=READ)
async def search(request: Request, reader: Reader, resource_type: str) -> Response:
    return await answer_search(request, reader, [resource_type], given_in_url(request), path=resource_type)


@router.post("/{resource_type}/_search")
async def search_by_post(request: Request, reader: Reader, resource_type: str) -> Response:
    """Search values in the body stay out of the logs of every proxy on the way."""
    return await answer_search(request, reader, [resource_type], await given_in_form(request), path=resource_type)


async def answer_system_search(request: Request, reader: Authenticated, given: Given) -> Response:
    """Of the types that ``_type`` names: each parameter has to be one of every type. Raises FhirError (400)."""
    page = opened_page(services_of(request), access_of(reader), "", given)
    named = [one.strip() for name, value in (page.parameters if page else given) if name == TYPE_PARAMETER for one in value.split(",")]
    types = sorted({*named})
    for one in types:
        if not is_resource_type(one):
            raise FhirError(400, "value", f"{TYPE_PARAMETER} names types of R5, with commas between them", f"http.{TYPE_PARAMETER}")
    if not types:
        raise FhirError(400, "too-costly", f"a search of the system needs {TYPE_PARAMETER}: the types to look in", f"http.{TYPE_PARAMETER}")
    return await answer_search(request, reader, types, given, path="")


async def answer_search(
    request: Request, reader: Authenticated, types: Sequence[str], given: Given, *, path: str, within: Sequence[Condition] = ()
) -> Response:
    """What is found of these types, ``within`` what a path says beside the parameters. ``path`` is the search's own, below /fhir."""
    services, access = services_of(request), access_of(reader)
    for one in types:
        services_for(request, reader, "s", one)
    page = opened_page(services, access, path, given)
    is_first = page is None
    asked = given if page is None else page.parameters
    reached = await reached_position(services)
    known = CURRENT.get()
    base = base_url(request)
    OWN_BASE.set(base)
    lenient = page is None and preferences(request).is_lenient
    searches, ignored = _parsed(types, asked if path else [one for one in asked if one[0] != TYPE_PARAMETER], lenient=lenient)
    searches = [one.within(access) for one in searches]
    for wanted in searches:
        wanted.check(reader)
        wanted.conditions.extend(within)
    shown = Representation.asked([(name, value) for name, value in asked if name in PARAMETERS])
    shown.check(types)
    if page is None:
        is_counted, count = _is_total_asked(given), count_asked(given, DEFAULT_COUNT, least=0)
        position = await asked_position(services.pool, given)
        page = Page(
            resource_type=path,
            parameters=[(name, value) for name, value in given if name not in (*ignored, PARAMETER)],
            position=position if position is not None else reached,
            count=count,
            total=None,
            access=access.name,
        )
        if is_counted or shown.is_count or count == 0:
            page = msgspec.structs.replace(page, total=await Matches(searches, page.position).count(services.searches))
    matches = Matches(searches, page.position)
    saw_search(request, page.parameters)
    if shown.is_count or page.count == 0:  # R5 search.html#count: the same
        await _check_unchanged(services, known)
        return bundle("searchset", page, links(base, services, page, is_first, None), _warning(ignored), shown)
    only = searches[0] if len(searches) == 1 else None
    pool = services.plans.pool(only.conditions, is_sorted=bool(only.sort)) if only is not None else services.searches
    rows = await matches.page(pool, page.after, page.count + 1)
    more, rows = len(rows) > page.count, rows[: page.count]
    if is_first and not more:  # all are here
        page = msgspec.structs.replace(page, total=len(rows))
    page_links = links(base, services, page, is_first, matches.mark(rows[-1]) if more else None)
    beside = await included(services.searches, access, rows, searches[0].includes, page.position)
    await _check_unchanged(services, known)
    modes = ["match"] * len(rows) + ["include"] * len(beside)
    rows = [*rows, *beside]
    saw_resources(request, (row["body"] for row in rows))
    bodies = await shown_bodies(services, reader, [row["type"] for row in rows], rows, page.position)
    entries: list[dict[str, Any]] = [
        {
            "fullUrl": f"{base}/{row['type']}/{row['id']}",
            "resource": shown.of(row["type"], body),
            "search": {"mode": mode},
        }
        for row, body, mode in zip(rows, bodies, modes, strict=True)
    ]
    return bundle("searchset", page, page_links, [*entries, *_warning(ignored)], shown)


async def given_in_form(request: Request) -> Given:
    """The parameters of the URL, and those of the form in the body. Raises FhirError (400, 406, 415)."""
    content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    body = await request.body()
    if body and content_type != "application/x-www-form-urlencoded":
        raise FhirError(415, "not-supported", "_search takes its parameters as application/x-www-form-urlencoded")
    try:
        fields = parse_qsl(body.decode("utf-8"), keep_blank_values=True)
    except UnicodeDecodeError:
        raise FhirError(400, "value", "the form is not UTF-8") from None
    check_format(fields)
    return [*given_in_url(request), *fields]


def _parsed(types: Sequence[str], given: Given, *, lenient: bool) -> tuple[list[Search], list[str]]:
    """A search for each type, and the names that one of them left out. Raises FhirError (400)."""
    what = [(name, value) for name, value in given if name not in PARAMETERS]
    found = [Search.parsed(one, what, lenient=lenient) for one in types]
    ignored = list(dict.fromkeys(name for _, names in found for name in names))
    if len(types) > 1 and any(search.sort for search, _ in found):
        raise FhirError(400, "not-supported", "a search of several types comes type by type: it takes no _sort", "http._sort")
    if ignored:  # what one type does not know is left out of all
        what = [(name, value) for name, value in what if name not in ignored]
        found = [Search.parsed(one, what, lenient=lenient) for one in types]
    return [search for search, _ in found], ignored


async def _check_unchanged(services: Services, known: Known) -> None:
    """Raises FhirError (503) where the site's own parameters changed meanwhile: the rows of one that it took away are being removed."""
    if known.site.parameters:
        await reached_position(services)
        if CURRENT.get().revision != known.revision:
            raise FhirError(503, "transient", "search parameters of this site changed during this search: try again")


def _is_total_asked(given: Given) -> bool:
    """Counting takes as long as there are matches, so it is for who asks for it (R5 search.html#total). Raises FhirError (400)."""
    total = single(given, "_total") or "none"
    if total not in TOTALS:
        raise FhirError(400, "value", f"_total is one of {', '.join(TOTALS)}", "http._total")
    return total != "none"


def _warning(ignored: list[str]) -> list[dict[str, Any]]:
    if not ignored:
        return []
    said = issue("not-supported", f"ignored, as preferred: {', '.join(ignored)}", severity="warning")
    return [{"resource": {"resourceType": "OperationOutcome", "issue": [said]}, "search": {"mode": "outcome"}}]
