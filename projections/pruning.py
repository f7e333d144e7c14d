"""Read models that the running code keeps no more: those of its projections' older versions, and what died halfway.

An older version stays until somebody says so, since a process of that version may still keep and serve it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

import msgspec

from eventlog.leases import lease
from eventlog.log import EventLog
from projections import schemas
from projections.projection import Projection


class Pruned(msgspec.Struct, frozen=True, kw_only=True):
    """A schema that is gone, or why it is still there."""

    schema: str
    removed: bool
    reason: str


async def prune(log: EventLog, projections: Iterable[Projection]) -> list[Pruned]:
    """Removes the schemas and checkpoints of older versions, unless a process still keeps them up."""
    found: list[Pruned] = []
    for projection in projections:
        swept = await schemas.sweep_unless_in_use(log, projection)
        found += [Pruned(schema=schema, removed=True, reason="left behind by a rebuild or a verification") for schema in swept]
        for version in await old_versions(log, projection):
            found.append(await _remove(log, projection, version))
    return found


async def old_versions(log: EventLog, projection: Projection) -> list[int]:
    """Versions before the code's own that have a schema still (or one beside it)."""
    rows = await log.pool.fetch("SELECT nspname FROM pg_namespace")
    matches = (re.fullmatch(rf"{re.escape(projection.name)}_v(\d+)(_.*)?", row["nspname"]) for row in rows)
    return sorted({int(match[1]) for match in matches if match and int(match[1]) < projection.version})


async def _remove(log: EventLog, projection: Projection, version: int) -> Pruned:
    schema = f"{projection.name}_v{version}"
    async with lease(log, f"projection {schema}") as free:
        if not free:
            return Pruned(schema=schema, removed=False, reason="a process of that version still keeps it up")
        async with log.pool.acquire() as connection:
            rows = await connection.fetch("SELECT nspname FROM pg_namespace WHERE nspname ~ $1", f"^{schema}(_|$)")
            if not all([await schemas.drop(connection, row["nspname"]) for row in rows]):
                return Pruned(schema=schema, removed=False, reason="somebody reads it")
            await connection.execute(
                "DELETE FROM projection_checkpoint WHERE name = $1 AND version = $2", projection.name, version
            )
    return Pruned(schema=schema, removed=True, reason=f"version {projection.version} has taken its place")
