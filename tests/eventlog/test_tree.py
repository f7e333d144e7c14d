"""The stored tree: whatever the batches in which it grew, its roots and proofs are those of RFC 9162."""

from __future__ import annotations

import hashlib
import random
from itertools import pairwise

import pytest

from eventlog.errors import NotSealed
from eventlog.log import EventLog
from eventlog.merkle import leaf_hash, node_hash, root_of
from eventlog.tree import Extension, Tree
from server.audit.verifier import is_consistent, root_from_inclusion

SIZES = [1, 2, 3, 255, 256, 257, 511, 513, 65_535, 65_536, 65_537, 66_100]
LEAVES = [leaf_hash(hashlib.sha256(n.to_bytes(4, "big")).digest()) for n in range(SIZES[-1])]


async def grow(log: EventLog, sizes: list[int]) -> None:
    """As a sealer does: each time from what is stored."""
    for before, size in pairwise([0, *sizes]):
        async with log.pool.acquire() as connection, connection.transaction():
            extension = await Extension.at(before, connection)
            extension.add(LEAVES[before:size])
            assert extension.root() == root_of(LEAVES[:size])
            await extension.write(connection)


async def test_roots_and_proofs_at_every_size_that_it_had(event_log: EventLog) -> None:
    await grow(event_log, SIZES)
    tree = Tree(event_log.pool)
    roots = {size: root_of(LEAVES[:size]) for size in SIZES}
    for size in SIZES:
        assert await tree.root(size) == roots[size]
        for index in {0, size // 2, size // 3, size - 1}:
            path = await tree.inclusion_proof(index, size)
            assert root_from_inclusion(index, size, LEAVES[index], path) == roots[size]
            assert root_from_inclusion(index, size, LEAVES[index - 1] if index else bytes(32), path) != roots[size]
    for first, second in [(a, b) for a in SIZES for b in SIZES if a <= b]:
        assert is_consistent(first, second, roots[first], roots[second], await tree.consistency_proof(first, second))


async def test_random_batches_give_the_same_tiles(event_log: EventLog) -> None:
    rng = random.Random(5)
    sizes = sorted(rng.sample(range(1, 3000), 40))
    await grow(event_log, sizes)
    in_steps = await event_log.pool.fetch("SELECT * FROM tree_tile ORDER BY level, index")
    await event_log.pool.execute("DELETE FROM tree_tile")
    await grow(event_log, sizes[-1:])
    assert await event_log.pool.fetch("SELECT * FROM tree_tile ORDER BY level, index") == in_steps


async def test_a_reader_sees_what_was_added_since(event_log: EventLog) -> None:
    """The right edge is read again when it must have grown."""
    tree = Tree(event_log.pool)
    async with event_log.pool.acquire() as connection, connection.transaction():
        extension = await Extension.at(0, connection)
        for size in range(1, 600, 7):
            extension.add(LEAVES[extension.size : size])
            await extension.write(connection)
            assert await Tree(connection).root(size) == root_of(LEAVES[:size])
    assert await tree.root(596) == root_of(LEAVES[:596])


async def test_what_is_not_sealed_yet_has_no_proof(event_log: EventLog) -> None:
    await grow(event_log, [300])
    tree = Tree(event_log.pool)
    for ask in (lambda: tree.root(301), lambda: tree.inclusion_proof(10, 301), lambda: tree.consistency_proof(100, 400)):
        with pytest.raises(NotSealed):
            await ask()
    with pytest.raises(ValueError, match="not in a tree"):
        await tree.inclusion_proof(300, 300)


async def test_a_cut_edge_is_not_extended(event_log: EventLog) -> None:
    await grow(event_log, [300])
    await event_log.pool.execute("UPDATE tree_tile SET hashes = substr(hashes, 1, 64) WHERE level = 0 AND index = 1")
    async with event_log.pool.acquire() as connection:
        with pytest.raises(NotSealed, match="missing or cut"):
            await Extension.at(300, connection)


def test_a_perfect_subtree_is_the_hash_of_its_halves() -> None:
    assert root_of(LEAVES[:4]) == node_hash(node_hash(LEAVES[0], LEAVES[1]), node_hash(LEAVES[2], LEAVES[3]))
