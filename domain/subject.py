"""A subject: the person behind the images. All that identifies the person is sealed.

A subject can be forgotten: somebody asks for it on a legal basis, another person confirms, and then it is carried out. A
legal hold refuses each of these steps, until it is lifted; what has begun to be carried out cannot be called back.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Any

import msgspec

from domain.clinical_record import ClinicalRecordDeleted, ClinicalRecordWritten
from domain.errors import (
    ErasureNotRequested,
    ErasureUnderway,
    LegalHoldUnknown,
    PersonNeeded,
    SamePerson,
    SubjectIsErased,
    SubjectOnHold,
    SubjectUnknown,
)
from domain.event import Event, Identifying, event
from domain.principal import Principal, PrincipalKind


class Demographics(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a data set says of the person (PS3.3 C.7.1.1), as DICOM text: PN in UTF-8, DA as YYYYMMDD.

    ``patient_id_system``: the FHIR system that stood for the issuer at this site when the data set came; empty for none.
    """

    patient_id: str = ""
    issuer_of_patient_id: str = ""
    patient_name: str = ""
    birth_date: str = ""
    patient_id_system: str = ""


SEXES = frozenset({"M", "F", "O"})
"""Defined terms of Patient's Sex (0010,0040)."""


class LegalBasis(StrEnum):
    """Why a subject is erased. A code, since it stays readable for ever and a free text would name somebody one day."""

    NO_LONGER_NECESSARY = "gdpr-17-1-a"
    CONSENT_WITHDRAWN = "gdpr-17-1-b"
    OBJECTION = "gdpr-17-1-c"
    UNLAWFUL = "gdpr-17-1-d"
    LEGAL_OBLIGATION = "gdpr-17-1-e"
    CHILD = "gdpr-17-1-f"
    OTHER_LAW = "other-law"


@event
class SubjectRegistered(Event, frozen=True, kw_only=True):
    """``sex`` (M, F, O or empty) does not identify and stays readable."""

    SCHEMA_VERSION = 2

    subject_id: str
    sex: str = ""
    demographics: Identifying[Demographics] = Demographics()


@event
class SubjectDemographicsChanged(Event, frozen=True, kw_only=True):
    """A later data set under the same identifier says something else of the person than what was known."""

    SCHEMA_VERSION = 2

    subject_id: str
    sex: str = ""
    demographics: Identifying[Demographics] = Demographics()


@event
class SubjectJoined(Event, frozen=True, kw_only=True):
    """Who has the number that this subject's id stands for is another subject: a client wrote it into that one's Patient.

    What comes under the number belongs to the other from here on; nothing had come before.
    """

    subject_id: str
    into_subject_id: str


@event
class SubjectParted(Event, frozen=True, kw_only=True):
    """The Patient has the number no more. What came under it stays where it is; what comes later is of this subject."""

    subject_id: str
    from_subject_id: str


@event
class LegalHoldPlaced(Event, frozen=True, kw_only=True):
    """The subject's data must be kept: nothing of it may be erased while a hold stands."""

    subject_id: str
    hold_id: str
    reason: Identifying[str] = ""


@event
class LegalHoldLifted(Event, frozen=True, kw_only=True):
    subject_id: str
    hold_id: str


@event
class ErasureRequested(Event, frozen=True, kw_only=True):
    """Somebody asks that the subject be forgotten. ``requested_by`` and ``on_behalf_of`` are principals, by id."""

    subject_id: str
    legal_basis: LegalBasis
    requested_by: str
    on_behalf_of: str | None = None


@event
class ErasureWithdrawn(Event, frozen=True, kw_only=True):
    """A request, or a confirmed one that nobody has begun to carry out, stands no more."""

    subject_id: str


@event
class ErasureConfirmed(Event, frozen=True, kw_only=True):
    """Another person agrees: it is to be carried out."""

    subject_id: str
    legal_basis: LegalBasis
    requested_by: str


@event
class ErasureStarted(Event, frozen=True, kw_only=True):
    """From here on nothing more of the subject is taken in, and there is no way back: the key goes next."""

    subject_id: str


