"""When the care was that a resource tells of: `start` and `end` of `$everything` (R5 patient-operation-everything.html), which are about
care, and not about when something was written down."""

from __future__ import annotations

from datetime import datetime
from functools import cache

import asyncpg
import msgspec

from projections.fhir.projection import SCHEMA
from projections.fhir.search.dates import EARLIEST, LATEST
from projections.fhir.search.parameters import parameters
from server.fhir.as_of import Given, asked_period
from server.fhir.outcome import FhirError

START, END = "start", "end"
_DATE = "date"
_OF_TYPE: dict[str, tuple[str, ...]] = {
    "Account": ("period",),
    "AllergyIntolerance": (),
    "AuditEvent": (),
    "ChargeItem": ("occurrence",),
    "Communication": ("received", "sent"),
    "CommunicationRequest": ("authored", "occurrence"),
    "Condition": ("abatement-date", "onset-date"),
    "DetectedIssue": ("identified",),
    "DeviceRequest": ("authored-on", "event-date"),
    "Goal": ("start-date", "target-date"),
    "ImagingStudy": ("started",),
    "MedicationDispense": ("whenhandedover", "whenprepared"),
    "MedicationRequest": ("authoredon", "combo-date"),
    "MedicationStatement": ("effective",),
    "NutritionOrder": ("datetime",),
    "QuestionnaireResponse": ("authored",),
    "RequestOrchestration": ("authored",),
    "ServiceRequest": ("authored", "occurrence"),
    "Specimen": ("collected",),
    "Task": ("period",),
    "VisionPrescription": ("datewritten",),
}
"""Search parameters that say when; of other types it is `date`, where there is one. An allergy stands whenever it was written down."""
_GOES_ON_UNTIL = {"Condition": "abatement-date"}
"""What has no such date has not ended."""

_SPANS = f"""
    SELECT k.key, min(d.low) AS low, max(d.high) AS high, bool_or(d.source = ANY($3)) AS has_end
    FROM unnest($1::bigint[]) AS k (key) CROSS JOIN LATERAL (
        SELECT low, high, source FROM {SCHEMA}.date WHERE key = k.key AND source = ANY($2) OFFSET 0
    ) d
    GROUP BY k.key
"""


class CareDates(msgspec.Struct, frozen=True):
    """A range of time [low, high)."""

    low: datetime
    high: datetime

    @classmethod
    def asked(cls, given: Given) -> CareDates | None:
        """None where neither is given. Raises FhirError (400)."""
        start, end = asked_period(given, START), asked_period(given, END)
        if start is None and end is None:
            return None
        low, high = start[0] if start else EARLIEST, end[1] if end else LATEST
        if low >= high:
            raise FhirError(400, "value", f"{START} is after {END}", f"http.{START}")
        return cls(low, high)

    async def within(self, pool: asyncpg.Pool, found: dict[tuple[str, str], int]) -> dict[tuple[str, str], int]:
        """Those of these resources (type and id, with the key of a version) whose care reaches into the range, or has no date at all."""
        types = {kind for kind, _ in found}
        numbers = sorted({number for one in types for number in _numbers(one, _codes(one))})
        ends = sorted({number for one in types if one in _GOES_ON_UNTIL for number in _numbers(one, (_GOES_ON_UNTIL[one],))})
        spans = {row["key"]: row for row in await pool.fetch(_SPANS, sorted(found.values()), numbers, ends)}
        return {named: key for named, key in found.items() if key not in spans or self._reaches(named[0], spans[key])}

    def _reaches(self, resource_type: str, span: asyncpg.Record) -> bool:
        goes_on = resource_type in _GOES_ON_UNTIL and not span["has_end"]
        return span["low"] < self.high and (goes_on or span["high"] > self.low)


def _codes(resource_type: str) -> tuple[str, ...]:
    return _OF_TYPE.get(resource_type, (_DATE,))


@cache
def _numbers(resource_type: str, codes: tuple[str, ...]) -> frozenset[int]:
    known = parameters(resource_type)
    return frozenset(look.source.number for one in codes if one in known and known[one].type == _DATE for look in known[one].looks)
