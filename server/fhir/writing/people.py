"""What holds of Patients alone when clients write them: who may replace one, what it may say, and when it may go."""

from __future__ import annotations

from collections.abc import Collection

import asyncpg

from projections.fhir.person import without_ours
from projections.fhir.projection import SCHEMA
from projections.fhir.vocabulary import Json
from server.auth.principals import Authenticated
from server.errors import ScopeMissing
from server.fhir.identities import IDENTITIES_SCOPE
from server.fhir.outcome import FhirError

TYPE = "Patient"
_MERGES = ("replaced-by", "replaces")

_OF_THE_PATIENT = f"""
SELECT c.type, c.id FROM {SCHEMA}.record c CROSS JOIN LATERAL (
    SELECT position_to FROM {SCHEMA}.resource WHERE type = c.type AND id = c.id ORDER BY version DESC LIMIT 1
) r WHERE c.subject_id = $1 AND r.position_to IS NULL ORDER BY c.type, c.id LIMIT $2
"""


def check_replacing(asker: Authenticated) -> None:
    """Who sees the pseudonym alone would put it in the place of the person. Raises ScopeMissing."""
    if not asker.may(IDENTITIES_SCOPE):
        raise ScopeMissing(IDENTITIES_SCOPE)


def accepted(resource: Json, patient_id: str, at: str) -> Json:
    """The Patient as it is to be kept. Raises FhirError (422)."""
    kept = without_ours(resource)
    for nth, link in enumerate(kept.get("link", ())):
        if link.get("type") in _MERGES:
            said = "two Patients are not merged by a link: nothing here would follow it. refer and seealso may be said"
            raise FhirError(422, "not-supported", said, f"{at}.link[{nth}].type")
    for nth, identifier in enumerate(kept.get("identifier", ())):
        if identifier.get("value") == patient_id:
            said = "an id stays readable after an erasure, so it may not be a number of the person: choose another"
            raise FhirError(422, "business-rule", said, f"{at}.identifier[{nth}].value")
    return kept


async def check_unused(pool: asyncpg.Pool, patient_id: str, going: Collection[tuple[str, str]], at: str) -> None:
    """Raises FhirError (409) while other resources are of this Patient that do not go with it (``going``)."""
    rows = await pool.fetch(_OF_THE_PATIENT, patient_id, len(going) + 1)
    left = [f"{row['type']}/{row['id']}" for row in rows if (row["type"], row["id"]) not in going]
    if left:
        said = f"{left[0]} is of this Patient: delete what is of it first, or erase the subject (POST /subjects/{{id}}/erasure), which takes all"
        raise FhirError(409, "conflict", said, at)
