"""What an erasure takes out of the cohort tables: every version of the subject, its studies and series and all that belongs to them.

What the same studies and series hold of others goes too, and comes again in the events that follow. Of text, what no other row says goes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import asyncpg
import msgspec

from domain.subject import SubjectErased
from projections.cohort.elements import texts
from projections.cohort.terms import term

_TEXT_OF_FACTS = ("resource_type", "system", "code", "status", "unit", "value_code")
_TEXT_OF_TAGS = ("level", "project", "name", "value")


async def purge(erased: SubjectErased, position: int, connection: asyncpg.Connection) -> None:
    """Deletes; to be called when all that came before the erasure is written."""
    subjects = await _ids(connection, "SELECT DISTINCT id FROM subject WHERE subject_id = $1", erased.subject_id)
    studies = await _ids(connection, "SELECT DISTINCT id FROM study WHERE study_uid = ANY($1)", erased.study_uids)
    studies |= await _ids(connection, "SELECT DISTINCT id FROM study WHERE subject = ANY($1)", sorted(subjects))
    series = await _ids(connection, "SELECT DISTINCT id FROM series WHERE series_uid = ANY($1)", erased.series_uids)
    series |= await _ids(connection, "SELECT DISTINCT id FROM series WHERE study = ANY($1)", sorted(studies))
    instances = await _ids(connection, "SELECT id FROM instance WHERE series = ANY($1)", sorted(series))
    said = await _said_in_elements(connection, "study", studies) | await _said_in_elements(connection, "series", series)
    persons = await connection.fetch("DELETE FROM subject WHERE id = ANY($1) RETURNING *", sorted(subjects))
    for table, column, ids in (
        ("study", "id", studies),
        ("series", "id", series),
        ("instance", "series", series),
        ("finding", "series", series),
    ):
        await connection.execute(f"DELETE FROM {table} WHERE {column} = ANY($1)", sorted(ids))
    facts = await connection.fetch("DELETE FROM fact WHERE subject = ANY($1) RETURNING *", sorted(subjects))
    tags: list[Any] = []
    for level, ids in (("subject", subjects), ("study", studies), ("series", series), ("instance", instances)):
        tags += await connection.fetch("DELETE FROM tag WHERE level = $1 AND target = ANY($2) RETURNING *", level, sorted(ids))
    await _forget_elements(connection, said)
    await _forget_own(connection, "subject", ("sex",), persons)
    await _forget_own(connection, "fact", _TEXT_OF_FACTS, facts)
    await _forget_own(connection, "tag", _TEXT_OF_TAGS, tags)
    gone = [(position, level, id_) for level, ids in (("subject", subjects), ("study", studies), ("series", series)) for id_ in sorted(ids)]
    await connection.copy_records_to_table("entity_erased", records=gone, columns=("position", "level", "id"))
    await connection.execute(
        "INSERT INTO subject_erased VALUES ($1, $2) ON CONFLICT (subject_id) DO NOTHING", erased.subject_id, position
    )


async def _ids(connection: asyncpg.Connection, query: str, keys: Any) -> set[int]:
    return {row["id"] for row in await connection.fetch(query, keys)}


async def _said_in_elements(connection: asyncpg.Connection, table: str, ids: set[int]) -> set[int]:
    rows = await connection.fetch(f"SELECT elements FROM {table} WHERE id = ANY($1)", sorted(ids))
    return {term(key, value) for row in rows for key, values in texts(msgspec.json.decode(row["elements"])) for value in values}


async def _forget_elements(connection: asyncpg.Connection, terms: Iterable[int]) -> None:
    await connection.execute(
        "DELETE FROM text_value WHERE term = ANY(ARRAY(SELECT t FROM unnest($1::bigint[]) t"
        " WHERE NOT EXISTS (SELECT FROM study WHERE terms @> ARRAY[t]) AND NOT EXISTS (SELECT FROM series WHERE terms @> ARRAY[t])))",
        sorted(terms),
    )


async def _forget_own(connection: asyncpg.Connection, table: str, columns: Sequence[str], rows: Sequence[Any]) -> None:
    for column in columns:
        values = sorted({row[column] for row in rows} - {""})
        await connection.execute(
            f"DELETE FROM text_value WHERE term = ANY(ARRAY(SELECT n.term FROM unnest($1::bigint[], $2::text[]) AS n (term, value)"
            f" WHERE NOT EXISTS (SELECT FROM {table} t WHERE t.{column} = n.value)))",
            [term(f"{table}.{column}", value) for value in values],
            values,
        )
