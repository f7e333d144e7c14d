"""Searching a type (R5 http.html#search), in pages that are a snapshot of one position."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

from fastapi import APIRouter, Request, Response

from server.as_of import PARAMETER
from server.audit.reads import saw_resources, saw_search
from server.auth.principals import Authenticated
from server.fhir import representation
from server.fhir.as_of import Given, asked_position, single
from server.fhir.bundles import bundle, links, opened_page, shown_bodies
from server.fhir.includes import included
from server.fhir.negotiation import check_format
from server.fhir.outcome import FhirError, issue
from server.fhir.pages import Page
from server.fhir.preferences import preferences
from server.fhir.representation import Representation
from server.fhir.route import READ, FhirRoute, Reader, base_url, count_asked, given_in_url, services_of
from server.fhir.search import Search
from server.fhir.state import reached_position

DEFAULT_COUNT = 50
TOTALS = ("accurate", "estimate", "none")
PARAMETERS = ("_total", *representation.PARAMETERS)
"""What says how to answer, beside the search itself."""

router = APIRouter(route_class=FhirRoute)


@router.api_route("/{resource_type}", methods=READ)
async def search(request: Request, reader: Reader, resource_type: str) -> Response:
    return await _search(request, reader, resource_type, given_in_url(request))


@router.post("/{resource_type}/_search")
async def search_by_post(request: Request, reader: Reader, resource_type: str) -> Response:
    """Search values in the body stay out of the logs of every proxy on the way."""
    return await _search(request, reader, resource_type, await given_in_form(request))


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


async def _search(request: Request, reader: Authenticated, resource_type: str, given: Given) -> Response:
    services = services_of(request, resource_type)
    ignored: list[str] = []
    page = opened_page(services, resource_type, given)
    is_first = page is None
    if page is None:
        how = [(name, value) for name, value in given if name in PARAMETERS]
        shown, total = Representation.asked(how), _total_asked(how)
        asked_for, ignored = Search.parsed(resource_type, _what(given), lenient=preferences(request).is_lenient)
        count = count_asked(given, DEFAULT_COUNT, least=0)
        asked = await asked_position(services.pool, given)
        position = asked if asked is not None else await reached_position(services)
        used = [(name, value) for name, value in given if name not in (*ignored, PARAMETER)]
        statement = asked_for.statement(position)
        counted = await statement.count(services.pool) if total != "none" or shown.is_count or count == 0 else None
        page = Page(resource_type=resource_type, parameters=used, position=position, count=count, total=counted)
    else:
        shown = Representation.asked(page.parameters)
        asked_for, _ = Search.parsed(resource_type, _what(page.parameters), lenient=True)
        statement = asked_for.statement(page.position)
    asked_for.check(reader)
    shown.check([resource_type])
    saw_search(request, page.parameters)
    if shown.is_count or page.count == 0:  # R5 search.html#count: the same
        return bundle("searchset", page, links(request, services, page, is_first, None), _warning(ignored), shown)
    rows = await statement.page(services.pool, page.after, page.count + 1)
    more, rows = len(rows) > page.count, rows[: page.count]
    page_links = links(request, services, page, is_first, statement.mark(rows[-1]) if more else None)
    beside = await included(services.pool, rows, asked_for.includes, page.position)
    modes = ["match"] * len(rows) + ["include"] * len(beside)
    rows = [*rows, *beside]
    saw_resources(request, (row["body"] for row in rows))
    bodies = await shown_bodies(services, reader, [row["type"] for row in rows], rows, page.position)
    entries: list[dict[str, Any]] = [
        {
            "fullUrl": f"{base_url(request)}/{row['type']}/{row['id']}",
            "resource": shown.of(row["type"], body),
            "search": {"mode": mode},
        }
        for row, body, mode in zip(rows, bodies, modes, strict=True)
    ]
    return bundle("searchset", page, page_links, [*entries, *_warning(ignored)], shown)


def _what(given: Given) -> Given:
    """What is searched for, without how the answer is to look."""
    return [(name, value) for name, value in given if name not in PARAMETERS]


def _total_asked(given: Given) -> str:
    total = single(given, "_total") or TOTALS[0]
    if total not in TOTALS:
        raise FhirError(400, "value", f"_total is one of {', '.join(TOTALS)}", "http._total")
    return total


def _warning(ignored: list[str]) -> list[dict[str, Any]]:
    if not ignored:
        return []
    said = issue("not-supported", f"ignored, as preferred: {', '.join(ignored)}", severity="warning")
    return [{"resource": {"resourceType": "OperationOutcome", "issue": [said]}, "search": {"mode": "outcome"}}]
