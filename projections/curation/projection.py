"""The curation read model: what stands of projects, saved cohorts and datasets, and what stood before."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import asyncpg
import msgspec

from domain.dataset import DatasetCreated, DatasetFrozen, DatasetSplit, DatasetTermsSet
from domain.event import Event
from domain.project import MemberAdmitted, MemberRemoved, ProjectCreated
from domain.saved_cohort import CohortDeleted, CohortRenamed, CohortSaved, CohortShared, CohortUnshared
from domain.subject import SubjectJoined
from eventlog.envelope import RecordedEvent
from projections.curation.tables import STATEMENTS

NAME, VERSION = "curation", 1
SCHEMA = f"{NAME}_v{VERSION}"

_END = {
    table: f"UPDATE {table} SET position_to = $1 WHERE position_to IS NULL AND " + " AND ".join(f"{key} = ${n}" for n, key in enumerate(keys, 2))
    for table, keys in {
        "member": ("project_id", "principal_id"),
        "cohort": ("cohort_id",),
        "cohort_share": ("cohort_id", "project_id"),
        "dataset": ("dataset_id",),
    }.items()
}
_SHARES_END = "UPDATE cohort_share SET position_to = $1 WHERE position_to IS NULL AND cohort_id = $2"
_COHORT = "SELECT * FROM cohort WHERE cohort_id = $1 AND position_to IS NULL"
_DATASET = "SELECT * FROM dataset WHERE dataset_id = $1 AND position_to IS NULL"
_JOINED = "INSERT INTO same_person VALUES ($1, $2, $3) ON CONFLICT DO NOTHING"


class CurationProjection:
    """Low in volume: an event at a time."""

    name: str = NAME
    version: int = VERSION
    statements: Sequence[str] = STATEMENTS
    handles: frozenset[type[Event]] = frozenset(
        {
            ProjectCreated, MemberAdmitted, MemberRemoved,
            CohortSaved, CohortRenamed, CohortShared, CohortUnshared, CohortDeleted,
            DatasetCreated, DatasetTermsSet, DatasetFrozen, DatasetSplit,
            SubjectJoined,
        }
    )  # fmt: skip

    async def apply(self, batch: Sequence[RecordedEvent], connection: asyncpg.Connection) -> None:
        for recorded in batch:
            await _apply(recorded, connection)


async def _apply(recorded: RecordedEvent, connection: asyncpg.Connection) -> None:
    at = recorded.position
    match recorded.event:
        case ProjectCreated() as e:
            await _insert(connection, "project", project_id=e.project_id, title=e.title, position_from=at)
        case MemberAdmitted() as e:
            await connection.execute(_END["member"], at, e.project_id, e.principal_id)
            row = {"project_id": e.project_id, "principal_id": e.principal_id, "role": e.role.value}
            await _insert(connection, "member", **row, position_from=at)
        case MemberRemoved() as e:
            await connection.execute(_END["member"], at, e.project_id, e.principal_id)
        case CohortSaved() | CohortRenamed() | CohortDeleted() as e:
            await _cohort(recorded, e, connection)
        case CohortShared() as e:
            await _insert(connection, "cohort_share", cohort_id=e.cohort_id, project_id=e.project_id, position_from=at)
        case CohortUnshared() as e:
            await connection.execute(_END["cohort_share"], at, e.cohort_id, e.project_id)
        case DatasetCreated() as e:
            texts = {"title": e.title, "description": e.description, **_terms(DatasetTermsSet(dataset_id=e.dataset_id, subject_id=e.subject_id))}
            await _insert(connection, "dataset", dataset_id=e.dataset_id, project_id=e.project_id, **texts, position_from=at)
        case DatasetTermsSet() as e:
            standing = dict(await connection.fetchrow(_DATASET, e.dataset_id))
            await connection.execute(_END["dataset"], at, e.dataset_id)
            await _insert(connection, "dataset", **{**standing, **_terms(e), "position_from": at})
        case DatasetFrozen() as e:
            fields = {name: getattr(e, name) for name in e.__struct_fields__ if name not in ("subject_id", "level")}
            when = {"position": at, "frozen_at": recorded.recorded_at, "frozen_by": recorded.principal.id}
            await _insert(connection, "dataset_version", **fields, **when, level=e.level.value)
        case DatasetSplit() as e:
            fields = {name: getattr(e, name) for name in e.__struct_fields__ if name not in ("parts", "stratified_by")}
            when = {"position": at, "split_at": recorded.recorded_at, "split_by": recorded.principal.id}
            lists = {"parts": msgspec.json.encode(e.parts).decode("utf-8"), "stratified_by": list(e.stratified_by)}
            await _insert(connection, "dataset_split", **fields, **when, **lists)
        case SubjectJoined() as e:
            await connection.execute(_JOINED, e.subject_id, e.into_subject_id, at)


async def _cohort(recorded: RecordedEvent, event: CohortSaved | CohortRenamed | CohortDeleted, connection: asyncpg.Connection) -> None:
    at = recorded.position
    standing = await connection.fetchrow(_COHORT, event.cohort_id)
    await connection.execute(_END["cohort"], at, event.cohort_id)
    match event:
        case CohortSaved() as e:
            query = {"version": e.version, "saved_at": at, "level": e.level.value, "query_sha256": e.query_sha256, "query": e.query}
            texts = {"title": e.title, "description": e.description}
            await _insert(connection, "cohort", cohort_id=e.cohort_id, owner=e.principal_id, **query, **texts, position_from=at)
        case CohortRenamed() as e:
            await _insert(connection, "cohort", **{**dict(standing), "title": e.title, "description": e.description, "position_from": at})
        case CohortDeleted():
            await connection.execute(_SHARES_END, at, event.cohort_id)


def _terms(event: DatasetTermsSet) -> dict[str, Any]:
    return {
        "license": event.license,
        "license_text": event.license_text,
        "intended_uses": [use.value for use in event.intended_uses],
        "use_note": event.use_note,
        "consent": event.consent,
    }


async def _insert(connection: asyncpg.Connection, table: str, **row: object) -> None:
    places = ", ".join(f"${n}" for n in range(1, len(row) + 1))
    await connection.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({places})", *row.values())
