"""What is said of persons: who they are, by images and by clients, and the facts of clinical records."""

from __future__ import annotations

from typing import Any

import msgspec

from domain.clinical_record import ClinicalRecordDeleted, ClinicalRecordWritten
from domain.event import Event
from projections.cohort.ages import age_at_study
from projections.cohort.batch import Batch
from projections.cohort.facts import facts
from projections.cohort.person import Person, evolve
from projections.cohort.rows import Row
from projections.cohort.tables import ORDINALS
from projections.fhir.clinical import patient_of

_SUBJECT, _FIRST_FACT = 0, 1
"""Numbers of entities within the event."""


def subject_row(subject_id: str, position: int, batch: Batch) -> Row:
    """The subject's, also where nobody has said yet who it is. Once there, it stays until the subject is erased."""
    known = batch.subjects.standing.get(subject_id)
    return known if known is not None else _put(subject_id, Person(), position, batch)


def say_of_person(subject_id: str, event: Event, position: int, batch: Batch) -> None:
    known = batch.subjects.standing.get(subject_id)
    before = Person() if known is None else Person(**{name: known.values[name] for name in Person.__struct_fields__})
    row = _put(subject_id, evolve(before, event), position, batch)
    for study_uid in sorted(batch.studies_of.get(row.id, ())):
        _age(study_uid, row.id, position, batch)


def record(event: ClinicalRecordWritten | ClinicalRecordDeleted, position: int, batch: Batch) -> None:
    """What came too late for its subject's erasure says nothing."""
    subject_id = patient_of(event)
    if event.resource_type == "Patient":
        if event.subject_id not in batch.erased_subjects:
            say_of_person(event.subject_id, event, position, batch)
        return
    said = facts(event.resource) if isinstance(event, ClinicalRecordWritten) and subject_id is not None else []
    subject = None
    if subject_id is not None and subject_id not in batch.erased_subjects:
        subject = subject_row(subject_id, position, batch).id
    elif said:
        return
    _put_facts(event, [] if subject is None else [{"subject": subject, **msgspec.structs.asdict(one)} for one in said], position, batch)


def _put(subject_id: str, person: Person, position: int, batch: Batch) -> Row:
    values = {"subject_id": subject_id, "sex": person.sex, "born": person.born, **msgspec.structs.asdict(person)}
    row = batch.subjects.put(subject_id, values, position, _SUBJECT)
    batch.born[row.id] = person.born
    batch.dictionary.add("subject.sex", [person.sex])
    return row


def _age(study_uid: str, subject: int, position: int, batch: Batch) -> None:
    study = batch.studies.standing[study_uid]
    age = age_at_study(batch.born.get(subject), batch.elements_of_study[study_uid])
    batch.studies.put(study_uid, {**study.values, "age_years": age}, position, 0)


def _put_facts(event: ClinicalRecordWritten | ClinicalRecordDeleted, said: list[dict[str, Any]], position: int, batch: Batch) -> None:
    """What a record says now and said before stays the same fact."""
    record_key = (event.resource_type, event.resource_id)
    named = {"resource_type": event.resource_type, "resource_id": event.resource_id}
    new = [{**named, **one} for one in said]
    standing: list[int] = []
    for id_ in batch.facts_of.get(record_key, []):
        key = (*record_key, id_)
        if batch.facts.standing[key].values in new:
            new.remove(batch.facts.standing[key].values)
            standing.append(id_)
        else:
            batch.facts.end(key, position)
    for number, values in enumerate(new, _FIRST_FACT):
        id_ = position * ORDINALS + number
        batch.facts.put((*record_key, id_), values, position, number)
        standing.append(id_)
        for name in ("resource_type", "system", "code", "status", "unit", "value_code"):
            batch.dictionary.add(f"fact.{name}", [values[name]])
    batch.facts_of[record_key] = standing
