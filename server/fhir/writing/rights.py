"""What a write may do, by the reach of who asks (server.fhir.access): what stands there has to be within it, and what is made.

To who may not see it, what stands there is not there (404), and so it is neither replaced nor deleted. Who may not write every resource of
a type makes new ones under ids of the server's: an id of one's own could be tried, to learn whether it is taken.
"""

from __future__ import annotations

from projections.fhir.projection import CURATED, SCHEMA
from projections.fhir.vocabulary import Json
from server.auth.principals import Authenticated
from server.fhir.access import AUDIT_EVENT, access_of, reached
from server.fhir.candidate import would_hold
from server.fhir.gone import is_version_reached, never_was
from server.fhir.outcome import FhirError
from server.fhir.writing.interaction import Interaction, Written
from server.fhir.writing.records import Key
from server.services import Services

LETTERS = {"POST": "c", "PUT": "u", "PATCH": "u", "DELETE": "d"}
_PROJECTED = f"""
    SELECT key FROM (SELECT key, position_to FROM {SCHEMA}.resource WHERE type = $1 AND id = $2 ORDER BY version DESC LIMIT 1) r
    WHERE position_to IS NULL
"""
_NOW = 2**62


class Rights:
    def __init__(self, services: Services, asker: Authenticated) -> None:
        self._pool = services.pool
        self._access = access_of(asker)

    def check_type(self, one: Interaction) -> None:
        """Raises ScopeMissing where it may be done to no resource of the type."""
        self._access.require(LETTERS[one.method], one.resource_type)

    async def check_standing(self, one: Interaction, key: Key, before: Json | None) -> None:
        """``before``: what stands there by the log; None where nothing does. Raises FhirError (403, 404)."""
        letter = LETTERS[one.method]
        limit = self._access.condition(letter, key[0])
        if limit is None or letter == "c":
            return
        if before is None:
            projected = await self._pool.fetchval(_PROJECTED, *key) if key[0] in CURATED else None
            if projected is None or not await reached(self._pool, self._access, letter, [projected], [key[0]], _NOW):
                raise never_was(*key)
        elif not await would_hold(self._pool, limit, before):
            raise await self._refusal(one, key, before)

    async def _refusal(self, one: Interaction, key: Key, before: Json) -> FhirError:
        """403 where it may be seen, 404 where it may not."""
        for letter in "rs":
            seen = self._access.condition(letter, key[0])
            if seen is None or await would_hold(self._pool, seen, before):
                return FhirError(403, "forbidden", "this resource is beyond the scopes of this token for that", one.at or None)
        return never_was(*key)

    async def check_made(self, one: Interaction, made: Json, *, is_new: bool) -> None:
        """``made`` has its type and id. Raises FhirError (403), ScopeMissing."""
        letter = "c" if is_new else "u"
        self._access.require(letter, one.resource_type)
        limit = self._access.condition(letter, one.resource_type)
        if limit is not None and not await would_hold(self._pool, limit, made):
            said = "what is written would be beyond the scopes of this token"
            raise FhirError(403, "forbidden", said, one.resource_at)


async def may_be_shown(services: Services, asker: Authenticated, written: Written) -> bool:
    """Whether an answer may hold what was written. Who has scopes of SMART is shown what a read would show; others always were."""
    access = access_of(asker)
    if not access.name or not written.version:
        return True
    version = (written.resource_type, written.resource_id, written.version)
    return written.resource_type != AUDIT_EVENT and await is_version_reached(services.pool, access, version, _NOW)
