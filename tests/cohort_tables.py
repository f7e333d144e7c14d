"""A world's rows in the tables of the cohort read model, beside a log that has as many events."""

from __future__ import annotations

from typing import Any

import msgspec
from columns_world import ABOVE, World

from domain.ids import study_stream
from domain.principal import device
from domain.study import StudyRegistered
from eventlog.envelope import NewEvent, StreamAppend
from eventlog.log import EventLog
from projections.cohort.projection import SCHEMA, CohortProjection
from projections.runner import Runner

FILLING = StudyRegistered
"""The type of the events that stand in the log for whatever happens in a world."""


async def prepare(log: EventLog) -> None:
    await Runner(log, [CohortProjection()]).prepare()


async def put(log: EventLog, world: World, erased: set[tuple[str, int]] = frozenset()) -> None:  # type: ignore[assignment]
    """As if the projection had applied all that happened. ``erased``: entities that have just vanished."""
    missing = world.head - await log.head()
    if missing > 0:
        events = [NewEvent(event=FILLING(study_uid=f"9.{world.head}.{n}", subject_id="s")) for n in range(missing)]
        await log.append([StreamAppend(stream=study_stream(f"9.{world.head}"), events=events)], principal=device("test"))
    async with log.pool.acquire() as connection, connection.transaction():
        for level in ABOVE:
            await connection.execute(f"DELETE FROM {SCHEMA}.{level}")
            rows = world.rows[level]
            if rows:
                there = [row["column_name"] for row in await connection.fetch(_COLUMNS, SCHEMA, level.value)]
                more = {"terms": [], "orientation": []}
                columns = [name for name in there if name in rows[0] or name in more]
                records = [tuple(_as_stored(name, row.get(name, more.get(name))) for name in columns) for row in rows]
                await connection.copy_records_to_table(level.value, schema_name=SCHEMA, columns=columns, records=records)
        for level, id_ in erased:
            await connection.execute(f"INSERT INTO {SCHEMA}.entity_erased (position, level, id) VALUES ($1, $2, $3)", world.head, level, id_)
        await connection.execute("UPDATE public.projection_checkpoint SET position = $1, built = true, state = 'live' WHERE name = 'cohort'", world.head)


def _as_stored(name: str, value: Any) -> Any:
    return msgspec.json.encode(value).decode() if name == "elements" else value


_COLUMNS = "SELECT column_name FROM information_schema.columns WHERE table_schema = $1 AND table_name = $2"
