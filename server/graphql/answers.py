"""Answers over HTTP, as GraphQL-over-HTTP has them: in its own media type a request that cannot be run is 400, in JSON it is 200."""

from __future__ import annotations

from typing import Any

import msgspec
from graphql import GraphQLError
from starlette.responses import Response
from strawberry.types import ExecutionResult

from server.graphql.errors import GraphqlError

GRAPHQL_JSON = "application/graphql-response+json"
JSON = "application/json"


def media_type_of(accept: str) -> str | None:
    """What a client takes; None where it takes neither. GraphQL-over-HTTP: without a wish, and for any, the older one."""
    wanted = [part.split(";")[0].strip().lower() for part in accept.split(",") if part.strip()]
    if GRAPHQL_JSON in wanted:
        return GRAPHQL_JSON
    if not wanted or any(one in (JSON, "application/*", "*/*") for one in wanted):
        return JSON
    return None


def answer(result: ExecutionResult, media_type: str) -> Response:
    if result.data is None and result.errors and not any(error.path for error in result.errors):
        return refusal(result.errors, media_type)
    body: dict[str, Any] = {"data": result.data}
    if result.errors:
        body["errors"] = [error.formatted for error in result.errors]
    return _response(body, 200, media_type)


def refusal(errors: list[GraphQLError], media_type: str) -> Response:
    """Of a request that was not run: there is no ``data``."""
    return _response({"errors": [error.formatted for error in errors]}, 400 if media_type == GRAPHQL_JSON else 200, media_type)


def refused(error: GraphqlError, media_type: str) -> Response:
    told = GraphQLError(str(error), extensions={"code": error.code, **error.more})
    return refusal([told], media_type)


def _response(body: dict[str, Any], status: int, media_type: str) -> Response:
    # A URL of a persisted query is the same for everybody, and its answer is not.
    headers = {"Cache-Control": "no-store", "Vary": "Accept, Authorization"}
    return Response(msgspec.json.encode(body), status, headers, media_type=f"{media_type}; charset=utf-8")
