"""One message worked off: the series is read from the log and the archive, segmented, and the outcome appended, once.

The event id of an index is derived from (series digest, segmenter, version), a lease keeps two workers from the same series,
and the decider takes one outcome for a request: so a crash at any point neither loses an index nor doubles it.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
import tempfile
import time
from enum import StrEnum
from pathlib import Path
from uuid import UUID

import msgspec

from archive.process_folder import is_alive, own_name
from archive.store import Store
from domain import series
from domain.errors import IndexingIsObsolete, IndexingNotRequested
from domain.ids import derived_id, series_stream
from domain.principal import device
from domain.series import (
    DicomJson,
    IndexingFailed,
    IndexingRefused,
    IndexingRequested,
    IndexingResult,
    InstancesStored,
    Series,
    SeriesErased,
    SeriesIndexed,
    indexing_key,
    join_header,
)
from eventlog.aggregate import execute
from eventlog.appender import CONNECTION_ERRORS
from eventlog.envelope import RecordedEvent
from eventlog.errors import EventIdReused, LogUnavailable, SubjectKeyDestroyed, VersionConflict
from eventlog.leases import lease
from eventlog.log import EventLog
from workers import metrics
from workers.errors import HeadersMissing, NotIndexable, SegmentationFailed, SegmentationInterrupted, SegmenterNotReady
from workers.requesting import fold
from workers.segmentation import Segmentation
from workers.settings import WorkerSettings

LOG_RETRY_S = 2.0
INTERRUPTED_RETRY_S = 1.0
_logger = logging.getLogger(__name__)


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """What a message carries: a request by its keys, and nothing of a person."""

    series_uid: str
    series_digest: str
    segmenter: str

    @property
    def lease_key(self) -> str:
        """Without the segmenter's version: workers of two versions do not both work on one request."""
        return f"indexing {self.series_digest} {self.segmenter}"


class Outcome(StrEnum):
    INDEXED = "indexed"
    REFUSED = "refused"
    FAILED = "failed"
    ALREADY_DONE = "already-done"
    OBSOLETE = "obsolete"
    """Instances came since: the dispatcher requests anew."""
    ELSEWHERE = "elsewhere"
    """Another worker holds the lease."""
    ATTEMPT_FAILED = "attempt-failed"
    NOT_READY = "not-ready"
    INTERRUPTED = "interrupted"
    LOG_UNAVAILABLE = "log-unavailable"


class Worked(msgspec.Struct, frozen=True, kw_only=True):
    """What came of a message. With ``retry_after_s`` it is to be worked off again."""

    outcome: Outcome
    retry_after_s: float | None = None


