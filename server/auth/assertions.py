"""A client's assertion: a JWT by which it authenticates, signed with its own key (RFC 7523, 3; SMART client-confidential-asymmetric.html).

Each is taken once: its id is kept until it would have expired.
"""

from __future__ import annotations

import binascii
import hashlib
import time
from base64 import urlsafe_b64decode
from datetime import UTC, datetime
from typing import Any

import asyncpg
import msgspec
from joserfc import jwt
from joserfc.errors import JoseError

from server.auth.clients import Client, ClientKeys, KeysUnusable, find_client

ALGORITHMS = ("RS384", "ES384")
MOST_LIFETIME_S = 300
LEEWAY_S = 10
"""How far a client's clock may be ahead of ours, or behind."""
MOST_CHARACTERS = 16_000
_PARTS = 3
_MOST_ID_CHARACTERS = 1000


class AssertionRefused(Exception):
    """Raised where an assertion proves nothing; the message says what to do, and repeats nothing of it."""


async def authenticated(pool: asyncpg.Pool, keys: ClientKeys, assertion: str, audience: str) -> Client:
    """Whose assertion it is. ``audience`` is the address of the token endpoint. Raises AssertionRefused."""
    header, unproven = _decoded(assertion)
    if header.get("alg") not in ALGORITHMS:
        raise AssertionRefused(f"it is signed by one of {', '.join(ALGORITHMS)}")
    kid, client_id = header.get("kid"), unproven.get("iss")
    if not isinstance(kid, str) or not isinstance(client_id, str) or "\0" in client_id:
        raise AssertionRefused("it names its key (kid) in the header, and the client in iss")
    client = await find_client(pool, client_id)
    if client is None:
        raise AssertionRefused("no client of this id is registered, or it was revoked")
    if header.get("jku", client.jwks_uri) != client.jwks_uri:
        raise AssertionRefused("jku is not the address that was registered")
    try:
        known = await keys.of(client, kid)
        if all(one.kid != kid for one in known.keys):
            raise AssertionRefused("the client has no key of this id (kid)")
        claims = jwt.decode(assertion, known, algorithms=list(ALGORITHMS)).claims
    except KeysUnusable as error:
        raise AssertionRefused(str(error)) from None
    except (JoseError, ValueError, KeyError, TypeError):
        raise AssertionRefused("the signature is not that of the key") from None
    expires_at = _checked(claims, client_id, audience)
    await _take(pool, client_id, claims["jti"], expires_at)
    return client


def _decoded(assertion: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Header and claims, of which nothing is proven yet."""
    parts = assertion.split(".")
    try:
        if len(assertion) > MOST_CHARACTERS or len(parts) != _PARTS:
            raise ValueError
        header, claims = (msgspec.json.decode(urlsafe_b64decode(one + "=" * (-len(one) % 4))) for one in parts[:2])
        if not isinstance(header, dict) or not isinstance(claims, dict):
            raise ValueError
    except (ValueError, binascii.Error, msgspec.DecodeError):
        raise AssertionRefused("it is no signed JWT") from None
    return header, claims


def _checked(claims: dict[str, Any], client_id: str, audience: str) -> datetime:
    """When it expires."""
    now = time.time()
    if claims.get("sub") != client_id:
        raise AssertionRefused("iss and sub are both the client's id")
    given = claims.get("aud")
    if audience not in (given if isinstance(given, list) else [given]):
        raise AssertionRefused(f"aud is the address of the token endpoint, {audience}")
    expires = _moment(claims, "exp")
    if expires is None or expires <= now - LEEWAY_S:
        raise AssertionRefused("it has expired, or does not say when it does (exp)")
    if expires > now + MOST_LIFETIME_S + LEEWAY_S:
        raise AssertionRefused(f"it may be good for {MOST_LIFETIME_S} seconds, and no longer (exp)")
    begins = max(_moment(claims, "nbf") or 0.0, _moment(claims, "iat") or 0.0)
    if begins > now + LEEWAY_S:
        raise AssertionRefused("it is not good yet (nbf, iat): compare the clocks")
    jti = claims.get("jti")
    if not isinstance(jti, str) or not 0 < len(jti) <= _MOST_ID_CHARACTERS:
        raise AssertionRefused("it has an id of its own (jti)")
    return datetime.fromtimestamp(expires + LEEWAY_S, UTC)


def _moment(claims: dict[str, Any], name: str) -> float | None:
    """Seconds since 1970; None where it is not given, or no moment that could be meant."""
    value = claims.get(name)
    if value is None or isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 2**40:
        return None
    return float(value)


async def _take(pool: asyncpg.Pool, client_id: str, jti: str, expires_at: datetime) -> None:
    """However many ask at once, one is first. What has expired makes room."""
    await pool.execute("DELETE FROM client_assertion WHERE expires_at < now()")
    taken = await pool.fetchval(
        "INSERT INTO client_assertion (client_id, jti_sha256, expires_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING RETURNING true",
        client_id,
        hashlib.sha256(jti.encode("utf-8", "surrogatepass")).digest(),
        expires_at,
    )
    if not taken:
        raise AssertionRefused("it was used before: make a new one, with a jti of its own, for each token")
