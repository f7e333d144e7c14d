"""What refers to what, as of a position: the versions that held there, by the rows of their references."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import asyncpg

from projections.fhir.definitions import compartments
from projections.fhir.projection import SCHEMA

Key = tuple[str, str]
"""Type and id."""

# By LATERAL: looked up by index, however many there are.
_HELD = "(r.position_from <= $1 AND (r.position_to IS NULL OR r.position_to > $1))"
_THERE = f"""
    SELECT k.type, k.id, r.version FROM unnest($2::text[], $3::text[]) AS k (type, id) CROSS JOIN LATERAL (
        SELECT r.version FROM {SCHEMA}.resource r WHERE r.type = k.type AND r.id = k.id AND {_HELD} OFFSET 0
    ) r
"""
_REFERRING = f"""
    SELECT DISTINCT s.type, s.param, s.id, s.version FROM unnest($2::text[]) AS t (target) CROSS JOIN LATERAL (
        SELECT * FROM {SCHEMA}.reference s WHERE s.target = t.target OFFSET 0
    ) s CROSS JOIN LATERAL (
        SELECT FROM {SCHEMA}.resource r WHERE r.type = s.type AND r.id = s.id AND r.version = s.version AND {_HELD} OFFSET 0
    ) r
"""
_REFERRED = f"""
    SELECT DISTINCT k.type, k.id, s.param, s.target FROM unnest($1::text[], $2::text[], $3::int[]) AS k (type, id, version) CROSS JOIN LATERAL (
        SELECT s.param, s.target FROM {SCHEMA}.reference s WHERE s.type = k.type AND s.id = k.id AND s.version = k.version OFFSET 0
    ) s
"""


class Neighbours:
    def __init__(self, pool: asyncpg.Pool, position: int) -> None:
        self._pool = pool
        self._position = position

    async def there(self, keys: Iterable[Key]) -> dict[Key, int]:
        """Those of these resources that were there, with the version that held."""
        wanted = sorted(set(keys))
        rows = await self._pool.fetch(_THERE, self._position, [key[0] for key in wanted], [key[1] for key in wanted])
        return {(row["type"], row["id"]): row["version"] for row in rows}

    async def referring(self, keys: Iterable[Key], by: Mapping[str, Sequence[str]] | None = None) -> dict[Key, int]:
        """The versions that refer to any of these; of each type only by these search parameters, where they are given."""
        rows = await self._pool.fetch(_REFERRING, self._position, [f"{kind}/{resource_id}" for kind, resource_id in sorted(set(keys))])
        return {(row["type"], row["id"]): row["version"] for row in rows if by is None or row["param"] in by.get(row["type"], ())}

    async def referred(self, versions: Mapping[Key, int]) -> set[Key]:
        """What these versions refer to, here."""
        rows = await self._references(versions)
        return {(kind, resource_id) for row in rows for kind, _, resource_id in [row["target"].partition("/")] if resource_id}

    async def patients_of(self, versions: Mapping[Key, int]) -> dict[Key, set[str]]:
        """In whose compartments each of these is, as far as it is in any: ids of Patients."""
        by = compartments()["Patient"].parameters
        found: dict[Key, set[str]] = {key: {key[1]} for key in versions if key[0] == "Patient"}
        for row in await self._references(versions):
            kind, _, patient_id = row["target"].partition("/")
            if kind == "Patient" and row["param"] in by.get(row["type"], ()):
                found.setdefault((row["type"], row["id"]), set()).add(patient_id)
        return found

    async def _references(self, versions: Mapping[Key, int]) -> list[asyncpg.Record]:
        keys = sorted(versions)
        return list(
            await self._pool.fetch(_REFERRED, [key[0] for key in keys], [key[1] for key in keys], [versions[key] for key in keys])
        )
