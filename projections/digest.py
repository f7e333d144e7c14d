"""A digest of every table of a projection: equal digests say that a rebuild gave the same bytes."""

from __future__ import annotations

import hashlib

import asyncpg

from projections.projection import Projection, schema_name


async def table_digests(connection: asyncpg.Connection, projection: Projection) -> dict[str, str]:
    """Table → SHA-256 over its rows as text, in the order of that text. Streams; no table is loaded whole."""
    schema = schema_name(projection)
    tables = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = $1 ORDER BY tablename", schema)
    digests: dict[str, str] = {}
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        for (table,) in tables:
            digest = hashlib.sha256()
            async for row in connection.cursor(f'SELECT t::text FROM {schema}."{table}" t ORDER BY t::text COLLATE "C"'):
                digest.update(row[0].encode("utf-8") + b"\n")
            digests[table] = digest.hexdigest()
    return digests
