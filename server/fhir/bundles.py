"""Bundles of found resources and of versions: their links, and the one answer that holds them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import urlencode

import asyncpg
import msgspec
from fastapi import Response

from server.as_of import HEADER, PARAMETER
from server.auth.principals import Authenticated
from server.fhir.access import Access
from server.fhir.as_of import Given, single
from server.fhir.identities import shown_to
from server.fhir.outcome import FHIR_JSON, FhirError
from server.fhir.pages import Page, open_page, seal_page
from server.fhir.representation import Representation
from server.services import Services

PAGE_PARAMETER = "_page"


def opened_page(services: Services, access: Access, path: str, given: Given) -> Page | None:
    """The page that a link of ours leads to; None for a first page. Raises FhirError (400, 403)."""
    text = single(given, PAGE_PARAMETER)
    if text is None:
        return None
    page = open_page(services.log.vault, text)
    if page.resource_type != path:
        raise FhirError(400, "value", "this page link belongs to another search", f"http.{PAGE_PARAMETER}")
    if page.access != access.name:  # its total, and where it goes on, are told to who could have asked for them
        raise FhirError(403, "forbidden", "this page link was made for another token's scopes: search again", f"http.{PAGE_PARAMETER}")
    if single(given, PARAMETER) not in (None, str(page.position)):
        raise FhirError(400, "value", f"this page link is of a search as of {page.position}", f"http.{PARAMETER}")
    others = sorted({name for name, _ in given} - {PAGE_PARAMETER, PARAMETER, "_format", "_pretty"})
    if others:
        raise FhirError(400, "value", f"{others[0]}: a page link holds its search already", f"http.{others[0]}")
    return page


def links(base: str, services: Services, page: Page, is_first: bool, last: str | None) -> list[dict[str, str]]:
    """To this page, and to the next one when there is something beyond ``last``. Each names the position that is used. ``base``: our address."""
    path = f"{base}/{page.resource_type}".rstrip("/")

    def link(one: Page) -> str:
        return f"{path}?{urlencode([(PARAMETER, str(one.position)), (PAGE_PARAMETER, seal_page(services.log.vault, one))])}"

    own = f"{path}?{urlencode([*page.parameters, (PARAMETER, str(page.position))])}" if is_first else link(page)
    made = [{"relation": "self", "url": own}]
    if last is not None:
        made.append({"relation": "next", "url": link(msgspec.structs.replace(page, after=last))})
    return made


def bundle(
    kind: str, page: Page, page_links: list[dict[str, str]], entries: Sequence[dict[str, Any]], representation: Representation
) -> Response:
    made: dict[str, Any] = {"resourceType": "Bundle", "type": kind}
    if page.total is not None:
        made["total"] = page.total
    made["link"] = page_links
    if entries:
        made["entry"] = entries
    return Response(representation.encode(made), headers={HEADER: str(page.position)}, media_type=FHIR_JSON)


async def shown_bodies(
    services: Services, reader: Authenticated, types: Iterable[str], rows: Sequence[asyncpg.Record], position: int
) -> list[str]:
    """What is answered of versions (``body``, ``position_to``) of these types; a Patient, for those who may see it, with what was
    known of the person at the position, but no later than the version held."""
    ends = [position if row["position_to"] is None else min(position, row["position_to"] - 1) for row in rows]
    versions = [(kind, row["body"], end) for kind, row, end in zip(types, rows, ends, strict=True)]
    return await shown_to(services.pool, reader, versions)
