"""How far each projection has come, and how to wait for it: a reader who holds a position never reads older than it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable

import asyncpg
import msgspec

from domain.ids import Position
from projections.errors import CheckpointMoved, ProjectionBehind
from projections.projection import Projection

_FIRST_PAUSE_S = 0.002
_LONGEST_PAUSE_S = 0.05


class Status(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the checkpoints. ``lag`` counts events of the log beyond ``position``.

    ``state``: building (it has never held the whole log, and is not to be read), live, or paused by ``problem``. ``built``
    says whether a paused one may be read.
    """

    name: str
    version: int
    position: Position
    state: str
    problem: str | None
    built: bool
    lag: int

    @property
    def head(self) -> int:
        return self.position + self.lag

    @property
    def percent(self) -> int:
        """How much of the log is applied, rounded down."""
        return 100 * self.position // self.head if self.head else 100


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


_STATUS = (
    "SELECT c.name, c.version, c.position, c.state, c.problem, c.built, greatest(h.position - c.position, 0) AS lag"
    " FROM projection_checkpoint c, log_head h"
)


async def statuses(pool: asyncpg.Pool) -> list[Status]:
    """Every version of every projection that was ever started on this database."""
    return [Status(**dict(row)) for row in await pool.fetch(f"{_STATUS} ORDER BY c.name, c.version")]


async def status_of(pool: asyncpg.Pool, projection: Projection) -> Status | None:
    """Of this version of this projection; None when it was never started."""
    row = await pool.fetchrow(f"{_STATUS} WHERE c.name = $1 AND c.version = $2", projection.name, projection.version)
    return Status(**dict(row)) if row is not None else None


def without_old_versions(found: Iterable[Status], projections: Iterable[Projection]) -> list[Status]:
    """Those that the running code keeps, or knows nothing of."""
    current = {projection.name: projection.version for projection in projections}
    return [status for status in found if status.version >= current.get(status.name, 0)]


async def start(connection: asyncpg.Connection, projection: Projection) -> None:
    """The checkpoint of a read model whose tables are new and empty: with an empty log it is complete already."""
    await connection.execute(
        "INSERT INTO public.projection_checkpoint (name, version, position, state, built)"
        " SELECT $1, $2, 0, CASE WHEN position = 0 THEN 'live' ELSE 'building' END, position = 0 FROM public.log_head"
        " ON CONFLICT (name, version) DO UPDATE SET position = 0, state = excluded.state, problem = NULL, built = excluded.built",
        projection.name,
        projection.version,
    )


async def move(connection: asyncpg.Connection, projection: Projection, at: int, to: int, *, built: bool) -> None:
    """From one position to another, in the transaction that changes the tables. Raises CheckpointMoved."""
    moved = await connection.execute(
        "UPDATE public.projection_checkpoint SET position = $4, problem = NULL, built = $5,"
        " state = CASE WHEN $5 THEN 'live' ELSE 'building' END WHERE name = $1 AND version = $2 AND position = $3",
        projection.name,
        projection.version,
        at,
        to,
        built,
    )
    if moved != "UPDATE 1":
        raise CheckpointMoved(f"projection {projection.name} is not at position {at} any more")


async def pause(pool: asyncpg.Pool, projection: Projection, problem: str) -> None:
    await pool.execute(
        "UPDATE projection_checkpoint SET state = 'paused', problem = $3 WHERE name = $1 AND version = $2",
        projection.name,
        projection.version,
        problem,
    )


async def resume(pool: asyncpg.Pool, projection: Projection, problem_like: str = "%") -> bool:
    """Lets a paused projection try again; False when it is not paused (by such a problem)."""
    resumed = await pool.execute(
        "UPDATE projection_checkpoint SET state = CASE WHEN built THEN 'live' ELSE 'building' END, problem = NULL"
        " WHERE name = $1 AND version = $2 AND state = 'paused' AND problem LIKE $3",
        projection.name,
        projection.version,
        problem_like,
    )
    return bool(resumed == "UPDATE 1")
