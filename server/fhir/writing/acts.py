"""Writing to what curation makes, where an act of its own stands for it: a finding is accepted or rejected, which is a review.

Of a finding's Observation its status may be changed, of its BodyStructure whether it is active. All else was measured.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal

import asyncpg
import msgspec

from domain import review
from domain.errors import FindingUnknown
from domain.event import Event
from domain.ids import StreamName
from domain.review import ReviewFinding, SeriesFindings, Verdict
from eventlog.envelope import NewEvent, StreamAppend
from projections.fhir.projection import CURATED, SCHEMA, FhirProjection
from projections.fhir.vocabulary import FINDING_SYSTEM, Json
from server.auth.principals import Authenticated
from server.errors import ScopeMissing
from server.fhir.outcome import FhirError
from server.fhir.writing.interaction import Interaction, Written
from server.fhir.writing.records import Key
from server.fhir.writing.rights import Rights
from server.reviews import stream_of_finding
from server.services import Services

REVIEW_SCOPE = "reviews:write"
INSTEAD: Mapping[str, str] = {
    "ImagingStudy": "an ImagingStudy is made of its images: send them by STOW-RS (POST /dicomweb/studies) or C-STORE",
    "ImagingSelection": "this one stands for a series: send its images by STOW-RS (POST /dicomweb/studies) or C-STORE",
    "BodyStructure": "this one is a finding: accept it by active=true or reject it by active=false, or POST /reviews; a series' index follows",
    "Observation": "this one was measured of a finding: accept it by status=final or reject it by status=entered-in-error, or POST /reviews",
    "Device": "this one is an algorithm as it was measured where it ran: a segmenter's next run says what it is",
    "Provenance": "this one is an event of the log, which nobody changes: POST /events/{id}/signature signs it",
    "AuditEvent": "this one is an access that the log has recorded, which nobody changes",
}
"""Type → what to use in place of writing to what curation makes."""
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

_PROJECTED = f"""
SELECT k.type, k.id, r.version, r.body FROM unnest($1::text[], $2::text[]) AS k (type, id) CROSS JOIN LATERAL (
    SELECT version, body FROM {SCHEMA}.resource WHERE type = k.type AND id = k.id ORDER BY version DESC LIMIT 1
) r
"""
_DECODER = msgspec.json.Decoder(float_hook=Decimal)


class _Asked(msgspec.Struct, frozen=True):
    interaction: Interaction
    key: Key
    finding: str


class Acts:
    """The reviews that some interactions mean."""

    def __init__(self, services: Services, asker: Authenticated) -> None:
        self._services = services
        self._asker = asker
        self._asked: dict[int, _Asked] = {}
        self._versions: dict[int, int] = {}
        self.appends: list[StreamAppend] = []

    def __contains__(self, place: int) -> bool:
        return place in self._asked

    async def take(self, candidates: Mapping[int, tuple[Interaction, Key]]) -> None:
        """Those of these interactions that are about what curation makes. Raises FhirError (405) where no act stands for one."""
        rows = await self._rows({key for _, key in candidates.values()})
        for place, (one, key) in candidates.items():
            row = rows.get(key)
            if row is None:
                continue
            finding = _finding_of(_DECODER.decode(row["body"])) if row["body"] and key[0] in _MAY_CHANGE else None
            if finding is None or one.method not in ("PUT", "PATCH"):
                raise FhirError(405, "not-supported", INSTEAD[key[0]], one.resource_at)
            self._asked[place] = _Asked(one, key, finding)
        if self._asked and not self._asker.may(REVIEW_SCOPE):
            raise ScopeMissing(REVIEW_SCOPE)

    async def decide(self, resources: Sequence[Json | None]) -> None:
        """Makes ``appends``, on the strength of what stands in the log. Raises FhirError (409, 412, 422), ScopeMissing."""
        if not self._asked:
            return
        log = self._services.log
        streams = {finding: await self._stream(finding) for finding in {one.finding for one in self._asked.values()}}
        states = {stream: SeriesFindings() for stream in streams.values()}
        versions, position = dict.fromkeys(states, 0), 0
        for recorded in await log.read_streams(sorted(states)):
            stream = StreamName(recorded.stream)
            states[stream] = review.evolve(states[stream], recorded.event)
            versions[stream], position = recorded.version, max(position, recorded.position)
        # What the client is compared with is as new as what the append is on the strength of.
        await self._services.runner.wait_for(FhirProjection(), position)
        rows = await self._rows({one.key for one in self._asked.values()})
        events: dict[StreamName, list[Event]] = {stream: [] for stream in states}
        for place, asked in self._asked.items():
            row, stream = rows[asked.key], streams[asked.finding]
            self._versions[place] = row["version"]
            command = await self._command(asked, row, resources[place])
            if command is not None:
                try:
                    decided = review.review_finding(states[stream], command)
                except FindingUnknown as error:
                    raise FhirError(409, "conflict", str(error), asked.interaction.at or None) from None
                events[stream] += decided
        self.appends = [
            StreamAppend(stream=stream, events=[NewEvent(event=one) for one in made], expected_version=versions[stream])
            for stream, made in events.items()
            if made
        ]

    async def written(self, *, is_readable: bool) -> dict[int, Written]:
        """What became of each, once the read model has it, or as it was where that lags."""
        rows = await self._rows({one.key for one in self._asked.values()}) if is_readable and self.appends else {}
        made = {}
        for place, asked in self._asked.items():
            version = rows[asked.key]["version"] if asked.key in rows else self._versions[place]
            made[place] = Written(status=200, resource_type=asked.key[0], resource_id=asked.key[1], version=version)
        return made

    async def _command(self, asked: _Asked, row: asyncpg.Record, sent: Json | None) -> ReviewFinding | None:
        one, before = asked.interaction, _DECODER.decode(row["body"])
        if one.must_be_new or one.if_match not in (None, row["version"]):
            raise FhirError(412, "conflict", f"{'/'.join(asked.key)} is at version {row['version']}", one.at or None)
        after = sent if one.patch is None else one.patch(before)
        assert after is not None
        await Rights(self._services, self._asker).check_made(one, {**after, "id": asked.key[1]}, is_new=False)
        return _review(one, asked.finding, before, after)

    async def _stream(self, finding: str) -> StreamName:
        try:
            return await stream_of_finding(self._services.log, finding)
        except FindingUnknown as error:
            raise FhirError(409, "conflict", str(error)) from None

    async def _rows(self, keys: Iterable[Key]) -> dict[Key, asyncpg.Record]:
        wanted = sorted(key for key in keys if key[0] in CURATED)
        if not wanted:
            return {}
        rows = await self._services.pool.fetch(_PROJECTED, [key[0] for key in wanted], [key[1] for key in wanted])
        return {(row["type"], row["id"]): row for row in rows}


def _finding_of(resource: Json) -> str | None:
    return next((one.get("value") for one in resource.get("identifier", ()) if one.get("system") == FINDING_SYSTEM), None)


def _review(one: Interaction, finding: str, before: Json, after: Json) -> ReviewFinding | None:
    """None where nothing is said that is not said already. Raises FhirError (422)."""
    resource_type = one.resource_type
    may_change = _MAY_CHANGE[resource_type]
    for name in sorted((before.keys() | after.keys()) - {*may_change, *_NOT_COMPARED}):
        if before.get(name) != after.get(name):
            said = f"of a finding's {resource_type} only {' and '.join(may_change)} may be changed: the rest was measured"
            raise FhirError(422, "business-rule", said, f"{one.resource_at}.{name}")
    deciding = may_change[0]
    value, comment = after.get(deciding), _new_notes(before, after)
    if value == before.get(deciding) and not comment:
        return None
    verdict = _VERDICTS.get(value) if isinstance(value, str | bool) else None
    if verdict is None:
        wanted = ", ".join(str(one).lower() for one in _VERDICTS if isinstance(one, bool) == (deciding == "active"))
        said = f"{deciding} says that the finding stands or falls: one of {wanted}"
        raise FhirError(422, "business-rule", said, f"{one.resource_at}.{deciding}")
    return ReviewFinding(finding_key=finding, verdict=verdict, comment=comment)


def _new_notes(before: Json, after: Json) -> str:
    """What the reviewer says, sealed with the review and not shown in the resource."""
    known = before.get("note", [])
    return "\n".join(one["text"] for one in after.get("note", []) if one not in known and isinstance(one.get("text"), str))
