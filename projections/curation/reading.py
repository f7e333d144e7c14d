"""What stands, as of a position: projects, saved cohorts, datasets with versions and splits, and numbers of one person."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TypeVar

import asyncpg
import msgspec

from domain.condition import Level
from domain.dataset import PartCount, Purpose
from domain.project import Role
from projections.curation.projection import SCHEMA

T = TypeVar("T")
LATEST = 2**62
"""As of no position in particular: what stands."""
_HELD = "position_from <= $1 AND (position_to IS NULL OR position_to > $1)"


class ProjectRow(msgspec.Struct, frozen=True, kw_only=True):
    project_id: str
    title: str


class MemberRow(msgspec.Struct, frozen=True, kw_only=True):
    project_id: str
    principal_id: str
    role: Role


class CohortRow(msgspec.Struct, frozen=True, kw_only=True):
    """``query`` is canonical JSON (domain.condition.decode); ``saved_at`` the position at which this version of it was saved."""

    cohort_id: str
    owner: str
    version: int
    saved_at: int
    level: Level
    query_sha256: str
    query: str
    title: str
    description: str
    position_from: int
    shared_in: Sequence[str] = ()


class DatasetRow(msgspec.Struct, frozen=True, kw_only=True):
    dataset_id: str
    project_id: str
    title: str
    description: str
    license: str
    license_text: str
    intended_uses: Sequence[Purpose]
    use_note: str
    consent: str


class VersionRow(msgspec.Struct, frozen=True, kw_only=True):
    """As domain.dataset.DatasetFrozen; ``position`` is that of the event."""

    dataset_id: str
    version: int
    position: int
    frozen_at: datetime
    frozen_by: str
    at_position: int
    level: Level
    query_sha256: str
    query: str
    cohort_id: str
    cohort_version: int
    members_sha256: str
    members_bytes: int
    subjects_count: int
    studies_count: int
    series_count: int
    instances_count: int
    bytes: int


class SplitRow(msgspec.Struct, frozen=True, kw_only=True):
    """As domain.dataset.DatasetSplit; ``position`` is that of the event."""

    dataset_id: str
    version: int
    position: int
    split_at: datetime
    split_by: str
    seed: str
    stratified_by: Sequence[str]
    by_hand: bool
    kept_count: int
    left_out_count: int
    parts: Sequence[PartCount]
    assignment_sha256: str
    assignment_bytes: int


async def roles_of(pool: asyncpg.Pool, principal_id: str, at: int = LATEST) -> dict[str, Role]:
    """Project → what the principal may do in it."""
    rows = await pool.fetch(f"SELECT project_id, role FROM {SCHEMA}.member WHERE {_HELD} AND principal_id = $2", at, principal_id)
    return {row["project_id"]: Role(row["role"]) for row in rows}


async def projects(pool: asyncpg.Pool, among: Sequence[str] | None, at: int = LATEST) -> list[ProjectRow]:
    """These projects (None: all), by id."""
    return await _read(
        pool, ProjectRow, f"SELECT * FROM {SCHEMA}.project WHERE {_HELD} AND ($2::text[] IS NULL OR project_id = ANY($2)) ORDER BY project_id", at, among
    )


async def members(pool: asyncpg.Pool, project_ids: Sequence[str], at: int = LATEST) -> list[MemberRow]:
    """Of these projects, by project and principal."""
    statement = f"SELECT * FROM {SCHEMA}.member WHERE {_HELD} AND project_id = ANY($2) ORDER BY project_id, principal_id"
    return await _read(pool, MemberRow, statement, at, list(project_ids))


_COHORTS = f"""
    SELECT c.*, coalesce((SELECT array_agg(s.project_id ORDER BY s.project_id) FROM {SCHEMA}.cohort_share s
                          WHERE s.cohort_id = c.cohort_id AND s.position_from <= $1 AND (s.position_to IS NULL OR s.position_to > $1)), '{{}}') AS shared_in
    FROM {SCHEMA}.cohort c WHERE c.position_from <= $1 AND (c.position_to IS NULL OR c.position_to > $1)
