"""Every version of a type, or of all types, in the order of the log: what a history at type and system level shows.

Whatever types there are, a page walks the index by type and position, a few rows for each type, and then reads just the bodies
that it shows. The order is that of positions and not of instants, so a clock that stepped back moves no entry to another page.
"""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg

from projections.fhir.projection import SCHEMA
from server.fhir.history import Period
from server.fhir.outcome import FhirError

_PAGE = """
    WITH page AS (
        SELECT k.* FROM unnest($1::text[]) AS t (type) CROSS JOIN LATERAL (
            SELECT r.type, r.id, r.version, r.position_from FROM {schema}.resource r
            WHERE r.type = t.type AND r.position_from <= $2 AND (r.position_to IS NULL OR r.position_to > $3)
                AND ($4::timestamptz IS NULL OR r.last_updated >= $4) AND r.position_from >= $5
                AND {at_or_beyond} AND {beyond}
            ORDER BY r.position_from {order}, r.id {order} LIMIT $9
        ) k
        ORDER BY k.position_from {order}, k.type {order}, k.id {order} LIMIT $9
    )
    SELECT r.type, r.id, r.version, r.last_updated, r.body, r.position_from, r.position_to
    FROM page CROSS JOIN LATERAL (
        SELECT * FROM {schema}.resource WHERE type = page.type AND id = page.id AND version = page.version OFFSET 0
    ) r
    ORDER BY r.position_from {order}, r.type {order}, r.id {order}
"""
# The first test says what the index can: no row is read only to be passed over.
_LATEST_FIRST = _PAGE.format(
    schema=SCHEMA, order="DESC", at_or_beyond="r.position_from <= $6", beyond="(r.position_from, r.type, r.id) < ($6, $7, $8)"
)
_EARLIEST_FIRST = _PAGE.format(
    schema=SCHEMA, order="ASC", at_or_beyond="r.position_from >= $6", beyond="(r.position_from, r.type, r.id) > ($6, $7, $8)"
)
_END_OF_TIME = 2**62


class Changes:
    """The versions of these types that came in a period. ``from_position``: none that came before it is one of them."""

    def __init__(self, types: Sequence[str], period: Period, from_position: int, *, earliest_first: bool) -> None:
        self._arguments = (list(types), period.last, period.first, period.since, from_position)
        self._earliest_first = earliest_first

    async def page(self, pool: asyncpg.Pool, after: str, limit: int) -> list[asyncpg.Record]:
        """At most ``limit`` beyond the place ``after``; from the beginning where it is empty."""
        start = (0, "", "") if self._earliest_first else (_END_OF_TIME, "", "")
        return list(
            await pool.fetch(
                _EARLIEST_FIRST if self._earliest_first else _LATEST_FIRST, *self._arguments, *(_place(after) if after else start), limit
            )
        )


def place_of(row: asyncpg.Record) -> str:
    """Where in the order this version stands."""
    return f"{row['position_from']}/{row['type']}/{row['id']}"


def _place(text: str) -> tuple[int, str, str]:
    position, _, key = text.partition("/")
    resource_type, _, resource_id = key.partition("/")
    if not position.isdigit() or not resource_id:
        raise FhirError(400, "value", "this page link is not one of ours: search again", "http._page")
    return int(position), resource_type, resource_id
