"""The Merkle tree against the reference tree of RFC 6962 and RFC 9162 implementations, and against the RFC's recursive definition."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from eventlog import merkle
from eventlog.tree import Extension
from server.audit.verifier import Tree, is_consistent, root_from_inclusion

ENTRIES = [
    bytes.fromhex(text)
    for text in ("", "00", "10", "2021", "3031", "40414243", "5051525354555657", "606162636465666768696a6b6c6d6e6f")
]
ROOTS = [
    "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
    "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
    "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
    "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
    "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
    "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
    "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
    "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
]
"""Of the first 1 to 8 entries: the reference tree of the Certificate Transparency implementations."""
INCLUSION = {
    (0, 8): ["96a296d224f285c67bee93c30f8a309157f0daa35dc5b87e410b78630a09cfc7", "5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e", "6b47aaf29ee3c2af9af889bc1fb9254dabd31177f16232dd6aab035ca39bf6e4"],
    (5, 8): ["bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b", "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0", "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7"],
    (2, 3): ["fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"],
}  # fmt: skip
CONSISTENCY = {
    (1, 1): [],
    (6, 8): ["0ebc5d3437fbe2db158b9f126a1d118e308181031d0a949f8dededebc558ef6a", "ca854ea128ed050b41b35ffc1b87b8eb2bde461e9e3b5596ece6b9d5975a0ae0", "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7"],
    (2, 5): ["5f083f0a1a33ca076a95279832580db3e0ef4584bdff1f54c8a360f50de3031e", "bc1a0643b12e4d2d7c77918f44e0f4f79a838b6cf9ec5b5c283e1f4d88599e6b"],
}  # fmt: skip


def naive_root(entries: list[bytes]) -> bytes:
    """MTH as RFC 9162, 2.1.1, writes it."""
    if not entries:
        return hashlib.sha256(b"").digest()
    if len(entries) == 1:
        return hashlib.sha256(b"\x00" + entries[0]).digest()
    k = 1
    while k * 2 < len(entries):
        k *= 2
    return hashlib.sha256(b"\x01" + naive_root(entries[:k]) + naive_root(entries[k:])).digest()


def hashes(path: list[tuple[int, int]], entries: list[bytes]) -> list[bytes]:
    return [naive_root(entries[start:end]) for start, end in path]


@pytest.mark.parametrize("size", range(1, 9))
def test_roots_of_the_reference_tree(size: int) -> None:
    assert merkle.root_of(map(merkle.leaf_hash, ENTRIES[:size])).hex() == ROOTS[size - 1]


def test_the_root_of_nothing() -> None:
    assert merkle.root_of([]) == merkle.EMPTY_ROOT == hashlib.sha256(b"").digest()


@pytest.mark.parametrize(("index", "size"), INCLUSION)
def test_inclusion_paths_of_the_reference_tree(index: int, size: int) -> None:
    path = hashes(merkle.inclusion_path(index, size), ENTRIES)
    assert [one.hex() for one in path] == INCLUSION[index, size]
    assert root_from_inclusion(index, size, merkle.leaf_hash(ENTRIES[index]), path) == bytes.fromhex(ROOTS[size - 1])


@pytest.mark.parametrize(("first", "second"), CONSISTENCY)
def test_consistency_paths_of_the_reference_tree(first: int, second: int) -> None:
    path = hashes(merkle.consistency_path(first, second), ENTRIES)
    assert [one.hex() for one in path] == CONSISTENCY[first, second]
    assert is_consistent(first, second, bytes.fromhex(ROOTS[first - 1]), bytes.fromhex(ROOTS[second - 1]), path)


def entries(count: int) -> list[bytes]:
    return [hashlib.sha256(str(n).encode()).digest() for n in range(count)]


@given(st.integers(0, 700))
def test_all_ways_to_a_root_agree(size: int) -> None:
    leaves = entries(size)
    expected = naive_root(leaves)
    assert merkle.root_of(map(merkle.leaf_hash, leaves)) == expected
    tree, extension = Tree(), Extension(0, {})
    for leaf in leaves:
        tree.add(leaf)
    extension.add(map(merkle.leaf_hash, leaves))
    assert tree.root() == extension.root() == expected


@given(st.data())
def test_proofs_hold_and_hold_for_nothing_else(data: st.DataObject) -> None:
    second = data.draw(st.integers(1, 300))
    first = data.draw(st.integers(1, second))
    index = data.draw(st.integers(0, second - 1))
    leaves = entries(second)
    path = hashes(merkle.inclusion_path(index, second), leaves)
    root, leaf = naive_root(leaves), merkle.leaf_hash(leaves[index])
    assert root_from_inclusion(index, second, leaf, path) == root
    other = data.draw(st.integers(0, second - 1).filter(lambda n: n != index)) if second > 1 else None
    if other is not None:
        assert root_from_inclusion(other, second, leaf, path) != root
        assert root_from_inclusion(index, second, merkle.leaf_hash(leaves[other]), path) != root
    agreed = hashes(merkle.consistency_path(first, second), leaves)
    old = naive_root(leaves[:first])
    assert is_consistent(first, second, old, root, agreed)
    assert not is_consistent(first, second, hashlib.sha256(old).digest(), root, agreed)
    assert not is_consistent(first, second, old, hashlib.sha256(root).digest(), agreed)


@pytest.mark.parametrize(("index", "size"), [(0, 0), (3, 3), (-1, 2)])
def test_no_path_for_a_leaf_that_is_not_there(index: int, size: int) -> None:
    with pytest.raises(ValueError, match="tree"):
        merkle.inclusion_path(index, size)


def test_no_consistency_with_a_larger_tree() -> None:
    with pytest.raises(ValueError, match="begin"):
        merkle.consistency_path(3, 2)
