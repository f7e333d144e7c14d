"""What the dispatcher asks of its tables: series not requested since they grew, requests that stand, and how many of each."""

from __future__ import annotations

from datetime import datetime

import asyncpg
import msgspec

from domain.ids import Position, SeriesUID


class Unrequested(msgspec.Struct, frozen=True, kw_only=True):
    """A series that grew (last at this position) since it was last requested, or was never requested."""

    series_uid: SeriesUID
    last_stored_at: datetime
    last_stored_position: Position


class StandingRequest(msgspec.Struct, frozen=True, kw_only=True):
    """Requested and not finished. ``priority``: 0 somebody asked, 1 a study of today, 2 the back-catalogue."""

    series_uid: SeriesUID
    segmenter: str
    series_digest: str
    priority: int
    requested_at: datetime


class Count(msgspec.Struct, frozen=True, kw_only=True):
    """How many requests of a segmenter and priority have this outcome, and the instant of the oldest."""

    segmenter: str
    priority: int
    outcome: str
    requests: int
    oldest: datetime


async def unrequested(pool: asyncpg.Pool, segmenter: str, after: int, limit: int) -> list[Unrequested]:
    """Series that last grew beyond position ``after`` and were not requested of this segmenter since, in that order."""
    rows = await pool.fetch(
        "SELECT s.series_uid, s.last_stored_at, s.last_stored_position FROM dispatch_v1.series s"
        " LEFT JOIN dispatch_v1.request r ON r.series_uid = s.series_uid AND r.segmenter = $1"
        " WHERE s.last_stored_position > $2 AND (r.position IS NULL OR r.position < s.last_stored_position)"
        " ORDER BY s.last_stored_position LIMIT $3",
        segmenter,
        after,
        limit,
    )
    return [Unrequested(**dict(row)) for row in rows]


async def standing(pool: asyncpg.Pool, limit: int) -> list[StandingRequest]:
    """The oldest ``limit`` standing requests of each segmenter and priority, the most urgent first."""
    rows = await pool.fetch(
        "SELECT f.* FROM (SELECT DISTINCT segmenter, priority FROM dispatch_v1.request WHERE outcome = 'requested') k"
        " CROSS JOIN LATERAL (SELECT series_uid, segmenter, series_digest, priority, requested_at FROM dispatch_v1.request r"
        "  WHERE r.outcome = 'requested' AND r.segmenter = k.segmenter AND r.priority = k.priority ORDER BY position LIMIT $1) f"
        " ORDER BY f.priority, f.requested_at",
        limit,
    )
    return [StandingRequest(**dict(row)) for row in rows]


async def counts(pool: asyncpg.Pool, outcome: str | None = None) -> list[Count]:
    """Requests by segmenter, priority and outcome (or of one outcome alone)."""
    rows = await pool.fetch(
        "SELECT segmenter, priority, outcome, count(*) AS requests, min(requested_at) AS oldest FROM dispatch_v1.request"
        " WHERE $1::text IS NULL OR outcome = $1"
        " GROUP BY segmenter, priority, outcome ORDER BY segmenter, priority, outcome",
        outcome,
    )
    return [Count(**dict(row)) for row in rows]
