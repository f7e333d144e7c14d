"""The key-encryption keys: what wraps every other secret (AES key wrap, RFC 3394). One wraps; others still open while it is rotated.

A key is 32 bytes in base64, or the same wrapped by a key management service: ``kms:NAME:base64``. A service is a plug-in (entry
point group ``anamnesis.kms``; docs/security.md has the protocol), asked when a process starts and when the key was rotated, so that
sealing never waits for it. Keys come from ANAMNESIS_KEY_ENCRYPTION_KEY, or from the file that `anamnesis init` makes: a key a line,
of which the first one wraps.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import importlib.metadata
import os
import secrets
from collections.abc import Sequence
from typing import Literal, Protocol

from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap, aes_key_wrap

from eventlog.errors import KeyEncryptionKeyMissing, KeyEncryptionKeyWrong, KmsFailed, KmsUnknown
from eventlog.sealing import KEY_BYTES
from eventlog.settings import LogSettings

_KMS = "kms"


class Kms(Protocol):
    """A key management service: its own key never leaves it.

    An entry point of the group ``anamnesis.kms`` names what is called without arguments to get one; how to reach the service is
    its own to know (its environment). Whatever a method raises is told by its class alone.
    """

    def wrap(self, key: bytes) -> bytes:
        """These 32 bytes under the service's key. Different bytes each time are fine."""

    def unwrap(self, wrapped: bytes) -> bytes:
        """What ``wrap`` was given, by this process or another. Raises where it was not made by ``wrap``, or the service refuses."""


class KeyEncryptionKeys:
    """The keys that this process has. The first one is the one to wrap with, once the database has been rotated to it."""

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._keys = {kek_id(key): key for key in keys}
        self.first_id = kek_id(keys[0])
        self.first = keys[0]

    def __contains__(self, wanted: str) -> bool:
        return wanted in self._keys

    @property
    def ids(self) -> list[str]:
        """The first one's first."""
        return list(self._keys)

    def wrap(self, secret: bytes, with_id: str) -> bytes:
        """Raises KeyEncryptionKeyWrong."""
        return aes_key_wrap(self._key(with_id), secret)

    def unwrap(self, wrapped: bytes, with_id: str) -> bytes:
        """Raises KeyEncryptionKeyWrong."""
        try:
            return aes_key_unwrap(self._key(with_id), wrapped)
        except InvalidUnwrap as error:
            raise _wrong() from error

    def _key(self, wanted: str) -> bytes:
        try:
            return self._keys[wanted]
        except KeyError:
            raise _wrong() from None


def load_keys(settings: LogSettings) -> KeyEncryptionKeys:
    """From the settings and the file. Raises KeyEncryptionKeyMissing, KmsUnknown, KmsFailed."""
    keys: list[bytes] = []
    for name in ("key_encryption_key", "previous_key_encryption_key"):
        secret = getattr(settings, name)
        if secret is not None:
            keys.append(_read(secret.get_secret_value(), f"ANAMNESIS_{name.upper()}"))
    keys += [_read(line, str(settings.kek_file)) for line in key_lines(settings)]
    if not keys or (settings.key_encryption_key is None and not settings.kek_file.exists()):
        raise KeyEncryptionKeyMissing(
            f"there is no key-encryption key at {settings.kek_file}: put your copy there, or set ANAMNESIS_KEY_ENCRYPTION_KEY;"
            " for a new site, run `anamnesis init`"
        )
    return KeyEncryptionKeys(_file_first(keys, settings))


def load_key_encryption_key(settings: LogSettings) -> bytes:
    """The one that wraps. Raises KeyEncryptionKeyMissing, KmsUnknown, KmsFailed."""
    return load_keys(settings).first


