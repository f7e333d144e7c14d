"""One Provenance for each event: what it changed, who acted and for whom, when, why, and where in the log it stands."""

from __future__ import annotations

import base64
from collections.abc import Sequence

from domain.clinical_record import ClinicalRecordWritten
from domain.intake import FileRefused
from domain.principal import PrincipalKind
from domain.review import FindingReviewed
from domain.series import IndexingFailed, IndexingRefused, IndexingRequested, SeriesIndexed
from domain.signature import EventSigned, Meaning
from eventlog.envelope import RecordedEvent, instant
from projections.fhir.findings import device_id
from projections.fhir.vocabulary import (
    EVENT_SYSTEM,
    INDEXING_SYSTEM,
    LIFECYCLE,
    LOG_ENTRY_EXTENSION,
    POSITION_SYSTEM,
    PRINCIPAL_SYSTEM,
    SIGNATURE_TYPE,
    Json,
    concept,
    reference,
)

ACTIVITIES = {
    "SubjectRegistered": ("originate", "Originate/Retain Record Lifecycle Event"),
    "SubjectDemographicsChanged": ("amend", "Amend (Update) Record Lifecycle Event"),
    "StudyRegistered": ("originate", "Originate/Retain Record Lifecycle Event"),
    "StudySubjectDisputed": ("hold", "Place Record on Legal Hold"),
    "InstancesStored": ("receive", "Receive/Retain Record Lifecycle Event"),
    "InstanceConflicted": ("receive", "Receive/Retain Record Lifecycle Event"),
    "FileRefused": ("receive", "Receive/Retain Record Lifecycle Event"),
    "IndexingRequested": ("access", "Access/View Record Lifecycle Event"),
    "SeriesIndexed": ("originate", "Originate/Retain Record Lifecycle Event"),
    "IndexingRefused": ("report", "Report (Output) Record Lifecycle Event"),
    "IndexingFailed": ("report", "Report (Output) Record Lifecycle Event"),
    "FindingReviewed": ("verify", "Verify Record Lifecycle Event"),
    "SubjectErased": ("destroy", "Destroy/Delete Record Lifecycle Event"),
    "EventSigned": ("attest", "Attest Record Lifecycle Event"),
    "ClinicalRecordWritten": ("originate", "Originate/Retain Record Lifecycle Event"),
    "ClinicalRecordDeleted": ("deprecate", "Deprecate Record Lifecycle Event"),
}
"""Event type → code and display of ISO 21089 lifecycle events."""
_AMENDED = ("amend", "Amend (Update) Record Lifecycle Event")


_SIGNATURE_TYPES = {
    Meaning.AUTHORSHIP: ("1.2.840.10065.1.12.1.1", "Author's Signature"),
    Meaning.REVIEW: ("1.2.840.10065.1.12.1.13", "Review Signature"),
    Meaning.APPROVAL: ("1.2.840.10065.1.12.1.6", "Validation Signature"),
    Meaning.RESPONSIBILITY: ("1.2.840.10065.1.12.1.5", "Verification Signature"),
}
"""Meaning → code and display of ASTM E1762 (R5 value set signature-type)."""


def signed_provenance(before: Json, event: EventSigned) -> Json:
    """The Provenance of an event that somebody signed, with the signature (R5 Provenance.signature)."""
    code, display = _SIGNATURE_TYPES[event.meaning]
    signature: Json = {
        "type": [{"system": SIGNATURE_TYPE, "code": code, "display": display}],
        "when": instant(event.signed_at),
        "who": {"type": "Practitioner", "identifier": {"system": PRINCIPAL_SYSTEM, "value": event.principal_id}},
        "targetFormat": "application/octet-stream",
        "sigFormat": "application/jose",
        "data": base64.b64encode(event.signature.encode("ascii")).decode("ascii"),
    }
    return {**before, "signature": [*before.get("signature", []), signature]}


def provenance(recorded: RecordedEvent, targets: Sequence[Json], sources: Sequence[Json], subject_id: str | None) -> Json:
    """``targets`` at the versions that this event made; ``sources`` what they were made from."""
    code, display = ACTIVITIES[recorded.type]
    if isinstance(recorded.event, ClinicalRecordWritten) and recorded.event.record_version > 1:
        code, display = _AMENDED
    made: Json = {
        "resourceType": "Provenance",
        "id": str(recorded.event_id),
        "extension": [
            {"url": LOG_ENTRY_EXTENSION, "valueIdentifier": {"system": POSITION_SYSTEM, "value": str(recorded.position)}},
            {"url": LOG_ENTRY_EXTENSION, "valueIdentifier": {"system": EVENT_SYSTEM, "value": str(recorded.event_id)}},
        ],
        "target": list(targets),
        "occurredDateTime": instant(recorded.occurred_at),
        "recorded": instant(recorded.recorded_at),
        "activity": concept({"system": LIFECYCLE, "code": code, "display": display}, text=recorded.type),
        "agent": [_agent(recorded)],
    }
    if subject_id is not None:
        made["patient"] = reference("Patient", subject_id)
    if sources:
        made["entity"] = [{"role": "source", "what": source} for source in sources]
    match recorded.event:
        case IndexingRefused(reason=code, detail=text) | IndexingRequested(reason=code, series_digest=text):
            _say(made, code, text)
        case IndexingFailed(error=text):
            _say(made, "failed", text)
        case FileRefused(reason=code, detail=text):
            _say(made, code, text)
        case FindingReviewed(verdict=verdict):
            _say(made, verdict.value, "")
        case EventSigned(meaning=meaning):
            _say(made, meaning.value, "")
    return made


def _say(provenance: Json, reason: str, detail: str) -> None:
    """Why: as a second code of the activity, by which a search finds it, and in words."""
    provenance["activity"]["coding"].append({"system": INDEXING_SYSTEM, "code": " ".join(reason.split()) or "unknown"})
    if detail.strip():
        provenance["activity"]["text"] = detail.strip()


def _agent(recorded: RecordedEvent) -> Json:
    principal = recorded.principal
    if isinstance(recorded.event, SeriesIndexed):
        who = reference("Device", device_id(recorded.event.run))
    else:
        kind = "Device" if principal.kind is PrincipalKind.DEVICE else "Practitioner"
        who = {"type": kind, "identifier": {"system": PRINCIPAL_SYSTEM, "value": principal.id}}
    agent: Json = {"who": who}
    if principal.on_behalf_of is not None:
        agent["onBehalfOf"] = {"identifier": {"system": PRINCIPAL_SYSTEM, "value": principal.on_behalf_of}}
    return agent
