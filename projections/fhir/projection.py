"""The FHIR projection: each event to the versions of resources that it makes, and one Provenance."""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg

from domain.access import AccessesRecorded
from domain.clinical_record import ClinicalRecordDeleted, ClinicalRecordWritten
from domain.event import Event
from domain.findings import finding_key
from domain.intake import FileRefused
from domain.review import FindingReviewed
from domain.series import (
    IndexingFailed,
    IndexingRefused,
    IndexingRequested,
    InstanceConflicted,
    InstancesStored,
    SeriesIndexed,
)
from domain.signature import EventSigned
from domain.study import StudyRegistered, StudySubjectDisputed
from domain.subject import SubjectDemographicsChanged, SubjectErased, SubjectRegistered
from eventlog.envelope import RecordedEvent, instant
from projections.fhir import clinical, erasure, findings, shipped, study
from projections.fhir.audit_event import audit_events, ready_audit_events
from projections.fhir.definitions import resource_types
from projections.fhir.person import Person, evolve, is_of_person, latest, patient, pseudonym, row_of
from projections.fhir.provenance import provenance, signed_provenance
from projections.fhir.search import indexing
from projections.fhir.search.indexing import Additions
from projections.fhir.search.site import TYPE as SEARCH_PARAMETER
from projections.fhir.tables import STATEMENTS
from projections.fhir.versions import Key, Versions, first_key
from projections.fhir.vocabulary import (
    REJECT_SYSTEM,
    SUBJECT_SYSTEM,
    Json,
    index_id,
    observation_id,
    reference,
    selection_id,
    study_id,
)
from projections.parts import cut_at_erasures

NAME, VERSION = "fhir", 6
SCHEMA = f"{NAME}_v{VERSION}"
CURATED = ("Patient", "ImagingStudy", "ImagingSelection", "BodyStructure", "Observation", "Device", "Provenance", "AuditEvent")
"""Types of which the log itself implies resources; clients may write others of some of these."""
TYPES = resource_types()
"""Every type that may be read."""


class FhirProjection:
    name: str = NAME
    version: int = VERSION
    handles: frozenset[type[Event]] = frozenset(
        {
            SubjectRegistered,
            SubjectDemographicsChanged,
            StudyRegistered,
            StudySubjectDisputed,
            InstancesStored,
            InstanceConflicted,
            IndexingRequested,
            SeriesIndexed,
            IndexingRefused,
            IndexingFailed,
            FindingReviewed,
            EventSigned,
            FileRefused,
            SubjectErased,
            AccessesRecorded,
            ClinicalRecordWritten,
            ClinicalRecordDeleted,
        }
    )
    statements = (*STATEMENTS, *clinical.STATEMENTS, *erasure.STATEMENTS, *indexing.STATEMENTS)

    def __init__(self) -> None:
        self.may_have_work = True

    async def begin(self, connection: asyncpg.Connection) -> None:
        """The definitions that ship with the software."""
        await shipped.write(connection)

    async def apply(self, batch: Sequence[RecordedEvent], connection: asyncpg.Connection) -> None:
        for part, erased in cut_at_erasures(batch):
            await self._write(part, connection)
            if erased is not None and isinstance(erased.event, SubjectErased):
                await erasure.purge(erased.event, erased.position, connection)
                await self._write([erased], connection)

    async def work(self, connection: asyncpg.Connection) -> bool:
        """A piece of the rows for what the site added to the search parameters."""
        self.may_have_work = await indexing.work(connection)
        return self.may_have_work

    async def is_done(self, connection: asyncpg.Connection) -> bool:
        return await indexing.is_done(connection)

    async def _write(self, batch: Sequence[RecordedEvent], connection: asyncpg.Connection) -> None:
        versions = Versions(connection, await Additions.read(connection))
        await versions.fetch(key for recorded in batch for key in _touched(recorded))
        of_persons = [recorded.event for recorded in batch if is_of_person(recorded.event)]
        persons = await latest((getattr(event, "subject_id", "") for event in of_persons), connection)
        for recorded in batch:
            await _apply(recorded, versions, persons)
        self.may_have_work |= versions.additions.have_changed
        await versions.write()


async def _apply(recorded: RecordedEvent, versions: Versions, persons: dict[str, Person]) -> None:
    event = recorded.event
    subject_id = getattr(event, "subject_id", None)
    targets: list[Json] = []
    sources: list[Json] = []

    async def put(body: Json) -> None:
        version = await versions.put(body, recorded)
        targets.append(reference(body["resourceType"], body["id"], version))

    match event:
        case AccessesRecorded():  # the record of who read is no change that would need a Provenance
            _accesses(event, recorded, versions)
            return
        case ClinicalRecordWritten() | ClinicalRecordDeleted():
            await _record(event, recorded, versions, persons)
            return
        case SubjectRegistered() | SubjectDemographicsChanged():
            targets.append(_person(event.subject_id, recorded, versions, persons))
        case StudyRegistered():
            await put(study.registered_study(event))
        case InstancesStored():
            await put(study.study_with_instances(await versions.current("ImagingStudy", study_id(event.study_uid)), event))
            selection = await versions.current("ImagingSelection", selection_id(event.series_uid))
            await put(study.series_selection(event, recorded, selection))
        case SeriesIndexed():
            sources.append(reference("ImagingSelection", selection_id(event.series_uid)))
            await _index(event, recorded, versions, put)
        case FindingReviewed():
            await _review(event, versions, put)
        case EventSigned():
            signed = await versions.current("Provenance", event.signed_event_id)
            if signed is not None:
                await put(signed_provenance(signed, event))
        case StudySubjectDisputed() | InstanceConflicted():
            targets.append(reference("ImagingStudy", study_id(event.study_uid)))
        case FileRefused():  # became no resource: the kept file, by its identifier alone
            targets.append({"identifier": {"system": REJECT_SYSTEM, "value": event.reject_id}})
        case SubjectErased():  # by its identifier alone: the Patient is gone
            targets.append({"type": "Patient", "identifier": {"system": SUBJECT_SYSTEM, "value": event.subject_id}})
        case IndexingRequested() | IndexingRefused() | IndexingFailed():
            targets.append(reference("ImagingSelection", selection_id(event.series_uid)))
    await versions.put(provenance(recorded, targets, sources, subject_id), recorded)


