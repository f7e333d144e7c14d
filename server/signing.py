"""Electronic signatures of persons: keys that open with their owner's passphrase alone, and what is signed with them.

The key is Ed25519, its seed encrypted under a key that scrypt (RFC 7914) makes of the passphrase, which is kept nowhere: not even
who runs the database can sign for somebody. Each signature asks for the passphrase anew, beside the token that says who acts (two
components, 21 CFR 11.200 (a)(1)), and binds to the event's digest, which the Merkle tree holds (11.70).
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import asyncpg
import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.scrypt import Scrypt
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from joserfc import jws
from joserfc.jwk import OKPKey

from domain import signature
from domain.errors import SignerUnknown
from domain.ids import Position, StreamName, derived_id
from domain.principal import Principal
from domain.signature import EventSigned, Meaning, Signatures, Signer, SignerEnrolled
from eventlog.aggregate import execute
from eventlog.envelope import RecordedEvent, canonical, instant
from eventlog.log import EventLog
from server.errors import PassphraseTooShort, PassphraseWrong, SignerLocked

MIN_PASSPHRASE = 12
MAX_FAILURES = 5
LOCKED_FOR = timedelta(minutes=15)
_SALT, _NONCE = 16, 12
ALGORITHM = "Ed25519"
"""RFC 9864; a JWS whose header says anything else is not one of ours."""


class UnlockedSigner(msgspec.Struct, frozen=True):
    """A signing key for the length of one act. Never printed."""

    key_id: str
    key: Ed25519PrivateKey

    def __repr__(self) -> str:
        return f"UnlockedSigner({self.key_id})"


def signer_stream(principal_id: str) -> StreamName:
    return StreamName(f"signer-{principal_id}")


async def enroll(log: EventLog, principal: Principal, printed_name: str, passphrase: str) -> str:
    """Makes a signing key for a person, in place of the one before; gives its id.

    Raises PassphraseTooShort, NotSignable (a device, or somebody who acts for another).
    """
    if len(passphrase) < MIN_PASSPHRASE:
        raise PassphraseTooShort(f"a signing passphrase has at least {MIN_PASSPHRASE} characters")
    key_id, key = uuid4().hex, Ed25519PrivateKey.generate()
    public = key.public_key().public_bytes_raw()
    enrolled = SignerEnrolled(
        principal_id=principal.id,
        key_id=key_id,
        public_key=base64.b64encode(public).decode("ascii"),
        subject_id=str(derived_id("principal", principal.id)),
        printed_name=printed_name,
    )
    await execute(
        log,
        signer_stream(principal.id),
        Signer(),
        signature.evolve_signer,
        lambda state: signature.enroll(state, enrolled, principal),
        principal=principal,
    )
    async with log.pool.acquire() as connection, connection.transaction():
        await connection.execute("UPDATE signer SET revoked_at = now() WHERE principal_id = $1 AND revoked_at IS NULL", principal.id)
        await connection.execute(
            "INSERT INTO signer (key_id, principal_id, public_key, encrypted) VALUES ($1, $2, $3, $4)",
            key_id,
            principal.id,
            public,
            _encrypted(key.private_bytes_raw(), passphrase, key_id),
        )
    return key_id


async def revoke(log: EventLog, principal_id: str, *, by: Principal) -> None:
    """Ends a person's signing key; what it signed stays signed. Raises SignerUnknown."""
    await execute(
        log,
        signer_stream(principal_id),
        Signer(),
        signature.evolve_signer,
        lambda state: signature.revoke(state, principal_id),
        principal=by,
    )
    await log.pool.execute("UPDATE signer SET revoked_at = now() WHERE principal_id = $1 AND revoked_at IS NULL", principal_id)


