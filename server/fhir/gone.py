"""What to say of a resource that is not there: it never was (404), it was deleted, or it went with an erased subject (410 Gone, R5
http.html#read)."""

from __future__ import annotations

import asyncpg

from projections.fhir.projection import SCHEMA
from server.fhir.outcome import FhirError

# A deletion is a version without a body.
_DELETED = f"""
    SELECT r.position_from FROM (
        SELECT position_from, body FROM {SCHEMA}.resource WHERE type = $1 AND id = $2 AND position_from <= $3 ORDER BY version DESC LIMIT 1
    ) r WHERE r.body = ''
"""


async def absent(pool: asyncpg.Pool, resource_type: str, what: str, position: int) -> FhirError:
    """The error to raise, as of a position. ``what`` is an id, or an id and a version below it."""
    resource_id, _, below = what.partition("/")
    gone = await pool.fetchval(f"SELECT position FROM {SCHEMA}.gone WHERE type = $1 AND id = $2", resource_type, resource_id)
    if gone is not None:
        return FhirError(410, "deleted", f"{resource_type}/{what} was erased at position {gone} of the log")
    deleted = None if below else await pool.fetchval(_DELETED, resource_type, resource_id, position)
    if deleted is not None:
        return FhirError(410, "deleted", f"{resource_type}/{what} was deleted at position {deleted} of the log; its history has what it was")
    return FhirError(404, "not-found", f"there is no {resource_type}/{what}")
