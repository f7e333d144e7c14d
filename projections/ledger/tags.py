"""What an event touched, as the ledger's tags: the event's own scope, and what else it names (findings, instances, events,
the device that indexed, the principals who read)."""

from __future__ import annotations

from domain.access import AccessesRecorded
from domain.event import Event
from domain.findings import finding_key
from domain.intake import FileRefused
from domain.review import FindingReviewed
from domain.series import InstanceConflicted, SeriesIndexed
from domain.signature import EventSigned
from domain.tag import TagRemoved, TagSet
from projections.fhir.findings import device_id

MAX_CHARACTERS = 400
"""Longer tags are cut: an index entry of PostgreSQL holds at most 2.7 kB."""


def tag(kind: str, key: str) -> str:
    """A tag as it is stored and looked for. PostgreSQL keeps no NUL in a text."""
    return f"{kind}:{key}".replace("\0", "")[:MAX_CHARACTERS]


def tags_of(event: Event) -> frozenset[str]:
    """Everything that this event touched. The instances of an ``InstancesStored`` are in the DICOM read model instead."""
    scope = frozenset(tag(*one.split(":", 1)) for one in event.scope())
    return scope | frozenset(tag(kind, key) for kind, key in _named(event))


def _named(event: Event) -> list[tuple[str, str]]:
    match event:
        case SeriesIndexed():
            labels = (finding.structure.label for finding in event.findings)
            findings = [("finding", finding_key(event.series_uid, event.run.segmenter, label)) for label in labels]
            return [*findings, ("device", device_id(event.run))]
        case FindingReviewed():
            return [("finding", event.finding_key)]
        case InstanceConflicted():
            return [("instance", event.sop_instance_uid)]
        case FileRefused() if event.sop_instance_uid:
            return [("instance", event.sop_instance_uid)]
        case TagSet() | TagRemoved() if event.sop_instance_uid:
            return [("instance", event.sop_instance_uid)]
        case AccessesRecorded():
            return [("principal", access.principal.id) for access in event.accesses]
        case EventSigned():
            return [("event", event.signed_event_id)]
    return []
