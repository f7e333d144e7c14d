"""Tags and projects: what may be said, by whom, and where it is kept."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain import project, tag
from domain.errors import NotAMember, OwnerNeeded, ProjectRefused, ProjectUnknown, TagRefused, TagUnknown
from domain.event import Event
from domain.project import MemberAdmitted, Project, ProjectCreated, Role
from domain.tag import TagLevel, TagRemoved, Tags, TagSet, TagTarget

SERIES = TagTarget(level=TagLevel.SERIES, subject_id="s1", study_uid="1.2", series_uid="1.2.3")


def tags_of(happened: Sequence[Event]) -> Tags:
    state = Tags()
    for event in happened:
        state = tag.evolve(state, event)
    return state


def project_of(happened: Sequence[Event]) -> Project:
    state = Project()
    for event in happened:
        state = project.evolve(state, event)
    return state


def test_a_tag_is_set_again_with_another_value_and_removed() -> None:
    first = tag.set_tag(Tags(), "p", SERIES, "quality", "poor")
    assert first == [TagSet(project_id="p", level=TagLevel.SERIES, subject_id="s1", study_uid="1.2", series_uid="1.2.3", name="quality", value="poor")]
    assert tag.set_tag(tags_of(first), "p", SERIES, "quality", "poor") == []
    second = tag.set_tag(tags_of(first), "p", SERIES, "quality", "good")
    assert tags_of([*first, *second]).standing == {"quality": "good"}
    removed = tag.remove_tag(tags_of([*first, *second]), "p", SERIES, "quality")
    assert isinstance(removed[0], TagRemoved) and tag.target_of(removed[0]) == SERIES
    assert tags_of([*first, *second, *removed]).standing == {}
    with pytest.raises(TagUnknown):
        tag.remove_tag(Tags(), "p", SERIES, "quality")


def test_a_tag_is_about_what_it_is_on_and_its_project() -> None:
    (event,) = tag.set_tag(Tags(), "p", SERIES, "quality")
    assert event.scope() == {"subject:s1", "study:1.2", "series:1.2.3", "project:p"}
    (event,) = tag.set_tag(Tags(), "p", tag.on_project("p"), "status", "open")
    assert event.scope() == {f"subject:{project.own_subject_id('p')}", "project:p"}


@pytest.mark.parametrize("name", ["", "Quality", "two words", "é", "a--b", "-a", "a-", "9a", "a" * 65, "a\n"])
def test_a_name_is_no_free_text(name: str) -> None:
    with pytest.raises(TagRefused):
        tag.set_tag(Tags(), "p", SERIES, name)


@pytest.mark.parametrize("value", ["x" * 2001, "a\0b"])
def test_a_value_that_cannot_be_kept_is_refused(value: str) -> None:
    with pytest.raises(TagRefused):
        tag.set_tag(Tags(), "p", SERIES, "quality", value)


@given(st.lists(st.tuples(st.sampled_from(["a", "b"]), st.sampled_from([None, "", "1", "2"])), max_size=12))
def test_what_stands_is_what_was_said_last(said: list[tuple[str, str | None]]) -> None:
    happened: list[Event] = []
    expected: dict[str, str] = {}
    for name, value in said:
        if value is None and name not in expected:
            continue
        state = tags_of(happened)
        happened += tag.remove_tag(state, "p", SERIES, name) if value is None else tag.set_tag(state, "p", SERIES, name, value)
        if value is None:
            del expected[name]
        else:
            expected[name] = value
    assert tags_of(happened).standing == expected


def test_each_target_has_a_stream_of_its_own_in_each_project() -> None:
    study = TagTarget(level=TagLevel.STUDY, subject_id="s1", study_uid="1.2.3")
    twice = [TagTarget(level=TagLevel.INSTANCE, subject_id="s1", study_uid="1.2", series_uid=uid, sop_instance_uid="9") for uid in ("1", "2")]
    targets = [SERIES, study, *twice, tag.on_project("p"), TagTarget(level=TagLevel.SUBJECT, subject_id="1.2.3")]
    streams = {tag.tag_stream(project_id, target) for project_id in ("p", "q") for target in targets}
    assert len(streams) == 2 * len(targets)


def test_who_creates_a_project_owns_it_and_admits_others() -> None:
    created = project.create_project(Project(), "liver", "Livers", "token:a")
    assert isinstance(created[0], ProjectCreated) and created[0].scope() == {"project:liver", f"subject:{project.own_subject_id('liver')}"}
    state = project_of(created)
    admitted = project.admit_member(state, "liver", "token:b", Role.VIEWER, "token:a")
    assert admitted == [MemberAdmitted(project_id="liver", principal_id="token:b", role=Role.VIEWER)]
    both = project_of([*created, *admitted])
    assert project.admit_member(both, "liver", "token:b", Role.VIEWER, "token:a") == []
    with pytest.raises(NotAMember):
        project.admit_member(both, "liver", "token:c", Role.VIEWER, "token:b")
    assert project_of([*created, *admitted, *project.remove_member(both, "liver", "token:b", "token:b")]).members == {"token:a": Role.OWNER}
    with pytest.raises(NotAMember):
        project.remove_member(both, "liver", "token:c", "token:a")


def test_a_project_keeps_an_owner() -> None:
    state = project_of(project.create_project(Project(), "liver", "", "token:a"))
    with pytest.raises(OwnerNeeded):
        project.remove_member(state, "liver", "token:a", "token:a")
    with pytest.raises(OwnerNeeded):
        project.admit_member(state, "liver", "token:a", Role.CURATOR, "token:a")


def test_a_role_holds_what_lower_ones_may() -> None:
    state = project_of([*project.create_project(Project(), "liver", "", "a"), MemberAdmitted(project_id="liver", principal_id="b", role=Role.CURATOR)])
    for principal, role in (("a", Role.CURATOR), ("a", Role.OWNER), ("b", Role.VIEWER), ("b", Role.CURATOR)):
        project.require_role(state, "liver", principal, role)
    for principal, role in (("b", Role.OWNER), ("c", Role.VIEWER)):
        with pytest.raises(NotAMember):
            project.require_role(state, "liver", principal, role)
    with pytest.raises(ProjectUnknown):
        project.require_role(Project(), "liver", "a", Role.VIEWER)


@pytest.mark.parametrize("project_id", ["", "Liver", "a b", "a--b", "x" * 41, "a\n"])
def test_a_projects_id_is_no_free_text(project_id: str) -> None:
    with pytest.raises(ProjectRefused):
        project.create_project(Project(), project_id, "", "token:a")
    state = project_of(project.create_project(Project(), "liver", "", "token:a"))
    with pytest.raises(ProjectRefused):
        project.create_project(state, "liver", "", "token:b")
