"""Is the log what was sealed? One pass over all of it, in one snapshot, while the site goes on.

Each event's digest is computed anew from its columns and compared with the one stored beside it and with the leaf in the tree's tile;
the tiles with one another; the root at each checkpoint's size with that checkpoint, and its signatures with the published keys.
Of three witnesses for one event (columns, digest, leaf) the one that disagrees tells what was changed.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import asyncpg
import msgspec

from eventlog import codec
from eventlog.checkpoint_keys import public_keys
from eventlog.envelope import canonical, envelope_of, event_digest
from eventlog.errors import NoteMalformed, UnknownEventType
from eventlog.log import EventLog
from eventlog.merkle import Accumulator, leaf_hash
from eventlog.notes import ED25519, Checkpoint, NoteKey, OpenedNote, open_note, parse_checkpoint, parse_key
from eventlog.tree import WIDTH, Extension, split

BATCH = 2_000
MAX_LISTED = 1_000
"""Discrepancies beyond these are counted only."""

_EVENTS = (
    "SELECT position, event_id, stream, type, schema_version, occurred_at, recorded_at, principal, correlation_id, causation_id,"
    " origin, data, digest FROM event WHERE position > $1 ORDER BY position LIMIT $2"
)
_TILES = (
    "SELECT t.level, t.index, t.hashes FROM unnest($1::smallint[], $2::bigint[]) AS k (level, index)"
    " JOIN tree_tile t ON t.level = k.level AND t.index = k.index"
)
_CHECKPOINTS = "SELECT size, root, note FROM checkpoint WHERE size > $1 AND size <= $2 ORDER BY size"
_VERSIONS = """
    SELECT stream, version, position FROM (
        SELECT stream, version, position, row_number() OVER stream_order AS place, lag(position) OVER stream_order AS before
        FROM event WINDOW stream_order AS (PARTITION BY stream ORDER BY version)
    ) AS streams WHERE place <> version OR before > position ORDER BY position LIMIT $1
"""


class Discrepancy(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is not as it was sealed. ``position`` and ``stream`` where it is about one event."""

    what: str
    position: int | None = None
    stream: str | None = None


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """What was looked at, and what is wrong. ``unknown``: events of types that the running code does not know, of which only the
    stored digest could be compared."""

    events: int
    sealed: int
    checkpoints: int
    keys: list[str]
    unknown: int
    discrepancies: list[Discrepancy]
    found: int
    """How many there are; at most MAX_LISTED of them are listed."""

    @property
    def holds(self) -> bool:
        return self.found == 0


async def check_log(
    log: EventLog,
    *,
    known_key: str | None = None,
    kept: Sequence[str] = (),
    progress: Callable[[int, int], None] = lambda position, head: None,
) -> Checked:
    """Checks the whole log. ``known_key``: a verification key, and ``kept``: checkpoints, that somebody keeps elsewhere.

    ``progress`` hears (position, head). Raises NoteMalformed for what is no key and no checkpoint.
    """
    kept_notes = [_Kept.parse(note) for note in kept]
    async with log.pool.acquire() as connection, connection.transaction(isolation="repeatable_read", readonly=True):
        keys = [parse_key(text) for text in await public_keys(connection)]
        check = _Check(connection, keys, parse_key(known_key) if known_key else None, kept_notes)
        await check.run(progress)
        return check.result()


def digest_of(row: Mapping[str, Any]) -> bytes:
    """The digest that these columns of an event give. Raises UnknownEventType, and ValueError where they are no event's."""
    try:
        sha256 = hashlib.sha256(canonical(envelope_of(row))).hexdigest()
        about = codec.decode(row["type"], row["schema_version"], row["data"], row["event_id"], {}, row["position"]).scope()
    except msgspec.MsgspecError as error:
        raise ValueError("these columns cannot be read as an event") from error
    return event_digest(sha256, row["event_id"], about)


class _Kept(msgspec.Struct, frozen=True):
    """A checkpoint from elsewhere."""

    note: str
    checkpoint: Checkpoint

    @classmethod
    def parse(cls, note: str) -> _Kept:
        return cls(note, parse_checkpoint(open_note(note, ()).text))


