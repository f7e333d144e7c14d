"""One Patient of what images and what clients say of a person: all of it, for those who may see identities, and the pseudonym.

Where both say something, the client's word stands: registration knows a person better than what was typed at a scanner. Images fill
what no client says, their numbers stay identifiers, and where sex or birth date differ the Patient says so in an extension.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from decimal import Decimal

import asyncpg
import msgspec

from domain.clinical_record import ClinicalRecordDeleted, ClinicalRecordWritten
from domain.event import Event
from domain.subject import Demographics, SubjectDemographicsChanged, SubjectRegistered
from projections.fhir.vocabulary import DIFFERS_EXTENSION, GENDERS, PSEUDONYMISED, SUBJECT_SYSTEM, Json, fhir_date

MRN = {"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "MR", "display": "Medical record number"}
_ELEMENTS_OF_SERVER = ("resourceType", "id", "meta")
_OURS = re.compile(r"[A-Z][A-Za-z]+/[A-Za-z0-9\-.]{1,64}")


class Number(msgspec.Struct, frozen=True):
    patient_id: str
    issuer: str
    system: str


class Imaged(msgspec.Struct, frozen=True, kw_only=True):
    """What headers say: the latest sex, name and birth date, and every number under which images came."""

    sex: str
    name: str
    birth_date: str
    numbers: list[Number]


class Person(msgspec.Struct, frozen=True, kw_only=True):
    """``written``: by a client, the latest. ``version``: of the Patient, which each that says something makes one of."""

    version: int = 0
    imaged: Imaged | None = None
    written: Json | None = None


PersonEvent = SubjectRegistered | SubjectDemographicsChanged | ClinicalRecordWritten | ClinicalRecordDeleted


def is_of_person(event: Event) -> bool:
    """Whether it makes a version of a Patient."""
    match event:
        case SubjectRegistered() | SubjectDemographicsChanged():
            return True
        case ClinicalRecordWritten() | ClinicalRecordDeleted():
            return event.resource_type == "Patient"
    return False


def evolve(person: Person, happened: Event) -> Person:
    match happened:
        case SubjectRegistered() | SubjectDemographicsChanged():
            return msgspec.structs.replace(person, version=person.version + 1, imaged=_imaged(person.imaged, happened))
        case ClinicalRecordWritten():
            return msgspec.structs.replace(person, version=happened.record_version, written=happened.resource)
        case ClinicalRecordDeleted():
            return msgspec.structs.replace(person, version=happened.record_version, written=None)
    return person


def patient(person: Person, subject_id: str, meta: Json) -> Json:
    """All of it. ``meta``: id of the version and its time."""
    said = person.written or {}
    content = {name: value for name, value in said.items() if name not in _ELEMENTS_OF_SERVER}
    if person.imaged is not None:
        content = _with_images(content, person.imaged, subject_id)
    return {"resourceType": "Patient", "id": subject_id, "meta": {**meta, **said.get("meta", {})}, **content}


def pseudonym(person: Person, subject_id: str, meta: Json) -> Json:
    """What everybody may see: no element is in it that is not named here."""
    whole = patient(person, subject_id, {})
    made: Json = {
        "resourceType": "Patient",
        "id": subject_id,
        "meta": {**meta, "security": [PSEUDONYMISED]},
        "identifier": [{"system": SUBJECT_SYSTEM, "value": subject_id}],
    }
    for name in ("active", "gender"):
        if name in whole:
            made[name] = whole[name]
    doctors = [here for one in whole.get("generalPractitioner", ()) if (here := _here(one))]
    if doctors:
        made["generalPractitioner"] = doctors
    if (managing := _here(whole.get("managingOrganization"))) is not None:
        made["managingOrganization"] = managing
    links = [{"other": here, "type": one.get("type")} for one in whole.get("link", ()) if (here := _here(one.get("other")))]
    if links:
        made["link"] = links
    return made


def without_ours(resource: Json) -> Json:
    """What a client sends, less what this server had said in what the client read: the pseudonym, and where images differ."""
    kept = dict(resource)
    for name, is_ours in (
        ("identifier", lambda one: one.get("system") == SUBJECT_SYSTEM),
        ("extension", lambda one: one.get("url") == DIFFERS_EXTENSION),
    ):
        values = [one for one in kept.get(name, ()) if not is_ours(one)]
        if values:
            kept[name] = values
        else:
            kept.pop(name, None)
    return kept


def _imaged(before: Imaged | None, event: SubjectRegistered | SubjectDemographicsChanged) -> Imaged:
    said = _without_nul(event.demographics)
    numbers = before.numbers if before is not None else []
    number = Number(said.patient_id, said.issuer_of_patient_id, said.patient_id_system)
    others = [one for one in numbers if (one.patient_id, one.issuer) != (number.patient_id, number.issuer)]
    if said.patient_id:
        numbers = [*others, number] if len(others) == len(numbers) else [number if one not in others else one for one in numbers]
    return Imaged(sex=event.sex, name=said.patient_name, birth_date=said.birth_date, numbers=numbers)


def _without_nul(said: Demographics) -> Demographics:
    """PostgreSQL keeps none in a text, and some headers are padded with it."""
    return Demographics(**{name: text.replace("\0", "") for name, text in msgspec.structs.asdict(said).items()})


def _with_images(said: Json, imaged: Imaged, subject_id: str) -> Json:
    joined = dict(said)
    given = said.get("identifier", [])
    known = {(one.get("system"), one.get("value")) for one in given}
    numbers = [_identifier(one) for one in imaged.numbers if (one.system or None, one.patient_id) not in known]
    joined["identifier"] = [{"system": SUBJECT_SYSTEM, "value": subject_id}, *numbers, *given]
    names = [_name(group) for group in imaged.name.split("=") if group.strip("^ ")]
    gender = GENDERS.get(imaged.sex.strip().upper())
    born = fhir_date(imaged.birth_date)
    for name, value in (("gender", gender or "unknown"), ("name", names), ("birthDate", born)):
        if value and name not in said and f"_{name}" not in said:
            joined[name] = value
    differences: list[Json] = []
    if gender is not None and said.get("gender", gender) != gender:
        differences.append({"url": "gender", "valueCode": gender})
    if born is not None and not born.startswith(said.get("birthDate", born)):
        differences.append({"url": "birthDate", "valueDate": born})
    if differences:
        joined["extension"] = [*said.get("extension", []), {"url": DIFFERS_EXTENSION, "extension": differences}]
    return joined


def _identifier(number: Number) -> Json:
    made: Json = {"type": {"coding": [MRN]}}
    if number.system:
        made["system"] = number.system
    made["value"] = number.patient_id
    if number.issuer:
        made["assigner"] = {"display": number.issuer}
    return made


def _name(group: str) -> Json:
    """One component group of a PN (PS3.5, 6.2.1): family, given, middle, prefix, suffix."""
    family, given, middle, prefix, suffix = [*(part.strip() for part in group.split("^")), "", "", "", "", ""][:5]
    name: Json = {"text": " ".join(part for part in (prefix, given, middle, family, suffix) if part)}
    if family:
        name["family"] = family
    for key, parts in (("given", [given, middle]), ("prefix", [prefix]), ("suffix", [suffix])):
        if any(parts):
            name[key] = [part for part in parts if part]
    return name


def _here(reference: Json | None) -> Json | None:
    """A reference to a resource of this server, without the words beside it."""
    written = (reference or {}).get("reference")
    return {"reference": written} if isinstance(written, str) and _OURS.fullmatch(written) else None


_LATEST = """
SELECT k.subject_id, p.version, p.imaged, p.written FROM unnest($1::text[]) AS k (subject_id) CROSS JOIN LATERAL (
    SELECT version, imaged, written FROM patient_identity WHERE subject_id = k.subject_id ORDER BY position DESC LIMIT 1
) p
"""
_IMAGED = msgspec.json.Decoder(Imaged)
_WRITTEN = msgspec.json.Decoder(Json, float_hook=Decimal)
_ENCODER = msgspec.json.Encoder(decimal_format="number")


async def latest(subject_ids: Iterable[str], connection: asyncpg.Connection) -> dict[str, Person]:
    """What is known of these persons, in one query."""
    wanted = sorted(set(subject_ids))
    rows = await connection.fetch(_LATEST, wanted) if wanted else []
    return {row["subject_id"]: person_in(row) for row in rows}


def person_in(row: Mapping[str, object]) -> Person:
    """Of a row of ``patient_identity``."""
    imaged, written = row["imaged"], row["written"]
    assert isinstance(imaged, str) and isinstance(written, str) and isinstance(row["version"], int)
    return Person(
        version=row["version"],
        imaged=_IMAGED.decode(imaged) if imaged else None,
        written=_WRITTEN.decode(written) if written else None,
    )


def row_of(person: Person, subject_id: str, position: int) -> tuple[object, ...]:
    imaged = "" if person.imaged is None else _ENCODER.encode(person.imaged).decode("utf-8")
    written = "" if person.written is None else _ENCODER.encode(person.written).decode("utf-8")
    return subject_id, position, person.version, imaged, written
