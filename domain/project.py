"""A project: the scope of a protocol, its members and its data. Tags are said in it, and cohorts and datasets shared in it.

Members are principals by their ids. What names a project is free text, and sealed under a key of the project's own; its id is a code
that whoever creates it chooses, and stays readable.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType

import msgspec

from domain.errors import NotAMember, OwnerNeeded, ProjectRefused, ProjectUnknown
from domain.event import Event, Identifying, event
from domain.ids import StreamName, derived_id

_ID = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*", re.ASCII)
_MAX_ID_CHARACTERS = 40


class Role(StrEnum):
    """What a member may do. ``viewer``: see; ``curator``: also tag, save and freeze; ``owner``: also say who is a member."""

    VIEWER = "viewer"
    CURATOR = "curator"
    OWNER = "owner"


_RANK = {Role.VIEWER: 0, Role.CURATOR: 1, Role.OWNER: 2}


@event
class ProjectCreated(Event, frozen=True, kw_only=True):
    """``subject_id`` names the key under which the project's own texts are sealed: it is no person's."""

    project_id: str
    subject_id: str
    title: Identifying[str] = ""

    def scope(self) -> frozenset[str]:
        return Event.scope(self) | {f"project:{self.project_id}"}


@event
class MemberAdmitted(Event, frozen=True, kw_only=True):
    """A principal is a member, in this role from here on."""

    project_id: str
    principal_id: str
    role: Role

    def scope(self) -> frozenset[str]:
        return frozenset({f"project:{self.project_id}"})


@event
class MemberRemoved(Event, frozen=True, kw_only=True):
    """A principal is a member no more."""

    project_id: str
    principal_id: str

    def scope(self) -> frozenset[str]:
        return frozenset({f"project:{self.project_id}"})


def project_stream(project_id: str) -> StreamName:
    return StreamName(f"project-{project_id}")


def own_subject_id(project_id: str) -> str:
    """Under whose key a project's texts are sealed: its own."""
    return str(derived_id("project-subject", project_id))


_NOTHING: Mapping[str, Role] = MappingProxyType({})


class Project(msgspec.Struct, frozen=True, kw_only=True):
    """``members``: principal id → role."""

    exists: bool = False
    title: str = ""
    members: Mapping[str, Role] = _NOTHING


def evolve(state: Project, happened: Event) -> Project:
    replace = msgspec.structs.replace
    match happened:
        case ProjectCreated():
            return replace(state, exists=True, title=happened.title)
        case MemberAdmitted():
            return replace(state, members={**state.members, happened.principal_id: happened.role})
        case MemberRemoved():
            return replace(state, members={id_: role for id_, role in state.members.items() if id_ != happened.principal_id})
    return state


def create_project(state: Project, project_id: str, title: str, creator: str) -> list[Event]:
    """Who creates a project owns it. Raises ProjectRefused."""
    if len(project_id) > _MAX_ID_CHARACTERS or not _ID.fullmatch(project_id):
        raise ProjectRefused(
            f"a project's id is of lower-case letters and digits in parts joined by -, of at most {_MAX_ID_CHARACTERS} characters"
            " (its title is free text; the id stays readable for ever)"
        )
    if state.exists:
        raise ProjectRefused(f"there is a project {project_id} already")
    return [
        ProjectCreated(project_id=project_id, subject_id=own_subject_id(project_id), title=title),
        MemberAdmitted(project_id=project_id, principal_id=creator, role=Role.OWNER),
    ]


def admit_member(state: Project, project_id: str, principal_id: str, role: Role, by: str) -> list[Event]:
    """The same role again is nothing new. Raises ProjectUnknown, NotAMember, OwnerNeeded."""
    require_role(state, project_id, by, Role.OWNER)
    if state.members.get(principal_id) is role:
        return []
    _an_owner_stays(state, project_id, principal_id, role)
    return [MemberAdmitted(project_id=project_id, principal_id=principal_id, role=role)]


def remove_member(state: Project, project_id: str, principal_id: str, by: str) -> list[Event]:
    """Whoever is a member may leave. Raises ProjectUnknown, NotAMember, OwnerNeeded."""
    require_role(state, project_id, by, Role.VIEWER if by == principal_id else Role.OWNER)
    if principal_id not in state.members:
        raise NotAMember(f"{principal_id} is no member of project {project_id}")
    _an_owner_stays(state, project_id, principal_id, None)
    return [MemberRemoved(project_id=project_id, principal_id=principal_id)]


def require_role(state: Project, project_id: str, principal_id: str, role: Role) -> None:
    """Raises ProjectUnknown where there is no such project, and NotAMember for who has no such role in it."""
    if not state.exists:
        raise ProjectUnknown(f"there is no project {project_id}")
    has = state.members.get(principal_id)
    if has is None or _RANK[has] < _RANK[role]:
        raise NotAMember(f"{principal_id} is no {role} of project {project_id}: an owner of it can say so")


def _an_owner_stays(state: Project, project_id: str, principal_id: str, becomes: Role | None) -> None:
    others = [id_ for id_, role in state.members.items() if role is Role.OWNER and id_ != principal_id]
    if state.members.get(principal_id) is Role.OWNER and becomes is not Role.OWNER and not others:
        raise OwnerNeeded(f"{principal_id} is the last owner of project {project_id}: make another member one first")
