"""The curation read model: what stands of projects, cohorts and datasets, and what stood as of any position before."""

from __future__ import annotations

from domain import dataset, project, saved_cohort
from domain.condition import Level, OneOf, Query, decode
from domain.dataset import DatasetCreated, DatasetFrozen, DatasetSplit, PartCount, Purpose, Terms
from domain.event import Event
from domain.principal import Principal, PrincipalKind
from domain.project import MemberAdmitted, MemberRemoved, ProjectCreated, Role
from domain.saved_cohort import CohortDeleted, CohortRenamed, CohortSaved, CohortShared, CohortUnshared
from domain.subject import SubjectJoined
from eventlog.envelope import NewEvent, StreamAppend
from eventlog.log import EventLog
from projections.curation import reading
from projections.curation.projection import CurationProjection
from projections.runner import Runner
from projections.verification import verify

PERSON = Principal(id="token:1", kind=PrincipalKind.PERSON)
CT = Query(level=Level.SERIES, where=OneOf("Modality", ("CT",)))
MR = Query(level=Level.SUBJECT, where=OneOf("Modality", ("MR",)))


def saved(version: int, query: Query) -> CohortSaved:
    return CohortSaved(
        cohort_id="c", subject_id="k", principal_id="ann", version=version, level=query.level, query_sha256=saved_cohort.query_sha256(query),
        query=saved_cohort.encode(query).decode(), title=f"title {version}", description="",
    )  # fmt: skip


def frozen(version: int, position: int) -> DatasetFrozen:
    return DatasetFrozen(
        dataset_id="d", subject_id="k", version=version, at_position=position, level=Level.SERIES, query_sha256="q", members_sha256=f"m{version}",
        members_bytes=1, subjects_count=2, studies_count=3, series_count=4, instances_count=5, bytes=6, query='{"level":"series"}',
    )  # fmt: skip


def split(version: int, *counts: int) -> DatasetSplit:
    parts = tuple(PartCount(name=name, share=0.5, subjects_count=count) for name, count in zip(("train", "test"), counts, strict=True))
    return DatasetSplit(dataset_id="d", version=version, seed="1", parts=parts, stratified_by=("sex",), assignment_sha256="a", assignment_bytes=1)


CREATED = DatasetCreated(dataset_id="d", project_id="liver", subject_id="k", title="Livers", description="")
TERMS = dataset.set_terms(dataset.evolve(dataset.Dataset(), CREATED), "d", Terms(license="MIT", intended_uses=(Purpose.RESEARCH,)))
HISTORY: list[Event] = [
    ProjectCreated(project_id="liver", subject_id=project.own_subject_id("liver"), title="Livers"),  # 1
    MemberAdmitted(project_id="liver", principal_id="ann", role=Role.OWNER),
    MemberAdmitted(project_id="liver", principal_id="bob", role=Role.VIEWER),
    MemberAdmitted(project_id="liver", principal_id="bob", role=Role.CURATOR),
    MemberRemoved(project_id="liver", principal_id="bob"),  # 5
    saved(1, CT),
    CohortShared(cohort_id="c", project_id="liver"),
    saved(2, MR),
    CohortRenamed(cohort_id="c", subject_id="k", title="renamed", description="words"),
    CohortUnshared(cohort_id="c", project_id="liver"),  # 10
    CohortShared(cohort_id="c", project_id="liver"),
    CohortDeleted(cohort_id="c"),
    CREATED,
    *TERMS,
    frozen(1, 13),  # 15
    split(1, 1, 0),
    split(1, 1, 1),
    frozen(2, 14),
    SubjectJoined(subject_id="n", into_subject_id="s"),
]


async def filled(log: EventLog) -> None:
    for event in HISTORY:
        await log.append([StreamAppend(stream="x", events=[NewEvent(event=event)])], principal=PERSON)
    await Runner(log, [CurationProjection()]).catch_up()


async def test_who_is_a_member_is_known_as_of_any_position(event_log: EventLog) -> None:
    await filled(event_log)
    pool = event_log.pool
    assert await reading.roles_of(pool, "bob", 2) == {}
    assert [(await reading.roles_of(pool, "bob", at)).get("liver") for at in (3, 4, 5)] == [Role.VIEWER, Role.CURATOR, None]
    assert [(one.principal_id, one.role) for one in await reading.members(pool, ["liver"])] == [("ann", Role.OWNER)]
    assert [one.title for one in await reading.projects(pool, ["liver", "lung"])] == ["Livers"]
    assert await reading.projects(pool, []) == []


async def test_a_cohort_has_versions_and_is_seen_where_it_is_shared(event_log: EventLog) -> None:
    await filled(event_log)
    pool = event_log.pool
    assert [(one.version, decode(one.query.encode()), one.saved_at) for one in await reading.cohort_versions(pool, ["c"])] == [(1, CT, 6), (2, MR, 8)]
    titles = {at: one.title for at in range(5, 13) if (one := await reading.cohort(pool, "c", at)) is not None}
    assert titles == {6: "title 1", 7: "title 1", 8: "title 2", 9: "renamed", 10: "renamed", 11: "renamed"}
    seen = {at: [one.cohort_id for one in await reading.cohorts(pool, "bob", ["liver"], at)] for at in range(5, 13)}
    assert seen == {5: [], 6: [], 7: ["c"], 8: ["c"], 9: ["c"], 10: [], 11: ["c"], 12: []}
    assert [one.shared_in for one in await reading.cohorts(pool, "ann", [], 8)] == [["liver"]]
    assert await reading.cohorts(pool, None, []) == []


async def test_a_dataset_has_terms_versions_and_splits(event_log: EventLog) -> None:
    await filled(event_log)
    pool = event_log.pool
    found = await reading.dataset(pool, "d")
    assert found is not None and (found.license, found.intended_uses) == ("MIT", [Purpose.RESEARCH])
    before = await reading.dataset(pool, "d", 13)
    assert before is not None and (before.license, before.title) == ("", "Livers")
    assert [one.dataset_id for one in await reading.datasets(pool, ["liver"])] == ["d"] == [one.dataset_id for one in await reading.datasets(pool, None)]
    assert await reading.datasets(pool, ["lung"]) == []
    assert [(one.version, one.position, one.at_position, one.frozen_by) for one in await reading.versions(pool, ["d"])] == [
        (1, 15, 13, PERSON.id),
        (2, 18, 14, PERSON.id),
    ]
    assert [one.version for one in await reading.versions(pool, ["d"], 17)] == [1]
    splits = [[part.subjects_count for one in await reading.splits(pool, ["d"], at) for part in one.parts] for at in (15, 16, 17)]
    assert splits == [[], [1, 0], [1, 1]]
    assert (await reading.same_persons(pool, 18), await reading.same_persons(pool)) == ([], [("n", "s")])


async def test_a_replay_gives_the_same_rows(event_log: EventLog) -> None:
    await filled(event_log)
    assert (await verify(event_log, CurationProjection())).is_equal