@event
class SubjectErased(Event, frozen=True, kw_only=True):
    """The subject is forgotten: its key is destroyed; read models drop all that these studies and series hold of it.

    ``files`` and ``bytes`` are of the instances that the log knew, conflicting ones too.
    """

    subject_id: str
    study_uids: list[str]
    series_uids: list[str]
    files: int
    bytes: int

    def scope(self) -> frozenset[str]:
        studies = {f"study:{uid}" for uid in self.study_uids}
        return Event.scope(self) | studies | {f"series:{uid}" for uid in self.series_uids}


class Erasure(StrEnum):
    """How far the erasure of a subject is."""

    NONE = "none"
    REQUESTED = "requested"
    CONFIRMED = "confirmed"
    STARTED = "started"
    ERASED = "erased"


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """``registered``: images were seen. ``patient_version`` counts all that was said of the person, there and by clients."""

    registered: bool = False
    patient_version: int = 0
    resource: dict[str, Any] | None = None
    """The Patient as a client wrote it."""
    joined_into: str = ""
    sex: str = ""
    seen: frozenset[tuple[str, Demographics]] = frozenset()
    holds: frozenset[str] = frozenset()
    erasure: Erasure = Erasure.NONE
    request: ErasureRequested | None = None

    @property
    def is_known(self) -> bool:
        """There is, or was, a Patient."""
        return self.patient_version > 0

    @property
    def is_there(self) -> bool:
        """There is a Patient."""
        return self.registered or self.resource is not None

    @property
    def is_going(self) -> bool:
        """Its key is destroyed, or about to be."""
        return self.erasure in (Erasure.STARTED, Erasure.ERASED)


def evolve(state: Subject, happened: Event) -> Subject:
    replace = msgspec.structs.replace
    match happened:
        case SubjectRegistered() | SubjectDemographicsChanged():
            seen = state.seen | {(happened.sex, happened.demographics)}
            return replace(state, registered=True, sex=happened.sex, seen=seen, patient_version=state.patient_version + 1)
        case ClinicalRecordWritten():
            return replace(state, resource=happened.resource, patient_version=happened.record_version)
        case ClinicalRecordDeleted():
            return replace(state, resource=None, patient_version=happened.record_version)
        case SubjectJoined():
            return replace(state, joined_into=happened.into_subject_id)
        case SubjectParted():
            return replace(state, joined_into="")
        case LegalHoldPlaced():
            return replace(state, holds=state.holds | {happened.hold_id})
        case LegalHoldLifted():
            return replace(state, holds=state.holds - {happened.hold_id})
        case ErasureRequested():
            return replace(state, erasure=Erasure.REQUESTED, request=happened)
        case ErasureWithdrawn():
            return replace(state, erasure=Erasure.NONE, request=None)
        case ErasureConfirmed():
            return replace(state, erasure=Erasure.CONFIRMED)
        case ErasureStarted():
            return replace(state, erasure=Erasure.STARTED)
        case SubjectErased():
            return replace(state, erasure=Erasure.ERASED, seen=frozenset(), resource=None)
    return state


def observe_subject(state: Subject, subject_id: str, sex: str, demographics: Demographics) -> list[Event]:
    """Registers a subject, or notes demographics not seen before; what was seen already is nothing new.

    ``sex`` stays readable, so anything but a defined term is left out of it: somebody may have typed a name there.
    Raises SubjectIsErased.
    """
    sex = sex.strip().upper() if sex.strip().upper() in SEXES else ""
    if state.is_going:
        raise SubjectIsErased(f"subject {subject_id} was erased: nothing more is taken in of it")
    if not state.registered:
        return [SubjectRegistered(subject_id=subject_id, sex=sex, demographics=demographics)]
    if (sex, demographics) in state.seen:
        return []
    return [SubjectDemographicsChanged(subject_id=subject_id, sex=sex, demographics=demographics)]


def place_hold(state: Subject, subject_id: str, hold_id: str, reason: str) -> list[Event]:
    """The same hold again is nothing new. Raises SubjectUnknown, SubjectIsErased, ErasureUnderway."""
    _known(state, subject_id)
    _still_there(state, subject_id)
    if hold_id in state.holds:
        return []
    return [LegalHoldPlaced(subject_id=subject_id, hold_id=hold_id, reason=reason)]


