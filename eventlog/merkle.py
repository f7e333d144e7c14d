"""The Merkle tree of RFC 9162, 2.1, as arithmetic: which perfect subtrees a root or a proof is made of, and how they join.

Leaves count from 0. A perfect subtree is (height, index): 2^height leaves from index · 2^height on; its hash never changes once all
its leaves are there. Where hashes come from is not known here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence

Node = tuple[int, int]
"""(height, index)"""
EMPTY_ROOT = hashlib.sha256(b"").digest()


def leaf_hash(entry: bytes) -> bytes:
    return hashlib.sha256(b"\x00" + entry).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()


def perfect_subtrees(start: int, end: int) -> Iterator[Node]:
    """Leaves [start, end) as perfect subtrees, from left to right."""
    while start < end:
        height = (end - start).bit_length() - 1
        if start:
            height = min(height, (start & -start).bit_length() - 1)
        yield height, start >> height
        start += 1 << height


def joined(hashes: Sequence[bytes]) -> bytes:
    """The hash over perfect subtrees that follow one another, each smaller than the one before (MTH of RFC 9162, 2.1.1)."""
    if not hashes:
        return EMPTY_ROOT
    *others, result = hashes
    for one in reversed(others):
        result = node_hash(one, result)
    return result


def inclusion_path(index: int, size: int) -> list[tuple[int, int]]:
    """The stretches [start, end) of leaves whose hashes are the path of a leaf, from its sibling upwards (PATH, 2.1.3.1).

    Raises ValueError unless 0 <= index < size.
    """
    if not 0 <= index < size:
        raise ValueError(f"leaf {index} is not in a tree of {size}")
    path: list[tuple[int, int]] = []
    start, end = 0, size
    while end - start > 1:
        middle = start + _split(end - start)
        if index < middle:
            path.append((middle, end))
            end = middle
        else:
            path.append((start, middle))
            start = middle
    return path[::-1]


def consistency_path(first: int, second: int) -> list[tuple[int, int]]:
    """The stretches whose hashes prove that a tree of ``second`` leaves begins as the tree of ``first`` (PROOF, 2.1.4.1).

    Raises ValueError unless 0 <= first <= second.
    """
    if not 0 <= first <= second:
        raise ValueError(f"a tree of {second} leaves cannot begin as one of {first}")
    if first in (0, second):
        return []
    path: list[tuple[int, int]] = []
    start, end, whole = 0, second, True
    while first != end - start:
        middle = _split(end - start)
        if first <= middle:
            path.append((start + middle, end))
            end = start + middle
        else:
            path.append((start, start + middle))
            start, first, whole = start + middle, first - middle, False
    if not whole:
        path.append((start, end))
    return path[::-1]


def _split(leaves: int) -> int:
    """The largest power of two below ``leaves``."""
    return 1 << (leaves - 1).bit_length() - 1


def stretch_hash(start: int, end: int, node: Callable[[Node], bytes]) -> bytes:
    """The hash of leaves [start, end) from the hashes of perfect subtrees."""
    return joined([node(subtree) for subtree in perfect_subtrees(start, end)])


class Accumulator:
    """The perfect subtrees of what was added so far: enough for the root at every size, in memory of its logarithm.

    ``size`` and ``subtrees`` are those of another one that this one goes on from.
    """

    def __init__(self, size: int = 0, subtrees: Sequence[bytes] = ()) -> None:
        if size.bit_count() != len(subtrees):
            raise ValueError(f"{size} leaves make {size.bit_count()} perfect subtrees, not {len(subtrees)}")
        self.size = size
        self._stack: list[bytes] = list(subtrees)

    @property
    def subtrees(self) -> list[bytes]:
        """The hashes of the perfect subtrees, from left to right."""
        return list(self._stack)

    def add(self, leaf: bytes) -> None:
        """Adds a leaf by its hash."""
        self.size += 1
        carries = (self.size & -self.size).bit_length() - 1
        for _ in range(carries):
            leaf = node_hash(self._stack.pop(), leaf)
        self._stack.append(leaf)

    def root(self) -> bytes:
        return joined(self._stack)


def root_of(leaves: Iterable[bytes]) -> bytes:
    """The root over leaves given by their hashes."""
    accumulator = Accumulator()
    for leaf in leaves:
        accumulator.add(leaf)
    return accumulator.root()
