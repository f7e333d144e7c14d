"""What an erasure takes out of the FHIR tables: every version of every resource about the subject, its studies and series.

Found by reference, from the Patient and the imaging resources outwards, so that a type of resource that comes later goes too.
What clients wrote goes with the subject that it is of, and never because it points to something of another one.
What remains is the Provenance of the erasure, and which resources there once were (a read of them answers 410 Gone).
"""

from __future__ import annotations

import asyncpg

from domain.subject import SubjectErased
from projections.fhir import clinical
from projections.fhir.search.parameters import TABLES
from projections.fhir.vocabulary import index_id, selection_id, study_id

STATEMENTS = (
    """
    CREATE TABLE gone (
        type     text   COLLATE "C" NOT NULL,
        id       text   COLLATE "C" NOT NULL,
        position bigint NOT NULL,
        PRIMARY KEY (type, id)
    )
    """,
)

SURVIVES = frozenset({"AuditEvent"})
"""Who looked at whom stays: a pseudonym and a principal, kept for as long as the log is."""

_SEARCH_TABLES = sorted(set(TABLES.values()))

_REFERRING = """
SELECT DISTINCT r.type, r.id FROM unnest($2::text[]) AS t (target)
CROSS JOIN LATERAL (SELECT key FROM reference WHERE target = t.target OFFSET 0) s
CROSS JOIN LATERAL (SELECT type, id FROM resource WHERE key = s.key OFFSET 0) r
WHERE r.type <> ALL($1) AND NOT EXISTS (SELECT FROM record c WHERE c.type = r.type AND c.id = r.id)
"""
_FORGET = """
DELETE FROM {table} WHERE ctid = ANY(ARRAY(
    SELECT s.row_id FROM unnest($1::text[], $2::text[]) AS k (type, id)
    CROSS JOIN LATERAL (SELECT key FROM resource WHERE type = k.type AND id = k.id OFFSET 0) r
    CROSS JOIN LATERAL (SELECT ctid AS row_id FROM {table} WHERE key = r.key OFFSET 0) s
))
"""


async def purge(erased: SubjectErased, position: int, connection: asyncpg.Connection) -> None:
    """Deletes; to be called when all that came before the erasure is written.

    By LATERAL: looked up by index, whatever size the tables had when the statement was planned (see versions).
    """
    named = [("Patient", erased.subject_id)]
    named += [("ImagingStudy", study_id(uid)) for uid in erased.study_uids]
    for uid in erased.series_uids:
        named += [("ImagingSelection", selection_id(uid)), ("BodyStructure", index_id(uid))]
    named += await clinical.of_subject(erased.subject_id, connection)
    doomed = await _with_referring(named, connection)
    types, ids = [key[0] for key in doomed], [key[1] for key in doomed]
    known = await connection.fetch(
        "SELECT DISTINCT k.type, k.id FROM unnest($1::text[], $2::text[]) AS k (type, id)"
        " CROSS JOIN LATERAL (SELECT FROM resource WHERE type = k.type AND id = k.id LIMIT 1) r",
        types,
        ids,
    )
    for table in _SEARCH_TABLES:
        await connection.execute(_FORGET.format(table=table), types, ids)
    for table in ("resource", "record"):
        await connection.execute(
            f"DELETE FROM {table} WHERE ctid = ANY(ARRAY(SELECT r.row_id FROM unnest($1::text[], $2::text[]) AS k (type, id)"
            f" CROSS JOIN LATERAL (SELECT ctid AS row_id FROM {table} WHERE type = k.type AND id = k.id OFFSET 0) r))",
            types,
            ids,
        )
    await connection.execute("DELETE FROM patient_identity WHERE subject_id = $1", erased.subject_id)
    gone = [(row["type"], row["id"], position) for row in sorted(known, key=tuple)]
    await connection.executemany(
        "INSERT INTO gone VALUES ($1, $2, $3) ON CONFLICT (type, id) DO UPDATE SET position = excluded.position", gone
    )


async def _with_referring(named: list[tuple[str, str]], connection: asyncpg.Connection) -> list[tuple[str, str]]:
    """These resources and all that refer to them, and to those in turn (a Provenance of a Provenance)."""
    found, latest = set(named), named
    while latest:
        targets = [f"{kind}/{resource_id}" for kind, resource_id in latest]
        rows = await connection.fetch(_REFERRING, sorted(SURVIVES), targets)
        latest = sorted({(row["type"], row["id"]) for row in rows} - found)
        found.update(latest)
    return sorted(found)
