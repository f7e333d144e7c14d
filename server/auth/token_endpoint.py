"""POST /auth/token: a registered client gets an access token for five minutes (RFC 6749, 4.4; SMART App Launch 2.2,
backend-services.html).

Errors are those of RFC 6749, 5.2. Who asks is whoever the assertion proves; nothing is done for anybody else.
"""

from __future__ import annotations

from datetime import timedelta
from urllib.parse import parse_qsl

import msgspec
from fastapi import APIRouter, Request, Response

from server.auth.allowance import MOST_A_MINUTE
from server.auth.assertions import MOST_CHARACTERS, AssertionRefused, authenticated
from server.auth.clients import Client, is_safe_address, narrowed
from server.auth.principals import Authenticated
from server.auth.tokens import client_principal, create_client_token
from server.services import Services

PATH = "/auth/token"
ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"
LIFETIME_S = 300
MOST_BYTES = 64 * 1024
_NO_STORE = {"Cache-Control": "no-store", "Pragma": "no-cache"}
_FORM = "application/x-www-form-urlencoded"

router = APIRouter(prefix="/auth", tags=["Auth"])


class _Refused(Exception):
    """Raised with an error of RFC 6749, 5.2."""

    def __init__(self, error: str, description: str, status: int = 400) -> None:
        super().__init__(description)
        self.error = error
        self.status = status


@router.post("/token")
async def token(request: Request) -> Response:
    """Nobody has a token who asks for one: the client's signed assertion takes its place."""
    services: Services = request.app.state.services
    try:
        form = await _form(request)
        client = await _client(request, services, form)
        request.state.authenticated = Authenticated(principal=client_principal(client.client_id), scopes=frozenset())
        if not services.allowance.take(client.client_id):
            return _answer({"error": "slow_down", "error_description": f"a client has {MOST_A_MINUTE} tokens a minute"}, 429, {"Retry-After": "60"})
        scopes = narrowed(form.get("scope", "").split(), client.scopes)
        if not scopes:
            raise _Refused("invalid_scope", "nothing of what is asked for was registered for this client: see `anamnesis client list`")
    except _Refused as refused:
        return _answer({"error": refused.error, "error_description": str(refused)}, refused.status)
    made = await create_client_token(services.pool, client.client_id, client.name, scopes, timedelta(seconds=LIFETIME_S))
    return _answer({"access_token": made, "token_type": "bearer", "expires_in": LIFETIME_S, "scope": " ".join(scopes)}, 200)


def token_address(request: Request) -> str | None:
    """The address of the token endpoint, which an assertion has to name; None where nobody can be sure of it: a request's own word for
    where it goes counts on this machine alone."""
    services: Services = request.app.state.services
    base = services.settings.public_url or str(request.base_url)
    if services.settings.public_url is None and not is_safe_address(f"http://{request.url.netloc}"):
        return None
    return f"{base.rstrip('/')}{PATH}"


async def _form(request: Request) -> dict[str, str]:
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _FORM:
        raise _Refused("invalid_request", f"the body is a form ({_FORM})")
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MOST_BYTES:
            raise _Refused("invalid_request", f"the body has at most {MOST_BYTES} bytes", 413)
    try:
        fields = parse_qsl(body.decode("ascii"), keep_blank_values=True, max_num_fields=50)
    except ValueError:
        raise _Refused("invalid_request", "the body is no form") from None
    form = dict(fields)
    if len(form) != len(fields):
        raise _Refused("invalid_request", "a parameter is given twice")
    return form


async def _client(request: Request, services: Services, form: dict[str, str]) -> Client:
    if form.get("grant_type") is None:
        raise _Refused("invalid_request", "grant_type is client_credentials")
    if form["grant_type"] != "client_credentials":
        raise _Refused("unsupported_grant_type", "grant_type is client_credentials: users get their tokens from the site's OpenID Connect issuer")
    if form.get("client_assertion_type") != ASSERTION_TYPE:
        raise _Refused("invalid_request", f"client_assertion_type is {ASSERTION_TYPE}")
    assertion = form.get("client_assertion", "")
    if not assertion or len(assertion) > MOST_CHARACTERS:
        raise _Refused("invalid_request", "client_assertion is a signed JWT")
    address = token_address(request)
    if address is None:
        raise _Refused("invalid_client", "this server does not know its own address: set ANAMNESIS_PUBLIC_URL", 401)
    try:
        client = await authenticated(services.pool, services.client_keys, assertion, address)
    except AssertionRefused as error:
        raise _Refused("invalid_client", str(error), 401) from None
    if form.get("client_id", client.client_id) != client.client_id:
        raise _Refused("invalid_client", "client_id is not that of the assertion", 401)
    return client


def _answer(body: dict[str, object], status: int, headers: dict[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(body), status, {**_NO_STORE, **(headers or {})}, media_type="application/json")
