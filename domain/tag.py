"""Tags: a name and a value that somebody put on a subject, a study, a series, an instance or a whole project, with history.

A tag belongs to a project: two projects may say different things of the same series. What a tag is on, in one project, has one
stream, in which all of its tags come and go. A value is free text and may name somebody, so it is sealed under the key of the subject
whose the target is, and goes when that person is erased; a name is no free text, and stays readable.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Any

import msgspec

from domain.errors import TagRefused, TagUnknown
from domain.event import Event, Identifying, event
from domain.ids import StreamName, derived_id
from domain.project import own_subject_id

MAX_VALUE_CHARACTERS = 2_000
_NAME = re.compile(r"[a-z][a-z0-9]*(?:[-._/][a-z0-9]+)*", re.ASCII)
_MAX_NAME_CHARACTERS = 64


class TagLevel(StrEnum):
    """What a tag is on."""

    SUBJECT = "subject"
    STUDY = "study"
    SERIES = "series"
    INSTANCE = "instance"
    PROJECT = "project"


class TagTarget(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a tag is on, and what that belongs to: a series' tag names its study and its subject.

    ``subject_id`` is the subject under whose key values are sealed; of a project, the project's own (domain.project.own_subject_id).
    """

    level: TagLevel
    subject_id: str
    study_uid: str = ""
    series_uid: str = ""
    sop_instance_uid: str = ""

    @property
    def key(self) -> str:
        """What identifies the target within its level; a project's is empty."""
        match self.level:
            case TagLevel.SUBJECT:
                return self.subject_id
            case TagLevel.STUDY:
                return self.study_uid
            case TagLevel.SERIES:
                return self.series_uid
            case TagLevel.INSTANCE:
                return self.sop_instance_uid
            case TagLevel.PROJECT:
                return ""


def on_project(project_id: str) -> TagTarget:
    """The project itself as what a tag is on."""
    return TagTarget(level=TagLevel.PROJECT, subject_id=own_subject_id(project_id))


@event
class TagSet(Event, frozen=True, kw_only=True):
    """A tag has this value from here on, until it is set again or removed. A value may be empty: then the name says all."""

    project_id: str
    level: TagLevel
    subject_id: str
    study_uid: str = ""
    series_uid: str = ""
    sop_instance_uid: str = ""
    name: str
    value: Identifying[str] = ""

    def scope(self) -> frozenset[str]:
        return Event.scope(self) | {f"project:{self.project_id}"}


@event
class TagRemoved(Event, frozen=True, kw_only=True):
    """The target has this tag no more."""

    project_id: str
    level: TagLevel
    subject_id: str
    study_uid: str = ""
    series_uid: str = ""
    sop_instance_uid: str = ""
    name: str

    def scope(self) -> frozenset[str]:
        return Event.scope(self) | {f"project:{self.project_id}"}


def target_of(happened: TagSet | TagRemoved) -> TagTarget:
    """What the tag is on."""
    return TagTarget(
        level=happened.level,
        subject_id=happened.subject_id,
        study_uid=happened.study_uid,
        series_uid=happened.series_uid,
        sop_instance_uid=happened.sop_instance_uid,
    )


def tag_stream(project_id: str, target: TagTarget) -> StreamName:
    """Where the tags of one target in one project are. An instance's is of its series too: the same UID may be in two."""
    series = target.series_uid if target.level is TagLevel.INSTANCE else ""
    return StreamName(f"tag-{derived_id('tag', project_id, target.level, target.key, series)}")


_NOTHING: Mapping[str, str] = MappingProxyType({})


class Tags(msgspec.Struct, frozen=True, kw_only=True):
    """The tags of one target in one project: name → value."""

    standing: Mapping[str, str] = _NOTHING


def evolve(state: Tags, happened: Event) -> Tags:
    match happened:
        case TagSet():
            return Tags(standing={**state.standing, happened.name: happened.value})
        case TagRemoved():
            return Tags(standing={name: value for name, value in state.standing.items() if name != happened.name})
    return state


def set_tag(state: Tags, project_id: str, target: TagTarget, name: str, value: str = "") -> list[Event]:
    """The same value again is nothing new. Raises TagRefused."""
    if len(name) > _MAX_NAME_CHARACTERS or not _NAME.fullmatch(name):
        raise TagRefused(
            "a tag's name is of lower-case letters and digits in parts joined by - . _ or /, begins with a letter and has at most"
            f" {_MAX_NAME_CHARACTERS} characters (it is no free text, since it stays readable for ever)"
        )
    if len(value) > MAX_VALUE_CHARACTERS or "\0" in value:
        raise TagRefused(f"a tag's value is a text of at most {MAX_VALUE_CHARACTERS} characters, without NUL; this one has {len(value)}")
    if state.standing.get(name) == value:
        return []
    return [TagSet(project_id=project_id, **_fields(target), name=name, value=value)]


def remove_tag(state: Tags, project_id: str, target: TagTarget, name: str) -> list[Event]:
    """Raises TagUnknown."""
    if name not in state.standing:
        raise TagUnknown(f"no tag of this name stands on the {target.level} in project {project_id}")
    return [TagRemoved(project_id=project_id, **_fields(target), name=name)]


def _fields(target: TagTarget) -> dict[str, Any]:
    return {field: getattr(target, field) for field in TagTarget.__struct_fields__}
