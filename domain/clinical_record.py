"""A FHIR resource that came from outside: stored by one generic event, whatever its type."""

from __future__ import annotations

from typing import Any

import msgspec

from domain.errors import RecordNotFound, RecordVersionConflict
from domain.event import Event, Identifying, event


@event
class ClinicalRecordWritten(Event, frozen=True, kw_only=True):
    """A resource was created or replaced. ``resource`` is the FHIR JSON as a tree; ``record_version`` counts from 1."""

    resource_type: str
    resource_id: str
    subject_id: str
    record_version: int
    resource: Identifying[dict[str, Any]] = {}


@event
class ClinicalRecordDeleted(Event, frozen=True, kw_only=True):
    resource_type: str
    resource_id: str
    record_version: int


class ClinicalRecord(msgspec.Struct, frozen=True, kw_only=True):
    version: int = 0
    exists: bool = False
    resource: dict[str, Any] = {}


def evolve(state: ClinicalRecord, happened: Event) -> ClinicalRecord:
    match happened:
        case ClinicalRecordWritten():
            return ClinicalRecord(version=happened.record_version, exists=True, resource=happened.resource)
        case ClinicalRecordDeleted():
            return ClinicalRecord(version=happened.record_version, exists=False)
    return state


class WriteRecord(msgspec.Struct, frozen=True, kw_only=True):
    """``if_match`` is the version that the client saw (RFC 9110, 13.1.1), if it said so."""

    resource_type: str
    resource_id: str
    subject_id: str
    resource: dict[str, Any]
    if_match: int | None = None


def write_record(state: ClinicalRecord, command: WriteRecord) -> list[Event]:
    """Creates or replaces; an unchanged resource is nothing new. Raises RecordVersionConflict."""
    if command.if_match is not None and command.if_match != state.version:
        raise RecordVersionConflict(
            f"{command.resource_type}/{command.resource_id} is at version {state.version}, not {command.if_match}"
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


def delete_record(state: ClinicalRecord, resource_type: str, resource_id: str) -> list[Event]:
    """Deletes what exists; deleting again is nothing new (FHIR R5 http.html#delete). Raises RecordNotFound."""
    if state.version == 0:
        raise RecordNotFound(f"{resource_type}/{resource_id} does not exist")
    if not state.exists:
        return []
    return [
        ClinicalRecordDeleted(resource_type=resource_type, resource_id=resource_id, record_version=state.version + 1)
    ]
