"""Tags by question, and what entered and left saved cohorts: which things, and the events that are the reason."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio
from curated_log import ANN, BOB, FEED, PROJECT, Curated, person, series_uid, stored, study_uid, subject_id

from domain.clinical_record import ClinicalRecordWritten
from domain.condition import All, Has, Level, OneOf, Query
from domain.errors import CohortRefused, CohortUnknown, NotAMember, SubjectIsErased, TagUnknown
from domain.ids import SubjectId, record_stream, series_stream, study_stream, subject_stream
from domain.principal import device
from domain.study import StudySubjectDisputed
from domain.tag import TagLevel, TagRemoved, TagSet
from eventlog.log import EventLog
from projections.cohort.errors import FieldUnknown
from server.cohorts import keeping, tagging
from server.cohorts.changes import changes
from server.cohorts.errors import LevelRefused, TargetUnknown
from server.cohorts.questions import ROWS
from server.erasure.holdings import appends, find_holdings

CTS = Query(level=Level.SERIES, where=OneOf("Modality", ("CT",)))
GOOD = Has(level=Level.TAG, where=All((OneOf("name", ("quality",)), OneOf("value", ("good",)))))


@pytest_asyncio.fixture
async def curated(event_log: EventLog, tmp_path: Path) -> AsyncIterator[Curated]:
    site = Curated.over(event_log, tmp_path)
    await site.happens(*FEED)
    await keeping.create_project(event_log, PROJECT, "Livers", ANN)
    await keeping.admit_member(event_log, PROJECT, BOB.id, keeping.Role.VIEWER, ANN)
    await site.reads()
    yield site


async def test_everything_that_a_question_finds_is_tagged_at_once(curated: Curated) -> None:
    tagged = await tagging.set_tag_of_all(curated, PROJECT, CTS, "quality", "good", ANN)
    assert (tagged.found, tagged.changed) == (8, 8)
    await curated.reads()
    again = await tagging.set_tag_of_all(curated, PROJECT, CTS, "quality", "good", ANN)
    assert (again.found, again.changed, again.position) == (8, 0, None)
    events = [one for one in await curated.log.read(0) if isinstance(one.event, TagSet)]
    assert {one.correlation_id for one in events} == {tagged.correlation_id} and {one.principal for one in events} == {ANN}
    await curated.reads()
    assert (await changes(curated, Query(level=Level.SERIES, where=GOOD), 0)).entered_count == 8
    removed = await tagging.remove_tag_of_all(curated, PROJECT, Query(level=Level.SERIES), "quality", ANN)
    assert (removed.found, removed.changed) == (12, 8)
    assert sum(isinstance(one.event, TagRemoved) for one in await curated.log.read(0)) == 8


@pytest.mark.parametrize(
    ("level", "key", "scope"),
    [
        (TagLevel.SUBJECT, subject_id(1), {f"subject:{subject_id(1)}"}),
        (TagLevel.STUDY, study_uid(1), {f"subject:{subject_id(1)}", f"study:{study_uid(1)}"}),
        (TagLevel.INSTANCE, f"{series_uid(1)}.2", {f"subject:{subject_id(1)}", f"study:{study_uid(1)}", f"series:{series_uid(1)}"}),
    ],
)
async def test_a_tag_knows_what_its_target_belongs_to(curated: Curated, level: TagLevel, key: str, scope: set[str]) -> None:
    await tagging.set_tag(curated, PROJECT, level, [key], "quality", "good", ANN)
    (event,) = [one.event for one in await curated.log.read(0) if isinstance(one.event, TagSet)]
    assert event.scope() == {*scope, f"project:{PROJECT}"}


async def test_what_is_not_there_and_what_is_not_ones_own_is_not_tagged(curated: Curated) -> None:
    with pytest.raises(TargetUnknown, match="1 of 2 things"):
        await tagging.set_tag(curated, PROJECT, TagLevel.SERIES, [series_uid(1), "9.9"], "quality", "good", ANN)
    with pytest.raises(NotAMember):
        await tagging.set_tag(curated, PROJECT, TagLevel.SERIES, [series_uid(1)], "quality", "good", BOB)
    with pytest.raises(TagUnknown):
        await tagging.remove_tag(curated, PROJECT, TagLevel.SERIES, [series_uid(1)], "quality", ANN)
    with pytest.raises(TargetUnknown, match="a finding cannot be tagged"):
        await tagging.set_tag_of_all(curated, PROJECT, Query(level=Level.FINDING), "quality", "", ANN)
    async with curated.log.pool.acquire() as connection:
        await curated.log.vault.destroy(subject_id(1), connection)
    with pytest.raises(SubjectIsErased):
        await tagging.set_tag(curated, PROJECT, TagLevel.SERIES, [series_uid(1)], "quality", "good", ANN)


async def test_a_project_is_tagged_too(curated: Curated) -> None:
    tagged = await tagging.set_tag(curated, PROJECT, TagLevel.PROJECT, (), "status", "open", ANN)
    assert (tagged.found, tagged.changed) == (1, 1)


async def test_what_entered_and_left_is_told_with_the_events_that_did_it(curated: Curated) -> None:
    since = await curated.log.head()
    await tagging.set_tag_of_all(curated, PROJECT, CTS, "quality", "good", ANN)
    middle = await curated.reads()
    await tagging.set_tag(curated, PROJECT, TagLevel.SERIES, [series_uid(1)], "quality", "bad", ANN)
    await tagging.remove_tag(curated, PROJECT, TagLevel.SERIES, [series_uid(2)], "quality", ANN)
    await curated.happens((series_stream(series_uid(4, 2)), stored(4, 2)), *person(13))
    await tagging.set_tag(curated, PROJECT, TagLevel.SERIES, [series_uid(13)], "quality", "good", ANN)
    await curated.reads()
    good = Query(level=Level.SERIES, where=GOOD)
    first = await changes(curated, good, since, middle)
    assert (first.before_count, first.after_count, first.entered_count, first.left_count) == (0, 8, 8, 0)
    assert all([reason.type for reason in one.reasons] == ["TagSet"] for one in first.entered)
    found = await changes(curated, good, middle)
    assert (found.before_count, found.after_count, found.entered_count, found.left_count) == (8, 7, 1, 2)
    assert {one.thing.series_uid: [reason.type for reason in one.reasons] for one in found.left} == {series_uid(1): ["TagSet"], series_uid(2): ["TagRemoved"]}
    (entered,) = found.entered
    assert [reason.type for reason in entered.reasons] == ["SubjectRegistered", "StudyRegistered", "InstancesStored", "TagSet"]
    assert entered.reasons[-1].principal_id == ANN.id


async def test_reasons_are_of_what_a_thing_belongs_to_and_not_of_its_neighbours(curated: Curated) -> None:
    """A clinical record of the subject may be why a series enters; another series of the same study is not."""
    since = await curated.log.head()
    condition = {"resourceType": "Condition", "id": "c1", "subject": {"reference": f"Patient/{subject_id(1)}"}, "code": {"coding": [{"code": "C22"}]}}
    record = ClinicalRecordWritten(resource_type="Condition", resource_id="c1", subject_id=subject_id(1), record_version=1, resource=condition)
    await curated.happens((series_stream(series_uid(1, 2)), stored(1, 2)), (record_stream("Condition", "c1"), record))
    ill = Query(level=Level.SERIES, where=Has(level=Level.FACT, where=OneOf("code", ("C22",))))
    found = await changes(curated, ill, since)
    assert {one.thing.series_uid: [reason.type for reason in one.reasons] for one in found.entered} == {
        series_uid(1): ["ClinicalRecordWritten"],
        series_uid(1, 2): ["InstancesStored", "ClinicalRecordWritten"],
    }
    persons = await changes(curated, Query(level=Level.SUBJECT, where=Has(level=Level.FACT, where=OneOf("code", ("C22",)))), since)
    assert [[reason.type for reason in one.reasons] for one in persons.entered] == [["InstancesStored", "ClinicalRecordWritten"]]
    few = await changes(curated, ill, since, most=1)
    assert (few.entered_count, len(few.entered)) == (2, 1)
    with pytest.raises(LevelRefused):
        await changes(curated, Query(level=Level.FACT), since)


async def test_cohorts_are_seen_by_their_owner_and_where_they_are_shared(curated: Curated) -> None:
    log = curated.log
    kept = await keeping.save_cohort(log, CTS, ANN, title="CTs")
    with pytest.raises(CohortUnknown):
        await keeping.cohort_state(log, kept.id, BOB)
    await keeping.share_cohort(log, kept.id, PROJECT, ANN)
    assert (await keeping.cohort_state(log, kept.id, BOB)).title == "CTs"
    await curated.reads()
    with pytest.raises(CohortRefused):
        await keeping.save_cohort(log, Query(level=Level.STUDY), BOB, cohort_id=kept.id)
    await keeping.admit_member(log, PROJECT, BOB.id, keeping.Role.CURATOR, ANN)
    await curated.reads()
    await keeping.save_cohort(log, Query(level=Level.STUDY), BOB, cohort_id=kept.id)
    state = await keeping.cohort_state(log, kept.id, ANN)
    assert (state.version, state.owner, state.title) == (2, ANN.id, "CTs")
    await keeping.delete_cohort(log, kept.id, ANN)
    with pytest.raises(CohortUnknown):
        await keeping.cohort_state(log, kept.id, BOB)


async def test_a_question_that_names_people_is_not_kept(curated: Curated) -> None:
    for where in (OneOf("PatientName", ("X",)), Has(level=Level.STUDY, where=OneOf("AccessionNumber", ("1",)))):
        with pytest.raises(CohortRefused):
            await keeping.save_cohort(curated.log, Query(level=Level.SUBJECT if isinstance(where, Has) else Level.SERIES, where=where), ANN, title="x")
    with pytest.raises(FieldUnknown):
        await keeping.save_cohort(curated.log, Query(level=Level.SERIES, where=OneOf("nonesuch", ("X",))), ANN, title="x")


async def test_an_erasure_leaves_the_tags_of_others_in_the_same_study(curated: Curated) -> None:
    """Subject 2 has a series in the study of subject 1: what goes with that one's study comes again, and so do its tags."""
    theirs = msgspec.structs.replace(stored(1, 2), subject_id=subject_id(2))
    disputed = StudySubjectDisputed(study_uid=study_uid(1), registered_subject_id=subject_id(1), disputed_subject_id=subject_id(2))
    await curated.happens((study_stream(study_uid(1)), disputed), (series_stream(series_uid(1, 2)), theirs))
    await tagging.set_tag(curated, PROJECT, TagLevel.SERIES, [series_uid(1), series_uid(1, 2)], "quality", "good", ANN)
    await tagging.set_tag(curated, PROJECT, TagLevel.SERIES, [series_uid(1, 2)], "seen", "", ANN)
    await tagging.remove_tag(curated, PROJECT, TagLevel.SERIES, [series_uid(1, 2)], "seen", ANN)
    await curated.reads()
    holdings = await find_holdings(curated.log, SubjectId(subject_id(1)))
    version = (await curated.log.read_stream(subject_stream(subject_id(1))))[-1].version
    async with curated.log.pool.acquire() as connection:
        await curated.log.vault.destroy(subject_id(1), connection)
    await curated.log.append(appends(holdings, holdings.erased(), version), principal=device("eraser"))
    await curated.reads()
    tags = await curated.log.pool.fetch(
        f"SELECT s.series_uid, t.name, t.value FROM {ROWS}.tag t JOIN {ROWS}.series s ON s.id = t.target AND t.level = 'series'"
        " WHERE t.position_to IS NULL AND s.position_to IS NULL"
    )
    assert [tuple(row) for row in tags] == [(series_uid(1, 2), "quality", "good")]
