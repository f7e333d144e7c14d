"""The versions of one resource: the one that holds, the one of a number, and all that held in a time (R5 http.html#history).

``_at`` asks for what was current at some point of a period. Where it begins and ends in the log is told as for ``_asof``, so
that ``_at`` and ``_asof`` of the same instant give the same version. What ships with the software (version 0) has no history.
"""

from __future__ import annotations

import asyncio
import contextlib
from datetime import datetime, timedelta

import asyncpg
import msgspec

from domain.ids import Position
from projections.fhir.projection import SCHEMA, FhirProjection
from server.as_of import position_when
from server.fhir.access import Access
from server.fhir.as_of import Given, asked_period, single
from server.fhir.outcome import FhirError
from server.fhir.within import Clause
from server.services import Services

PARAMETERS = ("_at", "_since", "_count", "_sort", "_asof", "_format", "_pretty", "_summary", "_elements")

SHARED = 16
"""Resources that are asked for in one statement: each may be tens of megabytes."""
SHARED_S = 0.5
"""How long a read waits for others: after that it asks alone, in a session of its own, for as long as the site allows."""

_NAME, _VERSION = FhirProjection.name, FhirProjection.version
_REACHED = f"(SELECT position FROM public.projection_checkpoint WHERE name = '{_NAME}' AND version = {_VERSION})"
_COLUMNS = "r.type, r.id, r.version, r.last_updated, r.body, r.position_to"

# Each gives one row for what is asked, with nulls when there is no such version; the position is of the same snapshot.
_CURRENT = f"""
    SELECT k.type AS asked_type, k.id AS asked_id, {_REACHED} AS as_of, {_COLUMNS} FROM unnest($1::text[], $2::text[]) AS k (type, id)
    LEFT JOIN LATERAL (SELECT * FROM {SCHEMA}.resource WHERE type = k.type AND id = k.id ORDER BY version DESC LIMIT 1) r ON r.position_to IS NULL
"""
_HELD = f"""
    SELECT $3::bigint AS as_of, {_COLUMNS} FROM (VALUES (1)) AS always
    LEFT JOIN {SCHEMA}.resource r
        ON r.type = $1 AND r.id = $2 AND r.position_from <= $3::bigint AND (r.position_to IS NULL OR r.position_to > $3::bigint)
"""
_NUMBERED = f"""
    SELECT asked.position AS as_of, {_COLUMNS} FROM (SELECT coalesce($4::bigint, {_REACHED}) AS position) AS asked
    LEFT JOIN {SCHEMA}.resource r ON r.type = $1 AND r.id = $2 AND r.version = $3 AND r.version > 0 AND r.position_from <= asked.position
"""

_IN_PERIOD = f"""
    FROM {SCHEMA}.resource r
    WHERE r.type = $1 AND r.id = $2 AND r.version > 0 AND r.position_from <= $3 AND (r.position_to IS NULL OR r.position_to > $4)
        AND ($5::timestamptz IS NULL OR r.last_updated >= $5)
"""
# Only versions that are within reach, and deletions of such.
_WITHIN = f"""
    AND EXISTS (
        SELECT FROM {SCHEMA}.resource v WHERE v.type = r.type AND v.id = r.id AND {{reach}}
            AND v.version = CASE WHEN r.position_to = r.position_from THEN r.version - 1 ELSE r.version END
    )
"""
_COUNT = f"SELECT count(*) {_IN_PERIOD} {{within}}"
_LATEST_FIRST = f"SELECT {_COLUMNS} {_IN_PERIOD} {{within}} AND r.version < $6 ORDER BY r.version DESC LIMIT $7"
_EARLIEST_FIRST = f"SELECT {_COLUMNS} {_IN_PERIOD} {{within}} AND r.version > $6 ORDER BY r.version LIMIT $7"
_LAST_VERSION = 2**31 - 1
_EXISTS = f"SELECT EXISTS (SELECT FROM {SCHEMA}.resource r WHERE r.type = $1 AND r.id = $2 AND r.version > 0 AND r.position_from <= $3 {{within}})"


