"""AES-256-GCM under a subject's key, with a nonce derived from what is sealed.

The nonce is the first 96 bits of HMAC-SHA256 over the binding and the plaintext under a second key of the subject, so the
same event sent twice has the same bytes (idempotent appends), and no two plaintexts share a nonce but by a collision
of 96 bits (NIST SP 800-38D, 8.2 asks for at most 2^-32: reached after 2^32 events of one subject).
"""

from __future__ import annotations

import hashlib
import hmac

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from eventlog.errors import SealBroken

KEY_BYTES = 32
_NONCE_BYTES = 12


class SubjectKey(msgspec.Struct, frozen=True):
    """A subject's secret, as the two keys derived from it. Never printed."""

    cipher: AESGCM
    nonce_key: bytes

    @classmethod
    def of(cls, secret: bytes) -> SubjectKey:
        """From 32 secret bytes (HKDF, RFC 5869)."""
        return cls(AESGCM(derive(secret, b"anamnesis seal")), derive(secret, b"anamnesis nonce"))

    def __repr__(self) -> str:
        return "SubjectKey(…)"


def derive(secret: bytes, purpose: bytes) -> bytes:
    """32 bytes for one purpose from a secret (HKDF-SHA256)."""
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=purpose).derive(secret)


def seal(plaintext: bytes, key: SubjectKey, binding: bytes) -> bytes:
    """Nonce and ciphertext with its tag."""
    nonce = hmac.new(key.nonce_key, binding + b"\x00" + plaintext, hashlib.sha256).digest()[:_NONCE_BYTES]
    return nonce + key.cipher.encrypt(nonce, plaintext, binding)


def open_sealed(sealed: bytes, key: SubjectKey, binding: bytes) -> bytes:
    """The plaintext. Raises SealBroken when it does not authenticate."""
    try:
        return key.cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], binding)
    except (InvalidTag, ValueError) as error:
        raise SealBroken(f"the sealed part of {binding.decode('ascii', 'replace')} does not authenticate") from error
