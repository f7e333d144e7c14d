"""Patients with all that is known of the person, in place of the pseudonym, for those who may see it; and by what nobody else may search."""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg
import msgspec

from projections.fhir.definitions import is_resource_type
from projections.fhir.person import patient, person_in
from projections.fhir.projection import SCHEMA
from projections.fhir.search.site import known_parameters
from projections.fhir.vocabulary import SUBJECT_SYSTEM, Json
from server.auth.principals import Authenticated
from server.errors import ScopeMissing
from server.fhir.as_of import Given
from server.fhir.parameters import target_types

IDENTITIES_SCOPE = "identities:read"
SHOWN = frozenset({"_id", "_lastUpdated", "active", "gender", "general-practitioner", "link", "organization"})
"""Search parameters of Patient that look only at what everybody may see."""

# The last row that is not beyond each subject's position: one look into the primary key for each.
_KNOWN_AT = f"""
    SELECT i.* FROM unnest($1::text[], $2::bigint[]) WITH ORDINALITY AS k (subject_id, position, nth)
    LEFT JOIN LATERAL (
        SELECT * FROM {SCHEMA}.patient_identity p WHERE p.subject_id = k.subject_id AND p.position <= k.position
        ORDER BY p.position DESC LIMIT 1
    ) i ON true
    ORDER BY k.nth
"""
_ENCODER = msgspec.json.Encoder(decimal_format="number")


async def with_identities(pool: asyncpg.Pool, bodies: Sequence[str], positions: Sequence[int]) -> list[str]:
    """Patients, each with what was known of the person at its position."""
    patients: list[Json] = [msgspec.json.decode(body) for body in bodies]
    rows = await pool.fetch(_KNOWN_AT, [one["id"] for one in patients], positions)
    return [_identified(one, row, body) for one, row, body in zip(patients, rows, bodies, strict=True)]


async def shown_to(pool: asyncpg.Pool, reader: Authenticated, versions: Sequence[tuple[str, str, int]]) -> list[str]:
    """What is answered of versions (type, body, position up to which it was known): of a Patient all, to those who may see it."""
    bodies = [body for _, body, _ in versions]
    if not reader.may(IDENTITIES_SCOPE):
        return bodies
    patients = [nth for nth, (kind, body, _) in enumerate(versions) if kind == "Patient" and body]
    if patients:
        named = await with_identities(pool, [bodies[nth] for nth in patients], [versions[nth][2] for nth in patients])
        for nth, body in zip(patients, named, strict=True):
            bodies[nth] = body
    return bodies


def check_search(asker: Authenticated, resource_type: str, given: Given) -> None:
    """What a search finds by a name tells the name: such a parameter, also in a chain or an order, takes the scope of who may see it.

    To be called with parameters that have been parsed. Raises ScopeMissing.
    """
    if not asker.may(IDENTITIES_SCOPE) and any(_identifies(resource_type, name, value) for name, value in given):
        raise ScopeMissing(IDENTITIES_SCOPE)


def _identifies(resource_type: str, name: str, value: str) -> bool:
    if name == "_sort":
        return any(_looks_beyond(resource_type, one.strip().removeprefix("-"), "", "") for one in value.split(","))
    if name.startswith("_has:"):
        _, other_type, code, rest = [*name.split(":", 3), "", "", ""][:4]
        return _looks_beyond(other_type, code, "", "") or _identifies(other_type, rest, value)
    head, is_chain, rest = name.partition(".")
    code, _, modifier = head.partition(":")
    if not is_chain:
        return _looks_beyond(resource_type, code, modifier, value)
    parameter = known_parameters(resource_type).get(code) if is_resource_type(resource_type) else None
    if parameter is None:
        return False
    kinds = (modifier,) if modifier else target_types(parameter)
    return _looks_beyond(resource_type, code, "", "") or any(_identifies(kind, rest, value) for kind in kinds)


def _looks_beyond(resource_type: str, code: str, modifier: str, value: str) -> bool:
    """Whether a parameter tells something of a person that the pseudonym does not."""
    if resource_type != "Patient" or code not in known_parameters(resource_type):
        return False
    if code == "identifier" and value and not modifier:
        return any(not one.startswith(f"{SUBJECT_SYSTEM}|") for one in value.split(","))
    return code not in SHOWN or modifier == "identifier"


def _identified(pseudonym: Json, row: asyncpg.Record, body: str) -> str:
    if row["subject_id"] is None:
        return body
    meta = {key: value for key, value in pseudonym.get("meta", {}).items() if key in ("versionId", "lastUpdated")}
    return _ENCODER.encode(patient(person_in(row), pseudonym["id"], meta)).decode("utf-8")