def lift_hold(state: Subject, subject_id: str, hold_id: str) -> list[Event]:
    """Raises SubjectUnknown, LegalHoldUnknown."""
    _known(state, subject_id)
    if hold_id not in state.holds:
        raise LegalHoldUnknown(f"no hold {hold_id} stands on subject {subject_id}")
    return [LegalHoldLifted(subject_id=subject_id, hold_id=hold_id)]


def request_erasure(state: Subject, subject_id: str, legal_basis: LegalBasis, by: Principal) -> list[Event]:
    """A request that stands already is nothing new.

    Raises SubjectUnknown, SubjectIsErased, ErasureUnderway, SubjectOnHold, PersonNeeded.
    """
    _known(state, subject_id)
    _still_there(state, subject_id)
    _no_hold(state, subject_id)
    _person(by)
    if state.erasure is not Erasure.NONE:
        return []
    return [
        ErasureRequested(subject_id=subject_id, legal_basis=legal_basis, requested_by=by.id, on_behalf_of=by.on_behalf_of)
    ]


def withdraw_erasure(state: Subject, subject_id: str) -> list[Event]:
    """Raises SubjectUnknown, SubjectIsErased, ErasureUnderway, ErasureNotRequested."""
    _known(state, subject_id)
    _still_there(state, subject_id)
    if state.erasure is Erasure.NONE:
        raise ErasureNotRequested(f"nobody asked that subject {subject_id} be erased")
    return [ErasureWithdrawn(subject_id=subject_id)]


def confirm_erasure(state: Subject, subject_id: str, by: Principal) -> list[Event]:
    """Confirmed already is nothing new.

    Raises SubjectUnknown, SubjectIsErased, ErasureUnderway, ErasureNotRequested, SubjectOnHold, PersonNeeded, SamePerson.
    """
    _known(state, subject_id)
    _still_there(state, subject_id)
    request = state.request
    if request is None:
        raise ErasureNotRequested(f"nobody asked that subject {subject_id} be erased: `anamnesis subject erase` does")
    _no_hold(state, subject_id)
    _person(by)
    if {by.id, by.on_behalf_of} & {request.requested_by, request.on_behalf_of} - {None}:
        raise SamePerson("who asked for an erasure may not confirm it, and neither may who acts for the same person")
    if state.erasure is Erasure.CONFIRMED:
        return []
    return [ErasureConfirmed(subject_id=subject_id, legal_basis=request.legal_basis, requested_by=request.requested_by)]


def start_erasure(state: Subject, subject_id: str) -> list[Event]:
    """Begun already is nothing new. Raises SubjectUnknown, ErasureNotRequested (or not confirmed), SubjectOnHold."""
    _known(state, subject_id)
    if state.is_going:
        return []
    if state.erasure is not Erasure.CONFIRMED:
        raise ErasureNotRequested(f"the erasure of subject {subject_id} is not confirmed: another person does `anamnesis subject confirm`")
    _no_hold(state, subject_id)
    return [ErasureStarted(subject_id=subject_id)]


def finish_erasure(state: Subject, erased: SubjectErased) -> list[Event]:
    """Erased already is nothing new. Raises ErasureNotRequested when it was never begun."""
    if state.erasure is Erasure.ERASED:
        return []
    if state.erasure is not Erasure.STARTED:
        raise ErasureNotRequested(f"the erasure of subject {erased.subject_id} was not begun")
    return [erased]


def _known(state: Subject, subject_id: str) -> None:
    if not state.is_known:
        raise SubjectUnknown(f"there is no subject {subject_id}: `anamnesis subject find` gives the id of a person")


def _still_there(state: Subject, subject_id: str) -> None:
    if state.erasure is Erasure.ERASED:
        raise SubjectIsErased(f"subject {subject_id} was erased already")
    if state.erasure is Erasure.STARTED:
        raise ErasureUnderway(f"the erasure of subject {subject_id} is being carried out, and cannot be called back")


def _no_hold(state: Subject, subject_id: str) -> None:
    if state.holds:
        raise SubjectOnHold(f"subject {subject_id} is on legal hold ({', '.join(sorted(state.holds))}): `anamnesis subject release` lifts it")


def _person(principal: Principal) -> None:
    if principal.kind is not PrincipalKind.PERSON:
        raise PersonNeeded("a device can neither ask for an erasure nor confirm it: this takes two persons")
