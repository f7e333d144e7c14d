"""From the spool into the log: each committed instance becomes an event, and gets a verdict.

Instances are gathered by series for a moment, so that one event carries up to a hundred of them. The order makes every
crash harmless: the object is linked into the store, then the event is appended, then the spool lets go of its name.
Whatever was interrupted is still in the spool; taken up again, it is linked (it is there already), decided (a
duplicate, or new) and let go. While the database is down, instances wait in the spool and are tried again.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar
from weakref import WeakValueDictionary

import asyncpg
import msgspec
from prometheus_client import Counter, Gauge

from archive.errors import Refused
from archive.header import InstanceHeader, read_header
from archive.rejects import Rejects
from archive.spool import Spool, SpooledInstance
from archive.store import Store
from domain import series, study, subject
from domain.errors import DomainError, InstanceOfOtherStudy, SubjectIsErased
from domain.event import Event
from domain.ids import series_stream, study_stream, subject_stream
from domain.principal import Principal, PrincipalKind
from domain.series import InstanceConflicted, InstancesStored, Received, Series, StoredInstance, StoreInstances
from domain.study import Study
from domain.subject import Demographics, Subject
from eventlog.aggregate import load
from eventlog.envelope import NewEvent, StreamAppend
from eventlog.errors import EventTooLarge, LogUnavailable, SubjectKeyDestroyed, VersionConflict
from eventlog.log import EventLog
from server.errors import ServerError
from server.refusal import SUBJECT_ERASED, refuse
from server.verdict import Verdict

S = TypeVar("S")
CACHED_STREAMS = 2_000
AWAITED_LINGER_S = 0.1
RETRY_S = 1.0
SWEEP_S = 30.0
CLOSE_TIMEOUT_S = 10.0
_UID = re.compile(r"[0-9A-Za-z._-]{1,128}")
_CODE_STRING = re.compile(r"[A-Z0-9_ ]{1,16}")
"""PS3.5, 6.2. What else stands in Modality (0008,0060) is free text, and stays in the sealed header alone."""
DOWN = (LogUnavailable, asyncpg.PostgresError, asyncpg.InterfaceError, OSError)
"""The database does not answer, or not as it should: nothing that an instance can help, so it is tried again."""
POISON = (DomainError, EventTooLarge, msgspec.MsgspecError, ValueError, TypeError, OverflowError)
"""The fault of one instance of a batch."""
_logger = logging.getLogger(__name__)

_VERDICTS = Counter("anamnesis_intake_instances_total", "Instances by verdict", ["door", "outcome"])
_WAITING = Gauge("anamnesis_intake_waiting", "Instances handed to the intake and not yet decided")


class IntakeClosed(ServerError):
    """Raised to whoever waits for a verdict when the intake stops."""


@dataclass(eq=False)
class _Item:
    spooled: SpooledInstance
    principal: Principal
    done: Future[Verdict]
    awaited: bool
    header: InstanceHeader | None = None


@dataclass
class _Group:
    items: list[_Item] = field(default_factory=list)
    timer: asyncio.TimerHandle | None = None


class Intake:
    """Lives on one event loop; ``submit`` may be called from any thread."""

    def __init__(
        self,
        log: EventLog,
        store: Store,
        spool: Spool,
        rejects: Rejects,
        *,
        linger_s: float = 0.5,
        patient_id_systems: Mapping[str, str] | None = None,
    ) -> None:
        self._log = log
        self._store = store
        self._spool = spool
        self._rejects = rejects
        self._linger_s = linger_s
        self._patient_id_systems = patient_id_systems or {}
        self._loop = asyncio.get_running_loop()
        self._threads = ThreadPoolExecutor(2, "intake")
        self._groups: dict[tuple[str, str, str, Principal], _Group] = {}
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._tasks: set[asyncio.Task[None]] = set()
        self._undecided: set[_Item] = set()
        self._unparsed: set[_Item] = set()
        self._hurrying = False
        self._series: _States[Series] = _States(Series(), series.evolve)
        self._studies: _States[Study] = _States(Study(), study.evolve)
        self._subjects: _States[Subject] = _States(Subject(), subject.evolve)
        self._sweeper: asyncio.Task[None] | None = None

    def submit(self, spooled: SpooledInstance, principal: Principal | None = None, *, awaited: bool = True) -> Future[Verdict]:
        """Hands over a committed instance; the future gives its verdict. Never raises: what fails is tried again.
        Where nobody awaits the verdict, more instances are gathered for one event, until `hurry`."""
        item = _Item(spooled, principal or _sender(spooled), Future(), awaited)
        item.done.set_running_or_notify_cancel()  # what is in the spool cannot be called back
        self._undecided.add(item)
        self._unparsed.add(item)
        _WAITING.inc()
        try:
            self._threads.submit(self._parse, item)
        except RuntimeError:
            self._settle(item, _closed())
        return item.done

    def hurry(self) -> None:
        """No more instances come for now: what was handed over is decided once it is parsed. From any thread."""
        with contextlib.suppress(RuntimeError):  # the loop has ended, and with it the intake
            self._loop.call_soon_threadsafe(self._hurry)

    def _hurry(self) -> None:
        self._hurrying = bool(self._unparsed)
        if not self._unparsed:
            self._flush_all()

    def resume(self) -> int:
        """Takes up what processes that are gone have left in the spool; gives how many. Looks again now and then."""
        count = 0
        for spooled in self._leftovers():
            self.submit(spooled)
            count += 1
        if self._sweeper is None:
            self._sweeper = self._loop.create_task(self._sweep())
        return count

    async def close(self) -> None:
        """Decides what was handed over, then stops. What cannot be decided now waits in the spool."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        await asyncio.to_thread(self._threads.shutdown)
        await asyncio.sleep(0)
        self._flush_all()
        deadline = self._loop.time() + CLOSE_TIMEOUT_S
        while self._tasks and self._loop.time() < deadline:  # a batch may be decided one by one, in tasks of their own
            await asyncio.wait(self._tasks, timeout=deadline - self._loop.time())
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for item in list(self._undecided):
            self._settle(item, _closed())

    def _leftovers(self) -> list[SpooledInstance]:
        found: list[SpooledInstance] = []
        try:
            found.extend(self._spool.pending())
        except (OSError, ValueError, Refused) as error:  # another process takes them up at this moment, or a file is foreign
            _logger.warning("the spool could not be looked through to its end (%s); again later", type(error).__name__)
        return found

    async def _sweep(self) -> None:
        taken: set[str] = set()
        while True:
            await asyncio.sleep(SWEEP_S)
            for spooled in await asyncio.to_thread(self._leftovers):
                if str(spooled.path) not in taken:
                    taken.add(str(spooled.path))
                    self.submit(spooled)

    def _parse(self, item: _Item) -> None:
        try:
            item.header = _usable(read_header(item.spooled.path))
            self._store.put(item.spooled)
        except FileNotFoundError:
            self._settle(item, Verdict(outcome="duplicate", reason="taken by another process"))
            return
        except Refused as error:
            self._loop.call_soon_threadsafe(self._start, self._refuse(item, error.reason, str(error)))
            return
        except OSError as error:
            _logger.warning("the archive does not answer (%s); an instance waits in the spool", type(error).__name__)
            self._loop.call_soon_threadsafe(self._loop.call_later, RETRY_S, self._parse_again, item)
            return
        except Exception as error:
            self._loop.call_soon_threadsafe(
                self._start, self._refuse(item, "unreadable", f"the header cannot be read ({type(error).__name__})")
            )
            return
        self._loop.call_soon_threadsafe(self._gather, item)

    def _parse_again(self, item: _Item) -> None:
        try:
            self._threads.submit(self._parse, item)
        except RuntimeError:
            self._settle(item, _closed())

    def _gather(self, item: _Item) -> None:
        assert item.header is not None
        header = item.header
        subject_id = self._log.vault.subject_id(
            _text(header.elements, "00100020"), _text(header.elements, "00100021"), otherwise=header.study_uid
        )
        key = (header.study_uid, header.series_uid, subject_id, item.principal)
        group = self._groups.setdefault(key, _Group())
        group.items.append(item)
        if len(group.items) >= series.MAX_INSTANCES_PER_EVENT:
            self._flush(key)
        elif group.timer is None:
            linger_s = min(self._linger_s, AWAITED_LINGER_S) if item.awaited else self._linger_s
            group.timer = self._loop.call_later(linger_s, self._flush, key)
        self._unparsed.discard(item)
        if self._hurrying:
            self._hurry()

    def _flush_all(self) -> None:
        for key in list(self._groups):
            self._flush(key)

    def _flush(self, key: tuple[str, str, str, Principal]) -> None:
        group = self._groups.pop(key, None)
        if group is None:
            return
        if group.timer is not None:
            group.timer.cancel()
        self._start(self._decide(key, group.items))

    def _start(self, work: Any) -> None:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _decide(self, key: tuple[str, str, str, Principal], items: list[_Item]) -> None:
        # One study at a time: its series share the study's and the subject's streams.
        lock = self._locks.setdefault(key[0], asyncio.Lock())
        async with lock:
            while True:
                try:
                    await self._append(key, items)
                    return
                except (SubjectIsErased, SubjectKeyDestroyed):
                    self._forget(key)
                    for item in items:
                        await self._refuse(item, SUBJECT_ERASED, "")
                    return
                except InstanceOfOtherStudy as error:
                    for item in items:
                        await self._refuse(item, "other-study", str(error))
                    return
                except VersionConflict:
                    self._forget(key)
                except DOWN as error:
                    _logger.warning("the database does not answer (%s); %d instances wait in the spool", type(error).__name__, len(items))
                    self._forget(key)
                    await asyncio.sleep(RETRY_S)
                except POISON as error:
                    self._forget(key)
                    if len(items) == 1:
                        await self._refuse(items[0], "unreadable", f"the header cannot be recorded ({type(error).__name__})")
                    for item in items if len(items) > 1 else ():  # the others of the batch are innocent
                        self._start(self._decide(key, [item]))
                    return
                except asyncio.CancelledError:
                    raise
                except Exception as error:
                    _logger.exception("instances cannot be taken in (%s); they wait in the spool", type(error).__name__)
                    for item in items:
                        self._settle(item, error)
                    return

    def _forget(self, key: tuple[str, str, str, Principal]) -> None:
        self._studies.forget(study_stream(key[0]))
        self._series.forget(series_stream(key[1]))
        joined, _ = self._subjects.cached(subject_stream(key[2]))
        self._subjects.forget(subject_stream(key[2]))
        if joined is not None and joined.joined_into:
            self._subjects.forget(subject_stream(joined.joined_into))

    async def _append(self, key: tuple[str, str, str, Principal], items: Sequence[_Item]) -> None:
        study_uid, series_uid, subject_id, principal = key
        headers = [item.header for item in items if item.header is not None]
        appends: list[StreamAppend] = []
        known: list[tuple[_States[Any], str, Any, int, Sequence[Event]]] = []
        unchanged: list[StreamAppend] = []
        """The subject's stream where nothing is new of it: it must not say meanwhile that the subject is erased."""

        async def decide(states: _States[Any], stream: str, decision: Callable[[Any], list[Event]]) -> list[Event]:
            state, version = await states.get(self._log, stream)
            events = decision(state)
            new = [NewEvent(event=event) for event in events]
            seen = StreamAppend(stream=stream, events=new, expected_version=version)
            if events:
                appends.append(seen)
                known.append((states, stream, state, version, events))
            elif states is self._subjects:
                unchanged.append(seen)
            return events

        person = headers[-1].elements
        joined, joined_version = await self._subjects.get(self._log, subject_stream(subject_id))
        if joined.joined_into:  # a client wrote this number into the Patient of another subject
            unchanged.append(StreamAppend(stream=subject_stream(subject_id), events=[], expected_version=joined_version))
            subject_id = joined.joined_into
        await decide(
            self._subjects,
            subject_stream(subject_id),
            lambda state: subject.observe_subject(state, subject_id, _text(person, "00100040"), _demographics(person, self._patient_id_systems)),
        )
        await decide(self._studies, study_stream(study_uid), lambda state: study.register_study(state, study_uid, subject_id))
        command = StoreInstances(
            study_uid=study_uid,
            series_uid=series_uid,
            subject_id=subject_id,
            modality=headers[0].modality if _CODE_STRING.fullmatch(headers[0].modality) else "",
            door=items[0].spooled.door,
            received=[_received(item) for item in items],
        )
        decided = await decide(self._series, series_stream(series_uid), lambda state: series.store_instances(state, command))
        position: int | None = None
        if not appends:
            await self._still_as_seen(unchanged)
        else:
            position = (await self._log.append([*appends, *unchanged], principal=principal)).last
            for states, stream, state, version, events in known:
                states.advance(stream, state, version, events)
        self._answer(items, decided, position)

    def _answer(self, items: Sequence[_Item], decided: Sequence[Event], position: int | None) -> None:
        stored = {i.sop_instance_uid for e in decided if isinstance(e, InstancesStored) for i in e.instances}
        state, _ = self._series.cached(series_stream(items[0].header.series_uid))  # type: ignore[union-attr]
        conflicts = {(e.sop_instance_uid, e.conflicting_sha256) for e in decided if isinstance(e, InstanceConflicted)}
        for item in items:
            assert item.header is not None
            uid = item.header.sop_instance_uid
            pair = (uid, item.spooled.sha256)
            if pair in conflicts or (state is not None and pair in state.conflicts):
                outcome, reason = "conflict", "other-bytes-under-known-uid"
            elif uid in stored:
                outcome, reason = "stored", ""
                stored.discard(uid)
            else:
                outcome, reason = "duplicate", ""
            item.spooled.path.unlink(missing_ok=True)
            self._settle(
                item,
                Verdict(
                    outcome=outcome,
                    reason=reason,
                    study_uid=item.header.study_uid,
                    series_uid=item.header.series_uid,
                    sop_instance_uid=uid,
                    sop_class_uid=item.header.sop_class_uid,
                    position=position,
                ),
            )

    async def _still_as_seen(self, streams: Sequence[StreamAppend]) -> None:
        """Raises VersionConflict."""
        for seen in streams:
            version = await self._log.pool.fetchval(
                "SELECT version FROM event WHERE stream = $1 ORDER BY version DESC LIMIT 1", seen.stream
            )
            if version != seen.expected_version:
                raise VersionConflict(seen.stream, seen.expected_version or 0, version)

    async def _refuse(self, item: _Item, reason: str, detail: str) -> None:
        spooled = item.spooled
        while True:
            try:
                verdict = await refuse(
                    self._log,
                    self._rejects,
                    spooled.path,
                    reason=reason,
                    detail=detail,
                    door=spooled.door,
                    principal=item.principal,
                    sop_class_uid=spooled.sop_class_uid,
                    sop_instance_uid=spooled.sop_instance_uid,
                    once=True,
                )
                break
            except FileNotFoundError:
                self._settle(item, Verdict(outcome="duplicate", reason="taken by another process"))
                return
            except DOWN:
                await asyncio.sleep(RETRY_S)
        if verdict.reason == SUBJECT_ERASED:  # it was put into the store before anybody looked at whose it is
            await asyncio.to_thread(self._store.delete, spooled.sha256)
        spooled.path.unlink(missing_ok=True)
        self._settle(item, verdict)

    def _settle(self, item: _Item, result: Verdict | Exception) -> None:
        self._undecided.discard(item)
        self._unparsed.discard(item)
        if item.done.done():
            return
        _WAITING.dec()
        if isinstance(result, Exception):
            _VERDICTS.labels(item.spooled.door, "error").inc()
            item.done.set_exception(result)
        else:
            _VERDICTS.labels(item.spooled.door, result.outcome).inc()
            item.done.set_result(result)


