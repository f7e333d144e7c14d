"""The timeline of anything: every event that touched it, who acted and for whom, what caused it, and what it changed.

A change is the difference between what the event's stream added up to before it and after it. So a page costs the streams of
its events and no more, however large the archive is.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from domain.access import Access, AccessesRecorded
from domain.event import Event, identifying_fields
from domain.principal import Principal
from eventlog.envelope import RecordedEvent, instant
from eventlog.log import EventLog
from projections.ledger.projection import SCHEMA as LEDGER
from server.audit.differences import Change, difference
from server.audit.states import Folded
from server.audit.whereabouts import Whereabouts, find

DEFAULT_LIMIT = 50
MAX_LIMIT = 500
MAX_DETAIL_CHARACTERS = 300


class Entry(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One event. ``caused_by`` is the position of the event that led to it, where one did.

    ``detail`` are the event's own plain fields; ``accesses`` are those to what was asked for, where it records accesses.
    """

    position: int
    event_id: str
    type: str
    stream: str
    version: int
    occurred_at: str
    recorded_at: str
    principal: Principal
    caused_by: int | None = None
    detail: dict[str, Any] = {}
    changes: list[Change] = []
    accesses: list[Access] = []


class Timeline(msgspec.Struct, frozen=True, kw_only=True):
    """A page. ``next`` is what to ask for ``after`` to go on; None at the end."""

    id: str
    kinds: list[str]
    as_of: int
    entries: list[Entry]
    subjects: list[str]
    """Those that the events of this page are about, beside accesses."""
    next: int | None


async def timeline(
    log: EventLog, wanted: str, *, as_of: int, after: int = 0, limit: int = DEFAULT_LIMIT, identities: bool = False
) -> Timeline:
    """The events that touched what ``wanted`` names, beyond position ``after`` and up to ``as_of``. Raises NothingKnown.

    ``identities``: show fields that identify a person; otherwise a change of them is shown without what it changed.
    """
    found = await find(log.pool, wanted, as_of)
    positions = await found.page(log.pool, after, as_of, limit + 1)
    more, positions = len(positions) > limit, positions[:limit]
    events = await events_at(log, positions)
    causes = await _causes(log.pool, events)
    changes = await _changes(log, events, identities)
    entries = [
        Entry(
            position=one.position,
            event_id=str(one.event_id),
            type=one.type,
            stream=one.stream,
            version=one.version,
            occurred_at=instant(one.occurred_at),
            recorded_at=instant(one.recorded_at),
            principal=one.principal,
            caused_by=causes.get(one.causation_id) if one.causation_id else None,
            detail=_detail(one.event, identities),
            changes=changes[one.position],
            accesses=_accesses(one.event, found),
        )
        for one in events
    ]
    return Timeline(
        id=wanted, kinds=found.kinds, as_of=as_of, entries=entries, subjects=_subjects(events), next=positions[-1] if more else None
    )


async def events_at(log: EventLog, positions: Sequence[int]) -> list[RecordedEvent]:
    """The events at these positions, in order."""
    async with log.pool.acquire() as connection:
        rows = await connection.fetch("SELECT * FROM event WHERE position = ANY($1::bigint[]) ORDER BY position", list(positions))
        return await log.recorded(rows, connection)


def _subjects(events: Sequence[RecordedEvent]) -> list[str]:
    tags = {tag for one in events if not isinstance(one.event, AccessesRecorded) for tag in one.event.scope()}
    return sorted(tag.removeprefix("subject:") for tag in tags if tag.startswith("subject:"))


async def _causes(pool: asyncpg.Pool, events: Sequence[RecordedEvent]) -> dict[UUID, int]:
    wanted = [one.causation_id for one in events if one.causation_id is not None]
    rows = await pool.fetch(f"SELECT event_id, position FROM {LEDGER}.entry WHERE event_id = ANY($1::uuid[])", wanted)
    return {row["event_id"]: row["position"] for row in rows}


async def _changes(log: EventLog, events: Sequence[RecordedEvent], identities: bool) -> dict[int, list[Change]]:
    """Position → what the event at it changed."""
    versions: dict[str, set[int]] = defaultdict(set)
    for one in events:
        versions[one.stream].add(one.version)
    changes: dict[int, list[Change]] = {one.position: [] for one in events}
    for stream, wanted in versions.items():
        folded = Folded(stream)
        if not folded.parts:
            continue
        for recorded in await log.read_stream(stream):
            if recorded.version > max(wanted):
                break
            before = folded.plain() if recorded.version in wanted else {}
            folded.evolve(recorded.event)
            if recorded.version in wanted:
                found = difference(before, folded.plain())
                changes[recorded.position] = [_shown(change, folded, identities) for change in found]
    return changes


def _shown(change: Change, folded: Folded, identities: bool) -> Change:
    if identities or not folded.identifies(change.path):
        return change
    return msgspec.structs.replace(change, before=None, after=None, withheld=True)


def _detail(event: Event, identities: bool) -> dict[str, Any]:
    hidden = frozenset() if identities else identifying_fields(type(event))
    values = ((name, getattr(event, name)) for name in event.__struct_fields__ if name not in hidden)
    return {name: _cut(value) for name, value in values if isinstance(value, str | int | float | bool) and value != ""}


def _cut(value: Any) -> Any:
    return f"{value[:MAX_DETAIL_CHARACTERS]}…" if isinstance(value, str) and len(value) > MAX_DETAIL_CHARACTERS else value


def _accesses(event: Event, found: Whereabouts) -> list[Access]:
    """Of an event that holds many accesses, those that are about what was asked for; all of them where it was the event."""
    if not isinstance(event, AccessesRecorded):
        return []
    subjects = {tag.removeprefix("subject:") for tag in found.tags if tag.startswith("subject:")}
    principals = {tag.removeprefix("principal:") for tag in found.tags if tag.startswith("principal:")}
    if not subjects and not principals:
        return list(event.accesses)
    return [
        msgspec.structs.replace(access, subjects=tuple(one for one in access.subjects if not subjects or one in subjects))
        for access in event.accesses
        if subjects & {*access.subjects} or access.principal.id in principals
    ]
