"""The Merkle tree as it is stored: tiles of 256 hashes (C2SP tlog-tiles), and what is read from them: nodes, roots, proofs.

Tile (level, index) holds the hashes of the perfect subtrees of height 8 · level, 256 of them from 256 · index on. A proof in a tree of a
million leaves reads three tiles. A full tile never changes, so its inner nodes are kept.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from hashlib import sha256

import asyncpg

from eventlog.errors import NotSealed
from eventlog.merkle import Node, consistency_path, inclusion_path, perfect_subtrees, stretch_hash

HEIGHT = 8
WIDTH = 1 << HEIGHT
CACHED_TILES = 512
"""8 MB of hashes: the tiles of the last 130,000 leaves and all above them."""
_HASH = 32

Tile = list[list[bytes]]
"""Row r: the nodes of height r above the tile's own hashes, as far as they are complete."""


class Tree:
    """Reads the stored tree; any number of readers. ``pool`` may be a connection inside a transaction."""

    def __init__(self, pool: asyncpg.Pool | asyncpg.Connection) -> None:
        self._pool = pool
        self._tiles: OrderedDict[tuple[int, int], Tile] = OrderedDict()

    async def node(self, height: int, index: int) -> bytes:
        """The hash of a perfect subtree. Raises NotSealed."""
        (found,) = await self._stretches([(index << height, (index + 1) << height)])
        return found

    async def root(self, size: int) -> bytes:
        """The root over the first ``size`` leaves. Raises NotSealed."""
        (found,) = await self._stretches([(0, size)])
        return found

    async def inclusion_proof(self, index: int, size: int) -> list[bytes]:
        """RFC 9162, 2.1.3: the path of a leaf (from 0) in the tree of ``size``. Raises NotSealed, ValueError."""
        return await self._stretches(inclusion_path(index, size))

    async def consistency_proof(self, first: int, second: int) -> list[bytes]:
        """RFC 9162, 2.1.4: that the tree of ``second`` leaves begins as that of ``first``. Raises NotSealed, ValueError."""
        return await self._stretches(consistency_path(first, second))

    async def _stretches(self, stretches: list[tuple[int, int]]) -> list[bytes]:
        subtrees = [subtree for start, end in stretches for subtree in perfect_subtrees(start, end)]
        tiles = await self._read({_tile_of(subtree): _needed(subtree) for subtree in sorted(subtrees, key=_needed)})

        def node(subtree: Node) -> bytes:
            height, index = subtree
            level, row = divmod(height, HEIGHT)
            width = WIDTH >> row
            try:
                return tiles[level, index // width][row][index % width]
            except (KeyError, IndexError):
                raise NotSealed(f"the tree does not hold the subtree of height {height} at {index} yet") from None

        return [stretch_hash(start, end, node) for start, end in stretches]

    async def _read(self, wanted: dict[tuple[int, int], int]) -> dict[tuple[int, int], Tile]:
        """The tiles, each with at least so many hashes as are asked for (as far as they are there), in one query at most."""
        missing = [key for key, hashes in wanted.items() if key not in self._tiles or len(self._tiles[key][0]) < hashes]
        if missing:
            rows = await self._pool.fetch(
                "SELECT t.level, t.index, t.hashes FROM unnest($1::smallint[], $2::bigint[]) AS k (level, index)"
                " JOIN tree_tile t ON t.level = k.level AND t.index = k.index",
                [level for level, _ in missing],
                [index for _, index in missing],
            )
            for row in rows:
                self._tiles[row["level"], row["index"]] = with_inner_nodes(split(row["hashes"]))
        found = {key: self._tiles[key] for key in wanted if key in self._tiles}
        for key in found:
            self._tiles.move_to_end(key)
        while len(self._tiles) > CACHED_TILES:
            self._tiles.popitem(last=False)
        return found


def _tile_of(subtree: Node) -> tuple[int, int]:
    height, index = subtree
    level, row = divmod(height, HEIGHT)
    return level, index // (WIDTH >> row)


def _needed(subtree: Node) -> int:
    """How many of its tile's hashes must be there before this subtree is complete."""
    height, index = subtree
    row = height % HEIGHT
    return ((index % (WIDTH >> row)) + 1) << row


def split(hashes: bytes) -> list[bytes]:
    """A tile's bytes as hashes of 32."""
    return [bytes(hashes[n : n + _HASH]) for n in range(0, len(hashes), _HASH)]


def with_inner_nodes(hashes: list[bytes]) -> Tile:
    """The rows of a tile above its own hashes; of a partial tile those nodes that are complete."""
    rows = [hashes]
    while len(rows[-1]) > 1:
        below = rows[-1]
        # node_hash without the call: most of the time that a proof takes is spent here
        rows.append([sha256(b"\x01" + below[n] + below[n + 1]).digest() for n in range(0, len(below) - 1, 2)])
    return rows


class Extension:
    """Leaves that are added at the right edge, in memory, until the tiles that they touch are written."""

    def __init__(self, size: int, edge: dict[int, list[bytes]]) -> None:
        self.size = size
        self._edge = edge
        """Level → the hashes of its last tile, which is not full (and may be empty)."""
        self._changed: dict[tuple[int, int], list[bytes]] = {}

    @classmethod
    async def at(cls, size: int, connection: asyncpg.Connection) -> Extension:
        """Reads the right edge of a tree of ``size``. Raises NotSealed when tiles of it are missing."""
        keys = [(level, count // WIDTH) for level, count in _levels(size) if count % WIDTH]
        rows = await connection.fetch(
            "SELECT t.level, t.hashes FROM unnest($1::smallint[], $2::bigint[]) AS k (level, index)"
            " JOIN tree_tile t ON t.level = k.level AND t.index = k.index",
            [level for level, _ in keys],
            [index for _, index in keys],
        )
        stored = {row["level"]: split(row["hashes"]) for row in rows}
        edge = {level: stored.get(level, [])[: count % WIDTH] for level, count in _levels(size)}
        for level, count in _levels(size):
            if len(edge[level]) != count % WIDTH:
                raise NotSealed(f"the tile at the edge of level {level} of a tree of {size} is missing or cut")
        return cls(size, edge)

    def add(self, leaves: Iterable[bytes]) -> None:
        """Adds leaves by their hashes."""
        for leaf in leaves:
            self._push(0, self.size, leaf)
            self.size += 1

    def _push(self, level: int, index: int, hash_: bytes) -> None:
        tile = self._edge.setdefault(level, [])
        tile.append(hash_)
        self._changed[level, index // WIDTH] = tile
        if len(tile) == WIDTH:
            self._edge[level] = []
            self._push(level + 1, index // WIDTH, with_inner_nodes(tile)[HEIGHT][0])

    def root(self) -> bytes:
        """The root of the tree so far, from its edge alone."""
        rows = {level: with_inner_nodes(tile) for level, tile in self._edge.items()}

        def node(subtree: Node) -> bytes:
            height, index = subtree
            level, row = divmod(height, HEIGHT)
            return rows[level][row][index % (WIDTH >> row)]

        return stretch_hash(0, self.size, node)

    def take_changed(self) -> dict[tuple[int, int], list[bytes]]:
        """(level, index) → the hashes of each tile that changed since the last time."""
        changed = {key: list(hashes) for key, hashes in sorted(self._changed.items())}
        self._changed.clear()
        return changed

    async def write(self, connection: asyncpg.Connection) -> None:
        """Stores the tiles that changed."""
        await connection.executemany(
            "INSERT INTO tree_tile (level, index, hashes) VALUES ($1, $2, $3)"
            " ON CONFLICT (level, index) DO UPDATE SET hashes = excluded.hashes",
            [(level, index, b"".join(tile)) for (level, index), tile in self.take_changed().items()],
        )


def _levels(size: int) -> list[tuple[int, int]]:
    """(level, hashes that it holds in a tree of this size)"""
    levels, count = [(0, size)], size
    while count >= WIDTH:
        count //= WIDTH
        levels.append((len(levels), count))
    return levels
