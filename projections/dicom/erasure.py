"""What an erasure takes out of the DICOM tables: every row of the subject's studies, and what they once were."""

from __future__ import annotations

import asyncpg

from domain.subject import SubjectErased

_BY_STUDY = ("study", "study_history", "series", "series_history", "instance")


async def purge(erased: SubjectErased, connection: asyncpg.Connection) -> None:
    """Deletes; to be called when all that came before the erasure is written."""
    for table in _BY_STUDY:
        await connection.execute(f"DELETE FROM {table} WHERE study_uid = ANY($1)", erased.study_uids)
    await connection.execute("DELETE FROM shared_header WHERE series_uid = ANY($1)", erased.series_uids)
