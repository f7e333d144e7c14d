"""Access tokens: shown once, kept as a hash, with scopes and an end."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

import server.auth.tokens
from domain.principal import Principal, PrincipalKind
from eventlog.log import EventLog
from server.auth.tokens import PREFIX, TokenVerifier, create_token, list_tokens, revoke_token
from server.errors import SettingRefused, TokenInvalid

HOUR = timedelta(hours=1)


async def test_a_token_names_its_principal_and_scopes(event_log: EventLog) -> None:
    token_id, token = await create_token(
        event_log.pool, name="gateway", scopes=["dicom:write"], lifetime=HOUR, kind=PrincipalKind.DEVICE, on_behalf_of="ward-3"
    )
    grant = await TokenVerifier(event_log.pool).verify(token)
    assert grant.principal == Principal(id=f"token:{token_id}", kind=PrincipalKind.DEVICE, on_behalf_of="ward-3")
    assert grant.scopes == {"dicom:write"}


async def test_the_database_never_holds_a_token(event_log: EventLog) -> None:
    _, token = await create_token(event_log.pool, name="me", scopes=["admin"], lifetime=HOUR)
    row = await event_log.pool.fetchval("SELECT access_token::text FROM access_token")
    assert token not in row and token.removeprefix(PREFIX) not in row
    assert token.encode().hex() not in row


async def test_tokens_are_long_and_never_the_same(event_log: EventLog) -> None:
    made = {(await create_token(event_log.pool, name="x", scopes=["admin"], lifetime=HOUR))[1] for _ in range(20)}
    assert len(made) == 20
    assert all(len(token.removeprefix(PREFIX)) == 43 for token in made)  # 256 bits in base64url


async def test_an_expired_token_is_refused_even_while_it_is_remembered(event_log: EventLog) -> None:
    _, token = await create_token(event_log.pool, name="x", scopes=["admin"], lifetime=HOUR)
    verifier = TokenVerifier(event_log.pool)
    grant = await verifier.verify(token)
    await event_log.pool.execute("UPDATE access_token SET expires_at = $1", datetime.now(UTC) - timedelta(seconds=1))
    with pytest.raises(TokenInvalid):
        await TokenVerifier(event_log.pool).verify(token)
    [(digest, (at, _))] = verifier._known.items()
    verifier._known[digest] = (at, server.auth.tokens.Grant(principal=grant.principal, scopes=grant.scopes, expires_at=datetime.now(UTC)))
    with pytest.raises(TokenInvalid):
        await verifier.verify(token)


async def test_a_revoked_token_is_refused_once_the_memory_of_it_ends(event_log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    token_id, token = await create_token(event_log.pool, name="x", scopes=["admin"], lifetime=HOUR)
    verifier = TokenVerifier(event_log.pool)
    await verifier.verify(token)
    assert await revoke_token(event_log.pool, token_id)
    assert not await revoke_token(event_log.pool, token_id)
    monkeypatch.setattr(server.auth.tokens, "CACHE_S", 0.0)
    with pytest.raises(TokenInvalid):
        await verifier.verify(token)
    [row] = await list_tokens(event_log.pool)
    assert (row.token_id, row.name, row.scopes) == (token_id, "x", ["admin"])
    assert row.revoked_at is not None


async def test_an_unknown_token_is_looked_up_once(event_log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    verifier = TokenVerifier(event_log.pool)
    for _ in range(2):
        with pytest.raises(TokenInvalid):
            await verifier.verify(PREFIX + "wrong")
    assert len(verifier._known) == 1


async def test_what_is_remembered_is_bounded(event_log: EventLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server.auth.tokens, "CACHED", 5)
    verifier = TokenVerifier(event_log.pool)
    for number in range(12):
        with pytest.raises(TokenInvalid):
            await verifier.verify(f"{PREFIX}{number}")
    assert len(verifier._known) == 5


@pytest.mark.parametrize(("scopes", "lifetime"), [([], HOUR), (["fhir:wriite"], HOUR), (["admin"], timedelta(0))])
async def test_a_token_without_scope_or_time_is_not_made(event_log: EventLog, scopes: list[str], lifetime: timedelta) -> None:
    with pytest.raises(SettingRefused):
        await create_token(event_log.pool, name="x", scopes=scopes, lifetime=lifetime)
    assert await list_tokens(event_log.pool) == []
