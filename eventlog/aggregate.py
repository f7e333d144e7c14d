"""Load a stream, decide, append: one decision of one aggregate, made again when somebody else was faster."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar
from uuid import UUID

import msgspec
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from domain.event import Event
from domain.ids import Position
from domain.principal import Principal
from eventlog.envelope import NewEvent, StreamAppend
from eventlog.errors import VersionConflict
from eventlog.log import EventLog

S = TypeVar("S")
MAX_ATTEMPTS = 20


class Executed(msgspec.Struct, frozen=True, kw_only=True):
    """What a decision came to: no events and no position when nothing was new."""

    events: Sequence[Event]
    position: Position | None


async def load(log: EventLog, stream: str, initial: S, evolve: Callable[[S, Event], S]) -> tuple[S, int]:
    """The state of a stream and its version (0: it has no event)."""
    state, version = initial, 0
    for recorded in await log.read_stream(stream):
        state, version = evolve(state, recorded.event), recorded.version
    return state, version


async def execute(
    log: EventLog,
    stream: str,
    initial: S,
    evolve: Callable[[S, Event], S],
    decide: Callable[[S], Sequence[Event]],
    *,
    principal: Principal,
    correlation_id: UUID | None = None,
    causation_id: UUID | None = None,
    event_ids: Sequence[UUID] | None = None,
) -> Executed:
    """Appends what ``decide`` makes of the stream's state. ``event_ids``, where given, make the first events idempotent.

    Raises what ``decide`` raises, and VersionConflict after 20 lost races.
    """
    async for attempt in AsyncRetrying(
        retry=retry_if_exception_type(VersionConflict),
        stop=stop_after_attempt(MAX_ATTEMPTS),
        wait=wait_random_exponential(multiplier=0.002, max=0.1),
        reraise=True,
    ):
        with attempt:
            state, version = await load(log, stream, initial, evolve)
            events = decide(state)
            if not events:
                return Executed(events=(), position=None)
            ids = dict(enumerate(event_ids or ()))
            new = [
                NewEvent(event=event, causation_id=causation_id, event_id=ids[n])
                if n in ids
                else NewEvent(event=event, causation_id=causation_id)
                for n, event in enumerate(events)
            ]
            appended = await log.append(
                [StreamAppend(stream=stream, events=new, expected_version=version)],
                principal=principal,
                correlation_id=correlation_id,
            )
            return Executed(events=events, position=appended.last)
    raise AssertionError("unreachable: the last attempt raises")
