"""The whole worker on each broker: series in the log and the archive come out as an index, a named refusal or a named failure."""

from __future__ import annotations

from uuid import UUID

import pytest

from archive.phantom import PhantomTruth
from domain.principal import Principal, PrincipalKind
from domain.series import IndexingFailed, IndexingRefused, IndexingRequested, SeriesIndexed, indexing_key
from eventlog.log import EventLog
from workers.errors import BrokerNeeded
from workers.process import open_worker
from workers.requesting import ask
from workers.settings import WorkerSettings

READER = Principal(id="person:reader", kind=PrincipalKind.PERSON)


async def test_a_quiet_series_is_indexed_once_on_every_broker(
    event_log: EventLog, broker_settings: WorkerSettings, store_phantom, wait_for_events, events_of, phantom: PhantomTruth
) -> None:
    uid = await store_phantom()
    async with open_worker(broker_settings):
        (indexed,) = await wait_for_events(event_log, uid, 1, SeriesIndexed)
    event = indexed.event
    assert isinstance(event, SeriesIndexed)
    found = {finding.structure.label: finding.volume_mm3 for finding in event.findings}
    assert set(found) == {"body", "lung_left", "lung_right", "bone"}
    for label, volume in phantom.volumes_mm3.items():
        assert found[label] == pytest.approx(volume, rel=0.05)  # on a coarse grid; how exact it is, test_baseline says
    (request,) = await events_of(event_log, uid, IndexingRequested)
    assert indexed.event_id == UUID(indexing_key(event.series_digest, "baseline", event.run.segmenter_version))
    assert indexed.causation_id == request.event_id
    assert indexed.correlation_id == request.correlation_id
    assert (indexed.principal.id, indexed.principal.on_behalf_of) == ("device:baseline", "ae:STORESCU")
    assert [r.type for r in await events_of(event_log, uid)] == ["IndexingRequested", "SeriesIndexed"]


async def test_a_series_that_cannot_be_indexed_is_refused_with_the_reason(
    event_log: EventLog, worker_settings: WorkerSettings, store_phantom, wait_for_events
) -> None:
    uid = await store_phantom(modality="MR")
    async with open_worker(worker_settings):
        (refused,) = await wait_for_events(event_log, uid, 1, IndexingRefused)
    assert isinstance(refused.event, IndexingRefused)
    assert refused.event.reason == "not-ct"


async def test_a_failure_of_the_machine_is_recorded_after_its_attempts_and_tried_again_when_asked(
    event_log: EventLog, worker_settings: WorkerSettings, store_phantom, wait_for_events
) -> None:
    uid = await store_phantom()
    archive = worker_settings.data_dir / "archive"
    archive.rename(worker_settings.data_dir / "archive-away")
    async with open_worker(worker_settings):
        (failed,) = await wait_for_events(event_log, uid, 1, IndexingFailed)
        assert isinstance(failed.event, IndexingFailed)
        assert (failed.event.error, failed.event.attempts) == ("NotInArchive", 3)
        for file in (worker_settings.data_dir / "archive-away").iterdir():
            file.rename(archive / file.name)
        assert await ask(event_log, uid, "baseline", READER) is not None
        (indexed,) = await wait_for_events(event_log, uid, 1, SeriesIndexed)
    assert indexed.principal.on_behalf_of == "person:reader"


async def test_a_request_stands_while_its_segmenter_is_not_ready(
    event_log: EventLog, worker_settings: WorkerSettings, store_phantom, wait_for_events, events_of
) -> None:
    uid = await store_phantom()
    settings = worker_settings.model_copy(update={"quiet_seconds": 3600})
    await ask(event_log, uid, "nowhere", READER)
    async with open_worker(settings):
        assert await ask(event_log, uid, "baseline", READER) is not None
        await wait_for_events(event_log, uid, 1, SeriesIndexed)
    assert [r.type for r in await events_of(event_log, uid)] == ["IndexingRequested", "IndexingRequested", "SeriesIndexed"]


async def test_a_worker_without_dispatcher_needs_a_broker(worker_settings: WorkerSettings) -> None:
    with pytest.raises(BrokerNeeded):
        async with open_worker(worker_settings, dispatch=False):
            pass
