"""The definitions of the implementation guide as the first rows of the read model: there before the first event, found and read as all else.

They have the version 0, which nothing of the log has, and so no history: what was one in an earlier release is told by that release.
"""

from __future__ import annotations

from datetime import UTC, datetime

import asyncpg
import msgspec

from projections.fhir import guide
from projections.fhir.search.rows import add_rows, no_rows

VERSION = 0
AT = datetime(1970, 1, 1, tzinfo=UTC)
"""They say no time of their own."""


async def write(connection: asyncpg.Connection) -> None:
    """Into empty tables."""
    rows, found = [], no_rows()
    for key, (kind, definition_id, raw) in enumerate(guide.definitions()):
        rows.append((kind, definition_id, VERSION, 0, None, AT, raw.decode("utf-8"), key))
        add_rows(msgspec.json.decode(raw), key, found)
    await connection.copy_records_to_table("resource", records=rows)
    for table, of_table in found.items():
        if of_table:
            await connection.copy_records_to_table(table, records=of_table)
