"""What an auditor asks for: a study, a subject, a dataset, or a stretch of time; and which events of the log that is."""

from __future__ import annotations

from datetime import datetime

import asyncpg
import msgspec

from domain.ids import Position
from eventlog.envelope import instant
from projections.ledger.projection import SCHEMA
from server.errors import NothingToExport


class Scope(msgspec.Struct, frozen=True, kw_only=True):
    """Either ``tags`` (an event is in scope when it is about one of them) or a range of positions between two instants."""

    asked: str
    """In words, for people."""
    tags: tuple[str, ...] = ()
    since: datetime | None = None
    until: datetime | None = None


class Range(msgspec.Struct, frozen=True, kw_only=True):
    first: Position
    last: Position


def of_tag(kind: str, value: str) -> Scope:
    """``kind`` is study, series, subject or dataset."""
    return Scope(asked=f"{kind} {value}", tags=(f"{kind}:{value}",))


def of_time(since: datetime | None, until: datetime | None) -> Scope:
    words = [f"since {instant(since)}" if since else "", f"until {instant(until)}" if until else ""]
    return Scope(asked=f"all events {' '.join(word for word in words if word)}".strip(), since=since, until=until)


async def positions_about(connection: asyncpg.Connection, scope: Scope, size: int) -> list[int]:
    """The positions up to ``size`` of the events that are about the scope, by the ledger. Raises NothingToExport."""
    rows = await connection.fetch(
        f"SELECT DISTINCT position FROM {SCHEMA}.touched WHERE tag = ANY($1) AND position <= $2 ORDER BY position", list(scope.tags), size
    )
    if not rows:
        raise NothingToExport(f"no event is about {scope.asked}: look for the right id with `anamnesis audit show`")
    return [row["position"] for row in rows]


async def range_of(connection: asyncpg.Connection, scope: Scope, size: int) -> Range:
    """From the first event that was recorded at or after ``since`` to the one before the first recorded after ``until``.

    Clocks of several processes differ by a little: an event in between may bear a time just outside. Raises NothingToExport.
    """
    first, last = 1, size
    if scope.since is not None:
        first = await connection.fetchval(f"{_FROM} latest_at >= $1 ORDER BY latest_at, position LIMIT 1", scope.since) or size + 1
    if scope.until is not None:
        beyond = await connection.fetchval(f"{_FROM} latest_at > $1 ORDER BY latest_at, position LIMIT 1", scope.until)
        last = min(size, beyond - 1) if beyond else size
    if first > last:
        raise NothingToExport(f"no event was recorded in this time ({scope.asked})")
    return Range(first=Position(first), last=Position(last))


_FROM = f"SELECT position FROM {SCHEMA}.entry WHERE"
