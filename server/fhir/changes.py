"""Every version of a type, or of all types, in the order of the log: what a history at type and system level shows.

Whatever types there are, a page walks the index by type and position, a few rows for each type, and then reads just the bodies
that it shows. The order is that of positions and not of instants, so a clock that stepped back moves no entry to another page.
Where not all resources of a type are within reach, their versions are looked up as a search does it, and with each the deletion that
may have come after it.
"""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg

from projections.fhir.projection import SCHEMA
from server.fhir.access import Group
from server.fhir.history import Period
from server.fhir.outcome import FhirError
from server.fhir.within import Clause

_PAGE = """
    WITH page AS (
        SELECT k.* FROM ({keys}) k
        ORDER BY k.position_from {order}, k.type {order}, k.id {order} LIMIT $8
    )
    SELECT r.type, r.id, r.version, r.last_updated, r.body, r.position_from, r.position_to
    FROM page CROSS JOIN LATERAL (
        SELECT * FROM {schema}.resource WHERE type = page.type AND id = page.id AND version = page.version OFFSET 0
    ) r
    ORDER BY r.position_from {order}, r.type {order}, r.id {order}
"""
_OF_THE_PERIOD = """
    r.position_from <= $1 AND (r.position_to IS NULL OR r.position_to > $2)
    AND ($3::timestamptz IS NULL OR r.last_updated >= $3) AND r.position_from >= $4 AND {at_or_beyond} AND {beyond}
"""
_KEYS = "r.type, r.id, r.version, r.position_from"
_WHOLE = """
    SELECT k.* FROM unnest({types}::text[]) AS t (type) CROSS JOIN LATERAL (
        SELECT {keys} FROM {schema}.resource r WHERE r.type = t.type AND {period} ORDER BY r.position_from {order}, r.id {order} LIMIT $8
    ) k
"""
_WITHIN = """
    (SELECT {keys} FROM {schema}.resource r WHERE r.type {types}
        AND r.body <> '' AND {period} AND {reach}
    ORDER BY r.position_from {order}, r.type {order}, r.id {order} LIMIT $8)
"""
_DELETED_WITHIN = """
    (SELECT {keys} FROM {schema}.resource v JOIN {schema}.resource r
        ON r.type = v.type AND r.id = v.id AND r.version = v.version + 1 AND r.body = ''
    WHERE r.type {types} AND v.type {types} AND {period} AND {reach}
    ORDER BY r.position_from {order}, r.type {order}, r.id {order} LIMIT $8)
"""
# The first test says what the index can: no row is read only to be passed over.
_LATEST_FIRST = {"order": "DESC", "at_or_beyond": "r.position_from <= $5", "beyond": "(r.position_from, r.type, r.id) < ($5, $6, $7)"}
_EARLIEST_FIRST = {"order": "ASC", "at_or_beyond": "r.position_from >= $5", "beyond": "(r.position_from, r.type, r.id) > ($5, $6, $7)"}
_END_OF_TIME = 2**62


class Changes:
    """The versions that came in a period, of these types as far as they are within reach. ``from_position``: none that came before it is
    one of them."""

    def __init__(self, groups: Sequence[Group], period: Period, from_position: int, *, earliest_first: bool) -> None:
        self._groups = groups
        self._arguments = (period.last, period.first, period.since, from_position)
        self._earliest_first = earliest_first

    async def page(self, pool: asyncpg.Pool, after: str, limit: int) -> list[asyncpg.Record]:
        """At most ``limit`` beyond the place ``after``; from the beginning where it is empty."""
        text, arguments = self.statement(after, limit)
        return list(await pool.fetch(text, *arguments)) if self._groups else []

    def statement(self, after: str, limit: int) -> tuple[str, list[object]]:
        """The text of a page and its arguments."""
        start = (0, "", "") if self._earliest_first else (_END_OF_TIME, "", "")
        clause = Clause([*self._arguments, *(_place(after) if after else start), limit], "$1")
        way = _EARLIEST_FIRST if self._earliest_first else _LATEST_FIRST
        named = {"schema": SCHEMA, "keys": _KEYS, "order": way["order"], "period": _OF_THE_PERIOD.format(**way)}
        parts = []
        for types, condition in self._groups:
            if condition is None:
                parts.append(_WHOLE.format(**named, types=clause.argument(list(types))))
                continue
            # Of one type, the index has the order.
            named["types"] = f"= {clause.argument(types[0])}" if len(types) == 1 else f"= ANY({clause.argument(list(types))}::text[])"
            parts.append(_WITHIN.format(**named, reach=condition.sql("r", clause)))
            parts.append(_DELETED_WITHIN.format(**named, reach=condition.sql("v", clause)))
        return _PAGE.format(schema=SCHEMA, order=way["order"], keys=" UNION ALL ".join(parts)), clause.arguments


def place_of(row: asyncpg.Record) -> str:
    """Where in the order this version stands."""
    return f"{row['position_from']}/{row['type']}/{row['id']}"


def _place(text: str) -> tuple[int, str, str]:
    position, _, key = text.partition("/")
    resource_type, _, resource_id = key.partition("/")
    if not position.isdigit() or not resource_id:
        raise FhirError(400, "value", "this page link is not one of ours: search again", "http._page")
    return int(position), resource_type, resource_id
