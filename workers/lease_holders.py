"""Which leases are held at this moment, by whatever process: one look at PostgreSQL's lock table instead of trying each."""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg

# A bigint advisory lock shows as its upper and lower half (PostgreSQL manual, 54.12 pg_locks); eventlog.leases hashes the key.
_HELD = """
    SELECT k.key FROM unnest($1::text[]) AS k (key) CROSS JOIN LATERAL (SELECT hashtextextended(k.key, 0) AS h) AS l
    WHERE EXISTS (
        SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted AND objsubid = 1
        AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
        AND (classid::bigint << 32) | objid::bigint = h
    )
"""


async def held(pool: asyncpg.Pool, keys: Sequence[str]) -> set[str]:
    """Those of the keys whose lease is held."""
    return {row["key"] for row in await pool.fetch(_HELD, list(keys))}
