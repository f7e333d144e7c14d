"""The keys that sign checkpoints: Ed25519 seeds under the key-encryption key; old ones are published for ever and sign no more."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from datetime import datetime

import asyncpg
import msgspec

from eventlog.notes import COSIGNATURE, ED25519, NoteKey, NoteSigner, log_signer, time_signer
from eventlog.vault import Vault

_SEED = 32


class PublishedKey(msgspec.Struct, frozen=True, kw_only=True):
    """A verification key (as C2SP signed-note writes it) and when it was in use. ``purpose``: log, or time."""

    key: str
    purpose: str
    made_at: datetime
    retired_at: datetime | None


async def published_keys(connection: asyncpg.Connection | asyncpg.Pool) -> list[PublishedKey]:
    """All keys that ever signed, the newest first."""
    rows = await connection.fetch("SELECT name, public_key, made_at, retired_at FROM checkpoint_key ORDER BY made_at DESC, key_id")
    return [
        PublishedKey(key=key.text(), purpose=purpose, made_at=row["made_at"], retired_at=row["retired_at"])
        for row in rows
        for purpose, key in (("log", _log_key(row)), ("time", _time_key(row)))
    ]


async def public_keys(connection: asyncpg.Connection | asyncpg.Pool) -> list[str]:
    """The verification keys alone, as text."""
    return [one.key for one in await published_keys(connection)]


async def signers(connection: asyncpg.Connection, vault: Vault, name: str) -> list[NoteSigner]:
    """Those that sign now: of each key in use the log's and the time's. Makes the first key of a site."""
    rows = await _in_use(connection)
    if not rows:
        await make_key(connection, vault, name)
        rows = await _in_use(connection)
    found: list[NoteSigner] = []
    for row in rows:
        seed = await vault.unwrap(row["wrapped"], row["kek_id"])
        found += [log_signer(row["name"], seed), time_signer(row["name"], seed)]
    return found


async def make_key(connection: asyncpg.Connection, vault: Vault, name: str) -> NoteKey:
    """A new key beside those in use: the next checkpoint is signed by all of them, and then only by the newest."""
    seed = secrets.token_bytes(_SEED)
    log, time = log_signer(name, seed).key, time_signer(name, seed).key
    wrapped, kek_id = await vault.wrap(seed, connection)
    await connection.execute(
        "INSERT INTO checkpoint_key (key_id, name, public_key, wrapped, kek_id) VALUES ($1, $2, $3, $4, $5)",
        log.key_id.hex(),
        name,
        log.public + time.public,
        wrapped,
        kek_id,
    )
    return log


async def retire_all_but_newest(connection: asyncpg.Connection) -> None:
    """Destroys the seeds of the keys before the newest one."""
    await connection.execute(
        "UPDATE checkpoint_key SET wrapped = NULL, retired_at = now() WHERE wrapped IS NOT NULL"
        " AND made_at < (SELECT max(made_at) FROM checkpoint_key)"
    )


async def _in_use(connection: asyncpg.Connection) -> Sequence[asyncpg.Record]:
    return list(await connection.fetch("SELECT * FROM checkpoint_key WHERE wrapped IS NOT NULL ORDER BY made_at"))


def _log_key(row: asyncpg.Record) -> NoteKey:
    return NoteKey(name=row["name"], algorithm=ED25519, public=row["public_key"][:32])


def _time_key(row: asyncpg.Record) -> NoteKey:
    return NoteKey(name=f"{row['name']}/time", algorithm=COSIGNATURE, public=row["public_key"][32:])
