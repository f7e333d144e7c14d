"""What clients write of a person: the Patient resource of a subject, in the subject's own stream.

So a Patient has one order of what images and what clients said of it, and who writes while somebody else does, or while the subject
is being erased, is told so by the log.
"""

from __future__ import annotations

from domain.clinical_record import ClinicalRecordDeleted, ClinicalRecordWritten, WriteRecord
from domain.errors import RecordNotFound, RecordVersionConflict, SubjectHasImages, SubjectIsErased
from domain.event import Event
from domain.subject import Subject

TYPE = "Patient"


def write_patient(state: Subject, command: WriteRecord) -> list[Event]:
    """Creates or replaces what clients say of a person; the same again is nothing new.

    Raises RecordVersionConflict, SubjectIsErased.
    """
    _check(state, command.resource_id, command.if_match)
    if state.resource == command.resource:
        return []
    return [
        ClinicalRecordWritten(
            resource_type=TYPE,
            resource_id=command.resource_id,
            subject_id=command.resource_id,
            record_version=state.patient_version + 1,
            resource=command.resource,
        )
    ]


def delete_patient(state: Subject, subject_id: str, if_match: int | None = None) -> list[Event]:
    """Deletes what exists; deleting again is nothing new (FHIR R5 http.html#delete).

    Raises RecordNotFound, RecordVersionConflict, SubjectIsErased, SubjectHasImages.
    """
    if not state.is_known:
        raise RecordNotFound(f"{TYPE}/{subject_id} does not exist")
    _check(state, subject_id, if_match)
    if state.registered:
        raise SubjectHasImages(f"{TYPE}/{subject_id} has images here: erasing the subject is what removes a person (POST /subjects/{{id}}/erasure)")
    if not state.is_there:
        return []
    return [
        ClinicalRecordDeleted(
            resource_type=TYPE, resource_id=subject_id, subject_id=subject_id, record_version=state.patient_version + 1
        )
    ]


def _check(state: Subject, subject_id: str, if_match: int | None) -> None:
    if state.is_going:
        raise SubjectIsErased(f"{TYPE}/{subject_id} was erased: nothing more is taken in of it")
    if if_match is not None and if_match != (state.patient_version if state.is_there else 0):
        raise RecordVersionConflict(f"{TYPE}/{subject_id} is at version {state.patient_version}, not {if_match}")
