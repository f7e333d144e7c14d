"""Whose a resource is, and so under whose key its content is sealed: its patient's, or its own where there is no one patient."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from domain.clinical_record import own_subject_id
from domain.ids import subject_stream
from projections.fhir.patients import patient_id, patient_references
from projections.fhir.vocabulary import Json
from server.fhir.outcome import FhirError
from server.services import Services

_SUBJECTS = """
SELECT s.id, EXISTS (SELECT FROM event e WHERE e.stream = s.stream AND e.type = 'SubjectRegistered') OR coalesce((
        SELECT e.type FROM event e WHERE e.stream = s.stream AND e.type IN ('ClinicalRecordWritten', 'ClinicalRecordDeleted')
        ORDER BY e.version DESC LIMIT 1
    ), '') = 'ClinicalRecordWritten' AS is_known,
    EXISTS (SELECT FROM event e WHERE e.stream = s.stream AND e.type = 'ErasureStarted') AS is_going
FROM unnest($1::text[], $2::text[]) AS s (id, stream)
"""


class Patients:
    """The patients that some resources name, asked for once. ``base`` is our own address, below which a URL is one of ours."""

    def __init__(self, base: str, made: Mapping[str, bool]) -> None:
        """``made``: the Patients that come (True) and go (False) in the same append."""
        self._prefix = f"{base}/"
        self._found: dict[str, tuple[bool, bool]] = {one: (is_made, False) for one, is_made in made.items()}

    async def ask(self, services: Services, resources: Sequence[Json]) -> None:
        ids = sorted({one for resource in resources for _, one in self._named(resource)} - self._found.keys())
        if len(ids) == 1:
            self._found[ids[0]] = await services.ask(_subjects, ids[0]) or (False, False)
        elif ids:
            self._found.update(await _subjects(services, ids))

    def subject_of(self, resource: Json, resource_id: str, at: str = "") -> str:
        """A patient's, where it is one or names just one. Raises FhirError (422) for a patient that is not there."""
        if resource["resourceType"] == "Patient":
            return resource_id
        named: Mapping[str, str] = {one: path for path, one in self._named(resource)}
        for one, path in named.items():
            is_known, is_going = self._found[one]
            where = f"{at}{path[path.index('.') :]}" if at else path
            if is_going:
                raise FhirError(422, "business-rule", f"Patient/{one} was erased: nothing more is taken in of it", where)
            if not is_known:
                raise FhirError(422, "not-found", "this server has no such Patient: a resource is of one that is there", where)
        return next(iter(named)) if len(named) == 1 else own_subject_id(resource["resourceType"], resource_id)

    def _named(self, resource: Json) -> list[tuple[str, str]]:
        found = ((path, patient_id(written.removeprefix(self._prefix))) for path, written in patient_references(resource))
        return [(path, one) for path, one in found if one is not None]


async def _subjects(services: Services, ids: list[str]) -> dict[str, tuple[bool, bool]]:
    """Whether each is known, and whether it is being erased."""
    rows = await services.pool.fetch(_SUBJECTS, ids, [subject_stream(one) for one in ids])
    return {row["id"]: (row["is_known"], row["is_going"]) for row in rows}
