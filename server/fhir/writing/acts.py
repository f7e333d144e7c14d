"""Writing to what curation makes, where an act of its own stands for it: a finding is accepted or rejected, which is a review.

Of a finding's Observation its status may be changed, of its BodyStructure whether it is active. All else was measured.
"""

from __future__ import annotations

from decimal import Decimal

import msgspec

from domain.errors import FindingUnknown, ReviewIsObsolete
from domain.review import ReviewFinding, Verdict
from projections.errors import ProjectionBehind
from projections.fhir.projection import SCHEMA, FhirProjection
from projections.fhir.vocabulary import FINDING_SYSTEM, Json
from server.auth.principals import Authenticated
from server.errors import ScopeMissing
from server.fhir.outcome import FhirError
from server.fhir.writing.commit import Outcome, Projected
from server.fhir.writing.interaction import Interaction, Written
from server.fhir.writing.rights import Rights
from server.reviews import review_finding
from server.services import Services

REVIEW_SCOPE = "reviews:write"
_MAY_CHANGE = {"Observation": ("status", "note"), "BodyStructure": ("active",)}
_NOT_COMPARED = ("id", "meta", "text")
_VERDICTS = {
    "final": Verdict.ACCEPTED,
    "amended": Verdict.ACCEPTED,
    "corrected": Verdict.ACCEPTED,
    "entered-in-error": Verdict.REJECTED,
    True: Verdict.ACCEPTED,
    False: Verdict.REJECTED,
}
"""What Observation.status or BodyStructure.active says → the verdict."""

_CURRENT = f"SELECT version, body FROM {SCHEMA}.resource WHERE type = $1 AND id = $2 AND position_to IS NULL"
_DECODER = msgspec.json.Decoder(float_hook=Decimal)


async def act(services: Services, asker: Authenticated, asked: Interaction, refused: Projected) -> Outcome:
    """The review that an update or patch of a finding means. Raises ``refused`` where it means none, FhirError, ScopeMissing."""
    if asked.resource_id is None or asked.method not in ("PUT", "PATCH") or asked.resource_type not in _MAY_CHANGE:
        raise refused
    row = await services.pool.fetchrow(_CURRENT, asked.resource_type, asked.resource_id)
    before: Json = _DECODER.decode(row["body"]) if row is not None else {}
    finding = next((one.get("value") for one in before.get("identifier", ()) if one.get("system") == FINDING_SYSTEM), None)
    if row is None or finding is None:
        raise refused
    if not asker.may(REVIEW_SCOPE):
        raise ScopeMissing(REVIEW_SCOPE)
    if asked.must_be_new or asked.if_match not in (None, row["version"]):
        said = f"{asked.resource_type}/{asked.resource_id} is at version {row['version']}"
        raise FhirError(412, "conflict", said)
    after = asked.resource if asked.patch is None else asked.patch(before)
    assert after is not None
    await Rights(services, asker).check_made(asked, after, is_new=False)
    command = _review(asked.resource_type, finding, before, after)
    if command is None:
        return Outcome(written=[_written(asked, row["version"])])
    try:
        done = await review_finding(services.log, asker.principal, command)
    except (FindingUnknown, ReviewIsObsolete) as error:
        raise FhirError(409, "conflict", str(error)) from None
    try:
        await services.runner.wait_for(FhirProjection(), done.position)
    except ProjectionBehind:
        return Outcome(written=[_written(asked, row["version"])], position=done.position, is_readable=False)
    row = await services.pool.fetchrow(_CURRENT, asked.resource_type, asked.resource_id)
    return Outcome(written=[_written(asked, row["version"])], position=done.position)


def _review(resource_type: str, finding: str, before: Json, after: Json) -> ReviewFinding | None:
    """None where nothing is said that is not said already. Raises FhirError (422)."""
    may_change = _MAY_CHANGE[resource_type]
    for name in sorted((before.keys() | after.keys()) - {*may_change, *_NOT_COMPARED}):
        if before.get(name) != after.get(name):
            said = f"of a finding's {resource_type} only {' and '.join(may_change)} may be changed: the rest was measured"
            raise FhirError(422, "business-rule", said, f"{resource_type}.{name}")
    deciding = may_change[0]
    value, comment = after.get(deciding), _new_notes(before, after)
    if value == before.get(deciding) and not comment:
        return None
    verdict = _VERDICTS.get(value) if isinstance(value, str | bool) else None
    if verdict is None:
        wanted = ", ".join(str(one).lower() for one in _VERDICTS if isinstance(one, bool) == (deciding == "active"))
        raise FhirError(422, "business-rule", f"{deciding} says that the finding stands or falls: one of {wanted}", f"{resource_type}.{deciding}")
    return ReviewFinding(finding_key=finding, verdict=verdict, comment=comment)


def _new_notes(before: Json, after: Json) -> str:
    """What the reviewer says, sealed with the review and not shown in the resource."""
    known = before.get("note", [])
    return "\n".join(one["text"] for one in after.get("note", []) if one not in known and isinstance(one.get("text"), str))


def _written(asked: Interaction, version: int) -> Written:
    assert asked.resource_id is not None
    return Written(status=200, resource_type=asked.resource_type, resource_id=asked.resource_id, version=version)
