"""GraphQL over WebSocket (the protocol graphql-transport-ws), by strawberry's handler: subscriptions, and whatever else is asked.

The token comes in ``connection_init``, as ``{"Authorization": "Bearer …"}``: a page of another origin has none to send.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import msgspec
from starlette.websockets import WebSocket
from strawberry.asgi import ASGIWebSocketAdapter
from strawberry.exceptions import ConnectionRejectionError
from strawberry.subscriptions import GRAPHQL_TRANSPORT_WS_PROTOCOL
from strawberry.subscriptions.protocols.graphql_transport_ws.handlers import BaseGraphQLTransportWSHandler

from domain.access import Action, Outcome
from projections.errors import ProjectionIncomplete
from server.auth.principals import Authenticated
from server.errors import ScopeMissing, TokenInvalid
from server.graphql.context import Context
from server.graphql.errors import Code, GraphqlError
from server.graphql.served import Served, refuse_one_patient

ROUTE = "/graphql"
SCOPE = "cohorts:read"
INIT_WITHIN_S = 10.0
TRY_AGAIN_LATER = 1013
"""RFC 6455's registry of close codes."""
MOST_OPERATIONS = 20
"""At the same time over one connection."""


class Caller:
    """Who is at the other end of a connection."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self.connection_params: dict[str, Any] = {}
        self._token = ""
        self._reader: Authenticated | None = None

    async def authenticate(self) -> None:
        """Raises TokenInvalid and ScopeMissing; also for a token that was good before."""
        if not self._token:
            given = {str(name).lower(): value for name, value in self.connection_params.items()}.get("authorization")
            scheme, _, token = given.partition(" ") if isinstance(given, str) else ("", "", "")
            if scheme.lower() != "bearer" or not token.strip():
                raise TokenInvalid("connection_init carries no bearer token")
            self._token = token.strip()
        reader = await self._served.services.verifiers.verify(self._token)
        self._reader = reader
        if not reader.may(SCOPE):
            raise ScopeMissing(SCOPE)
        refuse_one_patient(reader)

    def context(self) -> Context:
        """Of one operation."""
        assert self._reader is not None
        context = self._served.context(self._reader)
        context.still_good = self.authenticate
        return context

    async def record(self, context: Context) -> None:
        """What an answer tells, before it is sent. Raises GraphqlError where it cannot be recorded."""
        recorder = self._served.services.recorder
        if recorder is None:
            return
        if recorder.is_full:
            raise GraphqlError(Code.UNAVAILABLE, "accesses cannot be recorded now, so nothing can be read: try again")
        subjects = tuple(sorted(await context.pseudonyms()))
        recorder.record(context.principal, Action.SEARCH, Outcome.SUCCESS, route=ROUTE, parameters=tuple(sorted(context.fields)), subjects=subjects)
        context.subjects.clear()

    def refused(self) -> None:
        recorder = self._served.services.recorder
        if recorder is not None and self._reader is not None:
            recorder.record(self._reader.principal, Action.SEARCH, Outcome.REFUSED, route=ROUTE)


class View:
    """What the handler asks of the view that it belongs to."""

    def __init__(self, served: Served) -> None:
        self._served = served

    def decode_json(self, text: str | bytes) -> object:
        try:
            return msgspec.json.decode(text)
        except (msgspec.DecodeError, RecursionError):
            return {"type": "what is no JSON"}

    def encode_json(self, message: object) -> str:
        return msgspec.json.encode(message).decode("utf-8")

    async def on_ws_connect(self, caller: Caller) -> dict[str, object]:
        try:
            await caller.authenticate()
            await self._served.require_complete()
        except (TokenInvalid, ScopeMissing):
            caller.refused()
            raise ConnectionRejectionError from None
        return {}


async def converse(served: Served, websocket: WebSocket) -> None:
    """Until the client goes."""
    if GRAPHQL_TRANSPORT_WS_PROTOCOL not in websocket.scope.get("subprotocols", ()):
        await websocket.close(4406, f"speak {GRAPHQL_TRANSPORT_WS_PROTOCOL}")
        return
    await websocket.accept(GRAPHQL_TRANSPORT_WS_PROTOCOL)
    view: Any = View(served)
    handler: Any = BaseGraphQLTransportWSHandler(
        view=view,
        websocket=ASGIWebSocketAdapter(view, websocket, websocket),
        context=Caller(served),
        root_value=None,
        schema=served.schema,
        connection_init_wait_timeout=timedelta(seconds=INIT_WITHIN_S),
        max_subscriptions_per_connection=MOST_OPERATIONS,
    )
    try:
        await handler.handle()
    except ProjectionIncomplete as incomplete:
        await websocket.close(TRY_AGAIN_LATER, str(incomplete)[:120])
