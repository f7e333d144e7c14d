"""What clients wrote, as it stands in the log: the last event of a record's stream tells its state; of a Patient, all of its subject's do."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from domain import clinical_record, patient, subject
from domain.clinical_record import ClinicalRecord, WriteRecord, delete_record, write_record
from domain.event import Event
from domain.ids import record_stream
from domain.subject import Subject
from eventlog.log import EventLog
from projections.fhir import person
from projections.fhir.person import Person
from projections.fhir.vocabulary import Json

Key = tuple[str, str]
"""Type and id of a resource."""


class StoredPatient(msgspec.Struct, frozen=True, kw_only=True):
    """Of a Patient what :class:`ClinicalRecord` is of all others. ``person`` is what images and clients said of it."""

    subject: Subject = Subject()
    person: Person = Person()

    @property
    def version(self) -> int:
        return self.subject.patient_version

    @property
    def exists(self) -> bool:
        return self.subject.is_there


State = ClinicalRecord | StoredPatient


def unwritten(key: Key) -> State:
    return StoredPatient() if key[0] == patient.TYPE else ClinicalRecord()


async def load_records(log: EventLog, keys: Sequence[Key]) -> dict[Key, tuple[State, int]]:
    """The state of each and the version of its stream (0: it has no event), in one look whatever their history; Patients that are there
    in one more."""
    found: dict[Key, tuple[State, int]] = {key: (unwritten(key), 0) for key in keys}
    by_stream = {record_stream(*key): key for key in keys}
    of_patients = []
    for recorded in await log.read_last(list(by_stream)):
        key = by_stream[recorded.stream]
        if key[0] == patient.TYPE:
            of_patients.append(recorded.stream)
        else:
            found[key] = (clinical_record.evolve(ClinicalRecord(), recorded.event), recorded.version)
    for recorded in await log.read_streams(of_patients) if of_patients else ():
        state, _ = found[by_stream[recorded.stream]]
        assert isinstance(state, StoredPatient)
        evolved = StoredPatient(subject=subject.evolve(state.subject, recorded.event), person=person.evolve(state.person, recorded.event))
        found[by_stream[recorded.stream]] = (evolved, recorded.version)
    return found


def content_of(state: State, resource_id: str) -> Json:
    """What there is to be patched."""
    if isinstance(state, StoredPatient):
        return {name: value for name, value in person.patient(state.person, resource_id, {}).items() if value != {}}
    return state.resource


def write(state: State, command: WriteRecord) -> list[Event]:
    """Raises what `write_record` and `write_patient` raise."""
    return patient.write_patient(state.subject, command) if isinstance(state, StoredPatient) else write_record(state, command)


def delete(state: State, key: Key, if_match: int | None) -> list[Event]:
    """Raises what `delete_record` and `delete_patient` raise."""
    if isinstance(state, StoredPatient):
        return patient.delete_patient(state.subject, key[1], if_match)
    return delete_record(state, *key, if_match)
