"""Whose data are in an auditor's scope: what the record of an export says of it."""

from __future__ import annotations

from eventlog.log import EventLog
from projections.ledger.projection import SCHEMA
from server.audit.scope import Scope, range_of

_OF_TAGS = f"""
    SELECT DISTINCT s.tag FROM {SCHEMA}.touched t
    JOIN {SCHEMA}.entry e ON e.position = t.position AND e.type <> 'AccessesRecorded'
    JOIN {SCHEMA}.touched s ON s.position = t.position AND s.tag >= 'subject:' AND s.tag < 'subject;'
    WHERE t.tag = ANY($1) AND t.position <= $2
"""
_OF_RANGE = f"""
    SELECT DISTINCT s.tag FROM {SCHEMA}.touched s
    JOIN {SCHEMA}.entry e ON e.position = s.position AND e.type <> 'AccessesRecorded'
    WHERE s.tag >= 'subject:' AND s.tag < 'subject;' AND s.position BETWEEN $1 AND $2
"""


async def subjects_in(log: EventLog, scope: Scope, size: int) -> list[str]:
    """The subjects that the scope's events up to position ``size`` are about, in order. Raises NothingToExport."""
    async with log.pool.acquire() as connection:
        if scope.tags:
            rows = await connection.fetch(_OF_TAGS, list(scope.tags), size)
        else:
            between = await range_of(connection, scope, size)
            rows = await connection.fetch(_OF_RANGE, between.first, between.last)
    return sorted(row["tag"].removeprefix("subject:") for row in rows)