def _accesses(event: AccessesRecorded, recorded: RecordedEvent, versions: Versions) -> None:
    meta = {"versionId": "1", "lastUpdated": instant(recorded.recorded_at)}
    if "AuditEvent" in versions.additions.site.plans:  # what a site searches in may be any element
        for body in audit_events(event, recorded):
            versions.put_numbered({**body, "meta": meta}, 1, recorded)
        return
    for ready in ready_audit_events(event, recorded):
        versions.put_numbered({**ready.body, "meta": meta}, 1, recorded, found_by=ready.found_by, rows=ready.rows)


def _person(subject_id: str, recorded: RecordedEvent, versions: Versions, persons: dict[str, Person]) -> Json:
    """The next version of a Patient: what everybody sees of it, and beside it what those see who may; gives the reference to it."""
    person = persons[subject_id] = evolve(persons.get(subject_id, Person()), recorded.event)
    versions.add_row("patient_identity", row_of(person, subject_id, recorded.position))
    if person.imaged is None and person.written is None:
        versions.put_end(("Patient", subject_id), person.version, recorded)
    else:
        meta = {"versionId": str(person.version), "lastUpdated": instant(recorded.recorded_at)}
        whole = patient(person, subject_id, meta)
        versions.put_numbered(pseudonym(person, subject_id, meta), person.version, recorded, found_by=whole)
    return reference("Patient", subject_id, person.version)


async def _record(
    event: ClinicalRecordWritten | ClinicalRecordDeleted, recorded: RecordedEvent, versions: Versions, persons: dict[str, Person]
) -> None:
    target: Json | None
    if event.resource_type == SEARCH_PARAMETER:
        resource = event.resource if isinstance(event, ClinicalRecordWritten) else {}
        versions.additions.take(event.resource_id, resource, recorded.position, first_key(recorded.position))
    if is_of_person(event):
        target = _person(event.resource_id, recorded, versions, persons)
    elif isinstance(event, ClinicalRecordWritten):
        target = await clinical.write(event, recorded, versions)
    else:
        target = clinical.delete(event, recorded, versions)
    if target is not None:
        said = provenance(recorded, [target], [], clinical.patient_of(event))
        said["meta"] = {"versionId": "1", "lastUpdated": instant(recorded.recorded_at)}
        versions.put_numbered(said, 1, recorded)


async def _index(event: SeriesIndexed, recorded: RecordedEvent, versions: Versions, put) -> None:  # type: ignore[no-untyped-def]
    before = await versions.current("BodyStructure", index_id(event.series_uid))
    made_by = findings.device_id(event.run)
    for finding in event.findings:
        await put(findings.finding_observation(event, finding, recorded, made_by))
    for finding in event.findings:
        await put(findings.finding_structure(event, finding))
    for label in sorted(set(findings.labels_in_index(before, event.run.segmenter)) - {f.structure.label for f in event.findings}):
        key = finding_key(event.series_uid, event.run.segmenter, label)
        gone = await versions.current("BodyStructure", key)
        unmeasured = await versions.current("Observation", observation_id(key))
        if gone is not None and unmeasured is not None:
            await put({**gone, "active": False})
            await put({**unmeasured, "status": "entered-in-error"})
    await put(findings.series_index(event, before))
    await put(findings.device(event.run))
    imaging_study = await versions.current("ImagingStudy", study_id(event.study_uid))
    if imaging_study is not None:
        await put(study.study_with_index(imaging_study, event.series_uid))


async def _review(event: FindingReviewed, versions: Versions, put) -> None:  # type: ignore[no-untyped-def]
    structure = await versions.current("BodyStructure", event.finding_key)
    observation = await versions.current("Observation", observation_id(event.finding_key))
    index = await versions.current("BodyStructure", index_id(event.series_uid))
    if structure is None or observation is None or index is None:
        return
    await put(findings.reviewed_structure(structure, event.verdict))
    await put(findings.reviewed_observation(observation, event.verdict))
    await put(findings.index_after_review(index, structure, event))


def _touched(recorded: RecordedEvent) -> list[Key]:
    """What an event reads or changes, as far as it can be told beforehand."""
    event = recorded.event
    match event:
        case StudyRegistered():
            return [("ImagingStudy", study_id(event.study_uid))]
        case InstancesStored():
            return [("ImagingStudy", study_id(event.study_uid)), ("ImagingSelection", selection_id(event.series_uid))]
        case SeriesIndexed():
            keys = [finding_key(event.series_uid, event.run.segmenter, f.structure.label) for f in event.findings]
            return [
                ("ImagingStudy", study_id(event.study_uid)),
                ("BodyStructure", index_id(event.series_uid)),
                ("Device", findings.device_id(event.run)),
                *(("BodyStructure", key) for key in keys),
                *(("Observation", observation_id(key)) for key in keys),
            ]
        case FindingReviewed():
            return [
                ("BodyStructure", event.finding_key),
                ("BodyStructure", index_id(event.series_uid)),
                ("Observation", observation_id(event.finding_key)),
            ]
        case EventSigned():
            return [("Provenance", event.signed_event_id)]
    return []
