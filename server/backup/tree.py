"""The root of the Merkle tree (RFC 9162, 2.1.1) over events that pass by one after the other, in the memory of its height."""

from __future__ import annotations

import hashlib


class GrowingTree:
    def __init__(self) -> None:
        self._whole: list[tuple[int, bytes]] = []
        """Complete subtrees from left to right: how many leaves each has, and its hash."""

    def add(self, digest: bytes) -> None:
        leaves, node = 1, hashlib.sha256(b"\x00" + digest).digest()
        while self._whole and self._whole[-1][0] == leaves:
            node = _node(self._whole.pop()[1], node)
            leaves *= 2
        self._whole.append((leaves, node))

    def root(self) -> bytes:
        """The tree's hash as it is now."""
        if not self._whole:
            return hashlib.sha256(b"").digest()
        root = self._whole[-1][1]
        for _, left in reversed(self._whole[:-1]):
            root = _node(left, root)
        return root


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\x01" + left + right).digest()
