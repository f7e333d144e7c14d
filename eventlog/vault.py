"""The vault: a key for each subject, wrapped by the key-encryption key, kept in PostgreSQL.

Destroying a subject's wrapped key makes everything sealed under it unreadable for ever. Every process caches keys that it has
unwrapped, and asks the database before it uses them, at most once a second, whether any was destroyed; so a destroyed
key is used by nobody a second later. The site's own secret, from which subject ids are derived, is wrapped the same way, so
that rotating the key-encryption key changes no id; the row of that secret also says which key wraps now.
"""

from __future__ import annotations

import asyncio
import hmac
import secrets
import time
from collections.abc import Collection, Iterable, Mapping
from uuid import UUID

import asyncpg

from domain.ids import SubjectId
from eventlog.errors import KeyEncryptionKeyWrong, SubjectKeyDestroyed
from eventlog.kek import KeyEncryptionKeys, load_key_encryption_key, load_keys, make_key_encryption_key
from eventlog.sealing import KEY_BYTES, SubjectKey, derive
from eventlog.settings import LogSettings

__all__ = ["Vault", "load_key_encryption_key", "make_key_encryption_key"]

MAX_CACHED_KEYS = 100_000
TRUSTED_S = 1.0
"""How long a process may use its cached keys without asking whether one was destroyed."""

_MAKE_KEYS = """
INSERT INTO subject_key (subject_id, wrapped, kek_id)
SELECT s, w, site.kek_id
FROM (SELECT kek_id FROM site_secret WHERE name = 'site' AND kek_id = $3 FOR SHARE) AS site,
     unnest($1::text[], $2::bytea[]) AS n (s, w)
ORDER BY s ON CONFLICT (subject_id) DO NOTHING
"""
"""Only under the key that wraps now: a rotation takes the same row, so no key is wrapped by one that is about to be forgotten."""

_DESTROY = """
INSERT INTO subject_key (subject_id, wrapped, kek_id, destroyed_at) VALUES ($1, NULL, $2, now())
ON CONFLICT (subject_id) DO UPDATE SET wrapped = NULL, destroyed_at = coalesce(subject_key.destroyed_at, now())
"""


