"""What entered a cohort and left it between two positions, and why."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import msgspec

from domain.condition import Level, Query
from projections.cohort.engine import Asked
from server.cohorts.errors import LevelRefused
from server.cohorts.questions import ROWS, Curating
from server.cohorts.reasons import About, Reason, reasons

MOST = 100
"""Things that are named each way, beside how many there are."""

_BY_ID = {
    Level.SUBJECT: f"SELECT v.id, v.subject_id, '' AS study_uid, '' AS series_uid, '' AS finding_key FROM {ROWS}.subject v",
    Level.STUDY: f"SELECT v.id, p.subject_id, v.study_uid, '' AS series_uid, '' AS finding_key FROM {ROWS}.study v"
    f" JOIN {ROWS}.subject p ON p.id = v.subject",
    Level.SERIES: f"SELECT v.id, p.subject_id, t.study_uid, v.series_uid, '' AS finding_key FROM {ROWS}.series v"
    f" JOIN {ROWS}.subject p ON p.id = v.subject JOIN {ROWS}.study t ON t.id = v.study",
    Level.FINDING: f"SELECT v.id, p.subject_id, t.study_uid, s.series_uid, v.finding_key FROM {ROWS}.finding v"
    f" JOIN {ROWS}.subject p ON p.id = v.subject JOIN {ROWS}.study t ON t.id = v.study JOIN {ROWS}.series s ON s.id = v.series",
}
"""What people know things by: the same in all of their versions."""


class Changed(msgspec.Struct, frozen=True, kw_only=True):
    """A thing that entered or left, with the events that are about it since."""

    thing: About
    reasons: Sequence[Reason]


class Changes(msgspec.Struct, frozen=True, kw_only=True):
    """Between two positions. ``entered`` and ``left`` name the first ones of how many there are."""

    since: int
    until: int
    level: Level
    before_count: int
    after_count: int
    entered_count: int
    left_count: int
    entered: Sequence[Changed]
    left: Sequence[Changed]


async def changes(services: Curating, query: Query, since: int, until: int | None = None, *, most: int = MOST) -> Changes:
    """Compares what a question finds as of two positions (until None: the latest one). What was erased since is in neither.

    Raises LevelRefused, and what the engine raises.
    """
    if query.level not in _BY_ID:
        raise LevelRefused(f"what changed is told of {', '.join(_BY_ID)}, and not of a cohort of level {query.level}")
    until = await services.cohorts.position() if until is None else until
    before, after = (_ids(services, query, position) for position in (since, until))
    left: list[int] = []
    entered: list[int] = []
    counts = [0, 0, 0, 0]
    async for id_, was, is_ in _merged(before, after):
        counts[0] += was
        counts[1] += is_
        if was and not is_:
            counts[2] += 1
            left += [id_] if len(left) < most else []
        elif is_ and not was:
            counts[3] += 1
            entered += [id_] if len(entered) < most else []
    return Changes(
        since=since,
        until=until,
        level=query.level,
        before_count=counts[0],
        after_count=counts[1],
        left_count=counts[2],
        entered_count=counts[3],
        left=await _explained(services, query.level, left, since, until),
        entered=await _explained(services, query.level, entered, since, until),
    )


async def _ids(services: Curating, query: Query, position: int) -> AsyncIterator[int]:
    async for batch in services.cohorts.members(Asked(query=query, position=position), query.level):
        for one in batch:
            yield one


async def _merged(before: AsyncIterator[int], after: AsyncIterator[int]) -> AsyncIterator[tuple[int, bool, bool]]:
    """Each id of two ascending streams, and in which of them it is."""
    one, other = await anext(before, None), await anext(after, None)
    while one is not None or other is not None:
        if other is None or (one is not None and one < other):
            assert one is not None
            yield one, True, False
            one = await anext(before, None)
        elif one is None or other < one:
            yield other, False, True
            other = await anext(after, None)
        else:
            yield one, True, True
            one, other = await anext(before, None), await anext(after, None)


async def _explained(services: Curating, level: Level, ids: Sequence[int], since: int, until: int) -> list[Changed]:
    rows = await services.log.pool.fetch(f"SELECT DISTINCT ON (id) * FROM ({_BY_ID[level]} WHERE v.id = ANY($1)) found ORDER BY id", list(ids))
    things = [About(level=level, **{name: row[name] for name in ("subject_id", "study_uid", "series_uid", "finding_key")}) for row in rows]
    why = await reasons(services.log, things, since, until)
    return [Changed(thing=thing, reasons=its) for thing, its in zip(things, why, strict=True)]
