"""What to say of a resource that is not there: it never was (404), or it went with an erased subject (410 Gone, R5 http.html#read)."""

from __future__ import annotations

import asyncpg

from projections.fhir.projection import SCHEMA
from server.fhir.outcome import FhirError


async def absent(pool: asyncpg.Pool, resource_type: str, what: str) -> FhirError:
    """The error to raise. ``what`` is an id, or an id and a version below it."""
    gone = await pool.fetchval(
        f"SELECT position FROM {SCHEMA}.gone WHERE type = $1 AND id = $2", resource_type, what.partition("/")[0]
    )
    if gone is not None:
        return FhirError(410, "deleted", f"{resource_type}/{what} was erased at position {gone} of the log")
    return FhirError(404, "not-found", f"there is no {resource_type}/{what}")
