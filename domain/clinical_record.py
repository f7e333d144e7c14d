"""A FHIR resource that came from outside: stored by one generic event, whatever its type."""

from __future__ import annotations

from typing import Any

import msgspec

from domain.errors import RecordErased, RecordNotFound, RecordOfAnotherSubject, RecordVersionConflict
from domain.event import Event, Identifying, event
from domain.ids import derived_id


@event
class ClinicalRecordWritten(Event, frozen=True, kw_only=True):
    """A resource was created or replaced. ``resource`` is the FHIR JSON as a tree; ``record_version`` counts from 1."""

    EXACT_DECIMALS = True

    resource_type: str
    resource_id: str
    subject_id: str
    record_version: int
    resource: Identifying[dict[str, Any]] = {}


@event
class ClinicalRecordDeleted(Event, frozen=True, kw_only=True):
    SCHEMA_VERSION = 2

    resource_type: str
    resource_id: str
    subject_id: str
    record_version: int


class ClinicalRecord(msgspec.Struct, frozen=True, kw_only=True):
    version: int = 0
    exists: bool = False
    subject_id: str = ""
    resource: dict[str, Any] = {}

    @property
    def is_erased(self) -> bool:
        """Its content was sealed under a key that is destroyed."""
        return self.exists and not self.resource


def evolve(state: ClinicalRecord, happened: Event) -> ClinicalRecord:
    match happened:
        case ClinicalRecordWritten():
            return ClinicalRecord(
                version=happened.record_version, exists=True, subject_id=happened.subject_id, resource=happened.resource
            )
        case ClinicalRecordDeleted():
            return ClinicalRecord(version=happened.record_version, exists=False, subject_id=happened.subject_id or state.subject_id)
    return state


def own_subject_id(resource_type: str, resource_id: str) -> str:
    """Under whose key a resource is sealed that is about no patient, or about several: its own."""
    return str(derived_id("record-subject", resource_type, resource_id))


class WriteRecord(msgspec.Struct, frozen=True, kw_only=True):
    """``if_match`` is the version that the client saw (RFC 9110, 13.1.1), if it said so; 0: it must not be there yet."""

    resource_type: str
    resource_id: str
    subject_id: str
    resource: dict[str, Any]
    if_match: int | None = None


def write_record(state: ClinicalRecord, command: WriteRecord) -> list[Event]:
    """Creates or replaces; an unchanged resource is nothing new.

    A resource is of one subject for ever, so that an erasure takes all of its versions and none of another person's.
    Raises RecordVersionConflict, RecordErased, RecordOfAnotherSubject.
    """
    named = f"{command.resource_type}/{command.resource_id}"
    _matches(state, named, command.if_match)
    if state.version and state.subject_id != command.subject_id:
        raise RecordOfAnotherSubject(
            f"{named} is of another subject (or of no patient): delete it, and create it anew with the patient that it is of"
        )
    if state.exists and state.resource == command.resource:
        return []
    return [
        ClinicalRecordWritten(
            resource_type=command.resource_type,
            resource_id=command.resource_id,
            subject_id=command.subject_id,
            record_version=state.version + 1,
            resource=command.resource,
        )
    ]


def delete_record(state: ClinicalRecord, resource_type: str, resource_id: str, if_match: int | None = None) -> list[Event]:
    """Deletes what exists; deleting again is nothing new (FHIR R5 http.html#delete).

    Raises RecordNotFound, RecordVersionConflict, RecordErased.
    """
    named = f"{resource_type}/{resource_id}"
    if state.version == 0:
        raise RecordNotFound(f"{named} does not exist")
    _matches(state, named, if_match)
    if not state.exists:
        return []
    return [
        ClinicalRecordDeleted(
            resource_type=resource_type, resource_id=resource_id, subject_id=state.subject_id, record_version=state.version + 1
        )
    ]


def _matches(state: ClinicalRecord, named: str, if_match: int | None) -> None:
    if state.is_erased:
        raise RecordErased(f"{named} was erased with its subject")
    if if_match is not None and if_match != (state.version if state.exists else 0):
        raise RecordVersionConflict(f"{named} is at version {state.version}, not {if_match}")
