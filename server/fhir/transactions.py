"""POST /fhir: a batch or a transaction Bundle (R5 http.html#transaction).

A transaction is one append over the streams of all that it writes. What a batch asks for, and what a transaction reads, are requests of
their own to this same application, so that they are checked, answered and recorded like any other.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import Sequence
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Annotated, Any

import asyncpg
import httpx
import msgspec
from fastapi import APIRouter, Depends, Request, Response

from eventlog.envelope import instant
from projections.fhir.projection import SCHEMA
from projections.fhir.vocabulary import Json
from server.as_of import HEADER
from server.auth.principals import Authenticated, requires
from server.errors import ScopeMissing
from server.fhir.access import INTERACTIONS
from server.fhir.identities import shown_to
from server.fhir.outcome import FHIR_JSON, FhirError, issue
from server.fhir.preferences import preferences
from server.fhir.route import base_url
from server.fhir.writes import SCOPE, WriteRoute
from server.fhir.writing import incoming
from server.fhir.writing.commit import Outcome, commit
from server.fhir.writing.entries import READS, Entry, entries_of, in_order, interaction_of
from server.fhir.writing.interaction import Written
from server.fhir.writing.rights import may_be_shown
from server.fhir.writing.told import HEADER as HEADER_OF_PROVENANCE
from server.fhir.writing.told import told_with
from server.read_models import require_complete
from server.services import Services

READ_SCOPE = "fhir:read"
AT_ONCE = 8
"""Entries of a batch under way at the same time: none depends on another (R5 http.html#brules)."""

router = APIRouter(route_class=WriteRoute)

_WRITTEN = f"""
SELECT r.type, r.id, r.version, r.last_updated, r.position_from, CASE WHEN $4 THEN r.body ELSE '' END AS body
FROM unnest($1::text[], $2::text[], $3::int[]) AS k (type, id, version)
CROSS JOIN LATERAL (SELECT * FROM {SCHEMA}.resource WHERE type = k.type AND id = k.id AND version = k.version) r
"""


async def sender(request: Request) -> Authenticated:
    """Who may read or write; each entry asks for its own scope."""
    try:
        found = await requires(READ_SCOPE, or_some=INTERACTIONS)(request)
    except ScopeMissing:
        found = await requires(SCOPE)(request)
    await require_complete(request, "fhir")
    return found


@router.post("")
@router.post("/", include_in_schema=False)
async def bundle(request: Request, writer: Annotated[Authenticated, Depends(sender)]) -> Response:
    tree = incoming.resource_in(incoming.decoded(await incoming.body_of(request)), "Bundle")
    kind = tree.get("type")
    if kind not in ("batch", "transaction"):
        raise FhirError(400, "not-supported", "a Bundle that is posted here is a batch or a transaction", "Bundle.type")
    entries = entries_of(tree, base_url(request))
    if kind == "batch":
        return _answer("batch-response", await _each(request, entries), None)
    done, answered = await _transaction(request, writer, entries)
    return _answer("transaction-response", answered, done.position)


async def _transaction(request: Request, writer: Authenticated, entries: Sequence[Entry]) -> tuple[Outcome, list[Json]]:
    order = in_order(entries)
    done = Outcome(written=[])
    answered: dict[int, Json] = {}
    told = told_with(request)
    if order:
        services: Services = request.app.state.services
        done = await commit(services, writer, base_url(request), [interaction_of(entries[nth]) for nth in order], told)
        answered = dict(zip(order, await _shown(request, services, writer, done), strict=True))
    reading = [nth for nth, one in enumerate(entries) if one.method in READS]
    answered.update(zip(reading, await _each(request, [entries[nth] for nth in reading]), strict=True))
    return done, [answered[nth] for nth in range(len(entries))]


async def _shown(request: Request, services: Services, writer: Authenticated, done: Outcome) -> list[Json]:
    """The response of each entry, with the resource where the client prefers that, and may read it."""
    returns = preferences(request).returns
    wanted = [(one.resource_type, one.resource_id, one.version) for one in done.written]
    rows = await services.pool.fetch(_WRITTEN, *map(list, zip(*wanted, strict=True)), returns == "representation")
    bodies = await shown_to(services.pool, writer, [(row["type"], row["body"], row["position_from"]) for row in rows])
    found = {(row["type"], row["id"], row["version"]): (row, body) for row, body in zip(rows, bodies, strict=True)}
    entries = [_entry(request, one, *found.get(key, (None, "")), returns) for one, key in zip(done.written, wanted, strict=True)]
    for one, entry in zip(done.written, entries, strict=True):
        if "resource" in entry and not await may_be_shown(services, writer, one):
            del entry["resource"]
    return entries


def _entry(request: Request, written: Written, row: asyncpg.Record | None, body: str, returns: str | None) -> Json:
    response: Json = {"status": _status(written.status)}
    made: Json = {"response": response}
    if written.version:
        response["etag"] = f'W/"{written.version}"'
    if written.status != HTTPStatus.NO_CONTENT:
        response["location"] = f"{base_url(request)}/{written.resource_type}/{written.resource_id}/_history/{written.version}"
    if row is not None:
        response["lastModified"] = instant(row["last_updated"])
        if body:
            made["resource"] = msgspec.Raw(body.encode("utf-8"))
    if returns == "OperationOutcome":
        said = f"{written.resource_type}/{written.resource_id} is at version {written.version}"
        response["outcome"] = {"resourceType": "OperationOutcome", "issue": [issue("informational", said, severity="information")]}
    return made


async def _each(request: Request, entries: Sequence[Entry]) -> list[Json]:
    if not entries:
        return []
    turn = asyncio.Semaphore(AT_ONCE)
    passed_on = {name: request.headers[name] for name in ("authorization", "prefer", HEADER_OF_PROVENANCE) if name in request.headers}
    transport = httpx.ASGITransport(request.app, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url=str(request.base_url), headers=passed_on) as client:

        async def one(entry: Entry) -> Json:
            async with turn:
                content, headers = _content(entry)
                query = f"?{entry.query}" if entry.query else ""
                answer = await client.request(entry.method, f"/fhir/{'/'.join(entry.path)}{query}", content=content, headers=headers)
                return _entry_of(answer)

        return list(await asyncio.gather(*map(one, entries)))


def _content(entry: Entry) -> tuple[bytes | None, dict[str, str]]:
    """A patch is in a Binary, which is what it holds (R5 http.html#jsonpatch-bundle)."""
    if entry.resource is None:
        return None, entry.headers
    if entry.method == "PATCH" and entry.resource.get("resourceType") == "Binary":
        content_type, data = entry.resource.get("contentType"), entry.resource.get("data")
        if isinstance(content_type, str) and isinstance(data, str) and content_type.isascii() and content_type.isprintable():
            with contextlib.suppress(ValueError):
                return base64.b64decode(data, validate=True), {**entry.headers, "content-type": content_type}
    return _ENCODER.encode(entry.resource), {**entry.headers, "content-type": FHIR_JSON}


_ENCODER = msgspec.json.Encoder(decimal_format="number")


def _entry_of(answer: httpx.Response) -> Json:
    response: Json = {"status": _status(answer.status_code)}
    made: Json = {"response": response}
    for name, header in (("location", "location"), ("etag", "etag")):
        if header in answer.headers:
            response[name] = answer.headers[header]
    if "last-modified" in answer.headers:
        response["lastModified"] = instant(parsedate_to_datetime(answer.headers["last-modified"]))
    if answer.content and answer.is_success:
        made["resource"] = msgspec.Raw(answer.content)
    elif answer.content:
        response["outcome"] = msgspec.Raw(answer.content)
    return made


def _status(code: int) -> str:
    return f"{code} {HTTPStatus(code).phrase}"


def _answer(kind: str, entries: list[Json], position: int | None) -> Response:
    made: dict[str, Any] = {"resourceType": "Bundle", "type": kind}
    if entries:
        made["entry"] = entries
    headers = {} if position is None else {HEADER: str(position)}
    return Response(msgspec.json.encode(made), headers=headers, media_type=FHIR_JSON)
