"""The newest signed checkpoint beside the events that are backed up: who signed it, and whether it is of their tree (RFC 9162).

A log that is not what was sealed is not backed up as if it were: the backups before stay, and are those to trust.
"""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg

from eventlog.checkpoint_keys import public_keys
from eventlog.errors import NoteMalformed
from eventlog.merkle import Accumulator, leaf_hash
from eventlog.notes import COSIGNATURE, ED25519, NoteKey, open_note, parse_checkpoint, parse_key
from server.backup import tables
from server.backup.destination import Destination
from server.backup.errors import LogNotAsSealed
from server.backup.manifest import Manifest

KEYS = "checkpoint_key"
_PUBLIC_BYTES = 32
_FETCH = 5_000
_DIGESTS = "SELECT digest FROM event WHERE position > $1 AND position <= $2 ORDER BY position"


async def checked_subtrees(connection: asyncpg.Connection, before: Manifest | None, size: int, note: str) -> list[bytes]:
    """The perfect subtrees of the log's first ``size`` events, which are what the checkpoint was signed of.

    Reads the digests since the backup before. In the caller's transaction. Raises LogNotAsSealed.
    """
    tree = Accumulator()
    if before is not None and before.checkpoint_size is not None and before.checkpoint_size <= size:
        tree = Accumulator(before.checkpoint_size, [bytes.fromhex(one) for one in before.checkpoint_subtrees])
    async for row in connection.cursor(_DIGESTS, tree.size, size, prefetch=_FETCH):
        tree.add(leaf_hash(row["digest"]))
    keys = [parse_key(text) for text in await public_keys(connection)]
    problem = disagreement(note, keys, size, tree.root() if tree.size == size else None)
    if problem is not None:
        raise LogNotAsSealed(
            f"{problem}. No backup was made; `anamnesis audit check` names what was changed, and earlier backups hold what was there before"
        )
    return tree.subtrees


def disagreement(note: str, keys: Sequence[NoteKey], size: int, root: bytes | None) -> str | None:
    """What is wrong with the checkpoint of ``size`` events whose tree has this root (None: there are not so many events)."""
    name = f"the signed checkpoint at {size}"
    try:
        opened = open_note(note, keys)
        stated = parse_checkpoint(opened.text)
    except NoteMalformed as error:
        return f"{name} cannot be read: {error}"
    if opened.bad or not any(key.algorithm == ED25519 for key in opened.signed_by):
        return f"{name} has no good signature by a key of this site"
    if stated.size != size or stated.root != root:
        return f"the events up to position {size} do not have the root that {name} states"
    return None


def keys_in(destination: Destination, key: bytes, manifest: Manifest) -> list[NoteKey]:
    """The verification keys that a backup holds. Raises BackupDamaged."""
    table = manifest.table(KEYS)
    if table is None:
        return []
    found = []
    for row in tables.records(destination, key, manifest, table):
        name, public = (row["name"] or b"").decode("utf-8"), bytes.fromhex((row["public_key"] or b"").removeprefix(rb"\\x").decode("ascii"))
        found.append(NoteKey(name=name, algorithm=ED25519, public=public[:_PUBLIC_BYTES]))
        found.append(NoteKey(name=f"{name}/time", algorithm=COSIGNATURE, public=public[_PUBLIC_BYTES:]))
    return found
