"""Checkpoints, proofs and tiles over HTTP, checked by what RFC 9162 and C2SP say and by nothing of the server's."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio
from served_site import Site, served_site
from tampering import append_studies

from eventlog.sealer import rotate_key, seal
from server.audit.verifier import Tree, is_consistent, leaf_hash, parse_checkpoint, parse_key, root_from_inclusion

EVENTS = 70_000
"""More than 256 tiles of leaves, so that the tree has a tile at level 2."""


@pytest_asyncio.fixture
async def site(embedded_server: str, tmp_path: Path) -> AsyncIterator[Site]:
    """Reads are not recorded: the log has the tests' events alone, and their sizes are known."""
    async with served_site(embedded_server, tmp_path, audit_reads=False) as site:
        yield site


async def newest(site: Site) -> tuple[int, bytes]:
    """(size, root) of the newest checkpoint, its signatures verified."""
    keys = (await site.get("/audit/keys", "audit:read")).json()["keys"]
    answer = await site.get("/audit/checkpoint", "audit:read")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    checkpoint = parse_checkpoint(answer.text, [parse_key(one["key"]) for one in keys])
    assert checkpoint.signed_by and not checkpoint.bad_signatures and checkpoint.signed_at
    return checkpoint.size, checkpoint.root


async def test_an_event_is_proved_to_be_in_the_log(site: Site) -> None:
    await append_studies(site.services.log, 1000)
    await seal(site.services.log)
    size, root = await newest(site)
    for position in (1, 2, 256, 257, size):
        proof = (await site.get(f"/audit/inclusion/{position}", "audit:read")).json()
        leaf = leaf_hash(bytes.fromhex(proof["digest"]))
        assert (proof["size"], proof["leaf"]) == (size, leaf.hex())
        assert root_from_inclusion(position - 1, size, leaf, [bytes.fromhex(step) for step in proof["path"]]) == root
    proofs = (await site.get("/audit/inclusion?position=3&position=999&size=999", "audit:read")).json()["proofs"]
    assert [(one["position"], one["size"]) for one in proofs] == [(3, 999), (999, 999)]


async def test_two_checkpoints_are_proved_to_agree(site: Site) -> None:
    sizes = []
    for n in range(3):
        await append_studies(site.services.log, 300, 1000 * n)
        await rotate_key(site.services.log)
        sizes.append((await seal(site.services.log)).size)
    kept = (await site.get("/audit/checkpoints", "audit:read")).json()["checkpoints"]
    roots = {one["size"]: bytes.fromhex(one["root"]) for one in kept}
    for first in sizes:
        for second in sizes:
            if first <= second:
                proof = (await site.get(f"/audit/consistency?first={first}&second={second}", "audit:read")).json()
                path = [bytes.fromhex(step) for step in proof["path"]]
                assert is_consistent(first, second, roots[first], roots[second], path)
    page = (await site.get("/audit/checkpoints?limit=1", "audit:read")).json()
    rest = (await site.get(f"/audit/checkpoints?after={page['next']}", "audit:read")).json()
    assert [*page["checkpoints"], *rest["checkpoints"]] == kept


async def test_the_tree_can_be_followed_by_its_tiles_alone(site: Site) -> None:
    """As a monitor of transparency logs does: checkpoint, tiles, entries; full tiles may be kept for ever."""
    for first in range(0, EVENTS, 10_000):
        await append_studies(site.services.log, 10_000, first)
    await seal(site.services.log)
    note = (await site.get("/audit/log/checkpoint", "audit:read")).text
    size, root = int(note.split("\n")[1]), base64.b64decode(note.split("\n")[2])
    hashes: list[bytes] = []
    for index in range((size + 255) // 256):
        width = min(256, size - 256 * index)
        name = f"{index:03d}" + ("" if width == 256 else f".p/{width}")
        answer = await site.get(f"/audit/log/tile/0/{name}", "audit:read")
        assert "immutable" in answer.headers["cache-control"] and len(answer.content) == 32 * width
        hashes += [answer.content[n : n + 32] for n in range(0, len(answer.content), 32)]
        if index % 50 == 0 or width < 256:
            entries = (await site.get(f"/audit/log/tile/entries/{name}", "audit:read")).content
            assert len(entries) == 34 * width and entries[:2] == b"\x00\x20"
            digests = [entries[n + 2 : n + 34] for n in range(0, len(entries), 34)]
            assert [leaf_hash(digest) for digest in digests] == hashes[256 * index :]
    tree = Tree()
    for one in hashes:
        tree.add_subtree(0, one)
    assert tree.root() == root
    level_1 = (await site.get("/audit/log/tile/1/000", "audit:read")).content
    expected = Tree()
    for one in hashes[:256]:
        expected.add_subtree(0, one)
    assert level_1[:32] == expected.root() and len(level_1) == 256 * 32
    level_2 = (await site.get("/audit/log/tile/2/000.p/1", "audit:read")).content
    whole = Tree()
    for n in range(256):
        whole.add_subtree(0, level_1[32 * n : 32 * n + 32])
    assert level_2 == whole.root()


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("inclusion/0", 400),
        ("inclusion/11", 400),
        ("inclusion/x", 400),
        ("inclusion/99999999999999999999", 400),
        ("inclusion/1?size=99999999999999999999", 404),
        ("consistency?first=99999999999999999999", 400),
        ("inclusion/1?size=5000000", 404),
        ("inclusion", 400),
        ("consistency", 400),
        ("consistency?first=9&second=2", 400),
        ("consistency?first=-1", 400),
        ("consistency?first=1&second=11", 404),
        ("log/tile/0/000", 404),
        ("log/tile/0/000.p/11", 404),
        ("log/tile/0/000.p/0", 404),
        ("log/tile/0/0", 404),
        ("log/tile/0/x000/000", 404),
        ("log/tile/9/000.p/1", 404),
        ("log/tile/-1/000.p/1", 404),
        ("log/tile/entries/x999/x999/999", 404),
        ("log/tile/entries/000.p/11", 404),
        ("checkpoints?limit=0", 400),
    ],
)
async def test_what_cannot_be_proved_is_said(site: Site, path: str, status: int) -> None:
    await append_studies(site.services.log, 10)
    await seal(site.services.log)
    answer = await site.get(f"/audit/{path}", "audit:read")
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json" and answer.json()["detail"]


async def test_nothing_is_sealed_yet(site: Site) -> None:
    for path in ("checkpoint", "inclusion/1", "consistency?first=1", "log/checkpoint", "log/tile/0/000.p/1"):
        answer = await site.get(f"/audit/{path}", "audit:read")
        assert answer.status_code == 404 and "sealed" in answer.json()["detail"], path
    assert (await site.get("/audit/checkpoints", "audit:read")).json() == {"checkpoints": [], "next": None}


def test_a_leaf_is_the_hash_of_a_digest() -> None:
    digest = hashlib.sha256(b"event").digest()
    assert leaf_hash(digest) == hashlib.sha256(b"\x00" + digest).digest()
