"""What clients wrote: each version as it came, with the meta that a server gives it; a deletion as a version without content.

Which resources came from a client, and of whom each is, stands in the table ``record``: both can be told from the log whether or not
the subject's key still exists, so what an erasure takes is the same in a rebuild.
"""

from __future__ import annotations

import asyncpg

from domain.clinical_record import ClinicalRecordDeleted, ClinicalRecordWritten, own_subject_id
from eventlog.envelope import RecordedEvent, instant
from projections.fhir.versions import Versions
from projections.fhir.vocabulary import Json, reference

STATEMENTS = (
    """
    CREATE TABLE record (
        type       text COLLATE "C" NOT NULL,
        id         text COLLATE "C" NOT NULL,
        subject_id text COLLATE "C" NOT NULL,
        PRIMARY KEY (type, id)
    )
    """,
    "CREATE INDEX record_subject ON record (subject_id)",
)

_IS_GONE = "SELECT EXISTS (SELECT FROM gone WHERE type = 'Patient' AND id = $1)"


async def write(event: ClinicalRecordWritten, recorded: RecordedEvent, versions: Versions) -> Json | None:
    """The next version of a resource; gives the reference to it, or None for what came too late for its subject's erasure."""
    if not event.resource and await versions.connection.fetchval(_IS_GONE, event.subject_id):
        return None
    if event.record_version == 1:
        versions.add_row("record", (event.resource_type, event.resource_id, event.subject_id))
    versions.put_numbered(resource_as_written(event, recorded), event.record_version, recorded)
    return reference(event.resource_type, event.resource_id, event.record_version)


def delete(event: ClinicalRecordDeleted, recorded: RecordedEvent, versions: Versions) -> Json:
    """A version that holds at no position and has no content."""
    versions.put_end((event.resource_type, event.resource_id), event.record_version, recorded)
    return reference(event.resource_type, event.resource_id, event.record_version)


def resource_as_written(event: ClinicalRecordWritten, recorded: RecordedEvent) -> Json:
    """The client's own words, under the id and version that the server gave. Of an erased subject there is only that."""
    meta = {"versionId": str(event.record_version), "lastUpdated": instant(recorded.recorded_at), **event.resource.get("meta", {})}
    rest = {name: value for name, value in event.resource.items() if name not in ("resourceType", "id", "meta")}
    return {"resourceType": event.resource_type, "id": event.resource_id, "meta": meta, **rest}


def patient_of(event: ClinicalRecordWritten | ClinicalRecordDeleted) -> str | None:
    """The subject, where it is a patient and not the resource itself."""
    own = own_subject_id(event.resource_type, event.resource_id)
    return event.subject_id if event.subject_id not in ("", own) else None


async def of_subject(subject_id: str, connection: asyncpg.Connection) -> list[tuple[str, str]]:
    """The resources that clients wrote of a subject."""
    return [tuple(row) for row in await connection.fetch("SELECT type, id FROM record WHERE subject_id = $1 ORDER BY 1, 2", subject_id)]
