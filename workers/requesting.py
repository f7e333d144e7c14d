"""Requests that a series be indexed: because it became quiet, or because somebody asks."""

from __future__ import annotations

from domain import series
from domain.ids import Position, series_stream
from domain.principal import Principal, device
from domain.series import InstancesStored, RequestIndexing, Series
from eventlog.aggregate import execute
from eventlog.envelope import NewEvent, RecordedEvent, StreamAppend
from eventlog.log import EventLog

DISPATCHER = device("dispatcher")


async def ask(log: EventLog, series_uid: str, segmenter: str, principal: Principal) -> Position | None:
    """Requests an index now, as ``principal``; None when it is requested, indexed or refused already for these instances.

    Raises SeriesIsEmpty.
    """
    command = RequestIndexing(series_uid=series_uid, segmenter=segmenter, reason="requested")
    executed = await execute(
        log,
        series_stream(series_uid),
        Series(),
        series.evolve,
        lambda state: series.request_indexing(state, command),
        principal=principal,
    )
    return executed.position


async def request_quiet(log: EventLog, series_uid: str, segmenter: str) -> Position | None:
    """Requests an index of a quiet series, for whoever stored its last instances; None when nothing is to be requested.

    Raises VersionConflict when something came to the stream meanwhile: perhaps it is not quiet any more.
    """
    recorded = await log.read_stream(series_stream(series_uid))
    state = fold(recorded)
    if not state.instances:  # it went with its erased subject, and the read model will hear of it
        return None
    decided = series.request_indexing(state, RequestIndexing(series_uid=series_uid, segmenter=segmenter, reason="quiet"))
    if not decided:
        return None
    cause = next(r for r in reversed(recorded) if isinstance(r.event, InstancesStored))
    append = StreamAppend(
        stream=series_stream(series_uid),
        events=[NewEvent(event=event, causation_id=cause.event_id) for event in decided],
        expected_version=recorded[-1].version,
    )
    principal = DISPATCHER.acting_for(cause.principal)
    return (await log.append([append], principal=principal, correlation_id=cause.correlation_id)).last


def fold(recorded: list[RecordedEvent]) -> Series:
    """The state of a series from its stream."""
    state = Series()
    for one in recorded:
        state = series.evolve(state, one.event)
    return state
