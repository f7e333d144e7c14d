"""Rows of the cohort read model as of a position: by id, by the key that people know, and by what they belong to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import asyncpg
import msgspec

from domain.condition import Level
from projections.cohort.projection import SCHEMA

Row = Mapping[str, Any]

KEYS: Mapping[Level, str] = {
    Level.SUBJECT: "subject_id",
    Level.STUDY: "study_uid",
    Level.SERIES: "series_uid",
    Level.INSTANCE: "sop_instance_uid",
    Level.FINDING: "finding_key",
}
"""By what people know an entity: a column of its table, and a field."""

_OWN: Mapping[Level, str] = {
    Level.SUBJECT: "subject_id, sex, born",
    Level.STUDY: "study_uid, subject, study_date, age_years",
    Level.SERIES: "series_uid, study, subject, instance_count, frame_count, bytes, series_digest, slice_spacing_mm, indexing",
    Level.INSTANCE: "sop_instance_uid, series, sop_class_uid, transfer_syntax_uid, sha256, bytes, frame_count",
    Level.FINDING: (
        "finding_key, series, study, subject, segmenter, segmenter_version, label, structure, laterality, morphology, volume_ml, mean_hu, whole, verdict"
    ),
    Level.FACT: "subject, resource_type, resource_id, system, code, status, value, unit, value_code, date",
    Level.TAG: "level, target, project, name, value",
}
_HELD = "position_from <= $2 AND (position_to IS NULL OR position_to > $2)"
_WITH_ELEMENTS = (Level.STUDY, Level.SERIES)


async def rows(pool: asyncpg.Pool, level: Level, ids: Sequence[int], position: int, keys: Collection[str] | None = ()) -> dict[int, Row]:
    """By id, those that were there. ``keys``: of elements that are wanted with them; None for all."""
    if level not in _WITH_ELEMENTS or (keys is not None and not keys):
        found = await pool.fetch(f"SELECT id, position_from, {_OWN[level]} FROM {SCHEMA}.{level} WHERE id = ANY($1) AND {_HELD}", ids, position)
    elif keys is None:
        found = await pool.fetch(
            f"SELECT id, position_from, {_OWN[level]}, elements::text AS elements FROM {SCHEMA}.{level} WHERE id = ANY($1) AND {_HELD}", ids, position
        )
    else:
        # jsonb_each takes the document out of its compressed storage once; an operator for each key would do so each time.
        found = await pool.fetch(
            f"SELECT id, position_from, {_OWN[level]}, (SELECT jsonb_object_agg(key, value)::text FROM jsonb_each(elements) WHERE key = ANY($3)) AS elements"
            f" FROM {SCHEMA}.{level} WHERE id = ANY($1) AND {_HELD}",
            ids,
            position,
            list(keys),
        )
    return {row["id"]: row for row in found}


def elements_of(row: Row) -> dict[str, list[Any]]:
    """Key → values (projections.cohort.naming)."""
    text = row.get("elements")
    return {} if text is None else msgspec.json.decode(text)


async def ids_by_key(pool: asyncpg.Pool, level: Level, keys: Sequence[str], position: int) -> dict[str, int]:
    """Entities by the key that people know them by, those that were there."""
    found = await pool.fetch(f"SELECT id, {KEYS[level]} AS key FROM {SCHEMA}.{level} WHERE {KEYS[level]} = ANY($1) AND {_HELD}", keys, position)
    return {row["key"]: row["id"] for row in found}


async def subject_ids(pool: asyncpg.Pool, ids: Collection[int]) -> dict[int, str]:
    """Pseudonyms, of whatever position: they never change."""
    found = await pool.fetch(f"SELECT DISTINCT id, subject_id FROM {SCHEMA}.subject WHERE id = ANY($1)", list(ids))
    return {row["id"]: row["subject_id"] for row in found}


async def children(pool: asyncpg.Pool, parent: Level, parents: Sequence[int], level: Level, position: int) -> dict[int, list[int]]:
    """Ids of what belongs to each of the parents, ascending: as it came."""
    found = await pool.fetch(
        f"SELECT {parent} AS parent, id FROM {SCHEMA}.{level} WHERE {parent} = ANY($1) AND {_HELD} ORDER BY id", parents, position
    )
    return _grouped(found)


async def parents_of(pool: asyncpg.Pool, level: Level, ids: Sequence[int], parent: Level, position: int) -> dict[int, list[int]]:
    """These entities (of a level), by what they belong to, ascending."""
    found = await pool.fetch(f"SELECT {parent} AS parent, id FROM {SCHEMA}.{level} WHERE id = ANY($1) AND {_HELD} ORDER BY id", ids, position)
    return _grouped(found)


async def tags(pool: asyncpg.Pool, level: Level, ids: Sequence[int], position: int) -> dict[int, list[Row]]:
    """Tags on each of these entities, by project and name."""
    found = await pool.fetch(
        f"SELECT id, position_from, {_OWN[Level.TAG]} FROM {SCHEMA}.tag WHERE level = $3 AND target = ANY($1) AND {_HELD} ORDER BY project, name, id",
        ids,
        position,
        level.value,
    )
    by_target: dict[int, list[Row]] = defaultdict(list)
    for row in found:
        by_target[row["target"]].append(row)
    return by_target


async def made_by(pool: asyncpg.Pool, level: Level, ids: Sequence[int], position: int) -> dict[int, list[Row]]:
    """The events that made each version of these entities, up to the position."""
    found = await pool.fetch(
        f"SELECT v.id, e.position, e.type, e.recorded_at FROM {SCHEMA}.{level} v JOIN public.event e ON e.position = v.position_from"
        " WHERE v.id = ANY($1) AND v.position_from <= $2 ORDER BY v.id, e.position",
        ids,
        position,
    )
    by_entity: dict[int, list[Row]] = defaultdict(list)
    for row in found:
        by_entity[row["id"]].append(row)
    return by_entity


def _grouped(found: Sequence[Row]) -> dict[int, list[int]]:
    by_parent: dict[int, list[int]] = defaultdict(list)
    for row in found:
        by_parent[row["parent"]].append(row["id"])
    return by_parent