class _Check:
    def __init__(self, connection: asyncpg.Connection, keys: list[NoteKey], known: NoteKey | None, kept: list[_Kept]) -> None:
        self._connection = connection
        self._keys = keys
        self._chain = _KeyChain(known)
        self._kept = kept
        self._tree = Accumulator()
        self._tiles = Extension(0, {})
        self._sealed = self._checkpoints = self._unknown = self._found = 0
        self._discrepancies: list[Discrepancy] = []

    async def run(self, progress: Callable[[int, int], None]) -> None:
        head = await self._connection.fetchval("SELECT position FROM log_head")
        self._sealed = await self._connection.fetchval("SELECT coalesce(max(size), 0) FROM checkpoint")
        position = 0
        while rows := await self._connection.fetch(_EVENTS, position, BATCH):
            position = await self._events(position, rows)
            progress(position, head)
        if position != head:
            self._wrong(f"the log's head says {head}, and its last event is at position {position}")
        await self._missing(position)
        await self._stream_order()
        self._end()

    def result(self) -> Checked:
        return Checked(
            events=self._tree.size,
            sealed=self._sealed,
            checkpoints=self._checkpoints,
            keys=[key.text() for key in self._keys],
            unknown=self._unknown,
            discrepancies=self._discrepancies,
            found=self._found,
        )

    async def _events(self, before: int, rows: Sequence[asyncpg.Record]) -> int:
        last: int = rows[-1]["position"]
        leaves = await self._stored_leaves(before, min(last, self._sealed))
        by_size = {row["size"]: row for row in await self._connection.fetch(_CHECKPOINTS, before, last)}
        kept = [one for one in self._kept if before < one.checkpoint.size <= last]
        position = before
        for row in rows:
            while position + 1 < row["position"]:  # events are missing: their leaves still tell the tree
                position += 1
                self._wrong("the event at this position is missing", position)
                self._add(leaves.get(position, bytes(32)), position, by_size, kept)
            position += 1
            self._add(self._leaf(row, leaves.get(position)), position, by_size, kept)
        await self._compare_tiles()
        return position

    def _leaf(self, row: asyncpg.Record, stored: bytes | None) -> bytes:
        """The leaf for the tree: the stored one where there is one, so that one changed event is one discrepancy."""
        digest = bytes(row["digest"])
        leaf = leaf_hash(digest)
        try:
            computed: bytes | None = digest_of(row)
        except UnknownEventType:
            self._unknown += 1
            computed = digest
        except ValueError:
            computed = None
        what = None
        if stored is not None and stored != leaf:
            if computed == digest:
                what = "the event was replaced by another: its content and its digest are not those that were sealed"
            elif computed is not None and leaf_hash(computed) == stored:
                what = "the stored digest was changed; the event itself is as it was sealed"
            else:
                what = "the event and its stored digest were both changed"
        elif computed != digest:
            sealed = "as it was sealed" if stored is not None else "not sealed yet"
            what = f"the content was changed after it was recorded: it does not give the event's digest (which is {sealed})"
        if what is not None:
            self._wrong(what, row["position"], row["stream"])
        return leaf if stored is None else stored

    def _add(self, leaf: bytes, position: int, by_size: Mapping[int, asyncpg.Record], kept: Iterable[_Kept]) -> None:
        self._tree.add(leaf)
        if position <= self._sealed:
            self._tiles.add([leaf])
        if (row := by_size.get(position)) is not None:
            self._checkpoint(row)
        for one in kept:
            if one.checkpoint.size == position:
                self._kept_checkpoint(one)

    def _checkpoint(self, row: asyncpg.Record) -> None:
        self._checkpoints += 1
        name = f"the checkpoint at size {row['size']}"
        if bytes(row["root"]) != self._tree.root():
            self._wrong(f"{name} has another root than the log's tree of that size")
        try:
            opened = open_note(row["note"], self._keys)
            stated = parse_checkpoint(opened.text)
        except NoteMalformed as error:
            self._wrong(f"{name} is malformed: {error}")
            return
        if (stated.size, stated.root) != (row["size"], bytes(row["root"])):
            self._wrong(f"{name} is stored with another size or root than its signed text states")
        self._signatures(name, opened)

    def _signatures(self, name: str, opened: OpenedNote) -> None:
        if opened.bad:
            self._wrong(f"{name} carries {opened.bad} signatures that are not good")
        if (problem := self._chain.problem(opened)) is not None:
            self._wrong(f"{name} {problem}")

    def _kept_checkpoint(self, one: _Kept) -> None:
        opened = open_note(one.note, self._keys)
        name = f"the checkpoint at size {one.checkpoint.size} that was kept elsewhere"
        if one.checkpoint.root != self._tree.root():
            self._wrong(f"{name} and this log do not agree: up to there, the log had another content")
        if opened.bad or not any(key.algorithm == ED25519 for key in opened.signed_by):
            self._wrong(f"{name} carries no good signature of a key that this site publishes")

    async def _stored_leaves(self, after: int, to: int) -> dict[int, bytes]:
        """Position → the hash in the tiles of level 0, for positions in (after, to]."""
        if after >= to:
            return {}
        tiles = range(after // WIDTH, (to - 1) // WIDTH + 1)
        rows = await self._connection.fetch(_TILES, [0] * len(tiles), list(tiles))
        found = {row["index"]: split(row["hashes"]) for row in rows}
        leaves = {}
        for position in range(after + 1, to + 1):
            index, place = divmod(position - 1, WIDTH)
            if place < len(found.get(index, ())):
                leaves[position] = found[index][place]
            else:
                self._wrong("the tree holds no leaf for this position, though it is sealed", position)
        return leaves

    async def _compare_tiles(self) -> None:
        """Above level 0, each tile is made of the ones below."""
        made = {key: hashes for key, hashes in self._tiles.take_changed().items() if key[0] > 0}
        if not made:
            return
        rows = await self._connection.fetch(_TILES, [level for level, _ in made], [index for _, index in made])
        stored = {(row["level"], row["index"]): split(row["hashes"]) for row in rows}
        for (level, index), hashes in made.items():
            if stored.get((level, index), [])[: len(hashes)] != hashes:
                self._wrong(f"tile {index} at level {level} of the tree is not made of the tiles below it")

    async def _missing(self, last: int) -> None:
        """Checkpoints beyond the end: the log is shorter than it was."""
        beyond = [row["size"] for row in await self._connection.fetch(_CHECKPOINTS, last, 2**62)]
        beyond += [one.checkpoint.size for one in self._kept if one.checkpoint.size > last]
        for size in sorted(beyond):
            self._wrong(f"a checkpoint of {size} events was signed, and the log ends at position {last}: events are missing")

    async def _stream_order(self) -> None:
        for row in await self._connection.fetch(_VERSIONS, MAX_LISTED):
            self._wrong(
                f"version {row['version']} of the stream is not in its place: versions count from 1, in the order of positions",
                row["position"],
                row["stream"],
            )

    def _end(self) -> None:
        if (problem := self._chain.problem_at_end()) is not None:
            self._wrong(problem)

    def _wrong(self, what: str, position: int | None = None, stream: str | None = None) -> None:
        self._found += 1
        if len(self._discrepancies) < MAX_LISTED:
            self._discrepancies.append(Discrepancy(what=what, position=position, stream=stream))


class _KeyChain:
    """Each new key is vouched for by a checkpoint that an older one signed too, from the first on or from the one that is known."""

    def __init__(self, known: NoteKey | None) -> None:
        self._known = known
        self._trusted: set[str] = set()
        self._any = False

    def problem(self, opened: OpenedNote) -> str | None:
        signers = {key.text() for key in opened.signed_by if key.algorithm == ED25519}
        self._any = True
        if not signers:
            return "carries no good signature of a published key"
        if not self._trusted and (self._known is None or self._known.text() in signers):
            self._trusted |= signers
        elif self._trusted and not self._trusted & signers:
            return "is signed by a key for which no earlier checkpoint vouches"
        elif self._trusted:
            self._trusted |= signers
        return None

    def problem_at_end(self) -> str | None:
        if self._known is not None and self._any and not self._trusted:
            return f"no checkpoint is signed by the key that you know, {self._known.text()}"
        return None