def _closed() -> IntakeClosed:
    return IntakeClosed("the intake has stopped; the instance is safe in the spool and is taken up at the next start")


class InvalidUID(Refused):
    """Raised when a UID is none in any system: it would not survive in URLs, stream names and PostgreSQL."""

    reason = "invalid-uid"


def _usable(header: InstanceHeader) -> InstanceHeader:
    """Leading zeros, letters and 78 characters are found in real files, and are kept. Raises InvalidUID."""
    for tag, uid in (
        ("(0020,000D)", header.study_uid),
        ("(0020,000E)", header.series_uid),
        ("(0008,0018)", header.sop_instance_uid),
        ("(0008,0016)", header.sop_class_uid),
    ):
        if not _UID.fullmatch(uid):
            raise InvalidUID(f"{tag} is no UID: it has {len(uid)} characters, or others than digits and dots")
    try:
        msgspec.json.encode(header.elements)
    except TypeError:  # pydicom's UID is a str to everybody but msgspec
        plain = msgspec.json.decode(msgspec.json.encode(header.elements, enc_hook=str))
        return msgspec.structs.replace(header, elements=plain)
    return header


class _States(Generic[S]):
    """States of streams as this process last saw them, the most recent ones; a stale one ends in a VersionConflict."""

    def __init__(self, initial: S, evolve: Callable[[S, Event], S]) -> None:
        self._initial = initial
        self._evolve = evolve
        self._known: OrderedDict[str, tuple[S, int]] = OrderedDict()

    async def get(self, log: EventLog, stream: str) -> tuple[S, int]:
        if stream not in self._known:
            self._known[stream] = await load(log, stream, self._initial, self._evolve)
            if len(self._known) > CACHED_STREAMS:
                self._known.popitem(last=False)
        self._known.move_to_end(stream)
        return self._known[stream]

    def cached(self, stream: str) -> tuple[S | None, int]:
        return self._known.get(stream, (None, 0))

    def advance(self, stream: str, state: S, version: int, events: Sequence[Event]) -> None:
        """Notes what was appended on the strength of this state, which another study may have forgotten meanwhile."""
        for event in events:
            state = self._evolve(state, event)
        if self.cached(stream)[1] <= version + len(events):
            self._known[stream] = (state, version + len(events))

    def forget(self, stream: str) -> None:
        self._known.pop(stream, None)


