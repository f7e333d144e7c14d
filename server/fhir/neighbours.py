"""What refers to what, as of a position: the versions that held there, by the rows of their references."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import asyncpg

from projections.fhir.projection import SCHEMA
from server.fhir.access import Access, reached
from server.fhir.within import compartment_sources

Named = tuple[str, str]
"""Type and id."""
Found = dict[Named, int]
"""With the key of the version that held."""

# By LATERAL: looked up by index, however many there are.
_HELD = "(r.position_from <= $1 AND (r.position_to IS NULL OR r.position_to > $1))"
_THERE = f"""
    SELECT k.type, k.id, r.key FROM unnest($2::text[], $3::text[]) AS k (type, id) CROSS JOIN LATERAL (
        SELECT r.key FROM {SCHEMA}.resource r WHERE r.type = k.type AND r.id = k.id AND {_HELD} OFFSET 0
    ) r
"""
_REFERRING = f"""
    SELECT DISTINCT r.type, r.id, s.key, s.source FROM unnest($2::text[]) AS t (target) CROSS JOIN LATERAL (
        SELECT s.key, s.source FROM {SCHEMA}.reference s WHERE s.target = t.target OFFSET 0
    ) s CROSS JOIN LATERAL (
        SELECT r.type, r.id FROM {SCHEMA}.resource r WHERE r.key = s.key AND {_HELD} OFFSET 0
    ) r
"""
_REFERRED = f"""
    SELECT DISTINCT k.key, s.source, s.target FROM unnest($1::bigint[]) AS k (key) CROSS JOIN LATERAL (
        SELECT s.source, s.target FROM {SCHEMA}.reference s WHERE s.key = k.key OFFSET 0
    ) s
"""


class Neighbours:
    """Those that may be read: what is out of reach leads nowhere."""

    def __init__(self, pool: asyncpg.Pool, access: Access, position: int) -> None:
        self._pool = pool
        self._access = access
        self._position = position

    async def there(self, named: Iterable[Named]) -> Found:
        """Those of these resources that were there."""
        wanted = sorted(set(named))
        rows = await self._pool.fetch(_THERE, self._position, [one[0] for one in wanted], [one[1] for one in wanted])
        return await self._reached({(row["type"], row["id"]): row["key"] for row in rows})

    async def referring(self, named: Iterable[Named], compartment: str | None = None) -> Found:
        """What refers to any of these; with a compartment, only what is so in that compartment of theirs."""
        rows = await self._pool.fetch(_REFERRING, self._position, [f"{kind}/{resource_id}" for kind, resource_id in sorted(set(named))])
        found = {
            (row["type"], row["id"]): row["key"]
            for row in rows
            if compartment is None or row["source"] in compartment_sources(compartment, row["type"])
        }
        return await self._reached(found)

    async def _reached(self, found: Found) -> Found:
        types = {kind for kind, _ in found}
        keys = await reached(self._pool, self._access, "r", list(found.values()), types, self._position)
        return {named: key for named, key in found.items() if key in keys}

    async def referred(self, found: Found) -> set[Named]:
        """What these refer to, here."""
        rows = await self._pool.fetch(_REFERRED, sorted(found.values()))
        return {(kind, resource_id) for row in rows for kind, _, resource_id in [row["target"].partition("/")] if resource_id}

    async def patients_of(self, found: Mapping[Named, int]) -> dict[Named, set[str]]:
        """In whose compartments each of these is, as far as it is in any: ids of Patients."""
        by_key = {key: named for named, key in found.items()}
        patients: dict[Named, set[str]] = {named: {named[1]} for named in found if named[0] == "Patient"}
        for row in await self._pool.fetch(_REFERRED, sorted(by_key)):
            named, (kind, _, patient_id) = by_key[row["key"]], row["target"].partition("/")
            if kind == "Patient" and row["source"] in compartment_sources("Patient", named[0]):
                patients.setdefault(named, set()).add(patient_id)
        return patients
