"""Cursors and global ids. A cursor is a place in an answer at a position, sealed: nothing of the question can be read from it.

It is made as page links are (server.fhir.pages): AES-SIV (RFC 5297), so that the same place has the same cursor, also after a restart.
"""

from __future__ import annotations

import base64
import binascii
from functools import lru_cache

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESSIV

from domain.condition import Level, Value
from eventlog.vault import Vault
from server.graphql.errors import Code, GraphqlError

_PURPOSES = ("graphql cursors: authentication", "graphql cursors: encryption")


class Place(msgspec.Struct, frozen=True, array_like=True):
    """``question`` names what was asked (its digest's first 8 bytes): a cursor goes on with that and nothing else."""

    question: bytes
    position: int
    key: Value | None
    id: int


def seal(vault: Vault, place: Place) -> str:
    sealed = _cipher(vault).encrypt(_ENCODER.encode(place), None)
    return base64.urlsafe_b64encode(sealed).decode("ascii").rstrip("=")


def opened(vault: Vault, text: str, question: bytes) -> Place:
    """Raises GraphqlError (CURSOR_INVALID)."""
    try:
        sealed = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        place = _DECODER.decode(_cipher(vault).decrypt(sealed, None))
    except (InvalidTag, ValueError, binascii.Error, msgspec.DecodeError):
        raise GraphqlError(Code.CURSOR_INVALID, "this cursor is not one of ours: ask for the first page again") from None
    if place.question != question:
        raise GraphqlError(Code.CURSOR_INVALID, "this cursor is of another question, or another order: ask for the first page again")
    return place


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(Place)


@lru_cache(maxsize=8)
def _cipher(vault: Vault) -> AESSIV:
    return AESSIV(b"".join(vault.derive(purpose) for purpose in _PURPOSES))


def global_id(level: Level, entity: int) -> str:
    """Opaque to clients, and the same for as long as the log is."""
    return base64.urlsafe_b64encode(f"{level.value}:{entity}".encode("ascii")).decode("ascii").rstrip("=")


def entity_of(text: str) -> tuple[Level, int] | None:
    """What a global id names; None where it is not one of ours."""
    try:
        level, _, entity = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode("ascii").partition(":")
        found = int(entity)
        return (Level(level), found) if 0 <= found < 2**63 else None
    except (ValueError, binascii.Error):
        return None
