"""A manifest says what one backup is, and is written last: what has none is no backup.

It is readable without a key, and says nothing of persons. It carries its own digest (damage) and an HMAC under the backup's key
(forgery, or another site's).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from datetime import datetime

import msgspec

from eventlog.errors import KeyEncryptionKeyWrong
from eventlog.kek import KeyEncryptionKeys
from eventlog.sealing import derive
from server.backup.destination import Destination
from server.backup.errors import BackupDamaged, BackupNotFound, BackupOfAnotherSite, BackupOfNewerVersion
from server.backup.sealed import PURPOSE

FORMAT = 1
FOLDER = "manifests"


class TableFile(msgspec.Struct, frozen=True, kw_only=True):
    """One table as it was at the position. ``sha256`` is of the rows in PostgreSQL's text form."""

    name: str
    file: str
    columns: list[str]
    rows: int
    sha256: str


class FileList(msgspec.Struct, frozen=True, kw_only=True):
    """The spool's and the rejects' files: how many, and the digest of their list."""

    file: str
    files: int
    bytes: int
    sha256: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    format: int = FORMAT
    name: str
    site: str
    created: datetime
    position: int
    revision: str
    """The schema (Alembic) that the tables have."""
    last_digest: str | None
    """Digest of the event at the position: by it a log is known that went another way."""
    checkpoint_size: int | None
    checkpoint_note: str | None
    """The newest signed checkpoint at or before the position."""
    checkpoint_subtrees: list[str]
    """The perfect subtrees (RFC 9162, 2.1) of the checkpoint's size, in hexadecimal: the next backup checks on from here."""
    wrapped_site_secret: str
    kek_id: str
    """Which key-encryption key opens the secret and the subjects' keys."""
    tables: list[TableFile]
    sequences: dict[str, int]
    objects: int
    objects_bytes: int
    missing: list[str]
    """Digests of instances that the archive did not hold whole; empty unless the backup was made in spite of that."""
    files: FileList
    keys_destroyed: int
    """How many subjects were erased when this backup's keys and files were last purged."""
    sha256: str = ""
    mac: str = ""

    def table(self, name: str) -> TableFile | None:
        return next((table for table in self.tables if table.name == name), None)

    @property
    def own_files(self) -> set[str]:
        """All that lies in its folder."""
        return {f"{self.folder}/{name}" for name in (self.files.file, *(table.file for table in self.tables))}

    @property
    def folder(self) -> str:
        """Where this backup's own files are; events and objects are shared by all."""
        return f"tables/{self.name}"


def key_of(manifest: Manifest, keks: KeyEncryptionKeys) -> bytes:
    """The backup's key. Raises KeyEncryptionKeyWrong, BackupOfAnotherSite (the manifest was forged)."""
    try:
        secret = keks.unwrap(base64.b64decode(manifest.wrapped_site_secret), manifest.kek_id)
    except (KeyEncryptionKeyWrong, ValueError):
        raise KeyEncryptionKeyWrong(
            f"backup {manifest.name} needs the key-encryption key whose id is {manifest.kek_id}: put it into the file keys/kek of the"
            " data folder, or set ANAMNESIS_KEY_ENCRYPTION_KEY"
        ) from None
    key = derive(secret, PURPOSE.encode("ascii"))
    authenticate(manifest, key)
    return key


def authenticate(manifest: Manifest, key: bytes) -> None:
    """Raises BackupOfAnotherSite."""
    if not hmac.compare_digest(manifest.mac, hmac.new(key, _body(manifest), "sha256").hexdigest()):
        raise BackupOfAnotherSite(f"{path(manifest.name)} was not made by this site: its authentication code is another")


def write(destination: Destination, manifest: Manifest, key: bytes) -> Manifest:
    """Durable on return."""
    body = _body(manifest)
    whole = msgspec.structs.replace(
        manifest, sha256=hashlib.sha256(body).hexdigest(), mac=hmac.new(key, body, "sha256").hexdigest()
    )
    destination.settle()
    with destination.create(path(manifest.name)) as file:
        file.write(_shown(whole))
    destination.settle()
    return whole


def read_all(destination: Destination) -> list[Manifest]:
    """Every backup of this destination, oldest first. Raises BackupDamaged, BackupOfNewerVersion."""
    return [read(destination, name) for name in names(destination)]


def names(destination: Destination) -> list[str]:
    files = destination.listing(FOLDER)
    return sorted(name.removeprefix(f"{FOLDER}/").removesuffix(".json") for name in files if name.endswith(".json"))


def newest(destination: Destination, position: int | None = None) -> Manifest:
    """The newest backup (at or before ``position``). Raises BackupNotFound, BackupDamaged, BackupOfNewerVersion."""
    there = names(destination)
    if not there:
        raise BackupNotFound("there is no backup at this destination")
    positions = {name: int(name.partition("-")[0]) for name in there}
    fitting = [name for name in there if position is None or positions[name] <= position]
    if not fitting:
        listed = ", ".join(str(p) for p in sorted(set(positions.values())))
        raise BackupNotFound(f"there is no backup at or before position {position}: there are those at {listed}")
    return read(destination, fitting[-1])


def read(destination: Destination, name: str) -> Manifest:
    """Raises BackupDamaged, BackupOfNewerVersion."""
    with destination.open(path(name)) as file:
        data = file.read()
    try:
        if msgspec.json.decode(data, type=_Format).format > FORMAT:
            raise BackupOfNewerVersion(f"{path(name)} was made by a newer version of Anamnesis: use that one")
        manifest = msgspec.json.decode(data, type=Manifest)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        raise BackupDamaged(f"{path(name)} in the backup is damaged: it is not a manifest") from None
    digest = hashlib.sha256(_body(manifest)).hexdigest()
    if digest != manifest.sha256 or _shown(manifest) != data or manifest.name != name:
        raise BackupDamaged(f"{path(name)} in the backup is damaged: it does not have its digest")
    return manifest


def path(name: str) -> str:
    return f"{FOLDER}/{name}.json"


class _Format(msgspec.Struct):
    format: int


def _body(manifest: Manifest) -> bytes:
    """What digest and authentication code are of."""
    return msgspec.json.encode(msgspec.structs.replace(manifest, sha256="", mac=""), order="sorted")


def _shown(manifest: Manifest) -> bytes:
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"