async def version_held(services: Services, resource_type: str, resource_id: str, position: Position | None) -> asyncpg.Record:
    """The version that held at a position, or holds now. ``version`` is null when there is none."""
    if position is None:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(SHARED_S):
                return await services.ask(_current, (resource_type, resource_id), most=SHARED)
        return (await _current(services, [(resource_type, resource_id)]))[resource_type, resource_id]
    return await services.pool.fetchrow(_HELD, resource_type, resource_id, position)


async def _current(services: Services, keys: list[tuple[str, str]]) -> dict[tuple[str, str], asyncpg.Record]:
    rows = await services.pool.fetch(_CURRENT, [key[0] for key in keys], [key[1] for key in keys])
    return {(row["asked_type"], row["asked_id"]): row for row in rows}


async def version_numbered(
    pool: asyncpg.Pool, resource_type: str, resource_id: str, number: int, position: Position | None
) -> asyncpg.Record:
    """The version of a number, if it was there at the position. ``version`` is null when it was not."""
    return await pool.fetchrow(_NUMBERED, resource_type, resource_id, number, position)


class Period(msgspec.Struct, frozen=True, kw_only=True):
    """Which versions a history asks for: those that came up to ``last`` and, where it has one, held beyond ``first``; and of those
    the ones that were made from ``since`` on."""

    first: int
    last: int
    since: datetime | None

    @classmethod
    async def asked(cls, pool: asyncpg.Pool, position: int, given: Given) -> Period:
        """By ``_at`` and ``_since``, as of a position. Raises FhirError (400), and ProjectionBehind when the ledger lags."""
        first, last = -1, position  # whatever ever held
        at, since = asked_period(given, "_at"), asked_period(given, "_since")
        if at is not None:
            low, high = at
            first = min(position, await position_when(pool, low))
            last = min(position, await position_when(pool, high - timedelta(microseconds=1)))
        return cls(first=first, last=last, since=since[0] if since else None)


def is_earliest_first(given: Given) -> bool:
    """By ``_sort``; without it, the latest come first. Raises FhirError (400)."""
    order = single(given, "_sort")
    if order not in (None, "_lastUpdated", "-_lastUpdated"):
        raise FhirError(400, "value", "_sort: a history is in order of _lastUpdated, or of -_lastUpdated (the latest first)", "http._sort")
    return order == "_lastUpdated"


class Versions:
    """The versions of one resource as of a position, as far as they are within reach."""

    def __init__(
        self, access: Access, resource_type: str, resource_id: str, position: int, period: Period, *, earliest_first: bool
    ) -> None:
        self._reach = access.condition("r", resource_type)
        self._resource = (resource_type, resource_id)
        self._position = position
        self._arguments = (*self._resource, period.last, period.first, period.since)
        self._earliest_first = earliest_first

    async def exist(self, pool: asyncpg.Pool) -> bool:
        """Whether the resource was there at the position, in whatever version."""
        text, arguments = self._within(_EXISTS, *self._resource, self._position)
        return bool(await pool.fetchval(text, *arguments))

    async def count(self, pool: asyncpg.Pool) -> int:
        text, arguments = self._within(_COUNT, *self._arguments)
        return int(await pool.fetchval(text, *arguments))

    async def page(self, pool: asyncpg.Pool, after: str, limit: int) -> list[asyncpg.Record]:
        """At most ``limit`` beyond the version ``after``; from the beginning where it is empty."""
        beyond = int(after) if after else 0 if self._earliest_first else _LAST_VERSION
        text, arguments = self._within(_EARLIEST_FIRST if self._earliest_first else _LATEST_FIRST, *self._arguments, beyond, limit)
        return list(await pool.fetch(text, *arguments))

    def _within(self, statement: str, *arguments: object) -> tuple[str, list[object]]:
        """The statement, held to what is within reach, with its arguments; the third of these is a position."""
        clause = Clause(list(arguments), "$3")
        within = "" if self._reach is None else _WITHIN.format(reach=self._reach.sql("v", clause))
        return statement.format(within=within), clause.arguments