"""


async def cohorts(pool: asyncpg.Pool, owner: str | None, shared_in: Sequence[str], at: int = LATEST) -> list[CohortRow]:
    """Those of an owner (None: everybody's) and those shared in projects, as they came."""
    which = (
        f" AND ($2::text IS NULL OR c.owner = $2 OR EXISTS (SELECT FROM {SCHEMA}.cohort_share s WHERE s.cohort_id = c.cohort_id"
        " AND s.project_id = ANY($3) AND s.position_from <= $1 AND (s.position_to IS NULL OR s.position_to > $1)))"
    )
    order = f" ORDER BY (SELECT min(o.position_from) FROM {SCHEMA}.cohort o WHERE o.cohort_id = c.cohort_id), c.cohort_id"
    return await _read(pool, CohortRow, _COHORTS + which + order, at, owner, list(shared_in))


async def cohort(pool: asyncpg.Pool, cohort_id: str, at: int = LATEST) -> CohortRow | None:
    found = await _read(pool, CohortRow, f"{_COHORTS} AND c.cohort_id = $2", at, cohort_id)
    return found[0] if found else None


async def cohort_versions(pool: asyncpg.Pool, cohort_ids: Sequence[str], at: int = LATEST) -> list[CohortRow]:
    """Each version of these as it was saved, the first one first."""
    return await _read(
        pool,
        CohortRow,
        f"SELECT * FROM {SCHEMA}.cohort WHERE cohort_id = ANY($2) AND position_from <= $1 AND position_from = saved_at ORDER BY cohort_id, version",
        at,
        list(cohort_ids),
    )


async def datasets(pool: asyncpg.Pool, projects: Sequence[str] | None, at: int = LATEST) -> list[DatasetRow]:
    """Those of projects (None: of all), as they came."""
    return await _read(
        pool,
        DatasetRow,
        f"SELECT d.* FROM {SCHEMA}.dataset d WHERE {_HELD} AND ($2::text[] IS NULL OR project_id = ANY($2))"
        f" ORDER BY (SELECT min(o.position_from) FROM {SCHEMA}.dataset o WHERE o.dataset_id = d.dataset_id), d.dataset_id",
        at,
        projects,
    )


async def dataset(pool: asyncpg.Pool, dataset_id: str, at: int = LATEST) -> DatasetRow | None:
    found = await _read(pool, DatasetRow, f"SELECT * FROM {SCHEMA}.dataset WHERE {_HELD} AND dataset_id = $2", at, dataset_id)
    return found[0] if found else None


async def versions(pool: asyncpg.Pool, dataset_ids: Sequence[str], at: int = LATEST) -> list[VersionRow]:
    """Of these datasets, the first one first."""
    statement = f"SELECT * FROM {SCHEMA}.dataset_version WHERE position <= $1 AND dataset_id = ANY($2) ORDER BY dataset_id, version"
    return await _read(pool, VersionRow, statement, at, list(dataset_ids))


async def splits(pool: asyncpg.Pool, dataset_ids: Sequence[str], at: int = LATEST) -> list[SplitRow]:
    """Of these datasets, the latest of each version."""
    statement = (
        f"SELECT DISTINCT ON (dataset_id, version) * FROM {SCHEMA}.dataset_split WHERE position <= $1 AND dataset_id = ANY($2)"
        " ORDER BY dataset_id, version, position DESC"
    )
    rows = await pool.fetch(statement, at, list(dataset_ids))
    return [msgspec.convert({**dict(row), "parts": msgspec.json.decode(row["parts"])}, SplitRow) for row in rows]


async def same_persons(pool: asyncpg.Pool, at: int = LATEST) -> list[tuple[str, str]]:
    """Pairs of subjects that are, or once were taken for, one person."""
    rows = await pool.fetch(f"SELECT subject_id, into_subject_id FROM {SCHEMA}.same_person WHERE position <= $1", at)
    return [(row["subject_id"], row["into_subject_id"]) for row in rows]


async def _read(pool: asyncpg.Pool, row_type: type[T], statement: str, *arguments: object) -> list[T]:
    return [msgspec.convert(dict(row), row_type) for row in await pool.fetch(statement, *arguments)]
