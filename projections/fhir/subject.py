"""A subject as Patient: a pseudonym and a gender. What identifies the person is kept apart, for those who may see it."""

from __future__ import annotations

from domain.subject import SubjectDemographicsChanged, SubjectRegistered
from projections.fhir.vocabulary import GENDERS, PSEUDONYMISED, SUBJECT_SYSTEM, Json


def patient(event: SubjectRegistered | SubjectDemographicsChanged) -> Json:
    return {
        "resourceType": "Patient",
        "id": event.subject_id,
        "meta": {"security": [PSEUDONYMISED]},
        "identifier": [{"system": SUBJECT_SYSTEM, "value": event.subject_id}],
        "gender": GENDERS.get(event.sex.strip().upper(), "unknown"),
    }
