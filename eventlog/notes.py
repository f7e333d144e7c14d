"""Signed notes and checkpoints (C2SP signed-note, tlog-checkpoint, tlog-cosignature): the texts by which a site stands for its log.

A checkpoint is three lines (origin, number of leaves, root in base64). A site signs it with two keys made of one seed: the log's key,
and one that signs the time too (cosignature/v1), so that nobody can date a checkpoint anew.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Sequence

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from eventlog.errors import NoteMalformed
from eventlog.sealing import derive

ED25519, COSIGNATURE = 1, 4
"""Algorithm bytes of signed-note keys."""
_DASH = "\u2014"


class NoteKey(msgspec.Struct, frozen=True, kw_only=True):
    """A verification key: 32 bytes of Ed25519 under a name and an algorithm."""

    name: str
    algorithm: int
    public: bytes

    @property
    def key_id(self) -> bytes:
        return hashlib.sha256(self.name.encode("utf-8") + b"\n" + bytes([self.algorithm]) + self.public).digest()[:4]

    def text(self) -> str:
        """As it is published: name+hash+base64."""
        encoded = base64.b64encode(bytes([self.algorithm]) + self.public).decode("ascii")
        return f"{self.name}+{self.key_id.hex()}+{encoded}"


def parse_key(text: str) -> NoteKey:
    """Raises NoteMalformed."""
    name, _, rest = text.strip().partition("+")
    key_id, _, encoded = rest.partition("+")
    raw = _decoded(encoded)
    if not name or len(raw) != 33 or raw[0] not in (ED25519, COSIGNATURE):
        raise NoteMalformed("this is no verification key: it reads name+hash+base64")
    key = NoteKey(name=name, algorithm=raw[0], public=raw[1:])
    if key.key_id.hex() != key_id:
        raise NoteMalformed(f"the verification key of {name} does not give its own hash {key_id}")
    return key


class NoteSigner(msgspec.Struct, frozen=True, kw_only=True):
    """The signing side of a key. Never printed."""

    key: NoteKey
    secret: Ed25519PrivateKey

    def __repr__(self) -> str:
        return f"NoteSigner({self.key.text()})"


def log_signer(name: str, seed: bytes) -> NoteSigner:
    """The key that signs a log's checkpoints, from 32 secret bytes."""
    return _signer(name, ED25519, seed)


def time_signer(name: str, seed: bytes) -> NoteSigner:
    """The key that signs when: another one, derived from the same seed, under a name of its own."""
    return _signer(f"{name}/time", COSIGNATURE, derive(seed, b"anamnesis checkpoint time"))


def _signer(name: str, algorithm: int, seed: bytes) -> NoteSigner:
    secret = Ed25519PrivateKey.from_private_bytes(seed)
    return NoteSigner(key=NoteKey(name=name, algorithm=algorithm, public=secret.public_key().public_bytes_raw()), secret=secret)


class Checkpoint(msgspec.Struct, frozen=True, kw_only=True):
    """The tree of ``size`` leaves of a log has this root."""

    origin: str
    size: int
    root: bytes

    def text(self) -> str:
        return f"{self.origin}\n{self.size}\n{base64.b64encode(self.root).decode('ascii')}\n"


def sign(text: str, signers: Sequence[NoteSigner], at: int) -> str:
    """The note: the text and a line for each signer. ``at``: seconds since 1970, which a time signer states."""
    lines = []
    for signer in signers:
        if signer.key.algorithm == COSIGNATURE:
            signature = at.to_bytes(8, "big") + signer.secret.sign(_timed(text, at))
        else:
            signature = signer.secret.sign(text.encode("utf-8"))
        encoded = base64.b64encode(signer.key.key_id + signature).decode("ascii")
        lines.append(f"{_DASH} {signer.key.name} {encoded}\n")
    return f"{text}\n{''.join(lines)}"


class OpenedNote(msgspec.Struct, frozen=True, kw_only=True):
    """A note whose signatures were looked at: by which of the known keys, how many of them are bad, and the signed time."""

    text: str
    signed_by: tuple[NoteKey, ...]
    bad: int
    signed_at: int | None


def open_note(note: str, keys: Sequence[NoteKey]) -> OpenedNote:
    """Signatures of unknown keys are passed over, as the specification asks. Raises NoteMalformed."""
    text, separator, signatures = note.rpartition("\n\n")
    if not separator or not signatures.endswith("\n"):
        raise NoteMalformed("a note ends with an empty line and signature lines")
    text += "\n"
    known = {(key.name, key.key_id): key for key in keys}
    signed_by: list[NoteKey] = []
    bad, signed_at = 0, None
    for line in signatures.splitlines():
        dash, _, rest = line.partition(" ")
        name, _, encoded = rest.partition(" ")
        raw = _decoded(encoded)
        if dash != _DASH or not name or len(raw) < 5:
            raise NoteMalformed("a signature line reads: dash, name, base64 of key hash and signature")
        key = known.get((name, raw[:4]))
        if key is None:
            continue
        try:
            signed_at = _verify(key, raw[4:], text) or signed_at
            signed_by.append(key)
        except InvalidSignature:
            bad += 1
    return OpenedNote(text=text, signed_by=tuple(signed_by), bad=bad, signed_at=signed_at)


def parse_checkpoint(text: str) -> Checkpoint:
    """The checkpoint in a note's text; further lines are extensions. Raises NoteMalformed."""
    lines = text.split("\n")
    if len(lines) < 4 or not lines[0] or not lines[1].isdecimal() or str(int(lines[1])) != lines[1]:
        raise NoteMalformed("a checkpoint has three lines: origin, size, root")
    root = _decoded(lines[2])
    if len(root) != 32:
        raise NoteMalformed("the root of a checkpoint is 32 bytes in base64")
    return Checkpoint(origin=lines[0], size=int(lines[1]), root=root)


def _verify(key: NoteKey, signature: bytes, text: str) -> int | None:
    public = Ed25519PublicKey.from_public_bytes(key.public)
    if key.algorithm == ED25519:
        public.verify(signature, text.encode("utf-8"))
        return None
    at = int.from_bytes(signature[:8], "big")
    public.verify(signature[8:], _timed(text, at))
    return at


def _timed(text: str, at: int) -> bytes:
    return f"cosignature/v1\ntime {at}\n{text}".encode()


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise NoteMalformed("what should be base64 is not") from error
