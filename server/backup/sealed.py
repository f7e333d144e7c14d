"""How every file of a backup but its manifest is kept: AES-256-GCM in chunks, under a key of its own.

The archive's files hold names as they came in, so a backup that is not sealed is a breach that waits for a thief. The backup's
key derives from the site's secret, which a manifest carries wrapped by the key-encryption key: rotating that one leaves what was
sealed readable. A file is bound to its name; chunks are numbered and the last is marked (the STREAM construction of Hoang,
Reyhanitabar, Rogaway and Vizár), so nothing can be moved, cut off or appended unnoticed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import BinaryIO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from server.backup.errors import BackupDamaged

PURPOSE = "anamnesis backup"
"""For what the backup's key is derived from the site's secret."""
CHUNK = 1 << 20
_MAGIC = b"ANAMBK1\n"
_SALT_BYTES = 16
_TAG_BYTES = 16


def sealed_size(size: int) -> int:
    """Bytes of a sealed file that holds ``size`` bytes."""
    return len(_MAGIC) + _SALT_BYTES + size + _TAG_BYTES * max(1, -(-size // CHUNK))


class SealedWriter:
    """Seals what is written into ``file``; nothing can be read back unless ``finish`` was called."""

    def __init__(self, file: BinaryIO, key: bytes, name: str) -> None:
        salt = os.urandom(_SALT_BYTES)
        file.write(_MAGIC + salt)
        self._file = file
        self._cipher = _cipher(key, salt, name)
        self._waiting = bytearray()
        self._count = 0

    def write(self, data: bytes) -> None:
        if not self._waiting and len(data) <= CHUNK:
            self._waiting += data
            return
        self._waiting += data
        while len(self._waiting) > CHUNK:  # the last chunk is known only at the end, so one is held back
            self._put(bytes(self._waiting[:CHUNK]), last=False)
            del self._waiting[:CHUNK]

    def finish(self) -> None:
        self._put(bytes(self._waiting), last=True)

    def _put(self, chunk: bytes, *, last: bool) -> None:
        self._file.write(self._cipher.encrypt(_nonce(self._count, last), chunk, None))
        self._count += 1


def open_sealed(file: BinaryIO, key: bytes, name: str) -> Iterator[bytes]:
    """The chunks of what was sealed, each authenticated before it is given. Raises BackupDamaged."""
    head = file.read(len(_MAGIC) + _SALT_BYTES)
    if len(head) != len(_MAGIC) + _SALT_BYTES or not head.startswith(_MAGIC):
        raise BackupDamaged(f"{name} in the backup is damaged: its first bytes are not those of a backup's file")
    cipher = _cipher(key, head[len(_MAGIC) :], name)
    count = 0
    chunk = file.read(CHUNK + _TAG_BYTES)
    while True:
        following = file.read(CHUNK + _TAG_BYTES) if len(chunk) == CHUNK + _TAG_BYTES else b""
        try:
            yield cipher.decrypt(_nonce(count, not following), chunk, None)
        except (InvalidTag, ValueError):
            raise BackupDamaged(f"{name} in the backup is damaged: chunk {count} does not authenticate") from None
        if not following:
            return
        chunk, count = following, count + 1


def _cipher(key: bytes, salt: bytes, name: str) -> AESGCM:
    return AESGCM(HKDF(algorithm=SHA256(), length=32, salt=salt, info=name.encode("utf-8")).derive(key))


def _nonce(count: int, last: bool) -> bytes:
    return count.to_bytes(11, "big") + (b"\x01" if last else b"\x00")
