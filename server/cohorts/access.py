"""Who may do what with projects and what is shared in them: membership, as the log has it now."""

from __future__ import annotations

from domain import project
from domain.dataset import Dataset
from domain.errors import DatasetUnknown
from domain.principal import Principal
from domain.project import Project, Role, project_stream
from eventlog.aggregate import load
from eventlog.log import EventLog


def acting(principal: Principal) -> str:
    """Whose membership counts: who acts for somebody has that one's."""
    return principal.on_behalf_of or principal.id


async def project_state(log: EventLog, project_id: str) -> Project:
    state, _ = await load(log, project_stream(project_id), Project(), project.evolve)
    return state


async def require_role(log: EventLog, project_id: str, by: Principal, role: Role) -> None:
    """Raises ProjectUnknown, NotAMember."""
    project.require_role(await project_state(log, project_id), project_id, acting(by), role)


async def require_member(log: EventLog, state: Dataset, dataset_id: str, by: Principal, role: Role = Role.VIEWER) -> None:
    """Of the project that a dataset is in. Raises DatasetUnknown, NotAMember."""
    if not state.is_there:
        raise DatasetUnknown(f"there is no dataset {dataset_id}")
    await require_role(log, state.project_id, by, role)
