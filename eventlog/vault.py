"""The vault: a key for each subject, wrapped by the key-encryption key (AES key wrap, RFC 3394), kept in PostgreSQL.

Destroying a subject's wrapped key makes everything sealed under it unreadable for ever. The site's own secret, from which
subject ids are derived, is wrapped the same way, so that rotating the key-encryption key changes no id.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import secrets
from collections.abc import Iterable, Mapping
from uuid import UUID

import asyncpg
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap, aes_key_wrap

from domain.ids import SubjectId
from eventlog.errors import KeyEncryptionKeyMissing, KeyEncryptionKeyWrong, SubjectErased
from eventlog.sealing import KEY_BYTES, SubjectKey, derive
from eventlog.settings import LogSettings

MAX_CACHED_KEYS = 100_000


def load_key_encryption_key(settings: LogSettings) -> bytes:
    """32 bytes from the setting or the file that `anamnesis init` made. Raises KeyEncryptionKeyMissing."""
    if settings.key_encryption_key is not None:
        text = settings.key_encryption_key.get_secret_value()
        source = "ANAMNESIS_KEY_ENCRYPTION_KEY"
    elif settings.kek_file.exists():
        text = settings.kek_file.read_text("ascii")
        source = str(settings.kek_file)
    else:
        raise KeyEncryptionKeyMissing(
            f"there is no key-encryption key at {settings.kek_file}: run `anamnesis init`, or set ANAMNESIS_KEY_ENCRYPTION_KEY"
        )
    try:
        key = base64.b64decode(text.strip(), validate=True)
    except binascii.Error as error:
        raise KeyEncryptionKeyMissing(f"{source} is not base64") from error
    if len(key) != KEY_BYTES:
        raise KeyEncryptionKeyMissing(f"{source} holds {len(key)} bytes instead of {KEY_BYTES}")
    return key


def make_key_encryption_key(settings: LogSettings) -> bool:
    """Makes the key file, readable by its owner alone, unless there is one (then False). Durable on return."""
    folder = settings.kek_file.parent
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        handle = os.open(settings.kek_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return False
    with os.fdopen(handle, "w") as file:
        file.write(base64.b64encode(secrets.token_bytes(KEY_BYTES)).decode("ascii") + "\n")
        file.flush()
        os.fsync(file.fileno())
    folder_handle = os.open(folder, os.O_RDONLY)
    os.fsync(folder_handle)
    os.close(folder_handle)
    return True


class Vault:
    """Opened by the log; keys are cached in memory once unwrapped."""

    def __init__(self, kek: bytes, site_secret: bytes) -> None:
        self._kek = kek
        self._kek_id = _kek_id(kek)
        self._site_secret = site_secret
        self._subject_secret = derive(site_secret, b"anamnesis subject id")
        self._keys: dict[str, SubjectKey] = {}

    @classmethod
    async def open(cls, kek: bytes, connection: asyncpg.Connection) -> Vault:
        """Reads the site's secret, or makes it in a new database. Raises KeyEncryptionKeyWrong."""
        await connection.execute(
            "INSERT INTO site_secret (name, wrapped, kek_id) VALUES ('site', $1, $2) ON CONFLICT (name) DO NOTHING",
            aes_key_wrap(kek, secrets.token_bytes(KEY_BYTES)),
            _kek_id(kek),
        )
        wrapped = await connection.fetchval("SELECT wrapped FROM site_secret WHERE name = 'site'")
        return cls(kek, _unwrap(kek, wrapped))

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

    async def keys_for_sealing(self, subjects: Iterable[str], connection: asyncpg.Connection) -> None:
        """Makes sure that each of these subjects has a key: afterwards ``key`` gives it. Durable before return."""
        missing = self._missing(subjects)
        if not missing:
            return
        fresh = [aes_key_wrap(self._kek, secrets.token_bytes(KEY_BYTES)) for _ in missing]
        await connection.execute(
            "INSERT INTO subject_key (subject_id, wrapped, kek_id) SELECT s, w, $3 FROM unnest($1::text[], $2::bytea[]) AS n(s, w)"
            " ORDER BY s ON CONFLICT (subject_id) DO NOTHING",
            missing,
            fresh,
            self._kek_id,
        )
        await self._fetch(missing, connection)

    async def keys_for_opening(self, subjects: Iterable[str], connection: asyncpg.Connection) -> Mapping[str, SubjectKey]:
        """The keys that exist still; a subject without one was erased."""
        missing = self._missing(subjects)
        if missing:
            await self._fetch(missing, connection)
        return self._keys

    def key(self, subject_id: str) -> SubjectKey:
        """Raises SubjectErased when the subject's key was destroyed."""
        try:
            return self._keys[subject_id]
        except KeyError:
            raise SubjectErased(f"the key of subject {subject_id} was destroyed: nothing more can be sealed for it") from None

    def _missing(self, subjects: Iterable[str]) -> list[str]:
        wanted = set(subjects)
        missing = [subject for subject in wanted if subject not in self._keys]
        if len(self._keys) + len(missing) > MAX_CACHED_KEYS:
            self._keys.clear()
            missing = list(wanted)
        return missing

    async def _fetch(self, subjects: list[str], connection: asyncpg.Connection) -> None:
        rows = await connection.fetch(
            "SELECT subject_id, wrapped FROM subject_key WHERE subject_id = ANY($1) AND wrapped IS NOT NULL", subjects
        )
        for row in rows:
            self._keys[row["subject_id"]] = SubjectKey.of(_unwrap(self._kek, row["wrapped"]))


def _kek_id(kek: bytes) -> str:
    return hashlib.sha256(b"anamnesis kek id" + kek).hexdigest()[:16]


def _unwrap(kek: bytes, wrapped: bytes) -> bytes:
    try:
        return aes_key_unwrap(kek, wrapped)
    except InvalidUnwrap as error:
        raise KeyEncryptionKeyWrong(
            "this key-encryption key does not open the keys in this database: set the one that it was made with"
        ) from error