async def unlock(pool: asyncpg.Pool, principal: Principal, passphrase: str) -> UnlockedSigner:
    """Authenticates a signer again. Raises SignerUnknown, PassphraseWrong, SignerLocked (after five wrong ones)."""
    row = await pool.fetchrow(
        "UPDATE signer SET failures = failures + 1 WHERE principal_id = $1 AND revoked_at IS NULL"
        " AND (locked_until IS NULL OR locked_until < now()) RETURNING key_id, encrypted, failures",
        principal.id,
    )  # counted before it is tried: many tries at once are counted each
    if row is None:
        if await pool.fetchval("SELECT EXISTS (SELECT FROM signer WHERE principal_id = $1 AND revoked_at IS NULL)", principal.id):
            raise SignerLocked("too many wrong passphrases: this key signs nothing for 15 minutes")
        raise SignerUnknown(f"{principal.id} has no signing key: enroll first with `anamnesis sign enroll`")
    try:
        seed = _decrypted(row["encrypted"], passphrase, row["key_id"])
    except InvalidTag:
        if row["failures"] >= MAX_FAILURES:
            await pool.execute(
                "UPDATE signer SET failures = 0, locked_until = $2 WHERE key_id = $1", row["key_id"], datetime.now(UTC) + LOCKED_FOR
            )
        raise PassphraseWrong("the signing passphrase is wrong") from None
    await pool.execute("UPDATE signer SET failures = 0, locked_until = NULL WHERE key_id = $1", row["key_id"])
    return UnlockedSigner(row["key_id"], Ed25519PrivateKey.from_private_bytes(seed))


async def sign(log: EventLog, recorded: RecordedEvent, meaning: Meaning, signer: UnlockedSigner, principal: Principal) -> Position:
    """Signs an event. Raises NotSignable, AlreadySigned."""
    signed_at = datetime.now(UTC)
    signed = EventSigned(
        signed_event_id=str(recorded.event_id),
        signed_type=recorded.type,
        signed_digest=recorded.digest.hex(),
        meaning=meaning,
        principal_id=principal.id,
        key_id=signer.key_id,
        signed_at=signed_at,
        signature=_jws(recorded, meaning, signer, principal, signed_at),
        about=sorted(recorded.event.scope()),
    )
    done = await execute(
        log,
        recorded.stream,
        Signatures(),
        signature.evolve_signatures,
        lambda state: signature.sign(state, signed, principal),
        principal=principal,
        correlation_id=recorded.correlation_id,
        causation_id=recorded.event_id,
    )
    assert done.position is not None
    return done.position


async def event_by_id(log: EventLog, event_id: UUID) -> RecordedEvent | None:
    """One event of the log by its id."""
    async with log.pool.acquire() as connection:
        rows: Sequence[asyncpg.Record] = await connection.fetch("SELECT * FROM event WHERE event_id = $1", event_id)
        found = await log.recorded(rows, connection)
    return found[0] if found else None


def _jws(recorded: RecordedEvent, meaning: Meaning, signer: UnlockedSigner, principal: Principal, signed_at: datetime) -> str:
    payload = canonical(
        {
            "digest": recorded.digest.hex(),
            "event_id": str(recorded.event_id),
            "meaning": meaning.value,
            "principal": principal.id,
            "signed_at": instant(signed_at),
        }
    )
    key = OKPKey.import_key(signer.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return jws.serialize_compact({"alg": ALGORITHM, "kid": signer.key_id}, payload, key, algorithms=[ALGORITHM])


def _encrypted(seed: bytes, passphrase: str, key_id: str) -> bytes:
    salt, nonce = secrets.token_bytes(_SALT), secrets.token_bytes(_NONCE)
    return salt + nonce + AESGCM(_stretched(passphrase, salt)).encrypt(nonce, seed, key_id.encode("ascii"))


def _decrypted(encrypted: bytes, passphrase: str, key_id: str) -> bytes:
    salt, nonce, sealed = encrypted[:_SALT], encrypted[_SALT : _SALT + _NONCE], encrypted[_SALT + _NONCE :]
    return AESGCM(_stretched(passphrase, salt)).decrypt(nonce, sealed, key_id.encode("ascii"))


def _stretched(passphrase: str, salt: bytes) -> bytes:
    """About 0.1 s of work and 32 MiB of memory for each try."""
    return Scrypt(salt=salt, length=32, n=2**15, r=8, p=1).derive(passphrase.encode("utf-8"))
