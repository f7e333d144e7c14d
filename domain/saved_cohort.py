"""A saved cohort: a query with a title, which its owner keeps, changes (each change is a version), and shares in projects.

A query may quote a person (a Patient ID), and a title is free text: both are sealed, under a key of the cohort's own. What stays
readable of a query is its digest, by which a frozen dataset can be shown to come of it.
"""

from __future__ import annotations

import hashlib

import msgspec

from domain.condition import Level, Query, encode
from domain.errors import CohortRefused, CohortUnknown
from domain.event import Event, Identifying, event
from domain.ids import StreamName, derived_id

MAX_TITLE_CHARACTERS = 200
MAX_DESCRIPTION_CHARACTERS = 10_000
MAX_QUERY_BYTES = 32_000


@event
class CohortSaved(Event, frozen=True, kw_only=True):
    """A version of a cohort: from here on it is this query. ``query`` is canonical JSON (domain.condition.encode).

    ``subject_id`` names the key under which the texts are sealed: it is no person's.
    """

    cohort_id: str
    subject_id: str
    principal_id: str
    """Whose cohort it is."""
    version: int
    level: Level
    query_sha256: str
    query: Identifying[str] = ""
    title: Identifying[str] = ""
    description: Identifying[str] = ""

    def scope(self) -> frozenset[str]:
        return Event.scope(self) | {f"cohort:{self.cohort_id}"}


@event
class CohortRenamed(Event, frozen=True, kw_only=True):
    """A cohort has another title or description; its query stays."""

    cohort_id: str
    subject_id: str
    title: Identifying[str] = ""
    description: Identifying[str] = ""

    def scope(self) -> frozenset[str]:
        return Event.scope(self) | {f"cohort:{self.cohort_id}"}


@event
class CohortShared(Event, frozen=True, kw_only=True):
    """The members of a project see the cohort from here on, and its curators may change it."""

    cohort_id: str
    project_id: str

    def scope(self) -> frozenset[str]:
        return frozenset({f"cohort:{self.cohort_id}", f"project:{self.project_id}"})


@event
class CohortUnshared(Event, frozen=True, kw_only=True):
    """The members of a project see the cohort no more."""

    cohort_id: str
    project_id: str

    def scope(self) -> frozenset[str]:
        return frozenset({f"cohort:{self.cohort_id}", f"project:{self.project_id}"})


@event
class CohortDeleted(Event, frozen=True, kw_only=True):
    """Nobody is shown the cohort any more. Datasets that were frozen of it stay."""

    cohort_id: str

    def scope(self) -> frozenset[str]:
        return frozenset({f"cohort:{self.cohort_id}"})


def cohort_stream(cohort_id: str) -> StreamName:
    return StreamName(f"cohort-{cohort_id}")


def own_subject_id(cohort_id: str) -> str:
    """Under whose key a cohort's texts are sealed: its own."""
    return str(derived_id("cohort-subject", cohort_id))


def query_sha256(query: Query) -> str:
    """What stands for a query where it may not be read."""
    return hashlib.sha256(encode(query)).hexdigest()


class SavedCohort(msgspec.Struct, frozen=True, kw_only=True):
    """``version`` 0: it was never saved."""

    version: int = 0
    owner: str = ""
    query: str = ""
    title: str = ""
    description: str = ""
    shared_in: frozenset[str] = frozenset()
    deleted: bool = False

    @property
    def is_there(self) -> bool:
        return self.version > 0 and not self.deleted


def evolve(state: SavedCohort, happened: Event) -> SavedCohort:
    replace = msgspec.structs.replace
    match happened:
        case CohortSaved() as e:
            return replace(state, version=e.version, owner=e.principal_id, query=e.query, title=e.title, description=e.description)
        case CohortRenamed():
            return replace(state, title=happened.title, description=happened.description)
        case CohortShared():
            return replace(state, shared_in=state.shared_in | {happened.project_id})
        case CohortUnshared():
            return replace(state, shared_in=state.shared_in - {happened.project_id})
        case CohortDeleted():
            return replace(state, deleted=True)
    return state


