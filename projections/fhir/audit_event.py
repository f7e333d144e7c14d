"""Who looked at what, as AuditEvents (R5 auditevent.html, after the patterns of IHE BALP): one for each recorded access."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from functools import cache, lru_cache
from typing import Any

import msgspec

from domain.access import Access, AccessesRecorded, Action, Outcome
from domain.ids import derived_id
from domain.principal import Principal, PrincipalKind
from eventlog.envelope import RecordedEvent, instant
from projections.fhir.search.rows import add_rows, no_rows
from projections.fhir.vocabulary import (
    DCM,
    DICOM_UID,
    EVENT_SYSTEM,
    GUIDE,
    LOG_ENTRY_EXTENSION,
    POSITION_SYSTEM,
    PRINCIPAL_SYSTEM,
    Json,
    concept,
    reference,
    selection_id,
    study_id,
)

SITE_SYSTEM = "urn:anamnesis:site"
COUNT_EXTENSION = f"{GUIDE}:StructureDefinition:access-count"
INTERACTION = "http://hl7.org/fhir/restful-interaction"
ISSUE_SEVERITY = "http://hl7.org/fhir/issue-severity"
ISSUE_TYPE = "http://hl7.org/fhir/issue-type"

REST = {"system": "http://terminology.hl7.org/CodeSystem/audit-event-type", "code": "rest", "display": "RESTful Operation"}
EXPORT = {"system": DCM, "code": "110106", "display": "Export"}
USER_AUTHENTICATION = {"system": DCM, "code": "110114", "display": "User Authentication"}
INSTANCES_ACCESSED = {"system": DCM, "code": "110103", "display": "DICOM Instances Accessed"}
OBJECT_ROLE = "http://terminology.hl7.org/CodeSystem/object-role"
PATIENT = {"system": OBJECT_ROLE, "code": "1", "display": "Patient"}
DOMAIN_RESOURCE = {"system": OBJECT_ROLE, "code": "4", "display": "Domain Resource"}
QUERY = {"system": OBJECT_ROLE, "code": "24", "display": "Query"}
APPLICATION_SERVER = {
    "system": "http://terminology.hl7.org/CodeSystem/security-source-type",
    "code": "4",
    "display": "Application Server",
}
RECIPIENT = {
    "system": "http://terminology.hl7.org/CodeSystem/v3-ParticipationType",
    "code": "IRCP",
    "display": "information recipient",
}
APPLICATION = {"system": DCM, "code": "110150", "display": "Application"}

# What was done → category, code, and the letter of R5 AuditEvent.action.
_CODES: dict[Action, tuple[Json, Json, str]] = {
    Action.READ: (REST, {"system": INTERACTION, "code": "read", "display": "read"}, "R"),
    Action.VREAD: (REST, {"system": INTERACTION, "code": "vread", "display": "vread"}, "R"),
    Action.HISTORY: (REST, {"system": INTERACTION, "code": "history-instance", "display": "history-instance"}, "R"),
    Action.SEARCH: (REST, {"system": INTERACTION, "code": "search", "display": "search"}, "E"),
    Action.QUERY: (REST, {"system": DCM, "code": "110112", "display": "Query"}, "E"),
    Action.RETRIEVE: (REST, INSTANCES_ACCESSED, "R"),
    Action.RENDER: (REST, INSTANCES_ACCESSED, "R"),
    Action.AUDIT: (REST, {"system": DCM, "code": "110101", "display": "Audit Log Used"}, "R"),
    Action.EXPORT: (EXPORT, EXPORT, "R"),
    Action.LOGIN: (USER_AUTHENTICATION, {"system": DCM, "code": "110122", "display": "Login"}, "E"),
    Action.OTHER: (REST, {"system": INTERACTION, "code": "operation", "display": "operation"}, "E"),
}
_REASONS = {Outcome.REFUSED: "forbidden", Outcome.NOT_FOUND: "not-found", Outcome.FAILED: "exception"}


def audit_event_id(event_id: object, nth: int) -> str:
    """The id of the AuditEvent of the nth access of an event, from 0."""
    return str(derived_id("access", str(event_id), str(nth)))


def audit_events(event: AccessesRecorded, recorded: RecordedEvent) -> list[Json]:
    """One for each access of the event."""
    entry = _entry(recorded)
    return [_audit_event(access, nth, recorded, entry) for nth, access in enumerate(event.accesses)]


ALIKE = ("category", "code", "action", "outcome", "agent", "source")
"""Elements that many accesses have in common."""


Found = tuple[str, tuple[Any, ...]]
"""A table, and a row in it but for its last column, the key."""


class Alike(msgspec.Struct, frozen=True):
    """What AuditEvents of one principal's accesses of one kind have in common."""

    elements: dict[str, msgspec.Raw]
    """As JSON already."""
    rows: tuple[Found, ...]
    """What they are found by."""


