"""Registered clients: programs that authenticate by a key of their own (SMART App Launch 2.2, backend-services.html).

A client's public keys are kept with it, or fetched from where it publishes them: then they can change without a word to us.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Sequence
from datetime import datetime
from urllib.parse import urlsplit
from uuid import uuid4

import asyncpg
import httpx
import msgspec
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, KeySet, RSAKey

from server.auth.scopes import SCOPES
from server.auth.smart_scopes import is_smart, smart_scope
from server.errors import SettingRefused

LEAST_RSA_BITS = 2048
CURVE = "P-384"
"""Of ES384."""
MOST_JWKS_BYTES = 64 * 1024
KEPT_S = 300.0
"""How long fetched keys are used."""
REFETCH_AT_MOST_EVERY_S = 10.0
"""For a key that is not among them."""
_REFUSED_SCOPES = frozenset({"admin"})


class Client(msgspec.Struct, frozen=True, kw_only=True):
    """``jwks`` as JSON, or ``jwks_uri``."""

    client_id: str
    name: str
    scopes: list[str]
    jwks: str | None
    jwks_uri: str | None
    made_at: datetime
    revoked_at: datetime | None


class KeysUnusable(Exception):
    """Raised where a client has no keys that we could take; the message repeats nothing of them."""


async def register_client(pool: asyncpg.Pool, *, name: str, scopes: Sequence[str], jwks: str | None = None, jwks_uri: str | None = None) -> str:
    """The client's id. Raises SettingRefused."""
    if (jwks is None) == (jwks_uri is None):
        raise SettingRefused("a client has its public keys in a file (--jwks) or at an address (--jwks-uri): give one of the two")
    _check_scopes(scopes)
    if jwks is not None:
        try:
            keys_in(jwks)
        except KeysUnusable as error:
            raise SettingRefused(f"--jwks: {error}") from None
    if jwks_uri is not None and not is_safe_address(jwks_uri):
        raise SettingRefused("--jwks-uri begins with https:// (http:// on this machine alone)")
    client_id = uuid4().hex
    await pool.execute(
        "INSERT INTO client (client_id, name, scopes, jwks, jwks_uri) VALUES ($1, $2, $3, $4, $5)",
        client_id,
        name,
        sorted(set(scopes)),
        jwks,
        jwks_uri,
    )
    return client_id


async def revoke_client(pool: asyncpg.Pool, client_id: str) -> bool:
    """Whether there was such a client to revoke. Its tokens end with it, within 5 seconds."""
    done = await pool.execute("UPDATE client SET revoked_at = now() WHERE client_id = $1 AND revoked_at IS NULL", client_id)
    return bool(done == "UPDATE 1")


async def list_clients(pool: asyncpg.Pool) -> list[Client]:
    return [Client(**dict(row)) for row in await pool.fetch("SELECT * FROM client ORDER BY made_at")]


async def find_client(pool: asyncpg.Pool, client_id: str) -> Client | None:
    """One that was not revoked."""
    row = await pool.fetchrow("SELECT * FROM client WHERE client_id = $1 AND revoked_at IS NULL", client_id)
    return None if row is None else Client(**dict(row))


def _check_scopes(scopes: Sequence[str]) -> None:
    if not scopes:
        raise SettingRefused("a client needs a scope: system/Observation.rs, …")
    for one in scopes:
        if is_smart(one):
            try:
                level = smart_scope(one).level
            except ValueError as error:
                raise SettingRefused(f"scope {one}: {error}") from None
            if level != "system":
                raise SettingRefused(f"scope {one}: nobody is logged in to a client, so its scopes are of system/")
        elif one not in SCOPES or one in _REFUSED_SCOPES:
            raise SettingRefused(f"scope {one} is none that a client can have")


def keys_in(jwks: str | bytes) -> KeySet:
    """Public keys for RS384 and ES384, each with an id (RFC 7517). Raises KeysUnusable."""
    try:
        given = msgspec.json.decode(jwks)
        if not given["keys"]:
            raise KeysUnusable("there is no key in it")
        if not all(isinstance(one.get("kid"), str) and one["kid"] for one in given["keys"]):
            raise KeysUnusable("each key needs an id (kid)")
        keys = KeySet.import_key_set(given)
    except (JoseError, ValueError, KeyError, TypeError, AttributeError, msgspec.DecodeError):
        raise KeysUnusable("this is no JSON Web Key Set") from None
    for one in keys.keys:
        if getattr(one, "is_private", True):
            raise KeysUnusable("a key in it is private: give the public ones alone, and make new ones, since these were shown")
        is_strong = isinstance(one, RSAKey) and one.raw_value.key_size >= LEAST_RSA_BITS
        if not is_strong and not (isinstance(one, ECKey) and one.curve_name == CURVE):
            raise KeysUnusable(f"each key is for RS384 (RSA, at least {LEAST_RSA_BITS} bits) or ES384 ({CURVE})")
    return keys


def is_safe_address(url: str) -> bool:
    """https, or http on this machine."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return False
    return bool(host) and (parts.scheme == "https" or (parts.scheme == "http" and _is_this_machine(host)))


def _is_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class ClientKeys:
    """The keys of clients; fetched ones are kept for some minutes, and fetched again when one is asked for that is not among them."""

    def __init__(self, http: httpx.AsyncClient | None = None) -> None:
        self._http = http or httpx.AsyncClient(timeout=5, follow_redirects=False)
        self._fetched: dict[str, tuple[float, KeySet]] = {}
        self._tried: dict[str, float] = {}

    async def close(self) -> None:
        await self._http.aclose()

    async def of(self, client: Client, kid: str) -> KeySet:
        """Raises KeysUnusable."""
        if client.jwks is not None:
            return keys_in(client.jwks)
        assert client.jwks_uri is not None
        now = time.monotonic()
        at, keys = self._fetched.get(client.jwks_uri, (float("-inf"), None))
        is_good = keys is not None and now - at < KEPT_S and any(one.kid == kid for one in keys.keys)
        if is_good or now - self._tried.get(client.jwks_uri, float("-inf")) < REFETCH_AT_MOST_EVERY_S:
            if keys is None or now - at >= KEPT_S:
                raise KeysUnusable("its keys could not be fetched")
            return keys
        self._tried[client.jwks_uri] = now  # before asking: who is down is not asked for every request
        keys = keys_in(await self._fetch(client.jwks_uri))
        self._fetched[client.jwks_uri] = now, keys
        return keys

    async def _fetch(self, url: str) -> bytes:
        found = b""
        try:
            async with self._http.stream("GET", url, headers={"Accept": "application/json"}) as answer:
                if answer.status_code != httpx.codes.OK:
                    raise KeysUnusable("its keys could not be fetched")
                async for part in answer.aiter_bytes():
                    found += part
                    if len(found) > MOST_JWKS_BYTES:
                        raise KeysUnusable("its key set is too large")
        except httpx.HTTPError:
            raise KeysUnusable("its keys could not be fetched") from None
        return found


def narrowed(requested: Sequence[str], registered: Sequence[str]) -> list[str]:
    """What of the requested scopes lies within the registered ones: of ours the same words, of SMART what both permit."""
    ours = [one for one in requested if one in registered and not is_smart(one)]
    smart: list[str] = []
    for text in filter(is_smart, requested):
        try:
            wanted = smart_scope(text)
        except ValueError:
            continue
        allowed = [smart_scope(one) for one in registered if is_smart(one)]
        smart += [str(both) for both in (wanted.within(one) for one in allowed) if both is not None]
    return list(dict.fromkeys([*ours, *smart]))
