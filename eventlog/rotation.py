"""Rotating the key-encryption key: every wrapped secret is opened with the old one and wrapped with the new one, in batches.

Every row names the key that it is under, and both keys are at hand until the last row is done, so this may be killed at any
point and run again, while servers go on. The row of the site's secret goes first: from then on no process wraps a
subject's new key under the old one. Two rotations at once would each make a key, and forget the other's: a lock refuses the second.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import asyncpg
import msgspec

from eventlog.errors import NothingToRotate, RotationUnderway
from eventlog.kek import KeyEncryptionKeys, add_key, keep_first_key, key_lines, load_keys
from eventlog.settings import LogSettings

BATCH = 1000
_TABLES = {"site_secret": "name", "subject_key": "subject_id", "checkpoint_key": "key_id"}
"""Table → its key, in the order in which they are done."""


_LOCK = "hashtextextended('rotation of the key-encryption key', 0)"


class KeysStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Ids of key-encryption keys: the one that wraps now, those that this process has, and how many secrets are under each."""

    wraps: str
    at_hand: Sequence[str]
    secrets: dict[str, int]
    source: str
    """Where the first of them comes from: a variable, or a file."""
    kms: str | None

    @property
    def rotation_is_unfinished(self) -> bool:
        return set(self.secrets) - {self.at_hand[0]} != set()


class Rotated(msgspec.Struct, frozen=True, kw_only=True):
    """``secrets`` were wrapped anew under the key ``kek_id``."""

    kek_id: str
    secrets: int


async def rotate(
    settings: LogSettings, connection: asyncpg.Connection, progress: Callable[[int, int], None] | None = None
) -> Rotated:
    """``progress`` hears (done, all). Takes up a rotation that was interrupted.

    Raises NothingToRotate, RotationUnderway, KeyEncryptionKeyMissing, KeyEncryptionKeyWrong, KmsUnknown, KmsFailed.
    """
    async with _alone(connection):
        keks = load_keys(settings)
        total = await _left(connection, keks.first_id)
        if total == 0:  # else one was begun, or a new key was set
            if settings.key_encryption_key is not None:
                raise NothingToRotate(
                    "everything is under ANAMNESIS_KEY_ENCRYPTION_KEY already: set a new key there, and this one as"
                    " ANAMNESIS_PREVIOUS_KEY_ENCRYPTION_KEY"
                )
            if len(key_lines(settings)) == 1:  # else the last one was killed before it forgot the old key
                add_key(settings)
                keks = load_keys(settings)
                total = await _left(connection, keks.first_id)
        done = 0
        while await _left(connection, keks.first_id):  # a process that was about to write may have added one
            for table, key in _TABLES.items():
                last = ""
                while True:
                    last, count = await _rewrap(connection, keks, table, key, last)
                    done += count
                    if progress is not None:
                        progress(done, max(total, done))
                    if not last:
                        break
        if settings.key_encryption_key is None:
            keep_first_key(settings)
    return Rotated(kek_id=keks.first_id, secrets=done)


async def keys_status(settings: LogSettings, connection: asyncpg.Connection) -> KeysStatus:
    """Raises KeyEncryptionKeyMissing, KmsUnknown, KmsFailed."""
    keks = load_keys(settings)
    counted: dict[str, int] = {}
    for table in _TABLES:
        for row in await connection.fetch(f"SELECT kek_id, count(*) AS n FROM {table} WHERE wrapped IS NOT NULL GROUP BY kek_id"):
            counted[row["kek_id"]] = counted.get(row["kek_id"], 0) + row["n"]
    in_file = settings.key_encryption_key is None
    return KeysStatus(
        wraps=await connection.fetchval("SELECT kek_id FROM site_secret WHERE name = 'site'"),
        at_hand=keks.ids,
        secrets=dict(sorted(counted.items())),
        source=str(settings.kek_file) if in_file else "ANAMNESIS_KEY_ENCRYPTION_KEY",
        kms=settings.kms,
    )


@asynccontextmanager
async def _alone(connection: asyncpg.Connection) -> AsyncIterator[None]:
    if not await connection.fetchval(f"SELECT pg_try_advisory_lock({_LOCK})"):
        raise RotationUnderway("another process rotates the key-encryption key at this moment: wait until it has ended")
    try:
        yield
    finally:
        if not connection.is_closed():
            await connection.execute(f"SELECT pg_advisory_unlock({_LOCK})")


async def _left(connection: asyncpg.Connection, kek_id: str) -> int:
    """How many secrets are under another key."""
    counts = [
        await connection.fetchval(f"SELECT count(*) FROM {table} WHERE kek_id <> $1 AND wrapped IS NOT NULL", kek_id)
        for table in _TABLES
    ]
    return sum(counts)


async def _rewrap(connection: asyncpg.Connection, keks: KeyEncryptionKeys, table: str, key: str, after: str) -> tuple[str, int]:
    """One batch beyond ``after``: where it ended (empty: at the end), and how many it was."""
    async with connection.transaction():
        rows = await connection.fetch(
            f"SELECT {key} AS id, wrapped, kek_id FROM {table} WHERE {key} > $1 AND kek_id <> $2 AND wrapped IS NOT NULL"
            f" ORDER BY {key} LIMIT {BATCH} FOR UPDATE",
            after,
            keks.first_id,
        )
        wrapped = [keks.wrap(keks.unwrap(row["wrapped"], row["kek_id"]), keks.first_id) for row in rows]
        await connection.execute(
            f"UPDATE {table} SET wrapped = n.wrapped, kek_id = $3 FROM unnest($1::text[], $2::bytea[]) AS n (id, wrapped)"
            f" WHERE {table}.{key} = n.id",
            [row["id"] for row in rows],
            wrapped,
            keks.first_id,
        )
    return (rows[-1]["id"] if rows else ""), len(rows)
