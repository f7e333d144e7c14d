"""Saved cohorts and datasets: who may change them, what a version is, and on what terms one may leave."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec
import pytest

from domain import dataset, saved_cohort
from domain.condition import Level, OneOf, Query, encode
from domain.dataset import Dataset, DatasetFrozen, DatasetSplit, Leaving, Purpose, SplitDataset, Terms
from domain.errors import (
    CohortRefused,
    CohortUnknown,
    ConsentWithdrawn,
    DatasetIsEmpty,
    DatasetRefused,
    DatasetUnknown,
    LicenseMissing,
    NothingLeft,
    SplitRefused,
    SubjectWouldLeak,
    UseNotIntended,
)
from domain.event import Event
from domain.members import Assigned, FrozenInstance, FrozenSeries, Tally, assignment_in, assignment_lines, members_in
from domain.saved_cohort import CohortSaved, SaveCohort, SavedCohort
from domain.splits import USUAL, Part

CT = Query(level=Level.SERIES, where=OneOf("Modality", ("CT",)))
MR = Query(level=Level.SERIES, where=OneOf("Modality", ("MR",)))


def cohort_of(happened: Sequence[Event]) -> SavedCohort:
    state = SavedCohort()
    for event in happened:
        state = saved_cohort.evolve(state, event)
    return state


def dataset_of(happened: Sequence[Event]) -> Dataset:
    state = Dataset()
    for event in happened:
        state = dataset.evolve(state, event)
    return state


def saving(query: Query = CT, by: str = "ann", title: str | None = None, curates: frozenset[str] = frozenset()) -> SaveCohort:
    return SaveCohort(cohort_id="c", query=query, by=by, title=title, curates=curates)


SAVED = saved_cohort.save_cohort(SavedCohort(), saving(title=" CTs "))


def test_a_changed_query_is_a_new_version_and_the_same_one_is_none() -> None:
    (first,) = SAVED
    assert isinstance(first, CohortSaved)
    assert (first.version, first.title, first.query, first.level) == (1, "CTs", encode(CT).decode(), Level.SERIES)
    assert first.query_sha256 == hashlib.sha256(encode(CT)).hexdigest()
    assert saved_cohort.save_cohort(cohort_of(SAVED), saving()) == []
    (second,) = saved_cohort.save_cohort(cohort_of(SAVED), saving(MR))
    assert isinstance(second, CohortSaved) and (second.version, second.title) == (2, "CTs")
    (renamed,) = saved_cohort.save_cohort(cohort_of(SAVED), saving(title="All CTs"))
    assert cohort_of([*SAVED, renamed]).title == "All CTs" and cohort_of([*SAVED, renamed]).version == 1


def test_a_cohort_is_its_owners_and_of_the_curators_of_projects_in_which_it_is_shared() -> None:
    with pytest.raises(CohortRefused):
        saved_cohort.save_cohort(cohort_of(SAVED), saving(MR, by="bob", curates=frozenset({"liver"})))
    shared = [*SAVED, *saved_cohort.share_cohort(cohort_of(SAVED), "c", "liver", "ann")]
    assert saved_cohort.share_cohort(cohort_of(shared), "c", "liver", "ann") == []
    (changed,) = saved_cohort.save_cohort(cohort_of(shared), saving(MR, by="bob", curates=frozenset({"liver"})))
    assert isinstance(changed, CohortSaved) and changed.principal_id == "ann"
    with pytest.raises(CohortRefused):
        saved_cohort.delete_cohort(cohort_of(shared), "c", "bob")
    liver = frozenset({"liver"})
    assert saved_cohort.may_see(cohort_of(shared), "bob", liver) and not saved_cohort.may_see(cohort_of(shared), "bob", frozenset())
    alone = [*shared, *saved_cohort.unshare_cohort(cohort_of(shared), "c", "liver", "ann")]
    assert not saved_cohort.may_see(cohort_of(alone), "bob", liver) and saved_cohort.may_see(cohort_of(alone), "ann", frozenset())
    gone = [*alone, *saved_cohort.delete_cohort(cohort_of(alone), "c", "ann")]
    assert saved_cohort.delete_cohort(cohort_of(gone), "c", "ann") == [] and not saved_cohort.may_see(cohort_of(gone), "ann", liver)
    with pytest.raises(CohortUnknown):
        saved_cohort.save_cohort(cohort_of(gone), saving(MR))


@pytest.mark.parametrize("title", ["", "  ", "x" * 201, "a\0"])
def test_a_cohort_has_a_title(title: str) -> None:
    with pytest.raises(CohortRefused):
        saved_cohort.save_cohort(SavedCohort(), saving(title=title))


CREATED = dataset.create_dataset(Dataset(), "d", "liver", "Livers")
TERMS = dataset.set_terms(dataset_of(CREATED), "d", Terms(license="CC-BY-4.0", intended_uses=(Purpose.RESEARCH, Purpose.RESEARCH)))


def frozen(version: int, members: str = "m1", position: int = 10, query: str = "q", series: int = 2) -> DatasetFrozen:
    return DatasetFrozen(
        dataset_id="d", subject_id=dataset.own_subject_id("d"), version=version, at_position=position, level=Level.SERIES, query_sha256=query,
        members_sha256=members, members_bytes=100, subjects_count=2, studies_count=2, series_count=series, instances_count=4, bytes=400,
    )  # fmt: skip


ONE = [*CREATED, *TERMS, *dataset.freeze(dataset_of(CREATED), frozen(1))]


def test_versions_follow_one_another_and_what_did_not_change_is_none() -> None:
    state = dataset_of(ONE)
    assert state.latest == 1
    assert dataset.freeze(state, frozen(2, position=99)) == []
    assert dataset.freeze(state, frozen(2, "m2", position=99)) == [frozen(2, "m2", position=99)]
    for wrong in (frozen(3, "m2", position=99), frozen(1, "m2", position=99), frozen(2, "m2", position=9)):
        with pytest.raises(DatasetRefused):
            dataset.freeze(state, wrong)
    with pytest.raises(DatasetIsEmpty):
        dataset.freeze(state, frozen(2, "m2", series=0))
    with pytest.raises(DatasetUnknown):
        dataset.freeze(Dataset(), frozen(1))
    with pytest.raises(DatasetUnknown):
        dataset.version_of(state, "d", 2)
    with pytest.raises(DatasetUnknown):
        dataset.version_of(dataset_of(CREATED), "d", None)


@pytest.mark.parametrize("license", ["CC BY 4.0", "(MIT", "MIT AND", "ask Dr Golden", "MIT\n"])
def test_a_license_is_an_spdx_expression(license: str) -> None:
    with pytest.raises(DatasetRefused):
        dataset.set_terms(dataset_of(CREATED), "d", Terms(license=license))


@pytest.mark.parametrize("license", ["MIT", "CC-BY-NC-SA-4.0", "(MIT OR Apache-2.0)", "GPL-2.0+ WITH Classpath-exception-2.0", "LicenseRef-liver"])
def test_spdx_expressions_are_taken(license: str) -> None:
    assert dataset_of([*CREATED, *dataset.set_terms(dataset_of(CREATED), "d", Terms(license=license))]).terms is not None


def test_terms_that_stand_are_nothing_new() -> None:
    assert dataset.set_terms(dataset_of(ONE), "d", Terms(license="CC-BY-4.0", intended_uses=(Purpose.RESEARCH,))) == []


def leaving(*, erased: Sequence[str] = (), withdrawn: Sequence[str] = ()) -> Leaving:
    return Leaving(subjects=frozenset("ab"), erased=frozenset(erased), withdrawn=frozenset(withdrawn))


def test_a_dataset_leaves_on_its_terms_alone() -> None:
    state = dataset_of(ONE)
    dataset.permit_export(state, "d", 1, Purpose.RESEARCH, leaving(), without_withdrawn=False)
    with pytest.raises(LicenseMissing):
        dataset.permit_export(dataset_of([*CREATED, frozen(1)]), "d", 1, Purpose.RESEARCH, leaving(), without_withdrawn=False)
    with pytest.raises(UseNotIntended, match="meant for research, and not for education"):
        dataset.permit_export(state, "d", 1, Purpose.EDUCATION, leaving(), without_withdrawn=False)
    with pytest.raises(DatasetUnknown):
        dataset.permit_export(state, "d", 2, Purpose.RESEARCH, leaving(), without_withdrawn=False)


def test_withdrawn_consent_refuses_until_those_are_left_out_and_the_erased_are_gone_anyway() -> None:
    state = dataset_of(ONE)
    with pytest.raises(ConsentWithdrawn, match="1 of 2 subjects"):
        dataset.permit_export(state, "d", 1, Purpose.RESEARCH, leaving(withdrawn="b"), without_withdrawn=False)
    dataset.permit_export(state, "d", 1, Purpose.RESEARCH, leaving(withdrawn="b"), without_withdrawn=True)
    dataset.permit_export(state, "d", 1, Purpose.RESEARCH, leaving(erased="a"), without_withdrawn=False)
    with pytest.raises(NothingLeft):
        dataset.permit_export(state, "d", 1, Purpose.RESEARCH, leaving(erased="a", withdrawn="b"), without_withdrawn=True)
    assert leaving(erased="a").left == {"b"}


def splitting(assigned: dict[str, str], **more: object) -> SplitDataset:
    command = SplitDataset(
        dataset_id="d", version=1, parts=USUAL, seed="1", stratified_by=(), by_hand=False, assigned=assigned, before={}, groups={},
        left_out=frozenset(), assignment_sha256=hashlib.sha256(assignment_lines(assigned)).hexdigest(), assignment_bytes=1,
    )  # fmt: skip
    return msgspec.structs.replace(command, **more)


def test_a_split_counts_its_parts_and_is_said_once() -> None:
    (said,) = dataset.split(dataset_of(ONE), splitting({"a": "train", "b": "test"}))
    assert isinstance(said, DatasetSplit)
    assert [(part.name, part.subjects_count) for part in said.parts] == [("train", 1), ("validation", 0), ("test", 1)]
    assert dataset.split(dataset_of([*ONE, said]), splitting({"a": "train", "b": "test"})) == []


def test_a_split_by_hand_that_leaks_is_refused() -> None:
    with pytest.raises(SubjectWouldLeak):
        dataset.split(dataset_of(ONE), splitting({"a": "train"}, by_hand=True, before={"a": "test"}))
    with pytest.raises(SubjectWouldLeak):
        dataset.split(dataset_of(ONE), splitting({"a": "train", "b": "test"}, by_hand=True, groups={"a": "a", "b": "a"}))
    (said,) = dataset.split(dataset_of(ONE), splitting({"a": "train"}, before={"b": "test"}, groups={"a": "a", "b": "a"}, left_out=frozenset("b")))
    assert isinstance(said, DatasetSplit) and (said.kept_count, said.left_out_count) == (0, 1)


@pytest.mark.parametrize("more", [{"seed": "two words"}, {"seed": "x" * 65}, {"parts": [Part("test", 1.0)]}])
def test_a_split_that_makes_no_sense_is_refused(more: dict[str, object]) -> None:
    with pytest.raises(SplitRefused):
        dataset.split(dataset_of(ONE), splitting({"a": "train"}, **more))
    with pytest.raises(DatasetUnknown):
        dataset.split(dataset_of(ONE), splitting({"a": "train"}, version=2))


def member(uid: str, sha256: str = "aa") -> FrozenSeries:
    instance = FrozenInstance(
        sop_instance_uid=f"{uid}.1", sop_class_uid="1.2", transfer_syntax_uid="1.2.1", sha256=sha256, size=5, number_of_frames=1
    )
    return FrozenSeries(subject_id="s", study_uid="1", series_uid=uid, modality="CT", series_digest="dd", instances=(instance,))


def test_a_list_reads_back_and_its_digest_is_that_of_its_bytes() -> None:
    tally = Tally()
    lines = [tally.line(member("1.1")), tally.line(member("1.2"))]
    assert list(members_in(lines)) == [member("1.1"), member("1.2")]
    assert tally.sha256 == hashlib.sha256(b"".join(lines)).hexdigest() and tally.list_size == len(b"".join(lines))
    assert (len(tally.subjects), len(tally.studies), tally.series, tally.instances, tally.size) == (1, 1, 2, 2, 10)
    with pytest.raises(AssertionError):
        tally.line(member("1.1"))


def test_a_member_is_written_as_it_always_was() -> None:
    written = Tally().line(member("1.1"))
    assert written == (
        b'{"instances":[{"number_of_frames":1,"sha256":"aa","size":5,"sop_class_uid":"1.2","sop_instance_uid":"1.1.1","transfer_syntax_uid":"1.2.1"}],'
        b'"modality":"CT","series_digest":"dd","series_uid":"1.1","study_uid":"1","subject_id":"s"}\n'
    )
    assert assignment_lines({"b": "test", "a": "train"}) == b'{"part":"train","subject_id":"a"}\n{"part":"test","subject_id":"b"}\n'
    listed = assignment_lines({"b": "test", "a": "train"}, {"b", "c"})
    assert list(assignment_in(listed.splitlines())) == [
        Assigned(part="train", subject_id="a"),
        Assigned(part="test", subject_id="b", left_out=True),
    ]
