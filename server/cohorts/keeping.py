"""Projects, saved cohorts and datasets as principals make and change them: load, decide, append."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from domain import dataset, project, saved_cohort
from domain.condition import Query
from domain.dataset import Dataset, Terms, dataset_stream
from domain.errors import CohortUnknown
from domain.event import Event
from domain.ids import Position
from domain.principal import Principal
from domain.project import Project, Role, project_stream
from domain.saved_cohort import SaveCohort, SavedCohort, cohort_stream
from eventlog.aggregate import execute, load
from eventlog.envelope import new_event_id
from eventlog.log import EventLog
from projections.curation import reading
from server.cohorts.access import acting, project_state, require_member, require_role
from server.cohorts.members import dataset_state
from server.cohorts.questions import check_kept


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """What was made or changed, by its id. ``position``: of the last event; None where nothing was new."""

    id: str
    position: Position | None


async def create_project(log: EventLog, project_id: str, title: str, by: Principal) -> Kept:
    """Raises ProjectRefused."""
    return await _project(log, project_id, lambda state: project.create_project(state, project_id, title, acting(by)), by)


async def admit_member(log: EventLog, project_id: str, principal_id: str, role: Role, by: Principal) -> Kept:
    """Raises ProjectUnknown, NotAMember, OwnerNeeded."""
    return await _project(log, project_id, lambda state: project.admit_member(state, project_id, principal_id, role, acting(by)), by)


async def remove_member(log: EventLog, project_id: str, principal_id: str, by: Principal) -> Kept:
    """Raises ProjectUnknown, NotAMember, OwnerNeeded."""
    return await _project(log, project_id, lambda state: project.remove_member(state, project_id, principal_id, acting(by)), by)


async def save_cohort(
    log: EventLog, query: Query, by: Principal, *, cohort_id: str | None = None, title: str | None = None, description: str | None = None
) -> Kept:
    """A new cohort, or (with its id) another version of one. Raises CohortRefused, CohortUnknown, FieldUnknown."""
    check_kept(query)
    id_ = cohort_id or str(new_event_id())
    if cohort_id is not None:
        await cohort_state(log, cohort_id, by)
    command = SaveCohort(cohort_id=id_, query=query, by=acting(by), title=title, description=description, curates=await _curates(log, by))
    return await _cohort(log, id_, lambda state: saved_cohort.save_cohort(state, command), by)


async def rename_cohort(log: EventLog, cohort_id: str, title: str, description: str | None, by: Principal) -> Kept:
    """Raises CohortRefused, CohortUnknown."""
    await cohort_state(log, cohort_id, by)
    curates = await _curates(log, by)

    def decide(state: SavedCohort) -> Sequence[Event]:
        words = state.description if description is None else description
        return saved_cohort.rename_cohort(state, cohort_id, title, words, acting(by), curates)

    return await _cohort(log, cohort_id, decide, by)


async def share_cohort(log: EventLog, cohort_id: str, project_id: str, by: Principal) -> Kept:
    """In a project that one is a member of. Raises CohortRefused, CohortUnknown, ProjectUnknown, NotAMember."""
    await cohort_state(log, cohort_id, by)
    await require_role(log, project_id, by, Role.VIEWER)
    return await _cohort(log, cohort_id, lambda state: saved_cohort.share_cohort(state, cohort_id, project_id, acting(by)), by)


async def unshare_cohort(log: EventLog, cohort_id: str, project_id: str, by: Principal) -> Kept:
    """Raises CohortRefused, CohortUnknown."""
    await cohort_state(log, cohort_id, by)
    return await _cohort(log, cohort_id, lambda state: saved_cohort.unshare_cohort(state, cohort_id, project_id, acting(by)), by)


async def delete_cohort(log: EventLog, cohort_id: str, by: Principal) -> Kept:
    """Raises CohortRefused, CohortUnknown."""
    return await _cohort(log, cohort_id, lambda state: saved_cohort.delete_cohort(state, cohort_id, acting(by)), by)


async def cohort_state(log: EventLog, cohort_id: str, by: Principal) -> SavedCohort:
    """A cohort that the principal may see; one that it may not is unknown to it. Raises CohortUnknown."""
    state, _ = await load(log, cohort_stream(cohort_id), SavedCohort(), saved_cohort.evolve)
    shared = frozenset([one for one in state.shared_in if acting(by) in (await project_state(log, one)).members])
    if not saved_cohort.may_see(state, acting(by), shared):
        raise CohortUnknown(f"there is no saved cohort {cohort_id}, or none that you may see")
    return state


async def create_dataset(log: EventLog, project_id: str, title: str, description: str, by: Principal, terms: Terms | None = None) -> Kept:
    """In a project that one curates. Raises ProjectUnknown, NotAMember, DatasetRefused."""
    await require_role(log, project_id, by, Role.CURATOR)
    id_ = str(new_event_id())

    def decide(state: Dataset) -> list[Event]:
        events = dataset.create_dataset(state, id_, project_id, title, description)
        for event in events:
            state = dataset.evolve(state, event)
        return events if terms is None or terms == Terms() else [*events, *dataset.set_terms(state, id_, terms)]

    return await _dataset(log, id_, decide, by)


async def set_terms(log: EventLog, dataset_id: str, terms: Terms, by: Principal) -> Kept:
    """Raises DatasetUnknown, NotAMember, DatasetRefused."""
    await require_member(log, await dataset_state(log, dataset_id), dataset_id, by, Role.CURATOR)
    return await _dataset(log, dataset_id, lambda state: dataset.set_terms(state, dataset_id, terms), by)


async def _curates(log: EventLog, by: Principal) -> frozenset[str]:
    """Projects in which the principal is a curator or owner: candidates of the read model, as the log has them now."""
    found = set()
    for project_id in await reading.roles_of(log.pool, acting(by)):
        role = (await project_state(log, project_id)).members.get(acting(by))
        if role in (Role.CURATOR, Role.OWNER):
            found.add(project_id)
    return frozenset(found)


async def _project(log: EventLog, project_id: str, decide: Callable[[Project], Sequence[Event]], by: Principal) -> Kept:
    done = await execute(log, project_stream(project_id), Project(), project.evolve, decide, principal=by)
    return Kept(id=project_id, position=done.position)


async def _cohort(log: EventLog, cohort_id: str, decide: Callable[[SavedCohort], Sequence[Event]], by: Principal) -> Kept:
    done = await execute(log, cohort_stream(cohort_id), SavedCohort(), saved_cohort.evolve, decide, principal=by)
    return Kept(id=cohort_id, position=done.position)


async def _dataset(log: EventLog, dataset_id: str, decide: Callable[[Dataset], Sequence[Event]], by: Principal) -> Kept:
    done = await execute(log, dataset_stream(dataset_id), Dataset(), dataset.evolve, decide, principal=by)
    return Kept(id=dataset_id, position=done.position)