class Vault:
    """Opened by the log; keys are cached in memory once unwrapped."""

    def __init__(self, settings: LogSettings, keks: KeyEncryptionKeys, site_secret: bytes, kek_id: str) -> None:
        self._settings = settings
        self._keks = keks
        self._kek_id = kek_id
        self._site_secret = site_secret
        self._subject_secret = derive(site_secret, b"anamnesis subject id")
        self._keys: dict[str, SubjectKey] = {}
        self._destroyed = -1
        self._asked_at = float("-inf")
        self._generation = 0

    @classmethod
    async def open(cls, settings: LogSettings, connection: asyncpg.Connection) -> Vault:
        """Reads the site's secret, or makes it in a new database.

        Raises KeyEncryptionKeyMissing, KeyEncryptionKeyWrong, KmsUnknown, KmsFailed.
        """
        keks = await asyncio.to_thread(load_keys, settings)
        await connection.execute(
            "INSERT INTO site_secret (name, wrapped, kek_id) VALUES ('site', $1, $2) ON CONFLICT (name) DO NOTHING",
            keks.wrap(secrets.token_bytes(KEY_BYTES), keks.first_id),
            keks.first_id,
        )
        row = await connection.fetchrow("SELECT wrapped, kek_id FROM site_secret WHERE name = 'site'")
        if row["kek_id"] not in keks:  # it may have been rotated since they were read
            keks = await asyncio.to_thread(load_keys, settings)
        return cls(settings, keks, keks.unwrap(row["wrapped"], row["kek_id"]), row["kek_id"])

    def subject_id(self, patient_id: str, issuer: str, *, otherwise: str) -> SubjectId:
        """The id of the subject that DICOM knows by PatientID and its issuer (PS3.3 C.7.1.1).

        A keyed hash, so that nobody without the site's secret can find a person by trying numbers. ``otherwise``
        (the Study Instance UID) stands in where there is no PatientID: such a study is a subject of its own.
        """
        text = f"patient|{issuer.strip()}|{patient_id.strip()}" if patient_id.strip() else f"study|{otherwise}"
        mac = hmac.digest(self._subject_secret, text.encode("utf-8"), "sha256")
        return SubjectId(str(UUID(bytes=mac[:16], version=5)))

    def derive(self, purpose: str) -> bytes:
        """32 bytes for a purpose of this site (page tokens), the same after every restart."""
        return derive(self._site_secret, purpose.encode("ascii"))

    async def wrap(self, secret: bytes, connection: asyncpg.Connection) -> tuple[bytes, str]:
        """Any other secret of this site under the key-encryption key, and that key's id, to be stored beside it.

        In the transaction that stores it: until its end no rotation goes by. Raises KeyEncryptionKeyWrong.
        """
        assert connection.is_in_transaction()
        kek_id = await connection.fetchval("SELECT kek_id FROM site_secret WHERE name = 'site' FOR SHARE")
        await self._know(kek_id)
        self._kek_id = kek_id
        return self._keks.wrap(secret, kek_id), kek_id

    async def unwrap(self, wrapped: bytes, kek_id: str) -> bytes:
        """What ``wrap`` was given. Raises KeyEncryptionKeyWrong."""
        await self._know(kek_id)
        return self._keks.unwrap(wrapped, kek_id)

    def keys_at_hand(self, subjects: Collection[str]) -> Mapping[str, SubjectKey] | None:
        """The keys of these subjects; None where the database has to be asked for one, or whether one was destroyed."""
        if not subjects:
            return {}
        is_trusted = time.monotonic() - self._asked_at < TRUSTED_S and all(subject in self._keys for subject in subjects)
        return {subject: self._keys[subject] for subject in subjects} if is_trusted else None

    async def keys_for_sealing(self, subjects: Iterable[str], connection: asyncpg.Connection) -> Mapping[str, SubjectKey]:
        """The keys of these subjects, made where there is none yet. Durable before return.

        Raises SubjectKeyDestroyed.
        """
        wanted = set(subjects)
        found = await self.keys_for_opening(wanted, connection)
        missing = sorted(wanted - found.keys())
        if missing:
            await self._make(missing, connection)
            found = {**found, **await self.keys_for_opening(missing, connection)}
        for subject in missing:
            if subject not in found:
                raise SubjectKeyDestroyed(f"the key of subject {subject} was destroyed: nothing more can be sealed for it")
        return found

    async def keys_for_opening(self, subjects: Iterable[str], connection: asyncpg.Connection) -> Mapping[str, SubjectKey]:
        """The keys that exist still; a subject without one was erased. Not to be kept: ask again for the next use."""
        wanted = set(subjects)
        if not wanted:
            return {}
        await self._revalidate(connection)
        while True:
            generation = self._generation
            known = {subject: self._keys[subject] for subject in wanted if subject in self._keys}
            missing = list(wanted - known.keys())
            fetched = await self._fetch(missing, connection) if missing else {}
            if generation == self._generation:  # else a key may have been destroyed while the answer was on its way
                break
        if len(self._keys) + len(fetched) > MAX_CACHED_KEYS:
            self._keys.clear()
        self._keys.update(fetched)
        return {**known, **fetched}

    async def destroy(self, subject_id: str, connection: asyncpg.Connection) -> None:
        """Destroys a subject's key. Once this is committed, every process forgets it within ``TRUSTED_S``."""
        await connection.execute(_DESTROY, subject_id, self._kek_id)
        self._asked_at = float("-inf")

    async def is_destroyed(self, subject_id: str, connection: asyncpg.Connection | asyncpg.Pool) -> bool:
        found = await connection.fetchval("SELECT destroyed_at IS NOT NULL FROM subject_key WHERE subject_id = $1", subject_id)
        return bool(found)

    async def _revalidate(self, connection: asyncpg.Connection) -> None:
        now = time.monotonic()
        if now - self._asked_at < TRUSTED_S:
            return
        destroyed = await connection.fetchval("SELECT count(*) FROM subject_key WHERE destroyed_at IS NOT NULL")
        if destroyed != self._destroyed:
            self._keys.clear()
            self._generation += 1
            self._destroyed = destroyed
        self._asked_at = max(self._asked_at, now)

    async def _make(self, subjects: list[str], connection: asyncpg.Connection) -> None:
        while True:
            fresh = [self._keks.wrap(secrets.token_bytes(KEY_BYTES), self._kek_id) for _ in subjects]
            await connection.execute(_MAKE_KEYS, subjects, fresh, self._kek_id)
            wraps_now = await connection.fetchval("SELECT kek_id FROM site_secret WHERE name = 'site'")
            if wraps_now == self._kek_id:
                return
            await self._know(wraps_now)  # it was rotated meanwhile
            self._kek_id = wraps_now

    async def _fetch(self, subjects: list[str], connection: asyncpg.Connection) -> dict[str, SubjectKey]:
        rows = await connection.fetch(
            "SELECT subject_id, wrapped, kek_id FROM subject_key WHERE subject_id = ANY($1) AND wrapped IS NOT NULL", subjects
        )
        for kek_id in {row["kek_id"] for row in rows}:
            await self._know(kek_id)
        return {row["subject_id"]: SubjectKey.of(self._keks.unwrap(row["wrapped"], row["kek_id"])) for row in rows}

    async def _know(self, kek_id: str) -> None:
        """Reads the key file again where a key is named that came after this process started. Raises KeyEncryptionKeyWrong."""
        if kek_id in self._keks:
            return
        keks = await asyncio.to_thread(load_keys, self._settings)
        if kek_id not in keks:
            raise KeyEncryptionKeyWrong(
                f"the database is under the key-encryption key {kek_id}, which this process does not have: give it that key and start it"
                " again (`anamnesis keys status` names those that it has)"
            )
        self._keks = keks
