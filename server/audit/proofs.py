"""The log's tree over HTTP: checkpoints, keys, inclusion and consistency proofs, and the tiles as C2SP tlog-tiles lays them out.

Only digests are served here, so nothing of an event is told; all the same, each request needs a principal with audit:read.
"""

from __future__ import annotations

import re
from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends, Query, Request, Response
from starlette.exceptions import HTTPException

from eventlog.checkpoint_keys import published_keys
from eventlog.errors import NotSealed
from eventlog.sealer import Sealed
from eventlog.tree import HEIGHT, WIDTH
from server.audit.proving import Inclusion, newest, prove_consistency, prove_inclusions, sealed_size
from server.auth.principals import requires
from server.errors import EventMissing, ProofImpossible
from server.plain_json import json_answer, refusals
from server.services import Services

MAX_CHECKPOINTS = 1000
MAX_POSITIONS = 1000
"""Of which one request proves the inclusion."""
_TEXT = "text/plain; charset=utf-8"
_FOR_EVER = "public, max-age=31536000, immutable"
_HASH = 32
_TILE = re.compile(r"(?P<index>(?:x[0-9]{3}/)*[0-9]{3})(?:\.p/(?P<width>[1-9][0-9]{0,2}))?", re.ASCII)

_STATUS: dict[type[Exception], int] = {ProofImpossible: 400, NotSealed: 404, EventMissing: 404}
router = APIRouter(prefix="/audit", dependencies=[Depends(requires("audit:read"))], tags=["Audit"])


class KeptCheckpoint(msgspec.Struct, frozen=True, kw_only=True):
    """A checkpoint, with its note as it was signed."""

    size: int
    root: str
    made_at: str
    note: str


@router.get("/checkpoint")
@router.get("/log/checkpoint")
async def get_checkpoint(request: Request) -> Response:
    """The newest checkpoint, as a C2SP signed note."""
    return Response((await _latest(request)).note, media_type=_TEXT, headers={"Cache-Control": "no-cache"})


@router.get("/checkpoints")
async def get_checkpoints(
    request: Request,
    after: Annotated[int, Query(ge=0, lt=2**62)] = 0,
    limit: Annotated[int, Query(ge=1, le=MAX_CHECKPOINTS)] = 100,
) -> Response:
    """Checkpoints of more than ``after`` events, the smallest first."""
    services: Services = request.app.state.services
    rows = await services.pool.fetch(
        "SELECT size, root, note, made_at FROM checkpoint WHERE size > $1 ORDER BY size LIMIT $2", after, limit
    )
    found = [
        KeptCheckpoint(size=row["size"], root=row["root"].hex(), made_at=row["made_at"].isoformat(), note=row["note"]) for row in rows
    ]
    return json_answer({"checkpoints": found, "next": found[-1].size if len(found) == limit else None})


@router.get("/keys")
async def get_keys(request: Request) -> Response:
    """The keys that verify checkpoints, as C2SP signed-note writes them; the newest first."""
    services: Services = request.app.state.services
    return json_answer({"keys": await published_keys(services.pool)})


@router.get("/inclusion/{position}")
async def get_inclusion(request: Request, position: int, size: int | None = None) -> Response:
    """Proves that one event is in the log, in the tree of the newest checkpoint or of one of this size."""
    return json_answer((await _inclusions(request, [position], size))[0])


@router.get("/inclusion")
async def get_inclusions(
    request: Request, position: Annotated[list[int], Query(max_length=MAX_POSITIONS)], size: int | None = None
) -> Response:
    """The same for several events: ``?position=7&position=11``."""
    return json_answer({"proofs": await _inclusions(request, position, size)})


async def _inclusions(request: Request, positions: list[int], size: int | None) -> list[Inclusion]:
    services: Services = request.app.state.services
    with refusals(_STATUS):
        return await prove_inclusions(services.pool, services.tree, positions, size)


@router.get("/consistency")
async def get_consistency(request: Request, first: int, second: int | None = None) -> Response:
    """Proves that nothing of the first ``first`` events was changed until there were ``second`` (by default as many as are sealed)."""
    services: Services = request.app.state.services
    with refusals(_STATUS):
        return json_answer(await prove_consistency(services.pool, services.tree, first, second))


@router.get("/log/tile/entries/{name:path}")
async def get_entries(request: Request, name: str) -> Response:
    """A bundle of log entries (tlog-tiles): the digests of 256 events, each after its length in two bytes."""
    index, width = _tile_name(name)
    services: Services = request.app.state.services
    with refusals(_STATUS):
        await sealed_size(services.pool, index * WIDTH + width)
    rows = await services.pool.fetch(
        "SELECT digest FROM event WHERE position > $1 AND position <= $2 ORDER BY position", index * WIDTH, index * WIDTH + width
    )
    if len(rows) != width:
        raise HTTPException(404, "events of this bundle are missing: run `anamnesis audit check`")
    return _tile(b"".join(_HASH.to_bytes(2, "big") + row["digest"] for row in rows))


@router.get("/log/tile/{level}/{name:path}")
async def get_tile(request: Request, level: int, name: str) -> Response:
    """A tile of the tree (tlog-tiles): up to 256 hashes of 32 bytes."""
    index, width = _tile_name(name)
    services: Services = request.app.state.services
    sealed = await _latest(request)
    if not 0 <= level < 8 or sealed.size >> (HEIGHT * level) < index * WIDTH + width:
        raise HTTPException(404, f"the tree of {sealed.size} events has no such tile")
    hashes = await services.pool.fetchval("SELECT hashes FROM tree_tile WHERE level = $1 AND index = $2", level, index)
    if hashes is None or len(hashes) < width * _HASH:
        raise HTTPException(404, "the tile is missing: run `anamnesis audit check`")
    return _tile(bytes(hashes[: width * _HASH]))


def _tile_name(name: str) -> tuple[int, int]:
    """(index, number of hashes). Raises HTTPException 404."""
    matched = _TILE.fullmatch(name)
    width = int(matched["width"] or WIDTH) if matched else 0
    index = int(matched["index"].replace("x", "").replace("/", "")) if matched else 0
    if matched is None or width > WIDTH or index >= 2**40 or matched["index"] != _written(index):
        raise HTTPException(404, "a tile's name reads x001/x234/067 or, of a partial one, 067.p/8")
    return index, width


def _written(index: int) -> str:
    """tlog-tiles, "Merkle Tree": groups of three digits, all but the last with an x before them."""
    text = f"{index % 1000:03d}"
    while index := index // 1000:
        text = f"x{index % 1000:03d}/{text}"
    return text


async def _latest(request: Request) -> Sealed:
    services: Services = request.app.state.services
    with refusals(_STATUS):
        return await newest(services.pool)


def _tile(content: bytes) -> Response:
    return Response(content, media_type="application/octet-stream", headers={"Cache-Control": _FOR_EVER})