class Indexer:
    """Lives on the log's event loop."""

    def __init__(self, log: EventLog, store: Store, segmentation: Segmentation, settings: WorkerSettings) -> None:
        self._log = log
        self._store = store
        self._segmentation = segmentation
        self._settings = settings

    async def work_off(self, task: Task, attempt: int) -> Worked:
        """Works off a message; ``attempt`` counts from 1. Never raises: what cannot be recorded is tried again."""
        began = time.monotonic()
        try:
            worked = await self._work_off(task, attempt)
        except SegmenterNotReady as error:
            _logger.warning("series %s waits: %s", task.series_uid, error)
            metrics.READY.labels(task.segmenter).set(0)
            worked = Worked(outcome=Outcome.NOT_READY)  # the request stands, and is sent again after a while
        except SegmentationInterrupted:
            worked = Worked(outcome=Outcome.INTERRUPTED, retry_after_s=INTERRUPTED_RETRY_S)
        except (*CONNECTION_ERRORS, LogUnavailable, VersionConflict) as error:
            _logger.warning("the log does not answer (%s); series %s waits", type(error).__name__, task.series_uid)
            worked = Worked(outcome=Outcome.LOG_UNAVAILABLE, retry_after_s=LOG_RETRY_S)
        if worked.outcome in (Outcome.INDEXED, Outcome.REFUSED):
            metrics.DURATION_S.labels(task.segmenter).observe(time.monotonic() - began)
        metrics.OUTCOMES.labels(task.segmenter, worked.outcome.value).inc()
        return worked

    async def _work_off(self, task: Task, attempt: int) -> Worked:
        async with lease(self._log, task.lease_key) as had:
            if not had:
                return Worked(outcome=Outcome.ELSEWHERE)
            recorded = await self._log.read_stream(series_stream(task.series_uid))
            state = fold(recorded)
            status = state.indexing.get(task.segmenter)
            if status is None or status.series_digest != task.series_digest or state.digest != task.series_digest:
                return Worked(outcome=Outcome.OBSOLETE)
            if status.outcome != "requested":
                return Worked(outcome=Outcome.ALREADY_DONE)
            request = next(r for r in reversed(recorded) if _requests(r, task))
            assert isinstance(request.event, IndexingRequested)
            version = await asyncio.to_thread(self._segmentation.version, task.segmenter)
            metrics.READY.labels(task.segmenter).set(1)
            event_id = UUID(indexing_key(task.series_digest, task.segmenter, version))
            try:
                result, outcome = await self._segment(task, request.event, recorded)
            except (SegmenterNotReady, SegmentationInterrupted, LogUnavailable, VersionConflict):
                raise
            except Exception as error:  # whatever a segmenter, a decoder or the archive raises: the machine failed
                name = error.error if isinstance(error, SegmentationFailed) else type(error).__name__
                _logger.warning("attempt %d at series %s failed: %s", attempt, task.series_uid, name)
                if attempt < self._settings.max_attempts:
                    return Worked(outcome=Outcome.ATTEMPT_FAILED, retry_after_s=self._backoff_s(attempt))
                result, outcome = _failed(task, request.event, name, attempt), Outcome.FAILED
                event_id = derived_id("indexing-failed", str(request.event_id))
            return Worked(outcome=await self._record(result, outcome, event_id, request))

    def _backoff_s(self, attempt: int) -> float:
        return min(self._settings.min_backoff_s * 2.0 ** (attempt - 1), self._settings.max_backoff_s)

    async def _segment(self, task: Task, request: IndexingRequested, recorded: list[RecordedEvent]) -> tuple[IndexingResult, Outcome]:
        with tempfile.TemporaryDirectory(dir=fetch_folder(self._settings)) as folder:
            headers, digests = _headers(recorded)
            files = await asyncio.to_thread(lambda: [self._store.fetch(sha256, Path(folder)) for sha256 in digests])
            try:
                indexed = await asyncio.to_thread(
                    self._segmentation.index, task.segmenter, files, headers, time_limit_s=self._settings.time_limit_s
                )
            except NotIndexable as error:
                refused = IndexingRefused(
                    study_uid=request.study_uid,
                    series_uid=request.series_uid,
                    subject_id=request.subject_id,
                    series_digest=request.series_digest,
                    segmenter=request.segmenter,
                    reason=error.reason,
                    detail=error.detail,
                )
                return refused, Outcome.REFUSED
        result = SeriesIndexed(
            study_uid=request.study_uid,
            series_uid=request.series_uid,
            subject_id=request.subject_id,
            series_digest=request.series_digest,
            run=indexed.run,
            findings=indexed.findings,
        )
        return result, Outcome.INDEXED

    async def _record(self, result: IndexingResult, outcome: Outcome, event_id: UUID, request: RecordedEvent) -> Outcome:
        segmenter = result.run.segmenter if isinstance(result, SeriesIndexed) else result.segmenter
        try:
            executed = await execute(
                self._log,
                request.stream,
                Series(),
                series.evolve,
                lambda state: series.record_indexing(state, result),
                principal=device(segmenter).acting_for(request.principal),
                correlation_id=request.correlation_id,
                causation_id=request.event_id,
                event_ids=[event_id],
            )
        except (IndexingIsObsolete, IndexingNotRequested, SubjectKeyDestroyed):  # the latter two: the subject was erased meanwhile
            return Outcome.OBSOLETE
        except EventIdReused:
            return Outcome.ALREADY_DONE
        return outcome if executed.events else Outcome.ALREADY_DONE


def fetch_folder(settings: WorkerSettings) -> Path:
    """Where series in hand are copied to from an archive elsewhere: in the data folder, so that no copy is left lying about."""
    folder = settings.data_dir / "fetched" / own_name()
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def sweep_fetched(settings: WorkerSettings) -> None:
    """Removes what workers that were killed have left."""
    for folder in (settings.data_dir / "fetched").glob("*"):
        if not is_alive(folder.name):
            shutil.rmtree(folder, ignore_errors=True)


def _requests(recorded: RecordedEvent, task: Task) -> bool:
    event = recorded.event
    return isinstance(event, IndexingRequested) and event.segmenter == task.segmenter and event.series_digest == task.series_digest


def _headers(recorded: list[RecordedEvent]) -> tuple[list[DicomJson], list[str]]:
    """Header and file digest of each instance of the series, in the same order. Raises HeadersMissing."""
    headers: list[DicomJson] = []
    digests: list[str] = []
    for event in (r.event for r in recorded):
        if isinstance(event, SeriesErased):  # what is left of it follows
            headers.clear()
            digests.clear()
        elif isinstance(event, InstancesStored):
            if len(event.headers) != len(event.instances):
                raise HeadersMissing(f"the headers of series {event.series_uid} were erased with their subject")
            headers.extend(join_header(event.common, own) for own in event.headers)
            digests.extend(instance.sha256 for instance in event.instances)
    return headers, digests


def _failed(task: Task, request: IndexingRequested, error: str, attempts: int) -> IndexingFailed:
    return IndexingFailed(
        study_uid=request.study_uid,
        series_uid=task.series_uid,
        subject_id=request.subject_id,
        series_digest=task.series_digest,
        segmenter=task.segmenter,
        error=error,
        attempts=attempts,
    )
