"""The entries of a batch or transaction Bundle (R5 http.html#transaction): what each asks for, as a request and as an interaction."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qsl

import msgspec

from projections.fhir.definitions import is_resource_type
from projections.fhir.vocabulary import Json
from server.fhir.as_of import Given
from server.fhir.outcome import FhirError
from server.fhir.writing import incoming
from server.fhir.writing.interaction import Interaction, condition_of, version_in
from server.fhir.writing.patches import patch_in

MOST_ENTRIES = 10_000
READS = ("GET", "HEAD")
WRITES = ("DELETE", "POST", "PUT", "PATCH")
"""In the order in which a transaction does them (R5 http.html#trules); reads come last."""
_SEGMENT = re.compile(r"[A-Za-z0-9_$.\-]+")


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """``path`` and ``query`` are below the server's base. ``at``: ``Bundle.entry[3]``."""

    at: str
    method: str
    path: tuple[str, ...]
    query: str
    full_url: str | None
    resource: Json | None
    headers: dict[str, str]
    """Those of the request that the entry stands for."""

    @property
    def resource_type(self) -> str:
        return self.path[0]


def entries_of(bundle: Json, base: str) -> list[Entry]:
    """Raises FhirError (400, 413)."""
    entries = bundle.get("entry", [])
    if not isinstance(entries, list):
        raise FhirError(400, "structure", "entries are a list", "Bundle.entry")
    if len(entries) > MOST_ENTRIES:
        raise FhirError(413, "too-costly", f"a Bundle may have {MOST_ENTRIES} entries", "Bundle.entry")
    return [_entry(one, f"Bundle.entry[{nth}]", base) for nth, one in enumerate(entries)]


def in_order(entries: Sequence[Entry]) -> list[int]:
    """The places of the entries that write, in the order in which they are done."""
    writing = [nth for nth, one in enumerate(entries) if one.method in WRITES]
    return sorted(writing, key=lambda nth: WRITES.index(entries[nth].method))


def interaction_of(entry: Entry) -> Interaction:
    """What an entry of a transaction writes. Raises FhirError (400) where it is none that can be."""
    kind, at = entry.resource_type, entry.at
    if not is_resource_type(kind):
        raise FhirError(400, "not-supported", "the URL names no type of R5", f"{at}.request.url")
    has_id, has_query = len(entry.path) == 2, bool(entry.query)
    fits = (not has_id and not has_query) if entry.method == "POST" else has_id != has_query
    if not fits or len(entry.path) > 2:
        said = "of a type" if entry.method == "POST" else "of an id, or of search parameters in place of it"
        raise FhirError(400, "not-supported", f"a transaction has a {entry.method} {said}", f"{at}.request.url")
    resource_id = entry.path[1] if has_id else None
    if resource_id is not None and not incoming.is_id(resource_id):
        raise FhirError(400, "value", "an id has 1 to 64 letters, digits, hyphens and dots", f"{at}.request.url")
    condition: Given | None = parse_qsl(entry.query, keep_blank_values=True) if entry.query else None
    if "if-none-exist" in entry.headers and entry.method == "POST":
        condition = condition_of(entry.headers["if-none-exist"], f"{at}.request.ifNoneExist")
    asked = Interaction(
        method=entry.method,
        resource_type=kind,
        resource_id=resource_id,
        condition=condition,
        if_match=version_in(entry.headers["if-match"], f"{at}.request.ifMatch") if "if-match" in entry.headers else None,
        must_be_new=entry.headers.get("if-none-match") == "*",
        full_url=entry.full_url,
        at=at,
    )
    return asked if entry.method == "DELETE" else _with_content(asked, entry)


def _with_content(asked: Interaction, entry: Entry) -> Interaction:
    where = f"{entry.at}.resource"
    if entry.resource is None:
        raise FhirError(400, "required", f"a {entry.method} needs a resource", where)
    if entry.method == "PATCH":
        return msgspec.structs.replace(asked, patch=patch_in(entry.resource, where))
    resource = incoming.resource_in(entry.resource, entry.resource_type, where)
    given_id = incoming.id_given(resource, where)
    resource_id = asked.resource_id
    if entry.method == "PUT":
        if resource_id is not None and given_id != resource_id:
            raise FhirError(400, "invalid", "the id has to be that of the URL", f"{where}.id")
        resource_id = given_id
    return msgspec.structs.replace(asked, resource_id=resource_id, resource=incoming.checked(resource, where))


def _entry(tree: Any, at: str, base: str) -> Entry:
    request = tree.get("request") if isinstance(tree, dict) else None
    if not isinstance(request, dict):
        raise FhirError(400, "required", "each entry has a request", f"{at}.request")
    method, url = request.get("method"), request.get("url")
    if method not in (*READS, *WRITES):
        raise FhirError(400, "value", "a method is GET, HEAD, POST, PUT, PATCH or DELETE", f"{at}.request.method")
    if not isinstance(url, str):
        raise FhirError(400, "required", "a request has a url", f"{at}.request.url")
    path, _, query = url.removeprefix(f"{base}/").lstrip("/").partition("?")
    steps = tuple(path.split("/"))
    if not all(_SEGMENT.fullmatch(step) for step in steps) or not {".", ".."}.isdisjoint(steps):
        raise FhirError(400, "value", "a url is below this server's base, as Type, Type/id or Type?parameters", f"{at}.request.url")
    full_url, resource = tree.get("fullUrl"), tree.get("resource")
    if full_url is not None and not isinstance(full_url, str):
        raise FhirError(400, "structure", "a fullUrl is a text", f"{at}.fullUrl")
    if resource is not None and not isinstance(resource, dict):
        raise FhirError(400, "structure", "a resource is an object", f"{at}.resource")
    return Entry(
        at=at, method=method, path=steps, query=query, full_url=full_url, resource=resource, headers=_headers(request, at)
    )


_HEADERS = {
    "ifNoneMatch": "if-none-match",
    "ifModifiedSince": "if-modified-since",
    "ifMatch": "if-match",
    "ifNoneExist": "if-none-exist",
}


def _headers(request: Json, at: str) -> dict[str, str]:
    found = {}
    for name, header in _HEADERS.items():
        value = request.get(name)
        if value is None:
            continue
        if not isinstance(value, str) or not value.isprintable() or not value.isascii():
            raise FhirError(400, "value", f"{name} is a text", f"{at}.request.{name}")
        found[header] = value
    return found
