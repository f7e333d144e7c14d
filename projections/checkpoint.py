"""How far each projection has come, and how to wait for it: a reader who holds a position never reads older than it."""

from __future__ import annotations

import asyncio
import time

import asyncpg
import msgspec

from domain.ids import Position
from projections.errors import ProjectionBehind
from projections.projection import Projection

_FIRST_PAUSE_S = 0.002
_LONGEST_PAUSE_S = 0.05


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the checkpoints. ``lag`` counts events of the log beyond ``position``."""

    name: str
    version: int
    position: Position
    state: str
    problem: str | None
    lag: int


async def reached(pool: asyncpg.Pool, name: str, version: int) -> Position:
    """The position up to which this projection has applied the log; 0 when it was never built."""
    position = await pool.fetchval(
        "SELECT position FROM projection_checkpoint WHERE name = $1 AND version = $2", name, version
    )
    return Position(position or 0)


async def wait_for(pool: asyncpg.Pool, projection: Projection, position: int, timeout_s: float = 10.0) -> None:
    """Returns once the projection has applied ``position``. Raises ProjectionBehind."""
    deadline = time.monotonic() + timeout_s
    pause = _FIRST_PAUSE_S
    while (at := await reached(pool, projection.name, projection.version)) < position:
        if time.monotonic() > deadline:
            raise ProjectionBehind(projection.name, position, at)
        await asyncio.sleep(pause)
        pause = min(pause * 1.5, _LONGEST_PAUSE_S)


async def statuses(pool: asyncpg.Pool) -> list[Status]:
    """Every projection that was ever started on this database."""
    rows = await pool.fetch(
        "SELECT c.name, c.version, c.position, c.state, c.problem, h.position - c.position AS lag"
        " FROM projection_checkpoint c, log_head h ORDER BY c.name, c.version"
    )
    return [Status(**dict(row)) for row in rows]
