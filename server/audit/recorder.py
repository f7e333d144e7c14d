"""Accesses on their way into the log: merged while they are alike, and appended many at a time, so that no read waits.

While the log does not answer they are kept, up to a bound. What is beyond it is lost, counted in a metric, and said by the
next event that gets through.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import msgspec
from prometheus_client import Counter

from domain.access import Access, AccessesRecorded, Action, Outcome, access_stream
from domain.ids import Position
from domain.principal import Principal, device
from eventlog.appender import CONNECTION_ERRORS
from eventlog.envelope import NewEvent, StreamAppend
from eventlog.errors import LogUnavailable
from eventlog.log import EventLog
from projections.dicom.projection import SCHEMA

WINDOW_S = 1.0
"""Accesses that are alike within this time become one."""
MAX_ACCESSES = 500
"""In one event; as many are appended without waiting for the window to end."""
MAX_NAMES = 5000
"""Subjects and things in one event: a page of a search may be of a thousand persons."""
MAX_THINGS = 100
"""In one access."""
MAX_HELD = 20_000
"""Accesses that wait for a log which does not answer."""
CLOSE_S = 5.0
RECORDER = device("access-recorder")

_LOST = Counter("anamnesis_accesses_lost_total", "Accesses that were not recorded: the log did not answer for too long")
_SUBJECTS_OF_STUDIES = f"SELECT study_uid, subject_id FROM {SCHEMA}.study WHERE study_uid = ANY($1)"
_logger = logging.getLogger(__name__)


class _Alike(msgspec.Struct, frozen=True):
    """What accesses have in common that become one. ``studies`` stand for their subjects, who are looked up later."""

    principal: Principal
    action: Action
    outcome: Outcome
    route: str
    resource_type: str
    parameters: tuple[str, ...]
    subjects: tuple[str, ...]
    studies: tuple[str, ...]


class _Merged(msgspec.Struct):
    first_at: datetime
    last_at: datetime
    count: int
    things: dict[str, None]


class AccessRecorder:
    """``record`` is called on the event loop that ``run`` runs on."""

    def __init__(self, log: EventLog) -> None:
        self._log = log
        self._held: dict[_Alike, _Merged] = {}
        self._full: list[tuple[_Alike, _Merged]] = []
        self._waiting: deque[NewEvent] = deque()
        self._lost = 0
        self._something = asyncio.Event()
        self._enough = asyncio.Event()
        self._flushing = asyncio.Lock()

    def record(
        self,
        principal: Principal,
        action: Action,
        outcome: Outcome = Outcome.SUCCESS,
        *,
        route: str = "",
        resource_type: str = "",
        things: Iterable[str] = (),
        parameters: tuple[str, ...] = (),
        subjects: tuple[str, ...] = (),
        studies: tuple[str, ...] = (),
    ) -> None:
        """Remembers an access. ``studies`` are UIDs of studies whose subjects' data were in the answer."""
        now = datetime.now(UTC)
        alike = _Alike(principal, action, outcome, route, resource_type, parameters, subjects, studies)
        merged = self._held.get(alike)
        if merged is not None:
            merged.last_at = now
            merged.count += 1
            merged.things.update(dict.fromkeys(things))
            if len(merged.things) >= MAX_THINGS:
                self._full.append((alike, self._held.pop(alike)))
        elif self._count() < MAX_HELD:
            self._held[alike] = _Merged(now, now, 1, dict.fromkeys(things))
        else:
            self._lost += 1
            _LOST.inc()
        self._something.set()
        if len(self._held) + len(self._full) >= MAX_ACCESSES:
            self._enough.set()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            await self._something.wait()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(WINDOW_S):
                    await self._enough.wait()
            self._something.clear()
            self._enough.clear()
            try:
                await self.flush()
            except (*CONNECTION_ERRORS, LogUnavailable) as error:
                _logger.warning("accesses cannot be recorded (%s); they are kept and tried again", type(error).__name__)
                self._something.set()
                await asyncio.sleep(WINDOW_S)

    async def flush(self) -> None:
        """Appends what is held. Raises LogUnavailable and what a lost connection raises, and then still holds it."""
        async with self._flushing:
            while self._waiting or self._held or self._full:
                if not self._waiting:
                    await self._take()
                new = self._waiting[0]
                append = StreamAppend(stream=access_stream(self._log.settings.site), events=[new])
                await self._log.append([append], principal=RECORDER)  # the same event again is accepted once
                self._waiting.popleft()

    async def close(self) -> None:
        """Appends what is held, if the log answers soon."""
        try:
            async with asyncio.timeout(CLOSE_S):
                await self.flush()
        except (TimeoutError, *CONNECTION_ERRORS, LogUnavailable):
            lost = self._count() + self._lost
            _LOST.inc(self._count())
            _logger.error("%d accesses were not recorded: the log did not answer", lost)

    def _count(self) -> int:
        waiting = sum(len(new.event.accesses) for new in self._waiting if isinstance(new.event, AccessesRecorded))
        return len(self._held) + len(self._full) + waiting

    async def _take(self) -> None:
        """What is held becomes events; while the subjects of studies are looked up, it stays held."""
        studies = {uid for alike in (*self._held, *(alike for alike, _ in self._full)) for uid in alike.studies}
        subject_of: dict[str, str] = {}
        if studies:
            rows = await self._log.pool.fetch(_SUBJECTS_OF_STUDIES, sorted(studies))
            subject_of = {row["study_uid"]: row["subject_id"] for row in rows}
        known = [one for one in (*self._full, *self._held.items()) if studies.issuperset(one[0].studies)]
        self._held = {alike: merged for alike, merged in self._held.items() if not studies.issuperset(alike.studies)}
        self._full = [one for one in self._full if not studies.issuperset(one[0].studies)]
        accesses = [_access(alike, merged, subject_of) for alike, merged in known]
        lost, self._lost = self._lost, 0
        for batch in _batches(accesses):
            self._waiting.append(NewEvent(event=AccessesRecorded(accesses=tuple(batch), lost=lost)))
            lost = 0


