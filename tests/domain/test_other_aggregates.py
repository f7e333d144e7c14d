"""Decisions of subject, study and clinical record; what an event type may look like; principals."""

from __future__ import annotations

from functools import reduce

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain import clinical_record, study, subject
from domain.clinical_record import ClinicalRecord, WriteRecord, delete_record, write_record
from domain.errors import EventTypeError, RecordNotFound, RecordVersionConflict
from domain.event import EVENT_TYPES, Event, Identifying, event, identifying_fields
from domain.findings import finding_key
from domain.principal import Principal, PrincipalKind, device
from domain.study import Study, StudyRegistered, StudySubjectDisputed, register_study
from domain.subject import Demographics, Subject, SubjectDemographicsChanged, SubjectRegistered, observe_subject

JANE = Demographics(patient_id="1", patient_name="Doe^Jane")


def test_a_study_is_registered_once_and_a_second_subject_is_a_dispute() -> None:
    (registered,) = register_study(Study(), "1.2", "a")
    state = study.evolve(Study(), registered)
    assert registered == StudyRegistered(study_uid="1.2", subject_id="a")
    assert register_study(state, "1.2", "a") == []
    (dispute,) = register_study(state, "1.2", "b")
    assert dispute == StudySubjectDisputed(study_uid="1.2", registered_subject_id="a", disputed_subject_id="b")
    disputed = study.evolve(state, dispute)
    assert register_study(disputed, "1.2", "b") == [] and disputed.subject_id == "a"


def test_demographics_are_noted_once_each() -> None:
    (registered,) = observe_subject(Subject(), "a", "F", JANE)
    assert registered == SubjectRegistered(subject_id="a", sex="F", demographics=JANE)
    state = subject.evolve(Subject(), registered)
    married = Demographics(patient_id="1", patient_name="Roe^Jane")
    (changed,) = observe_subject(state, "a", "F", married)
    assert isinstance(changed, SubjectDemographicsChanged)
    state = subject.evolve(state, changed)
    assert observe_subject(state, "a", "F", JANE) == observe_subject(state, "a", "F", married) == []


def write(resource: dict[str, object], if_match: int | None = None) -> WriteRecord:
    return WriteRecord(resource_type="Condition", resource_id="c", subject_id="a", resource=resource, if_match=if_match)


writes = st.lists(st.one_of(st.none(), st.integers(0, 3)), max_size=20)


@given(writes)
def test_record_versions_count_every_change_and_nothing_else(history: list[int | None]) -> None:
    state, content, expected = ClinicalRecord(), None, 0
    for step in history:
        if step is None:
            if state.version == 0:
                with pytest.raises(RecordNotFound):
                    delete_record(state, "Condition", "c")
                continue
            events = delete_record(state, "Condition", "c")
        else:
            events = write_record(state, write({"n": step}))
        expected += step != content
        content = step
        state = reduce(clinical_record.evolve, events, state)
    assert state.version == expected and state.exists == (content is not None)


def test_a_stale_write_is_refused() -> None:
    state = reduce(clinical_record.evolve, write_record(ClinicalRecord(), write({"n": 1})), ClinicalRecord())
    with pytest.raises(RecordVersionConflict, match="version 1, not 7"):
        write_record(state, write({"n": 2}, if_match=7))
    assert len(write_record(state, write({"n": 2}, if_match=1))) == 1


def test_an_event_type_with_an_unsealable_mark_is_refused() -> None:
    class NoSubject(Event, frozen=True, kw_only=True):
        name: Identifying[str] = ""

    class NoDefault(Event, frozen=True, kw_only=True):
        subject_id: str
        name: Identifying[str]

    for bad in (NoSubject, NoDefault):
        with pytest.raises(EventTypeError):
            event(bad)
        EVENT_TYPES.pop(bad.__name__, None)


def test_the_marked_fields_are_those_that_identify() -> None:
    marked = {name: set(identifying_fields(cls)) for name, cls in EVENT_TYPES.items() if identifying_fields(cls)}
    assert marked == {
        "InstancesStored": {"common", "headers"},
        "IndexingRefused": {"detail"},
        "FindingReviewed": {"comment"},
        "LegalHoldPlaced": {"reason"},
        "SignerEnrolled": {"printed_name"},
        "SubjectRegistered": {"demographics"},
        "SubjectDemographicsChanged": {"demographics"},
        "ClinicalRecordWritten": {"resource"},
        "CohortRenamed": {"description", "title"},
        "CohortSaved": {"description", "query", "title"},
        "DatasetCreated": {"description", "title"},
        "DatasetFrozen": {"query"},
        "DatasetTermsSet": {"consent", "license_text", "use_note"},
        "ProjectCreated": {"title"},
        "TagSet": {"value"},
    }


def test_a_worker_acts_for_the_one_who_asked_first() -> None:
    person = Principal(id="token:1", kind=PrincipalKind.PERSON)
    relayed = device("dispatcher").acting_for(person)
    assert device("baseline").acting_for(relayed) == Principal(
        id="device:baseline", kind=PrincipalKind.DEVICE, on_behalf_of="token:1"
    )


def test_derived_ids_never_change() -> None:
    assert finding_key("1.2.3", "baseline", "lung_left") == "5888d221-5312-5cab-b4ba-652a323eaeed"
