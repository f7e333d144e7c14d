"""X-Provenance (R5 provenance.html#header): a Provenance that comes with a write, of what is written, and is there or not with it."""

from __future__ import annotations

from collections.abc import Sequence

from starlette.requests import Request

from projections.fhir.patients import patient_id, patient_references
from projections.fhir.vocabulary import Json, reference
from server.fhir.outcome import FhirError
from server.fhir.writing import incoming
from server.fhir.writing.interaction import Interaction, Written

HEADER = "x-provenance"
MOST_BYTES = 16 * 1024
_ANY_TARGET = [{"reference": "Basic/x"}]


def told_with(request: Request) -> Interaction | None:
    """The Provenance in the header, as something else to create. Raises FhirError (400, 413), Refused."""
    text = request.headers.get(HEADER)
    if text is None:
        return None
    raw = text.encode("latin-1")
    if len(raw) > MOST_BYTES:
        raise FhirError(413, "too-long", f"X-Provenance may have {MOST_BYTES} bytes", f"http.{HEADER}")
    try:
        resource = incoming.resource_in(incoming.decoded(raw), "Provenance")
    except FhirError as error:
        raise FhirError(error.status, error.code, f"X-Provenance: {error.detail}", f"http.{HEADER}") from None
    if "target" in resource:
        raise FhirError(400, "invalid", "X-Provenance is about what is written: it names no target", f"http.{HEADER}")
    made = incoming.checked({**resource, "target": _ANY_TARGET})
    return Interaction(method="POST", resource_type="Provenance", resource=made)


def about(told: Json, written: Sequence[Written], resources: Sequence[Json | None]) -> Json:
    """The Provenance of what was written; of its patient, where all of it is of one."""
    targets = [reference(one.resource_type, one.resource_id, one.version or None) for one in written]
    made = {**told, "target": targets}
    whose = [_patients(one.resource_id, resource) for one, resource in zip(written, resources, strict=True)]
    (patients, *others) = whose or [set()]
    if "patient" not in made and len(patients) == 1 and all(one == patients for one in others):
        made["patient"] = reference("Patient", next(iter(patients)))
    return made


def _patients(resource_id: str, resource: Json | None) -> set[str]:
    if resource is None:
        return set()
    if resource["resourceType"] == "Patient":
        return {resource_id}
    return {one for _, written in patient_references(resource) if (one := patient_id(written)) is not None}
