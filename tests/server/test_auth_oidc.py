"""JWTs of an OpenID Connect issuer: a real one, over HTTP, whose keys this test makes, changes and takes away."""

from __future__ import annotations

import base64
import hmac
import json
import threading
import time
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import pytest_asyncio
from joserfc import jwt
from joserfc.jwk import ECKey, RSAKey

import server.auth.oidc
from server.auth.oidc import OidcVerifier
from server.errors import TokenInvalid

AUDIENCE = "https://anamnesis.example"


class Issuer:
    """Discovery and keys on a port of this machine."""

    def __init__(self) -> None:
        self.keys: list[Any] = [RSAKey.generate_key(2048, {"kid": "one"})]
        self.calls_itself: str | None = None
        self.asked = 0
        self.down = False
        issuer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.asked += 1
                if issuer.down:
                    self.send_error(503)
                    return
                if self.path == "/realm/.well-known/openid-configuration":
                    body: Any = {"issuer": issuer.calls_itself or issuer.url, "jwks_uri": f"{issuer.url}/keys"}
                else:
                    body = {"keys": [key.as_dict(private=False) for key in issuer.keys]}
                data = json.dumps(body).encode()
                self.send_response(200)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: Any) -> None: ...

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/realm"
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()

    def token(self, key: Any = None, header: dict[str, Any] | None = None, without: str = "", **claims: Any) -> str:
        key = key or self.keys[0]
        now = int(time.time())
        payload = {"iss": self.url, "aud": AUDIENCE, "sub": "alice", "exp": now + 60, "iat": now, "scope": "openid fhir:read"}
        payload |= claims
        payload.pop(without, None)
        head = {"alg": "RS256", "kid": key.kid} | (header or {})
        return jwt.encode(head, payload, key, algorithms=[head["alg"]])


def _base64(header: dict[str, str]) -> str:
    return base64.urlsafe_b64encode(json.dumps(header).encode()).rstrip(b"=").decode()


@pytest.fixture
def issuer() -> Iterator[Issuer]:
    issuer = Issuer()
    yield issuer
    issuer.http.shutdown()
    issuer.http.server_close()


@pytest_asyncio.fixture
async def verifier(issuer: Issuer) -> AsyncIterator[OidcVerifier]:
    verifier = OidcVerifier(issuer.url, AUDIENCE)
    yield verifier
    await verifier.close()


async def test_a_good_token_gives_principal_and_known_scopes(issuer: Issuer, verifier: OidcVerifier) -> None:
    grant = await verifier.verify(issuer.token())
    assert grant.principal.id == "oidc:alice"
    assert grant.scopes == {"fhir:read"}


async def test_scopes_may_be_a_list_named_scp(issuer: Issuer, verifier: OidcVerifier) -> None:
    grant = await verifier.verify(issuer.token(without="scope", scp=["fhir:read", "dicom:read", "other"]))
    assert grant.scopes == {"fhir:read", "dicom:read"}


async def test_scopes_of_smart_and_the_patient_that_they_are_about_are_claims(issuer: Issuer, verifier: OidcVerifier) -> None:
    scope = "launch/patient openid fhirUser patient/Observation.rs?status=final patient/Nonsense.rs user/*.sr identities:read"
    grant = await verifier.verify(issuer.token(scope=scope, patient="p-1"))
    assert (grant.scopes, [str(one) for one in grant.smart], grant.patient) == (
        {"identities:read"}, ["patient/Observation.rs?status=final"], "p-1",
    )  # fmt: skip
    assert (await verifier.verify(issuer.token())).patient is None
    for patient in ("Patient/1", "a b", "", 5, ["p"], {}):
        with pytest.raises(TokenInvalid):
            await verifier.verify(issuer.token(scope=scope, patient=patient))


async def test_keys_are_fetched_once_and_again_when_a_key_is_unknown(
    issuer: Issuer, verifier: OidcVerifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        await verifier.verify(issuer.token())
    assert issuer.asked == 2  # discovery and keys
    issuer.keys = [RSAKey.generate_key(2048, {"kid": "two"})]
    monkeypatch.setattr(server.auth.oidc, "REFRESH_AT_MOST_EVERY_S", 0.0)
    assert (await verifier.verify(issuer.token())).principal.id == "oidc:alice"
    assert issuer.asked == 4


async def test_unknown_keys_do_not_make_us_ask_for_each_request(issuer: Issuer, verifier: OidcVerifier) -> None:
    await verifier.verify(issuer.token())
    stranger = RSAKey.generate_key(2048, {"kid": "stranger"})
    for _ in range(5):
        with pytest.raises(TokenInvalid):
            await verifier.verify(issuer.token(stranger))
    assert issuer.asked == 2


async def test_a_strangers_signature_under_a_known_key_is_refused(issuer: Issuer, verifier: OidcVerifier) -> None:
    with pytest.raises(TokenInvalid):
        await verifier.verify(issuer.token(RSAKey.generate_key(2048, {"kid": "one"})))


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "http://127.0.0.1/other"},
        {"aud": "somebody else"},
        {"exp": 1},
        {"exp": "soon"},
        {"nbf": 4_000_000_000},
        {"without": "exp"},
        {"without": "aud"},
        {"without": "iss"},
        {"without": "sub"},
    ],
    ids=str,
)
async def test_a_wrong_or_missing_claim_is_refused(issuer: Issuer, verifier: OidcVerifier, claims: dict[str, Any]) -> None:
    with pytest.raises(TokenInvalid):
        await verifier.verify(issuer.token(**claims))


async def test_symmetric_and_unsigned_tokens_are_refused(issuer: Issuer, verifier: OidcVerifier) -> None:
    """The public key as an HMAC secret is the classical confusion; alg none is the other one."""
    _, payload, _ = issuer.token().split(".")
    signed = f"{_base64({'alg': 'HS256', 'kid': 'one'})}.{payload}"
    mac = hmac.digest(issuer.keys[0].as_pem(private=False), signed.encode(), "sha256")
    with pytest.raises(TokenInvalid):
        await verifier.verify(f"{signed}.{base64.urlsafe_b64encode(mac).rstrip(b'=').decode()}")
    none = _base64({"alg": "none"})
    for unsigned in (f"{none}.{payload}.", f"{none}.{payload}", "a.b.c", "x", ""):
        with pytest.raises(TokenInvalid):
            await verifier.verify(unsigned)


async def test_elliptic_keys_are_accepted(issuer: Issuer, verifier: OidcVerifier) -> None:
    key = ECKey.generate_key("P-256", {"kid": "ec"})
    issuer.keys.append(key)
    assert (await verifier.verify(issuer.token(key, {"alg": "ES256"}))).scopes == {"fhir:read"}


async def test_an_issuer_that_calls_itself_otherwise_is_not_believed(issuer: Issuer, verifier: OidcVerifier) -> None:
    issuer.calls_itself = "https://evil.example"
    with pytest.raises(TokenInvalid):
        await verifier.verify(issuer.token())


async def test_known_keys_serve_while_the_issuer_is_down(issuer: Issuer, verifier: OidcVerifier) -> None:
    await verifier.verify(issuer.token())
    issuer.down = True
    assert (await verifier.verify(issuer.token())).principal.id == "oidc:alice"
