"""The definitions of the implementation guide, read as resources: they come with the software and not from the log."""

from __future__ import annotations

from datetime import UTC, datetime

import asyncpg
import msgspec
from fastapi import Request, Response

from projections.fhir import guide
from server.as_of import HEADER
from server.fhir.access import Access
from server.fhir.candidate import would_hold
from server.fhir.conditional import is_held
from server.fhir.outcome import FHIR_JSON
from server.fhir.representation import Representation


def shipped(request: Request, resource_type: str, resource_id: str, shown: Representation, position: int) -> Response | None:
    """The answer with a definition, the same at every position; None where the guide has none of this type and id."""
    body = guide.definition(resource_type, resource_id)
    if body is None:
        return None
    headers = {"ETag": f'W/"{guide.version()}"', HEADER: str(position)}
    if is_held(request, headers["ETag"], datetime.max.replace(tzinfo=UTC)):
        return Response(status_code=304, headers=headers)
    return Response(shown.encode(shown.of(resource_type, body)), headers=headers, media_type=FHIR_JSON)


async def is_definition_reached(pool: asyncpg.Pool, access: Access, resource_type: str, resource_id: str) -> bool:
    """Whether a definition of the guide may be read, by what it says, as of any other resource."""
    limit, body = access.condition("r", resource_type), guide.definition(resource_type, resource_id)
    return body is not None and (limit is None or await would_hold(pool, limit, msgspec.json.decode(body)))
