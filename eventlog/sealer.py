"""The sealer: extends the Merkle tree by what was appended, and signs a checkpoint of it. Appends never wait for it.

Tiles and checkpoint are written in one transaction under a lock, so that a sealer killed at any point has sealed or has not. Before it
signs, it looks whether the tree that it is about to extend still gives the root that was signed last: a log that shrank, or a tree
that somebody changed, is never signed over.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import asyncpg
import msgspec
from prometheus_client import Gauge

from domain.ids import Position
from eventlog.appender import CONNECTION_ERRORS
from eventlog.checkpoint_keys import make_key, retire_all_but_newest, signers
from eventlog.errors import EventLogError, NotSealed, SealRefused
from eventlog.log import EventLog
from eventlog.merkle import leaf_hash
from eventlog.notes import Checkpoint, NoteKey, sign
from eventlog.tree import Extension

BATCH = 5_000
RETRY_S = 5.0
_LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('sealer', 0))"

_logger = logging.getLogger(__name__)
_SIZE = Gauge("anamnesis_sealed_events", "Size of the last signed checkpoint that this process made or found")
_REFUSED = Gauge("anamnesis_sealer_refused", "1 while the sealer will not sign: run `anamnesis audit check`")


class Sealed(msgspec.Struct, frozen=True, kw_only=True):
    """A signed checkpoint of the log's first ``size`` events."""

    size: Position
    root: bytes
    note: str
    made_at: datetime


def origin_of(log: EventLog) -> str:
    """The name under which this site's log is known, in checkpoints and keys."""
    return f"anamnesis/{log.settings.site}"


async def latest(connection: asyncpg.Connection | asyncpg.Pool) -> Sealed | None:
    """The newest checkpoint; None before the first."""
    row = await connection.fetchrow("SELECT size, root, note, made_at FROM checkpoint ORDER BY size DESC LIMIT 1")
    return Sealed(**dict(row)) if row else None


async def seal(log: EventLog) -> Sealed:
    """Seals everything up to the head as it is now; nothing new is fine. Raises SealRefused, NotSealed in an empty log."""
    async with log.pool.acquire() as connection, connection.transaction():
        await connection.execute(_LOCK)
        before = await latest(connection)
        head = await connection.fetchval("SELECT position FROM log_head")
        size = before.size if before else 0
        if head < size:
            raise SealRefused(f"the log ends at position {head}, and {size} events were sealed")
        if before is not None and head == size:
            return before
        if head == 0:
            raise NotSealed("the log is empty: there is nothing to seal")
        extension = await _edge(connection, before)
        async for digests in _digests(connection, size, head):
            extension.add(map(leaf_hash, digests))
        await extension.write(connection)
        return await _sign(log, connection, Checkpoint(origin=origin_of(log), size=head, root=extension.root()))


async def _edge(connection: asyncpg.Connection, before: Sealed | None) -> Extension:
    try:
        extension = await Extension.at(before.size if before else 0, connection)
    except NotSealed as error:
        raise SealRefused(str(error)) from error
    if before is not None and extension.root() != before.root:
        raise SealRefused(f"the stored tree does not give the root of the checkpoint at size {before.size} any more")
    return extension


async def _digests(connection: asyncpg.Connection, after: int, to: int) -> AsyncIterator[list[bytes]]:
    """Digests in position order. Raises SealRefused at a gap."""
    while after < to:
        rows = await connection.fetch(
            "SELECT position, digest FROM event WHERE position > $1 AND position <= $2 ORDER BY position LIMIT $3", after, to, BATCH
        )
        if not rows or rows[-1]["position"] != after + len(rows):
            last = next((place for place, row in enumerate(rows, after) if row["position"] != place + 1), after)
            raise SealRefused(f"there is a gap in the log after position {last}")
        after += len(rows)
        yield [row["digest"] for row in rows]


async def _sign(log: EventLog, connection: asyncpg.Connection, checkpoint: Checkpoint) -> Sealed:
    made_at = datetime.now(UTC)
    keys = await signers(connection, log.vault, checkpoint.origin)
    note = sign(checkpoint.text(), keys, int(made_at.timestamp()))
    await connection.execute(
        "INSERT INTO checkpoint (size, root, note, made_at) VALUES ($1, $2, $3, $4)", checkpoint.size, checkpoint.root, note, made_at
    )
    await retire_all_but_newest(connection)
    _SIZE.set(checkpoint.size)
    return Sealed(size=Position(checkpoint.size), root=checkpoint.root, note=note, made_at=made_at)


async def rotate_key(log: EventLog) -> NoteKey:
    """A new signing key. The next checkpoint is signed by the old one too, and so vouches for the new one to whoever knows the old."""
    async with log.pool.acquire() as connection, connection.transaction():
        await connection.execute(_LOCK)
        await signers(connection, log.vault, origin_of(log))  # a site's first key is there before its second
        return await make_key(connection, log.vault, origin_of(log))


async def run_sealer(log: EventLog, every_s: float) -> None:
    """Until cancelled: a checkpoint ``every_s`` seconds while events come. Outlives a lost database; says when it will not sign."""
    while True:
        heard = log.news()
        pause = every_s
        try:
            await seal(log)
            _REFUSED.set(0)
        except NotSealed:
            pause = 0.0  # the first event is sealed as soon as it is there
        except SealRefused as error:
            _REFUSED.set(1)
            _logger.error("the log is not sealed: %s. Run `anamnesis audit check`", error)
        except (*CONNECTION_ERRORS, EventLogError) as error:
            _logger.warning("the sealer stopped (%s); starting again", type(error).__name__)
            pause = min(every_s, RETRY_S)
        await asyncio.sleep(pause)
        await log.wait_for_news(heard, every_s)