class SaveCohort(msgspec.Struct, frozen=True, kw_only=True):
    """``title`` and ``description``: None leaves them as they are. ``by``: the principal, by id.

    ``curates``: the projects in which the principal may change what is shared.
    """

    cohort_id: str
    query: Query
    by: str
    title: str | None = None
    description: str | None = None
    curates: frozenset[str] = frozenset()


def save_cohort(state: SavedCohort, command: SaveCohort) -> list[Event]:
    """A new cohort, or a new version; the same query again is none, and only renames. Raises CohortRefused, CohortUnknown."""
    if state.version:
        _may_change(state, command.cohort_id, command.by, command.curates)
    title = state.title if command.title is None else command.title.strip()
    description = state.description if command.description is None else command.description
    _check(title, description)
    query = encode(command.query).decode("utf-8")
    if len(query.encode("utf-8")) > MAX_QUERY_BYTES:
        raise CohortRefused(f"the query takes {len(query.encode('utf-8'))} bytes; at most {MAX_QUERY_BYTES} are kept")
    if state.version and state.query == query:
        return rename_cohort(state, command.cohort_id, title, description, command.by, command.curates)
    return [
        CohortSaved(
            cohort_id=command.cohort_id,
            subject_id=own_subject_id(command.cohort_id),
            principal_id=state.owner or command.by,
            version=state.version + 1,
            level=command.query.level,
            query_sha256=query_sha256(command.query),
            query=query,
            title=title,
            description=description,
        )
    ]


def rename_cohort(
    state: SavedCohort, cohort_id: str, title: str, description: str, by: str, curates: frozenset[str] = frozenset()
) -> list[Event]:
    """The same texts again are nothing new. Raises CohortRefused, CohortUnknown."""
    _may_change(state, cohort_id, by, curates)
    title = title.strip()
    _check(title, description)
    if (title, description) == (state.title, state.description):
        return []
    return [CohortRenamed(cohort_id=cohort_id, subject_id=own_subject_id(cohort_id), title=title, description=description)]


def share_cohort(state: SavedCohort, cohort_id: str, project_id: str, by: str) -> list[Event]:
    """Its owner alone shares a cohort; shared already is nothing new. Raises CohortRefused, CohortUnknown."""
    _may_change(state, cohort_id, by, frozenset())
    return [] if project_id in state.shared_in else [CohortShared(cohort_id=cohort_id, project_id=project_id)]


def unshare_cohort(state: SavedCohort, cohort_id: str, project_id: str, by: str) -> list[Event]:
    """Its owner alone ends that; not shared there is nothing new. Raises CohortRefused, CohortUnknown."""
    _may_change(state, cohort_id, by, frozenset())
    return [CohortUnshared(cohort_id=cohort_id, project_id=project_id)] if project_id in state.shared_in else []


def delete_cohort(state: SavedCohort, cohort_id: str, by: str) -> list[Event]:
    """Its owner alone deletes a cohort; deleted already is nothing new. Raises CohortRefused, CohortUnknown."""
    if state.deleted and state.owner == by:
        return []
    _may_change(state, cohort_id, by, frozenset())
    return [CohortDeleted(cohort_id=cohort_id)]


def may_see(state: SavedCohort, principal_id: str, member_of: frozenset[str]) -> bool:
    """Whether a principal sees a cohort: its owner does, and the members of projects in which it is shared."""
    return state.is_there and (state.owner == principal_id or bool(state.shared_in & member_of))


def _may_change(state: SavedCohort, cohort_id: str, by: str, curates: frozenset[str]) -> None:
    if not state.is_there:
        raise CohortUnknown(f"there is no saved cohort {cohort_id}")
    if by != state.owner and not state.shared_in & curates:
        raise CohortRefused(f"{by} may not change cohort {cohort_id}: its owner may, and curators of a project in which it is shared")


def _check(title: str, description: str) -> None:
    if not title:
        raise CohortRefused("a saved cohort needs a title, by which it is found again")
    if len(title) > MAX_TITLE_CHARACTERS or len(description) > MAX_DESCRIPTION_CHARACTERS or "\0" in title + description:
        raise CohortRefused(
            f"a title has at most {MAX_TITLE_CHARACTERS} characters, a description {MAX_DESCRIPTION_CHARACTERS}, and neither a NUL"
        )
