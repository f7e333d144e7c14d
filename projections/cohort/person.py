"""Sex and birth date of a subject: what clients say of the person stands, and images fill what no client says (as in projections.fhir.person)."""

from __future__ import annotations

import datetime
from typing import Any

import msgspec

from domain.clinical_record import ClinicalRecordDeleted, ClinicalRecordWritten
from domain.event import Event
from domain.subject import SEXES, SubjectDemographicsChanged, SubjectRegistered
from projections.dicom.folding import folded_date

_SEXES = {"male": "M", "female": "F", "other": "O"}


class Person(msgspec.Struct, frozen=True, kw_only=True):
    """``seen``: by the latest image. ``said``: by a client; None where no client says anything, empty where it says what is no value."""

    seen_sex: str | None = None
    seen_born: str | None = None
    said_sex: str | None = None
    said_born: str | None = None

    @property
    def sex(self) -> str:
        return self.said_sex if self.said_sex is not None else self.seen_sex or ""

    @property
    def born(self) -> datetime.date | None:
        """A month or year that a client says is filled up by the images' date, where that lies in it."""
        seen, said = self.seen_born or "", self.said_born
        told = seen if said is None or (said and seen.startswith(said)) else said
        try:
            return datetime.date.fromisoformat(told) if len(told) == 10 else None
        except ValueError:
            return None


def evolve(person: Person, happened: Event) -> Person:
    match happened:
        case SubjectRegistered() | SubjectDemographicsChanged():
            digits = folded_date(happened.demographics.birth_date)
            born = f"{digits[:4]}-{digits[4:6]}-{digits[6:]}" if digits else ""
            return msgspec.structs.replace(person, seen_sex=happened.sex if happened.sex in SEXES else "", seen_born=born)
        case ClinicalRecordWritten(resource_type="Patient"):
            return msgspec.structs.replace(
                person, said_sex=_said(happened.resource, "gender", _SEXES), said_born=_said(happened.resource, "birthDate")
            )
        case ClinicalRecordDeleted(resource_type="Patient"):
            return msgspec.structs.replace(person, said_sex=None, said_born=None)
    return person


def _said(resource: dict[str, Any], name: str, words: dict[str, str] | None = None) -> str | None:
    if name not in resource and f"_{name}" not in resource:
        return None
    value = resource.get(name)
    if not isinstance(value, str):
        return ""
    return value.replace("\0", "") if words is None else words.get(value, "")
