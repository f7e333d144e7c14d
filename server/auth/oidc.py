"""JWTs of an OpenID Connect issuer (OpenID Connect Discovery 1.0; RFC 9068): its keys are fetched, cached, and fetched again
when a token names a key that is not known yet."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import httpx
from joserfc import jwt
from joserfc.errors import JoseError
from joserfc.jwk import KeySet

from domain.principal import Principal, PrincipalKind
from server.auth.tokens import Grant, granted, is_patient_id
from server.errors import TokenInvalid

ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
"""Asymmetric ones alone: a symmetric key would let every holder make tokens."""
REFRESH_AT_MOST_EVERY_S = 10.0
LEEWAY_S = 30


class OidcVerifier:
    def __init__(self, issuer: str, audience: str, client: httpx.AsyncClient | None = None) -> None:
        self._issuer = issuer.rstrip("/")
        self._audience = audience
        self._client = client or httpx.AsyncClient(timeout=10)
        self._keys: KeySet | None = None
        self._fetched_at = 0.0

    async def close(self) -> None:
        await self._client.aclose()

    async def verify(self, token: str) -> Grant:
        """Raises TokenInvalid; the reason names no claim's value."""
        try:
            claims = await self._claims(token)
            _requests(self._issuer, self._audience).validate(claims)
        except (JoseError, ValueError, KeyError, TypeError, httpx.HTTPError) as error:
            raise TokenInvalid(f"the JWT is not accepted ({type(error).__name__})") from error
        scopes, smart = granted(_scopes(claims))
        patient = claims.get("patient")
        if patient is not None and not (isinstance(patient, str) and is_patient_id(patient)):
            raise TokenInvalid("the JWT is not accepted: its claim patient is no id of a Patient")
        return Grant(
            principal=Principal(id=f"oidc:{claims['sub']}", kind=PrincipalKind.PERSON),
            scopes=scopes,
            smart=smart,
            patient=patient,
            expires_at=datetime.fromtimestamp(int(claims["exp"]), UTC),
        )

    async def _claims(self, token: str) -> dict[str, Any]:
        keys = await self._key_set(refresh=False)
        try:
            return dict(jwt.decode(token, keys, algorithms=ALGORITHMS).claims)
        except (JoseError, ValueError):
            fresh = await self._key_set(refresh=True)
            if fresh is keys:
                raise
            return dict(jwt.decode(token, fresh, algorithms=ALGORITHMS).claims)

    async def _key_set(self, *, refresh: bool) -> KeySet:
        old = time.monotonic() - self._fetched_at > REFRESH_AT_MOST_EVERY_S
        if self._keys is None or (refresh and old):
            self._fetched_at = time.monotonic()  # before asking: an issuer that is down is not asked for every request
            discovery = (await self._client.get(f"{self._issuer}/.well-known/openid-configuration")).raise_for_status().json()
            if str(discovery.get("issuer", "")).rstrip("/") != self._issuer:
                raise ValueError("the issuer calls itself otherwise")
            keys = (await self._client.get(discovery["jwks_uri"])).raise_for_status().json()
            self._keys = KeySet.import_key_set(keys)
        return self._keys


def _scopes(claims: dict[str, Any]) -> frozenset[str]:
    """`scope` (RFC 9068, 2.2.3.1), or `scp` as some issuers call it: words in one string, or a list."""
    given = claims.get("scope", claims.get("scp", ""))
    return frozenset(given.split() if isinstance(given, str) else map(str, given))


def _requests(issuer: str, audience: str) -> jwt.JWTClaimsRegistry:
    return jwt.JWTClaimsRegistry(
        leeway=LEEWAY_S,
        iss={"essential": True, "values": [issuer, issuer + "/"]},
        aud={"essential": True, "value": audience},
        exp={"essential": True},
        sub={"essential": True},
    )