def make_key_encryption_key(settings: LogSettings) -> bool:
    """Makes the key file, readable by its owner alone, unless there is one (then False). Durable on return.

    Raises KmsUnknown, KmsFailed.
    """
    if settings.kek_file.exists():
        return False
    text = new_key_text(settings)  # a service that does not answer leaves no empty file behind
    settings.kek_file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        handle = os.open(settings.kek_file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return False
    _write(handle, [text])
    _sync_folder(settings)
    return True


def add_key(settings: LogSettings) -> None:
    """Puts a new key before the one in the file, at once or not at all. Durable on return."""
    replace_lines(settings, [new_key_text(settings), *key_lines(settings)])


def keep_first_key(settings: LogSettings) -> None:
    """Forgets every key in the file but the first. Durable on return."""
    replace_lines(settings, key_lines(settings)[:1])


def key_lines(settings: LogSettings) -> list[str]:
    """The keys in the file, as they are written down; none where there is no file."""
    if not settings.kek_file.exists():
        return []
    return [line for line in settings.kek_file.read_text("ascii").split("\n") if line.strip()]


def replace_lines(settings: LogSettings, lines: Sequence[str]) -> None:
    partial = settings.kek_file.with_name(f"{settings.kek_file.name}.new")
    handle = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    _write(handle, lines)
    partial.replace(settings.kek_file)
    _sync_folder(settings)


def new_key_text(settings: LogSettings) -> str:
    """A new key as it is written down: wrapped where a service is set."""
    key = secrets.token_bytes(KEY_BYTES)
    if settings.kms is None:
        return base64.b64encode(key).decode("ascii")
    wrapped = _asked(settings.kms, "wrap", key)
    if _asked(settings.kms, "unwrap", wrapped) != key:
        raise KmsFailed(f"the key management service {settings.kms} does not give back what it was given: nothing was put under it")
    return f"{_KMS}:{settings.kms}:{base64.b64encode(wrapped).decode('ascii')}"


def kek_id(key: bytes) -> str:
    return hashlib.sha256(b"anamnesis kek id" + key).hexdigest()[:16]


def _file_first(keys: list[bytes], settings: LogSettings) -> list[bytes]:
    """A previous key that is set beside a file only opens."""
    if settings.key_encryption_key is None and settings.previous_key_encryption_key is not None:
        return [*keys[1:], keys[0]]
    return keys


def _read(text: str, source: str) -> bytes:
    service, _, encoded = text.strip().rpartition(":")
    try:
        key = base64.b64decode(encoded, validate=True)
    except binascii.Error as error:
        raise KeyEncryptionKeyMissing(f"{source} is not base64") from error
    if service:
        kind, _, name = service.partition(":")
        if kind != _KMS:
            raise KeyEncryptionKeyMissing(f"{source} is neither base64 nor {_KMS}:NAME:base64")
        key = _asked(name, "unwrap", key)
    if len(key) != KEY_BYTES:
        raise KeyEncryptionKeyMissing(f"{source} holds {len(key)} bytes instead of {KEY_BYTES}")
    return key


def _asked(name: str, what: Literal["wrap", "unwrap"], given: bytes) -> bytes:
    """What the service of this name answers. Raises KmsUnknown, KmsFailed."""
    found = [entry for entry in importlib.metadata.entry_points(group="anamnesis.kms") if entry.name == name]
    if not found:
        raise KmsUnknown(f"no package gives a key management service {name} (entry point group anamnesis.kms): install one")
    try:
        service: Kms = found[0].load()()
        return bytes(service.wrap(given) if what == "wrap" else service.unwrap(given))
    except Exception as error:  # whatever a plug-in raises; its words may hold a key
        raise KmsFailed(
            f"the key management service {name} does not {what} ({type(error).__name__}): see that it answers, and start again"
        ) from error


def _write(handle: int, lines: Sequence[str]) -> None:
    with os.fdopen(handle, "w") as file:
        file.write("".join(f"{line}\n" for line in lines))
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(settings: LogSettings) -> None:
    handle = os.open(settings.kek_file.parent, os.O_RDONLY)
    os.fsync(handle)
    os.close(handle)


def _wrong() -> KeyEncryptionKeyWrong:
    return KeyEncryptionKeyWrong(
        "this key-encryption key does not open the keys in this database: set the one that it was made with"
        " (and while it is rotated, the old one as ANAMNESIS_PREVIOUS_KEY_ENCRYPTION_KEY)"
    )
