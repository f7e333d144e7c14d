"""Access tokens: 256 random bits, shown once, kept as their SHA-256.

A slow hash protects what can be guessed; 256 random bits cannot, and every request has to be answered in a millisecond.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections import OrderedDict
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import asyncpg
import msgspec

from domain.principal import Principal, PrincipalKind
from server.auth.scopes import SCOPES
from server.errors import SettingRefused, TokenInvalid

PREFIX = "anamnesis_"
"""So that a leaked token is found by secret scanners."""
CACHE_S = 5.0
"""How long a revoked token may still be taken for good."""
CACHED = 10_000


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """Who a request comes from, and what it may do."""

    principal: Principal
    scopes: frozenset[str]
    expires_at: datetime


class TokenRow(msgspec.Struct, frozen=True, kw_only=True):
    """An access token without its secret."""

    token_id: str
    name: str
    kind: str
    on_behalf_of: str | None
    scopes: list[str]
    made_at: datetime
    expires_at: datetime
    revoked_at: datetime | None


async def create_token(
    pool: asyncpg.Pool,
    *,
    name: str,
    scopes: Sequence[str],
    lifetime: timedelta,
    kind: PrincipalKind = PrincipalKind.PERSON,
    on_behalf_of: str | None = None,
) -> tuple[str, str]:
    """The token's id and the token itself, which is nowhere else. Raises SettingRefused on an unknown scope."""
    unknown = sorted(set(scopes) - set(SCOPES))
    if unknown or not scopes:
        raise SettingRefused(f"unknown scope {', '.join(unknown) or '(none given)'}: there are {', '.join(SCOPES)}")
    if lifetime <= timedelta(0):
        raise SettingRefused("a token has to be good for some time: write 30m, 12h or 90d")
    token = PREFIX + secrets.token_urlsafe(32)
    token_id = uuid4().hex[:12]
    await pool.execute(
        "INSERT INTO access_token (token_id, sha256, name, kind, on_behalf_of, scopes, expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7)",
        token_id,
        _hash(token),
        name,
        kind.value,
        on_behalf_of,
        sorted(set(scopes)),
        datetime.now(UTC) + lifetime,
    )
    return token_id, token


async def revoke_token(pool: asyncpg.Pool, token_id: str) -> bool:
    """Whether there was such a token to revoke. Takes effect within 5 seconds."""
    done = await pool.execute("UPDATE access_token SET revoked_at = now() WHERE token_id = $1 AND revoked_at IS NULL", token_id)
    return bool(done == "UPDATE 1")


async def list_tokens(pool: asyncpg.Pool) -> list[TokenRow]:
    rows = await pool.fetch(
        "SELECT token_id, name, kind, on_behalf_of, scopes, made_at, expires_at, revoked_at FROM access_token ORDER BY made_at"
    )
    return [TokenRow(**dict(row)) for row in rows]


class TokenVerifier:
    """Looks tokens up, and remembers answers for a few seconds (wrong ones too, so that guessing costs no query each)."""

    def __init__(self, pool: asyncpg.Pool) -> None:
        self._pool = pool
        self._known: OrderedDict[bytes, tuple[float, Grant | None]] = OrderedDict()

    async def verify(self, token: str) -> Grant:
        """Raises TokenInvalid."""
        digest = _hash(token)
        at, grant = self._known.get(digest, (float("-inf"), None))
        if time.monotonic() - at > CACHE_S:
            grant = await self._look_up(digest)
            self._known[digest] = (time.monotonic(), grant)
            self._known.move_to_end(digest)
            if len(self._known) > CACHED:
                self._known.popitem(last=False)
        if grant is None or grant.expires_at <= datetime.now(UTC):
            raise TokenInvalid("the access token is unknown, expired or revoked")
        return grant

    async def _look_up(self, digest: bytes) -> Grant | None:
        row = await self._pool.fetchrow(
            "SELECT token_id, kind, on_behalf_of, scopes, expires_at FROM access_token WHERE sha256 = $1 AND revoked_at IS NULL", digest
        )
        if row is None:
            return None
        principal = Principal(id=f"token:{row['token_id']}", kind=PrincipalKind(row["kind"]), on_behalf_of=row["on_behalf_of"])
        return Grant(principal=principal, scopes=frozenset(row["scopes"]), expires_at=row["expires_at"])


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
