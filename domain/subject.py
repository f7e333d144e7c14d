"""A subject: the person behind the images. All that identifies the person is sealed."""

from __future__ import annotations

import msgspec

from domain.event import Event, Identifying, event


class Demographics(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a data set says of the person (PS3.3 C.7.1.1), as DICOM text: PN in UTF-8, DA as YYYYMMDD."""

    patient_id: str = ""
    issuer_of_patient_id: str = ""
    patient_name: str = ""
    birth_date: str = ""


@event
class SubjectRegistered(Event, frozen=True, kw_only=True):
    """``sex`` (M, F, O or empty) does not identify and stays readable."""

    subject_id: str
    sex: str = ""
    demographics: Identifying[Demographics] = Demographics()


@event
class SubjectDemographicsChanged(Event, frozen=True, kw_only=True):
    """A later data set under the same identifier says something else of the person than what was known."""

    subject_id: str
    sex: str = ""
    demographics: Identifying[Demographics] = Demographics()


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    registered: bool = False
    sex: str = ""
    seen: frozenset[tuple[str, Demographics]] = frozenset()


def evolve(state: Subject, happened: Event) -> Subject:
    match happened:
        case SubjectRegistered() | SubjectDemographicsChanged():
            return Subject(
                registered=True, sex=happened.sex, seen=state.seen | {(happened.sex, happened.demographics)}
            )
    return state


def observe_subject(state: Subject, subject_id: str, sex: str, demographics: Demographics) -> list[Event]:
    """Registers a subject, or notes demographics not seen before; what was seen already is nothing new."""
    if not state.registered:
        return [SubjectRegistered(subject_id=subject_id, sex=sex, demographics=demographics)]
    if (sex, demographics) in state.seen:
        return []
    return [SubjectDemographicsChanged(subject_id=subject_id, sex=sex, demographics=demographics)]