def one_access(
    principal: Principal,
    action: Action,
    outcome: Outcome = Outcome.SUCCESS,
    *,
    route: str = "",
    things: Iterable[str] = (),
    subjects: Iterable[str] = (),
) -> Access:
    """An access that happened just now."""
    now = datetime.now(UTC)
    return Access(
        first_at=now,
        last_at=now,
        count=1,
        principal=principal,
        action=action,
        outcome=outcome,
        route=route,
        things=tuple(things),
        subjects=tuple(sorted(set(subjects))),
    )


async def append_accesses(log: EventLog, *accesses: Access) -> Position:
    """Records accesses at once, for whoever has no server around: the command line. Raises LogUnavailable."""
    append = StreamAppend(stream=access_stream(log.settings.site), events=[NewEvent(event=AccessesRecorded(accesses=accesses))])
    return (await log.append([append], principal=RECORDER)).last


def _access(alike: _Alike, merged: _Merged, subject_of: dict[str, str]) -> Access:
    subjects = {*alike.subjects, *(subject_of[uid] for uid in alike.studies if uid in subject_of)}
    return Access(
        first_at=merged.first_at,
        last_at=merged.last_at,
        count=merged.count,
        principal=alike.principal,
        action=alike.action,
        outcome=alike.outcome,
        route=alike.route,
        resource_type=alike.resource_type,
        things=tuple(merged.things),
        parameters=alike.parameters,
        subjects=tuple(sorted(subjects)),
    )


def _batches(accesses: Sequence[Access]) -> list[list[Access]]:
    batches: list[list[Access]] = []
    names = 0
    for access in accesses:
        weight = len(access.subjects) + len(access.things)
        if not batches or len(batches[-1]) == MAX_ACCESSES or names + weight > MAX_NAMES:
            batches.append([])
            names = 0
        batches[-1].append(access)
        names += weight
    return batches