def sender_of(principal: Principal) -> str:
    """How the spool remembers who sent by another door than DIMSE."""
    return f"{principal.kind}|{principal.id}"


def _sender(spooled: SpooledInstance) -> Principal:
    """Who sent what was taken up after a crash."""
    if spooled.door == "dimse":
        return Principal(id=f"ae:{spooled.sender}", kind=PrincipalKind.DEVICE)
    kind, _, name = (spooled.sender or "").partition("|")
    if not name or kind not in list(PrincipalKind):
        return Principal(id=f"door:{spooled.door}", kind=PrincipalKind.DEVICE)
    return Principal(id=name, kind=PrincipalKind(kind))


def _received(item: _Item) -> Received:
    assert item.header is not None
    header, spooled = item.header, item.spooled
    instance = StoredInstance(
        sop_instance_uid=header.sop_instance_uid,
        sop_class_uid=header.sop_class_uid,
        transfer_syntax_uid=header.transfer_syntax_uid,
        sha256=spooled.sha256,
        size=spooled.size,
        number_of_frames=header.number_of_frames,
        has_pixel_data=header.has_pixel_data,
    )
    return Received(instance=instance, header=header.elements)


def _demographics(elements: dict[str, Any], systems: Mapping[str, str]) -> Demographics:
    name = (elements.get("00100010", {}).get("Value") or [None])[0] or {}
    groups = [name.get(part, "") for part in ("Alphabetic", "Ideographic", "Phonetic")] if isinstance(name, dict) else [str(name)]
    return Demographics(
        patient_id=_text(elements, "00100020"),
        issuer_of_patient_id=_text(elements, "00100021"),
        patient_name="=".join(groups).rstrip("="),
        birth_date=_text(elements, "00100030"),
        patient_id_system=systems.get(_text(elements, "00100021"), "") if _text(elements, "00100020") else "",
    )


def _text(elements: dict[str, Any], tag: str) -> str:
    values = elements.get(tag, {}).get("Value") or [""]
    return str(values[0] or "").strip()
