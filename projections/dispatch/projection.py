"""The dispatch projection: for each series when it last grew, and for each segmenter the latest request and its outcome."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

import asyncpg

from domain.event import Event
from domain.series import IndexingFailed, IndexingRefused, IndexingRequested, InstancesStored, SeriesIndexed
from domain.subject import SubjectErased
from eventlog.envelope import RecordedEvent
from projections.dispatch import erasure
from projections.dispatch.tables import STATEMENTS
from projections.parts import cut_at_erasures

NAME, VERSION = "dispatch", 1

_STUDY_DATE = "00080020"
_STILL_TODAY = timedelta(days=1, hours=14)
"""A study of yesterday evening in any time zone counts as today's: Study Date is a local date, the log's time is UTC."""

_STORED = """
    INSERT INTO series VALUES ($1, $2, $3, $4)
    ON CONFLICT (series_uid) DO UPDATE SET last_stored_at = excluded.last_stored_at,
                                           last_stored_position = excluded.last_stored_position
"""
_REQUESTED = """
    INSERT INTO request
    SELECT $1, $2, $3, $4, $5,
           CASE WHEN $6 = 'requested' THEN 0 WHEN (SELECT of_today FROM series WHERE series_uid = $1) THEN 1 ELSE 2 END, 'requested'
    ON CONFLICT (series_uid, segmenter) DO UPDATE SET series_digest = excluded.series_digest, position = excluded.position,
        requested_at = excluded.requested_at, priority = excluded.priority, outcome = excluded.outcome
"""
_FINISHED = "UPDATE request SET outcome = $4 WHERE series_uid = $1 AND segmenter = $2 AND series_digest = $3"


class DispatchProjection:
    """What the dispatcher asks: which series became quiet, and which requests stand."""

    name: str = NAME
    version: int = VERSION
    handles: frozenset[type[Event]] = frozenset(
        {InstancesStored, IndexingRequested, SeriesIndexed, IndexingRefused, IndexingFailed, SubjectErased}
    )
    statements: Sequence[str] = STATEMENTS

    async def apply(self, batch: Sequence[RecordedEvent], connection: asyncpg.Connection) -> None:
        for part, erased in cut_at_erasures(batch):
            await self._write(part, connection)
            if erased is not None and isinstance(erased.event, SubjectErased):
                await erasure.purge(erased.event, connection)

    async def _write(self, batch: Sequence[RecordedEvent], connection: asyncpg.Connection) -> None:
        # All series first: a request looks at nothing but `of_today`, which the first event of a series settles for good.
        stored = [_stored_row(r, r.event) for r in batch if isinstance(r.event, InstancesStored)]
        if stored:
            await connection.executemany(_STORED, stored)
        for recorded in batch:
            match recorded.event:
                case IndexingRequested() as e:
                    await connection.execute(
                        _REQUESTED, e.series_uid, e.segmenter, e.series_digest, recorded.position, recorded.recorded_at, e.reason
                    )
                case SeriesIndexed() as e:
                    await connection.execute(_FINISHED, e.series_uid, e.run.segmenter, e.series_digest, "indexed")
                case IndexingRefused() as e:
                    await connection.execute(_FINISHED, e.series_uid, e.segmenter, e.series_digest, "refused")
                case IndexingFailed() as e:
                    await connection.execute(_FINISHED, e.series_uid, e.segmenter, e.series_digest, "failed")


def _stored_row(recorded: RecordedEvent, event: InstancesStored) -> tuple[str, datetime, int, bool]:
    return event.series_uid, recorded.recorded_at, recorded.position, _is_of_today(event, recorded.recorded_at)


def _is_of_today(event: InstancesStored, arrived_at: datetime) -> bool:
    """Whether the study is of the day of its arrival. Without a readable Study Date (0008,0020) it is of the back-catalogue."""
    element = event.common.get(_STUDY_DATE) or (event.headers[0].get(_STUDY_DATE) if event.headers else None) or {}
    values = element.get("Value") or [""]
    try:
        began = datetime.strptime(str(values[0]), "%Y%m%d").replace(tzinfo=arrived_at.tzinfo)
    except ValueError:
        return False
    return arrived_at - began <= _STILL_TODAY
