"""Names, birth dates and record numbers, put into a Patient's answer for those who may see them."""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg
import msgspec

from projections.fhir.projection import SCHEMA
from projections.fhir.vocabulary import Json, fhir_date

MRN = {"system": "http://terminology.hl7.org/CodeSystem/v2-0203", "code": "MR", "display": "Medical record number"}


# The last row that is not beyond each subject's position: one look into the primary key for each.
_KNOWN_AT = f"""
    SELECT i.* FROM unnest($1::text[], $2::bigint[]) WITH ORDINALITY AS k (subject_id, position, nth)
    LEFT JOIN LATERAL (
        SELECT * FROM {SCHEMA}.patient_identity p WHERE p.subject_id = k.subject_id AND p.position <= k.position
        ORDER BY p.position DESC LIMIT 1
    ) i ON true
    ORDER BY k.nth
"""


async def with_identities(pool: asyncpg.Pool, bodies: Sequence[str], positions: Sequence[int]) -> list[str]:
    """Patients, each with what was known of the person at its position."""
    patients: list[Json] = [msgspec.json.decode(body) for body in bodies]
    rows = await pool.fetch(_KNOWN_AT, [patient["id"] for patient in patients], positions)
    return [msgspec.json.encode(_identified(patient, row)).decode("utf-8") for patient, row in zip(patients, rows, strict=True)]


def _identified(patient: Json, row: asyncpg.Record) -> Json:
    if row["subject_id"] is None:
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
