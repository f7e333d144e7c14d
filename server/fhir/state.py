"""How far the FHIR read model has come, which is what an answer is as of; and what the site has added to the search parameters by then."""

from __future__ import annotations

import asyncpg

from domain.ids import Position
from projections.fhir.projection import SCHEMA, FhirProjection
from projections.fhir.search.site import CURRENT, Added, Known, numbers_of, site_of
from projections.fhir.versions import VERSION_BITS
from server.services import Services

_REACHED = f"""
    SELECT c.position, a.added, a.latest, EXISTS (SELECT FROM {SCHEMA}.search_pending) AS is_at_work
    FROM (SELECT count(*) AS added, max(position) AS latest FROM {SCHEMA}.search_parameter) a
    LEFT JOIN public.projection_checkpoint c ON c.name = $1 AND c.version = $2
"""
_ADDED = f"SELECT id, position, definition, problem FROM {SCHEMA}.search_parameter ORDER BY id"
_PENDING = f"SELECT type, number, until_key, done_key FROM {SCHEMA}.search_pending WHERE is_wanted"


async def reached_position(services: Services) -> Position:
    """Also lets this request know what the site has added: in the same statement, since every search asks for it."""
    position = await services.ask(_reached, None)
    CURRENT.set(services.known)
    return position or Position(0)


async def _reached(services: Services, _: list[None]) -> dict[None, Position]:
    row = await services.pool.fetchrow(_REACHED, FhirProjection.name, FhirProjection.version)
    revision = (row["added"], row["latest"] or 0)
    if revision != services.known.revision or services.known.indexing or row["is_at_work"]:
        services.known = await _known(services.pool, revision)
    return {None: Position(row["position"] or 0)}


async def added(pool: asyncpg.Pool) -> list[Added]:
    """Every active SearchParameter of the site, also those that cannot be used."""
    return [Added(*row) for row in await pool.fetch(_ADDED)]


async def indexed(pool: asyncpg.Pool, rows: list[Added]) -> dict[tuple[str, str], int]:
    """Type and code of what is being indexed → percent, rounded down."""
    waiting: dict[tuple[str, int], int] = {}
    for row in await pool.fetch(_PENDING):
        done, until = max(row["done_key"], 0) >> VERSION_BITS, row["until_key"] >> VERSION_BITS
        waiting[row["type"], row["number"]] = 100 * done // max(until, 1)
    found: dict[tuple[str, str], int] = {}
    for kind, of_type in site_of(rows).parameters.items() if waiting else ():
        for code, parameter in of_type.items():
            percents = [waiting[kind, number] for number in numbers_of(parameter) if (kind, number) in waiting]
            if percents:
                found[kind, code] = min(percents)
    return found


async def _known(pool: asyncpg.Pool, revision: tuple[int, int]) -> Known:
    async with pool.acquire() as connection, connection.transaction(isolation="repeatable_read", readonly=True):
        rows = await added(connection)
        return Known(revision, site_of(rows), await indexed(connection, rows))
