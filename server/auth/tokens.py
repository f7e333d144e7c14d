"""Access tokens: 256 random bits, shown once, kept as their SHA-256.

A slow hash protects what can be guessed; 256 random bits cannot, and every request has to be answered in a millisecond.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import asyncpg
import msgspec

from domain.principal import Principal, PrincipalKind
from server.auth.scopes import SCOPES
from server.auth.smart_scopes import PATIENT, SmartScope, is_smart, smart_scope
from server.errors import SettingRefused, TokenInvalid

PREFIX = "anamnesis_"
"""So that a leaked token is found by secret scanners."""
CACHE_S = 5.0
"""How long a revoked token may still be taken for good."""
CACHED = 10_000
_ID = re.compile(r"[A-Za-z0-9\-.]{1,64}")

_KNOWN = """
    SELECT token_id, kind, on_behalf_of, scopes, patient, client_id, expires_at FROM access_token t WHERE sha256 = $1 AND revoked_at IS NULL
    AND (client_id IS NULL OR EXISTS (SELECT FROM client c WHERE c.client_id = t.client_id AND c.revoked_at IS NULL))
"""


class Grant(msgspec.Struct, frozen=True, kw_only=True):
    """Who a request comes from, and what it may do."""

    principal: Principal
    scopes: frozenset[str]
    smart: tuple[SmartScope, ...] = ()
    patient: str | None = None
    """Whom scopes that begin with `patient/` are about: the id of a Patient."""
    expires_at: datetime


class TokenRow(msgspec.Struct, frozen=True, kw_only=True):
    """An access token without its secret."""

    token_id: str
    name: str
    kind: str
    on_behalf_of: str | None
    scopes: list[str]
    patient: str | None
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
    patient: str | None = None,
) -> tuple[str, str]:
    """The token's id and the token itself, which is nowhere else. Raises SettingRefused on an unknown scope."""
    check_scopes(scopes, patient)
    if lifetime <= timedelta(0):
        raise SettingRefused("a token has to be good for some time: write 30m, 12h or 90d")
    token = PREFIX + secrets.token_urlsafe(32)
    token_id = uuid4().hex[:12]
    await pool.execute(
        "INSERT INTO access_token (token_id, sha256, name, kind, on_behalf_of, scopes, expires_at, patient)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8)",
        token_id,
        _hash(token),
        name,
        kind.value,
        on_behalf_of,
        sorted(set(scopes)),
        datetime.now(UTC) + lifetime,
        patient,
    )
    return token_id, token


async def create_client_token(pool: asyncpg.Pool, client_id: str, name: str, scopes: Sequence[str], lifetime: timedelta) -> str:
    """A token of a registered client, which ends with it. Those of clients that expired long ago make room: nothing refers to them."""
    await pool.execute("DELETE FROM access_token WHERE client_id IS NOT NULL AND expires_at < now() - interval '1 hour'")
    token = PREFIX + secrets.token_urlsafe(32)
    await pool.execute(
        "INSERT INTO access_token (token_id, sha256, name, kind, scopes, expires_at, client_id) VALUES ($1, $2, $3, $4, $5, $6, $7)",
        uuid4().hex[:12],
        _hash(token),
        name,
        PrincipalKind.DEVICE.value,
        sorted(scopes),
        datetime.now(UTC) + lifetime,
        client_id,
    )
    return token


def client_principal(client_id: str) -> Principal:
    return Principal(id=f"client:{client_id}", kind=PrincipalKind.DEVICE)


def check_scopes(scopes: Iterable[str], patient: str | None) -> None:
    """Raises SettingRefused where a scope is unknown, or of a patient whom nobody names."""
    wanted = sorted(set(scopes))
    unknown = [one for one in wanted if one not in SCOPES and not is_smart(one)]
    if unknown or not wanted:
        raise SettingRefused(
            f"unknown scope {', '.join(unknown) or '(none given)'}: there are {', '.join(SCOPES)}, and those of SMART"
            " (patient/Observation.rs, system/*.cruds, …)"
        )
    for one in filter(is_smart, wanted):
        try:
            scope = smart_scope(one)
        except ValueError as error:
            raise SettingRefused(f"scope {one}: {error}") from None
        if scope.level == PATIENT and patient is None:
            raise SettingRefused(f"scope {scope.name} is about one patient: name the Patient's id by --patient")
    if patient is not None and not is_patient_id(patient):
        raise SettingRefused("--patient is the id of a Patient: 1 to 64 letters, digits, hyphens and dots")


def is_patient_id(text: str) -> bool:
    return _ID.fullmatch(text) is not None


def granted(scopes: Iterable[str]) -> tuple[frozenset[str], tuple[SmartScope, ...]]:
    """The scopes of our own, and those of SMART. Words that are neither count for nothing."""
    words = frozenset(scopes)
    smart = []
    for one in sorted(filter(is_smart, words)):
        with contextlib.suppress(ValueError):
            smart.append(smart_scope(one))
    return words & frozenset(SCOPES), tuple(smart)


async def revoke_token(pool: asyncpg.Pool, token_id: str) -> bool:
    """Whether there was such a token to revoke. Takes effect within 5 seconds."""
    done = await pool.execute("UPDATE access_token SET revoked_at = now() WHERE token_id = $1 AND revoked_at IS NULL", token_id)
    return bool(done == "UPDATE 1")


async def list_tokens(pool: asyncpg.Pool) -> list[TokenRow]:
    rows = await pool.fetch(
        "SELECT token_id, name, kind, on_behalf_of, scopes, patient, made_at, expires_at, revoked_at FROM access_token ORDER BY made_at"
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
            _KNOWN, digest
        )
        if row is None:
            return None
        if row["client_id"] is not None:
            principal = client_principal(row["client_id"])
        else:
            principal = Principal(id=f"token:{row['token_id']}", kind=PrincipalKind(row["kind"]), on_behalf_of=row["on_behalf_of"])
        scopes, smart = granted(row["scopes"])
        return Grant(principal=principal, scopes=scopes, smart=smart, patient=row["patient"], expires_at=row["expires_at"])


def _hash(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()