class Ready(msgspec.Struct, frozen=True):
    """An AuditEvent to be stored: ``body`` holds some of its elements as JSON already. It is found by ``rows``, tables and rows in them but
    for their last column, the key, and by what the elements ``found_by`` give."""

    body: Json
    found_by: Json
    rows: tuple[Found, ...]


def ready_audit_events(event: AccessesRecorded, recorded: RecordedEvent) -> Iterator[Ready]:
    """The same as `audit_events`, for a third of the work: they are as many as requests."""
    entry = _entry(recorded)
    for nth, access in enumerate(event.accesses):
        alike = _alike(access.principal, access.action, access.outcome, recorded.origin)
        made = _own(access, nth, recorded, entry)
        body = {name: made.get(name) or alike.elements[name] for name in _ORDER if name in made or name in alike.elements}
        others = {**made, "entity": made["entity"][len(access.subjects) :]} if access.subjects else made
        yield Ready(body, others, (*alike.rows, *_rows_of_patients(access.subjects)))


@lru_cache(maxsize=1024)
def _alike(principal: Principal, action: Action, outcome: Outcome, origin: str) -> Alike:
    elements = _in_common(principal, action, outcome, origin)
    found = no_rows()
    add_rows({"resourceType": "AuditEvent", **elements}, 0, found)
    rows = tuple((table, row[:-1]) for table, of_table in found.items() for row in of_table)
    return Alike({name: msgspec.Raw(msgspec.json.encode(value)) for name, value in elements.items()}, rows)


_SOMEBODY = "somebody"


def _rows_of_patients(subjects: Sequence[str]) -> Iterator[Found]:
    """Of the entities that these are: a page of a search may be of many, who differ by their reference alone."""
    if subjects:
        alike, each = _rows_of_somebody()
        yield from alike
        for subject_id in subjects:
            target = f"Patient/{subject_id}"
            for table, before, after in each:
                yield table, (*before, target, *after)


@cache
def _rows_of_somebody() -> tuple[list[Found], list[tuple[str, tuple[Any, ...], tuple[Any, ...]]]]:
    """Rows that do not name the patient; and those that do, before and after the name."""
    found = no_rows()
    add_rows({"resourceType": "AuditEvent", "entity": [_entity(_SOMEBODY)]}, 0, found)
    alike: list[Found] = []
    each = []
    target = f"Patient/{_SOMEBODY}"
    for table, rows in found.items():
        for row in rows:
            if target in row:
                at = row.index(target)
                each.append((table, row[:at], row[at + 1 : -1]))
            else:
                alike.append((table, row[:-1]))
    return alike, each


class _Entry(msgspec.Struct, frozen=True):
    """What all accesses of an event have in common."""

    extensions: list[Json]
    recorded: str


def _entry(recorded: RecordedEvent) -> _Entry:
    extensions = [
        {"url": LOG_ENTRY_EXTENSION, "valueIdentifier": {"system": POSITION_SYSTEM, "value": str(recorded.position)}},
        {"url": LOG_ENTRY_EXTENSION, "valueIdentifier": {"system": EVENT_SYSTEM, "value": str(recorded.event_id)}},
    ]
    return _Entry(extensions, instant(recorded.recorded_at))


def _audit_event(access: Access, nth: int, recorded: RecordedEvent, entry: _Entry) -> Json:
    made = {**_own(access, nth, recorded, entry), **_in_common(access.principal, access.action, access.outcome, recorded.origin)}
    return {name: made[name] for name in _ORDER if name in made}


