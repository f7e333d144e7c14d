"""The cohort projection: what events say of subjects, studies, series, findings, clinical records and tags, as rows with ranges of positions."""

from __future__ import annotations

from collections.abc import Sequence

import asyncpg

from domain.clinical_record import ClinicalRecordDeleted, ClinicalRecordWritten
from domain.event import Event
from domain.review import FindingReviewed
from domain.series import (
    IndexingFailed,
    IndexingRefused,
    IndexingRequested,
    InstancesStored,
    SeriesIndexed,
)
from domain.subject import SubjectDemographicsChanged, SubjectErased, SubjectRegistered
from domain.tag import TagRemoved, TagSet
from eventlog.envelope import RecordedEvent
from projections.cohort import clinical, erasure, imaging, indexing, tagging
from projections.cohort.batch import Batch
from projections.cohort.tables import STATEMENTS
from projections.parts import cut_at_erasures

NAME, VERSION = "cohort", 1
SCHEMA = f"{NAME}_v{VERSION}"


class CohortProjection:
    """What cohort builders ask, as of any position."""

    name: str = NAME
    version: int = VERSION
    handles: frozenset[type[Event]] = frozenset(
        {
            SubjectRegistered,
            SubjectDemographicsChanged,
            InstancesStored,
            IndexingRequested,
            SeriesIndexed,
            IndexingRefused,
            IndexingFailed,
            FindingReviewed,
            ClinicalRecordWritten,
            ClinicalRecordDeleted,
            TagSet,
            TagRemoved,
            SubjectErased,
        }
    )
    """An erasure names all studies and series that go; what says so of each (StudyErased, SeriesErased) is of the same append."""
    statements: Sequence[str] = STATEMENTS

    async def apply(self, batch: Sequence[RecordedEvent], connection: asyncpg.Connection) -> None:
        for part, erased in cut_at_erasures(batch):
            if part:
                known = await Batch.load([one.event for one in part], connection)
                for recorded in part:
                    _apply(recorded.event, recorded.position, known)
                await known.write()
            if erased is not None and isinstance(erased.event, SubjectErased):
                await erasure.purge(erased.event, erased.position, connection)


def _apply(event: Event, position: int, batch: Batch) -> None:
    match event:
        case InstancesStored():
            imaging.store(event, position, batch)
        case SubjectRegistered() | SubjectDemographicsChanged():
            clinical.say_of_person(event.subject_id, event, position, batch)
        case ClinicalRecordWritten() | ClinicalRecordDeleted():
            clinical.record(event, position, batch)
        case SeriesIndexed():
            indexing.index(event, position, batch)
        case IndexingRequested() | IndexingRefused() | IndexingFailed():
            indexing.note(event, position, batch)
        case FindingReviewed():
            indexing.review(event, position, batch)
        case TagSet() | TagRemoved():
            tagging.tag(event, position, batch)
