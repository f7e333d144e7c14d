"""What to say of a resource that is not there: it never was (404), it was deleted, or it went with an erased subject (410 Gone, R5
http.html#read). To who may not see it, it never was (R5 security.html#AccessDenied)."""

from __future__ import annotations

import asyncpg

from projections.fhir.projection import SCHEMA
from server.fhir.access import Access, reached
from server.fhir.outcome import FhirError

# A deletion is a version without a body.
_DELETED = f"""
    SELECT r.version, r.position_from FROM (
        SELECT version, position_from, body FROM {SCHEMA}.resource WHERE type = $1 AND id = $2 AND position_from <= $3 ORDER BY version DESC LIMIT 1
    ) r WHERE r.body = ''
"""
_KEY = f"SELECT key FROM {SCHEMA}.resource WHERE type = $1 AND id = $2 AND version = $3 AND body <> ''"


async def absent(pool: asyncpg.Pool, access: Access, resource_type: str, what: str, position: int) -> FhirError:
    """The error to raise, as of a position. ``what`` is an id, or an id and a version below it."""
    resource_id, _, below = what.partition("/")
    gone = await pool.fetchval(f"SELECT position FROM {SCHEMA}.gone WHERE type = $1 AND id = $2", resource_type, resource_id)
    if gone is not None and access.condition("r", resource_type) is None:  # what it said is gone too, so nobody knows whose it was
        return FhirError(410, "deleted", f"{resource_type}/{what} was erased at position {gone} of the log")
    deleted = None if below else await pool.fetchrow(_DELETED, resource_type, resource_id, position)
    if deleted is not None and await is_version_reached(pool, access, (resource_type, resource_id, deleted["version"]), position):
        said = f"{resource_type}/{what} was deleted at position {deleted['position_from']} of the log; its history has what it was"
        return FhirError(410, "deleted", said)
    return never_was(resource_type, what)


def never_was(resource_type: str, what: str) -> FhirError:
    return FhirError(404, "not-found", f"there is no {resource_type}/{what}")


async def is_version_reached(pool: asyncpg.Pool, access: Access, version: tuple[str, str, int], position: int) -> bool:
    """Whether this version, of a type, an id and a number, may be read; of a deletion, what was deleted by it."""
    resource_type, resource_id, number = version
    if access.condition("r", resource_type) is None:
        return True
    key = await pool.fetchval(_KEY, *version) or await pool.fetchval(_KEY, resource_type, resource_id, number - 1)
    return key is not None and bool(await reached(pool, access, "r", [key], [resource_type], position))