_ORDER = (
    "resourceType", "id", "extension", "category", "code", "action", "occurredPeriod", "recorded", "outcome", "agent", "source", "patient",
    "entity",
)  # fmt: skip


def _in_common(principal: Principal, action: Action, outcome: Outcome, origin: str) -> Json:
    category, code, letter = _CODES[action]
    return {
        "category": [concept(category)],
        "code": concept(code, text=action.value),
        "action": letter,
        "outcome": _outcome(outcome),
        "agent": _agents(principal),
        "source": {
            "observer": {"type": "Device", "identifier": {"system": SITE_SYSTEM, "value": origin}},
            "type": [concept(APPLICATION_SERVER)],
        },
    }


def _own(access: Access, nth: int, recorded: RecordedEvent, entry: _Entry) -> Json:
    start = instant(access.first_at)
    made: Json = {
        "resourceType": "AuditEvent",
        "id": audit_event_id(recorded.event_id, nth),
        "extension": [*entry.extensions, {"url": COUNT_EXTENSION, "valuePositiveInt": access.count}],
        "occurredPeriod": {"start": start, "end": start if access.last_at == access.first_at else instant(access.last_at)},
        "recorded": entry.recorded,
    }
    if len(access.subjects) == 1:
        made["patient"] = reference("Patient", access.subjects[0])
    entities = [*_patients(access), *_things(access), *_query(access)]
    if entities:
        made["entity"] = entities
    return made


def _outcome(outcome: Outcome) -> Json:
    if outcome is Outcome.SUCCESS:
        return {"code": {"system": ISSUE_SEVERITY, "code": "success", "display": "Operation Successful"}}
    reason = {"system": ISSUE_TYPE, "code": _REASONS[outcome]}
    return {"code": {"system": ISSUE_SEVERITY, "code": "error", "display": "Error"}, "detail": [concept(reason)]}


def _agents(principal: Principal) -> list[Json]:
    person = principal.kind is PrincipalKind.PERSON
    who = {"type": "Practitioner" if person else "Device", "identifier": {"system": PRINCIPAL_SYSTEM, "value": principal.id}}
    agents: list[Json] = [{"type": concept(RECIPIENT if person else APPLICATION), "who": who, "requestor": True}]
    if principal.on_behalf_of is not None:
        whom = {"identifier": {"system": PRINCIPAL_SYSTEM, "value": principal.on_behalf_of}}
        agents.append({"type": concept(RECIPIENT), "who": whom, "requestor": False})
    return agents


_PATIENT, _DOMAIN_RESOURCE = concept(PATIENT), concept(DOMAIN_RESOURCE)


def _patients(access: Access) -> list[Json]:
    return [_entity(subject_id) for subject_id in access.subjects]


def _entity(subject_id: str) -> Json:
    return {"what": reference("Patient", subject_id), "role": _PATIENT}


def _things(access: Access) -> list[Json]:
    patients = {f"Patient/{subject_id}" for subject_id in access.subjects}
    return [{"what": _what(thing), "role": _DOMAIN_RESOURCE} for thing in access.things if thing not in patients]


def _what(thing: str) -> Json:
    kind, _, uid = thing.partition(":")
    if uid and kind in ("study", "series"):
        target = reference("ImagingStudy", study_id(uid)) if kind == "study" else reference("ImagingSelection", selection_id(uid))
        return {**target, "identifier": {"system": DICOM_UID, "value": f"urn:oid:{uid}"}}
    resource_type, slash, resource_id = thing.partition("/")
    return reference(resource_type, resource_id) if slash else {"display": thing}


def _query(access: Access) -> list[Json]:
    """What was searched by: names alone, so that nothing of a person is in here."""
    if access.action not in (Action.SEARCH, Action.QUERY):
        return []
    asked = msgspec.json.encode({"of": access.resource_type or access.route, "by": access.parameters})
    made: Json = {"role": concept(QUERY), "query": base64.b64encode(asked).decode("ascii")}
    if access.parameters:
        made["detail"] = [{"type": {"text": "parameter"}, "valueString": name} for name in access.parameters]
    return [made]
