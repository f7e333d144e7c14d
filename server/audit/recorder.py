"""Accesses on their way into the log: merged while they are alike, and appended many at a time, so that no read waits.

While the log does not take them they are kept, up to a bound; there reads are refused (``is_full``) rather than go unrecorded. What
was under way by then still has room; beyond that an access is lost, counted in a metric, and said by the next event that gets through.
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
from domain.principal import Principal, PrincipalKind, device
from eventlog.envelope import NewEvent, StreamAppend
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
"""Accesses that wait for a log which does not take them. Beyond these no read is answered."""
MAX_HELD_NAMES = 400_000
"""Subjects, studies and things in them: some 50 MB."""
UNDER_WAY = 2
"""So many times these bounds are kept of what was asked before they were reached."""
RETRY_S = 1.0
CLOSE_S = 5.0
RECORDER = device("access-recorder")
ANONYMOUS = Principal(id="anonymous", kind=PrincipalKind.DEVICE)
"""Who is refused without a token that is good, or an association."""

_LOST = Counter("anamnesis_accesses_lost_total", "Accesses that were not recorded: the log did not take them for too long")
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
        self._names = 0
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
            before = len(merged.things)
            merged.things.update(dict.fromkeys(things))
            self._names += len(merged.things) - before
            if len(merged.things) >= MAX_THINGS:
                self._full.append((alike, self._held.pop(alike)))
        elif self._has_room(UNDER_WAY):
            self._held[alike] = merged = _Merged(now, now, 1, dict.fromkeys(things))
            self._names += _weight(alike, merged)
        else:
            self._lost += 1
            _LOST.inc()
        self._something.set()
        if len(self._held) + len(self._full) >= MAX_ACCESSES:
            self._enough.set()

    @property
    def is_full(self) -> bool:
        """Nothing more should be read until the log takes what was."""
        return not self._has_room(1)

    async def run(self) -> None:
        """Until cancelled. Whatever keeps the log from taking accesses (no connection, a full disk, a standby) may end by itself."""
        while True:
            await self._something.wait()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(WINDOW_S):
                    await self._enough.wait()
            self._something.clear()
            self._enough.clear()
            try:
                await self._append_held()
            except Exception as error:
                _logger.warning("accesses cannot be recorded (%s); they are kept and tried again", type(error).__name__)
                self._something.set()
                await asyncio.sleep(RETRY_S)

    async def flush(self) -> None:
        """Appends what is held. Raises what appending raises, and then still holds it."""
        while self._waiting or self._held or self._full:
            await self._append_held()

    async def _append_held(self) -> None:
        """Appends what is held by now, and not what comes meanwhile: under load that would be an event for every few reads."""
        async with self._flushing:
            if not self._waiting:
                await self._take()
            while self._waiting:
                append = StreamAppend(stream=access_stream(self._log.settings.site), events=[self._waiting[0]])
                await self._log.append([append], principal=RECORDER)  # the same event again is accepted once
                self._waiting.popleft()
                self._weigh()

    async def close(self) -> None:
        """Appends what is held, if the log answers soon."""
        try:
            async with asyncio.timeout(CLOSE_S):
                await self.flush()
        except Exception:
            lost = self._count() + self._lost
            _LOST.inc(self._count())
            _logger.error("%d accesses were not recorded: the log did not take them", lost)

    def _count(self) -> int:
        waiting = sum(len(new.event.accesses) for new in self._waiting if isinstance(new.event, AccessesRecorded))
        return len(self._held) + len(self._full) + waiting

    def _has_room(self, times: int) -> bool:
        return self._count() < times * MAX_HELD and self._names < times * MAX_HELD_NAMES

    def _weigh(self) -> None:
        held = sum(_weight(alike, merged) for alike, merged in (*self._held.items(), *self._full))
        waiting = sum(_names(access) for new in self._waiting if isinstance(new.event, AccessesRecorded) for access in new.event.accesses)
        self._names = held + waiting

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
        self._weigh()


def record_refused_association(recorder: AccessRecorder | None) -> None:
    """A DICOM peer may not associate with us. What it calls itself is its own word, and is not kept."""
    if recorder is not None:
        recorder.record(ANONYMOUS, Action.LOGIN, Outcome.REFUSED, route="dimse")


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


def _weight(alike: _Alike, merged: _Merged) -> int:
    return len(alike.subjects) + len(alike.studies) + len(merged.things)


def _names(access: Access) -> int:
    return len(access.subjects) + len(access.things)


def _batches(accesses: Sequence[Access]) -> list[list[Access]]:
    batches: list[list[Access]] = []
    names = 0
    for access in accesses:
        weight = _names(access)
        if not batches or len(batches[-1]) == MAX_ACCESSES or names + weight > MAX_NAMES:
            batches.append([])
            names = 0
        batches[-1].append(access)
        names += weight
    return batches
