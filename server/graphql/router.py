"""The endpoint: POST /graphql, GET for documents that are named by their digest, a WebSocket for subscriptions, and GraphiQL for people."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any
from urllib.parse import parse_qs

import msgspec
from fastapi import APIRouter, Depends, Request, Response, WebSocket
from starlette.exceptions import HTTPException
from strawberry.schema.exceptions import CannotGetOperationTypeError, InvalidOperationTypeError
from strawberry.types.graphql import OperationType

from server.audit.reads import saw_search, saw_subjects
from server.auth.principals import Authenticated, probe, requires
from server.graphql import page
from server.graphql.answers import answer, media_type_of, refused
from server.graphql.errors import Code, GraphqlError
from server.graphql.served import Served, refuse_one_patient
from server.graphql.sockets import converse

MOST_BYTES = 2 * 1024 * 1024
"""Of a request's body."""
router = APIRouter(prefix="/graphql", tags=["GraphQL"], include_in_schema=False)
_authenticate = requires("cohorts:read")


class Asked(msgspec.Struct, frozen=True):
    """GraphQL-over-HTTP, 4.1: what is asked."""

    query: str | None = None
    operationName: str | None = None
    variables: dict[str, Any] | None = None
    extensions: dict[str, Any] | None = None


async def _reader(request: Request) -> Authenticated:
    reader = await _authenticate(request)
    refuse_one_patient(reader)
    await _served(request).require_complete()
    return reader


Reader = Annotated[Authenticated, Depends(_reader)]


@router.post("")
async def post(request: Request, reader: Reader) -> Response:
    """What is asked for in the body."""
    media_type = _media_type(request)
    if request.headers.get("content-type", "").split(";")[0].strip().lower() not in ("application/json", "application/graphql-response+json"):
        raise HTTPException(415, "send the request as application/json")
    try:
        asked = msgspec.json.decode(await _body(request), type=Asked)
    except (msgspec.DecodeError, RecursionError):
        raise HTTPException(400, 'the body is no GraphQL request: {"query": "…", "variables": {…}}') from None
    return await _answer(request, reader, asked, media_type)


async def _get(request: Request) -> Response:
    reader = await _reader(request)
    media_type = _media_type(request)
    given = parse_qs(request.url.query, keep_blank_values=True)
    if "query" in given:
        return refused(GraphqlError(Code.BAD_INPUT, "a document comes by POST; GET is for one that is named by its SHA-256 (persistedQuery)"), media_type)
    try:
        variables, extensions = (msgspec.json.decode(given[name][0], type=dict[str, Any]) if name in given else None for name in ("variables", "extensions"))
    except (msgspec.DecodeError, RecursionError):
        raise HTTPException(400, "variables and extensions are JSON objects") from None
    asked = Asked(operationName=given.get("operationName", [None])[0], variables=variables, extensions=extensions)
    return await _answer(request, reader, asked, media_type)


@router.get("")
async def get(request: Request) -> Response:
    """GraphiQL for a browser; else what is asked for by the digest of a document."""
    if "text/html" in request.headers.get("accept", "") and "extensions" not in request.query_params:
        probe(request)
        return page.index()
    return await _get(request)


@router.get("/graphiql.js", dependencies=[Depends(probe)])
@router.get("/graphiql.css", dependencies=[Depends(probe)])
@router.get("/react.js", dependencies=[Depends(probe)])
@router.get("/react-dom.js", dependencies=[Depends(probe)])
@router.get("/page.js", dependencies=[Depends(probe)])
@router.get("/examples.json", dependencies=[Depends(probe)])
async def asset(request: Request) -> Response:
    """Parts of GraphiQL, which say nothing of the data."""
    return page.asset(request.url.path.rsplit("/", 1)[1], request.headers.get("if-none-match", ""))


@router.websocket("")
async def socket(websocket: WebSocket) -> None:
    """The protocol graphql-transport-ws."""
    served: Served = websocket.app.state.graphql
    await converse(served, websocket)


async def _answer(request: Request, reader: Authenticated, asked: Asked, media_type: str) -> Response:
    served = _served(request)
    over_get = request.method == "GET"
    context = served.context(reader, over_get=over_get)
    allowed = {OperationType.QUERY} if over_get else {OperationType.QUERY, OperationType.MUTATION}
    try:
        text = served.persisted.text(asked.query, asked.extensions)
        async with asyncio.timeout(None) as context.clock:
            result = await served.schema.execute(
                text, variable_values=asked.variables, context_value=context, operation_name=asked.operationName, allowed_operation_types=allowed
            )
    except TimeoutError:
        return refused(GraphqlError(Code.TOO_SLOW, "this took too long, and was ended: ask for less, or `explain` it"), media_type)
    except GraphqlError as error:
        return refused(error, media_type)
    except CannotGetOperationTypeError:
        return refused(GraphqlError(Code.BAD_INPUT, "name one operation of the document (operationName)"), media_type)
    except InvalidOperationTypeError:
        if over_get:
            raise HTTPException(405, "what changes something comes by POST", {"Allow": "POST"}) from None
        return refused(GraphqlError(Code.BAD_INPUT, "subscriptions are had over WebSocket (graphql-transport-ws)"), media_type)
    saw_subjects(request, await context.pseudonyms())
    saw_search(request, [(name, "") for name in context.fields])
    return answer(result, media_type)


async def _body(request: Request) -> bytes:
    """Raises HTTPException (413)."""
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MOST_BYTES:
            raise HTTPException(413, f"a request has at most {MOST_BYTES} bytes")
    return bytes(body)


def _media_type(request: Request) -> str:
    """Raises HTTPException (406)."""
    media_type = media_type_of(request.headers.get("accept", ""))
    if media_type is None:
        raise HTTPException(406, "answers are application/graphql-response+json or application/json")
    return media_type


def _served(request: Request) -> Served:
    served: Served = request.app.state.graphql
    return served
