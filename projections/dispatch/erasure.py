"""What an erasure takes out of the dispatch tables: its series and their requests, so that nobody works on them any more."""

from __future__ import annotations

import asyncpg

from domain.subject import SubjectErased


async def purge(erased: SubjectErased, connection: asyncpg.Connection) -> None:
    """Deletes; to be called when all that came before the erasure is written."""
    await connection.execute("DELETE FROM request WHERE series_uid = ANY($1)", erased.series_uids)
    await connection.execute("DELETE FROM series WHERE series_uid = ANY($1)", erased.series_uids)
