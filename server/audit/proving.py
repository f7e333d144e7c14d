"""Inclusion and consistency proofs of this log, as the server and the command line give them."""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg
import msgspec

from eventlog.errors import NotSealed
from eventlog.merkle import leaf_hash
from eventlog.sealer import Sealed, latest
from eventlog.tree import Tree
from server.errors import EventMissing, ProofImpossible

_LAST = 2**63 - 1
_ASKED = """
    SELECT c.sealed, e.position, e.digest
    FROM (SELECT max(size) AS sealed FROM checkpoint) c LEFT JOIN event e ON e.position = ANY ($1::bigint[])
"""


class Inclusion(msgspec.Struct, frozen=True, kw_only=True):
    """That an event is at its position in the tree of ``size`` (RFC 9162, 2.1.3). Hashes in hexadecimal, 32 bytes each."""

    position: int
    size: int
    digest: str
    leaf: str
    path: list[str]


class Consistency(msgspec.Struct, frozen=True, kw_only=True):
    """That the tree of ``second`` events begins as that of ``first`` (RFC 9162, 2.1.4). Hashes in hexadecimal, 32 bytes each."""

    first: int
    second: int
    path: list[str]


async def newest(pool: asyncpg.Pool) -> Sealed:
    """The newest checkpoint. Raises NotSealed before the first."""
    sealed = await latest(pool)
    if sealed is None:
        raise _not_sealed(None, None)
    return sealed


async def sealed_size(pool: asyncpg.Pool, asked: int | None) -> int:
    """The size of the tree that is asked for, by default the newest checkpoint's. Raises NotSealed."""
    sealed = await newest(pool)
    if asked is not None and asked > sealed.size:
        raise _not_sealed(sealed.size, asked)
    return sealed.size if asked is None else asked


def _not_sealed(sealed: int | None, asked: int | None) -> NotSealed:
    if sealed is None:
        return NotSealed("nothing is sealed yet: the first checkpoint comes with the first events, or with `anamnesis audit seal`")
    return NotSealed(f"{sealed} events are sealed, not {asked} yet")


async def prove_inclusions(pool: asyncpg.Pool, tree: Tree, positions: Sequence[int], size: int | None = None) -> list[Inclusion]:
    """In the tree of ``size`` events, or of the newest checkpoint. Raises NotSealed, ProofImpossible, EventMissing."""
    if wrong := [position for position in positions if not 1 <= position <= _LAST]:
        raise ProofImpossible(f"there is no position {wrong[0]} in any log")
    rows = await pool.fetch(_ASKED, positions)
    sealed = rows[0]["sealed"]
    if sealed is None or (size is not None and size > sealed):
        raise _not_sealed(sealed, size)
    size = sealed if size is None else size
    if wrong := [position for position in positions if position > size]:
        raise ProofImpossible(f"position {wrong[0]} is not in a tree of {size} events")
    digests = {row["position"]: bytes(row["digest"]) for row in rows if row["position"] is not None}
    if missing := [position for position in positions if position not in digests]:
        raise EventMissing(f"the event at position {missing[0]} is missing: run `anamnesis audit check`")
    return [
        Inclusion(
            position=position,
            size=size,
            digest=digests[position].hex(),
            leaf=leaf_hash(digests[position]).hex(),
            path=[step.hex() for step in await tree.inclusion_proof(position - 1, size)],
        )
        for position in positions
    ]


async def prove_consistency(pool: asyncpg.Pool, tree: Tree, first: int, second: int | None = None) -> Consistency:
    """To the tree of ``second`` events, or of the newest checkpoint. Raises NotSealed, ProofImpossible."""
    second = await sealed_size(pool, second)
    if not 0 <= first <= second:
        raise ProofImpossible(f"a tree of {second} events cannot begin as one of {first}")
    return Consistency(first=first, second=second, path=[step.hex() for step in await tree.consistency_proof(first, second)])
