"""Names, birth dates and record numbers, put into a Patient's answer for those who may see them."""

from __future__ import annotations

import asyncpg
import msgspec

from projections.fhir.projection import SCHEMA
from projections.fhir.vocabulary import Json, fhir_date

MRN = {"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "MR", "display": "Medical record number"}


async def with_identities(pool: asyncpg.Pool, bodies: list[str], position: int) -> list[str]:
    """Patients with what was known of the persons at a position."""
    patients: list[Json] = [msgspec.json.decode(body) for body in bodies]
    rows = await pool.fetch(
        f"SELECT DISTINCT ON (subject_id) * FROM {SCHEMA}.patient_identity WHERE subject_id = ANY($1) AND position <= $2"
        " ORDER BY subject_id, position DESC",
        [patient["id"] for patient in patients],
        position,
    )
    known = {row["subject_id"]: row for row in rows}
    return [msgspec.json.encode(_identified(patient, known.get(patient["id"]))).decode("utf-8") for patient in patients]


def _identified(patient: Json, row: asyncpg.Record | None) -> Json:
    if row is None:
        return patient
    identified = dict(patient)
    identified["meta"] = {key: value for key, value in patient.get("meta", {}).items() if key != "security"}
    if row["patient_id"]:
        identifier: Json = {"type": {"coding": [MRN]}, "value": row["patient_id"]}
        if row["issuer"]:
            identifier["assigner"] = {"display": row["issuer"]}
        identified["identifier"] = [*patient["identifier"], identifier]
    if row["patient_name"]:
        identified["name"] = [_name(group) for group in row["patient_name"].split("=") if group.strip("^ ")]
    born = fhir_date(row["birth_date"])
    if born is not None:
        identified["birthDate"] = born
    return {key: value for key, value in identified.items() if value != []}


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
