"""A digest of every table of a projection: equal digests say that a rebuild gave the same bytes."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator

import asyncpg

from projections.projection import Projection, schema_name

ROW_SHA256 = "sha256(convert_to(t::text, 'UTF8'))"
"""Of a row of table ``t``, as PostgreSQL writes it."""
PREFETCH = 10_000


async def table_digests(connection: asyncpg.Connection, projection: Projection) -> dict[str, str]:
    """Table → digest of its rows. Streams; no table is loaded whole."""
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        schema = schema_name(projection)
        return {table: await table_digest(connection, schema, table) for table in await tables(connection, schema)}


async def tables(connection: asyncpg.Connection, schema: str) -> list[str]:
    """Names of the schema's tables, in order."""
    rows = await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = $1 ORDER BY 1", schema)
    return sorted(row["tablename"] for row in rows)


async def table_digest(connection: asyncpg.Connection, schema: str, table: str) -> str:
    """SHA-256 over the sorted SHA-256 of every row, in hexadecimal. Within a transaction."""
    digest = hashlib.sha256()
    async for row in row_digests(connection, schema, table):
        digest.update(row)
    return digest.hexdigest()


async def row_digests(connection: asyncpg.Connection, schema: str, table: str) -> AsyncIterator[bytes]:
    """The digests of a table's rows, in their own order: 32 bytes a row are sorted, and not the rows. Within a transaction."""
    query = f'SELECT {ROW_SHA256} AS digest FROM {schema}."{table}" t ORDER BY 1'
    async for row in connection.cursor(query, prefetch=PREFETCH):
        yield row["digest"]
