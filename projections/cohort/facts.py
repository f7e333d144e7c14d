"""What a clinical record says of a subject, as facts: a code, and what was measured or decided, one fact for each coding.

Quantities in UCUM are converted as FHIR searches do (projections.fhir.search.units), so that 126 mg/dL and 1.26 g/L are one value.
"""

from __future__ import annotations

import datetime
import math
from collections.abc import Iterator, Mapping
from decimal import Decimal
from itertools import islice
from typing import Any

import msgspec

from projections.cohort.tables import ORDINALS
from projections.fhir.search.units import unit
from projections.fhir.search.values import UCUM, kept

MAX_FACTS = ORDINALS - 1
"""Of one record; a record with more codings than this is read so far."""

CODES: Mapping[str, tuple[str, ...]] = {
    "AllergyIntolerance": ("code",),
    "ClinicalImpression": ("code",),
    "Condition": ("code",),
    "Consent": ("category",),
    "DetectedIssue": ("code",),
    "DiagnosticReport": ("code",),
    "Encounter": ("class", "type"),
    "EpisodeOfCare": ("type",),
    "Flag": ("code",),
    "Immunization": ("vaccineCode",),
    "MedicationAdministration": ("medication",),
    "MedicationDispense": ("medication",),
    "MedicationRequest": ("medication",),
    "MedicationStatement": ("medication",),
    "Observation": ("code",),
    "Procedure": ("code",),
    "RiskAssessment": ("code",),
    "ServiceRequest": ("code",),
    "Specimen": ("type",),
}
"""Of each type, the elements that say what it is about."""

_DATES = (
    ["onsetDateTime", "onsetPeriod", "effectiveDateTime", "effectivePeriod", "effectiveInstant", "occurrenceDateTime", "occurrencePeriod", "performedDateTime", "performedPeriod", "actualPeriod", "period", "date", "recordedDate", "authoredOn", "issued"]
)
_VOID = ("refuted", "entered-in-error")
_PAD = {4: "-01-01", 7: "-01", 10: ""}


class Fact(msgspec.Struct, frozen=True, kw_only=True):
    """As the columns of table ``fact``; text without a value is empty."""

    system: str
    code: str
    status: str
    value: float | None = None
    unit: str = ""
    value_code: str = ""
    date: datetime.date | None = None


def facts(resource: Mapping[str, Any]) -> list[Fact]:
    """In the order of the record, without doubles. What is not of the shape that R5 wants says nothing."""
    return list(dict.fromkeys(islice(_facts(resource), MAX_FACTS)))


def normalised(value: float, code: str) -> tuple[float, str]:
    """A quantity in a UCUM unit as facts keep it: the value, and the unit that it is in."""
    of = unit(code)
    return of.of(value), kept(of.canonical)


def _facts(resource: Mapping[str, Any]) -> Iterator[Fact]:
    kind = resource.get("resourceType")
    names = CODES.get(kind) if isinstance(kind, str) else None
    if names is None:
        return
    status, day = _status(resource), _date(resource)
    for name in names:
        codings = list(_codings(resource.get(name)))
        if kind == "Consent" and not codings:
            codings = [("", "")]  # it permits or denies whatever it is about
        for system, code in codings:
            for value in _values(resource):
                yield Fact(system=system, code=code, status=status, date=day, **value)
    for part in _list(resource.get("component")) if kind == "Observation" else ():
        if isinstance(part, dict):
            for system, code in _codings(part.get("code")):
                for value in _values(part):
                    yield Fact(system=system, code=code, status=status, date=day, **value)


def _codings(value: Any) -> Iterator[tuple[str, str]]:
    """Of a Coding, CodeableConcept or CodeableReference, or a list of them."""
    for one in _list(value):
        if not isinstance(one, dict):
            continue
        if isinstance(one.get("code"), str):
            yield _text(one.get("system")), _text(one["code"])
        yield from _codings(one.get("coding"))
        yield from _codings(one.get("concept"))


def _values(of: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """One for each coding of a coded value; where nothing is said, one without a value."""
    coded = [code for _, code in _codings(of.get("valueCodeableConcept"))]
    if isinstance(of.get("valueBoolean"), bool):
        coded.append("true" if of["valueBoolean"] else "false")
    if of.get("resourceType") == "Consent" and isinstance(of.get("decision"), str):
        coded.append(_text(of["decision"]))
    if of.get("resourceType") == "DiagnosticReport":
        coded += [code for _, code in _codings(of.get("conclusionCode"))]
    if coded:
        yield from ({"value_code": code} for code in coded)
    elif (number := _float(of.get("valueInteger"))) is not None:
        yield {"value": number}
    else:
        yield _quantity(of.get("valueQuantity"))


def _quantity(value: Any) -> dict[str, Any]:
    """Without one that is only bounded (``<5``): it is no number that could be compared."""
    number = _float(value.get("value")) if isinstance(value, dict) else None
    if number is None or value.get("comparator"):
        return {}
    code = value.get("code")
    if isinstance(code, str) and value.get("system") == UCUM:
        converted, canonical = normalised(number, code)
        return {"value": converted, "unit": canonical}
    return {"value": number, "unit": _text(code if isinstance(code, str) else value.get("unit"))}


def _status(resource: Mapping[str, Any]) -> str:
    if resource.get("resourceType") in ("Condition", "AllergyIntolerance"):
        verified = [code for _, code in _codings(resource.get("verificationStatus"))]
        clinical = [code for _, code in _codings(resource.get("clinicalStatus"))]
        return next((code for code in verified if code in _VOID), next(iter(clinical), ""))
    return _text(resource.get("status"))


def _date(resource: Mapping[str, Any]) -> datetime.date | None:
    for name in _DATES:
        said = resource.get(name)
        said = said.get("start") or said.get("end") if isinstance(said, dict) else said
        if not isinstance(said, str):
            continue
        day = said.split("T")[0]
        try:
            return datetime.date.fromisoformat(day + _PAD[len(day)])
        except (KeyError, ValueError):
            continue
    return None


def _float(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, (int, float, Decimal)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _text(value: Any) -> str:
    return kept(value) if isinstance(value, str) else ""
