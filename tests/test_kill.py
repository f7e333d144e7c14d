"""kill -9 of server, worker and database at random points: nothing acknowledged is lost, no index is missing or double."""

from __future__ import annotations

import asyncio
import os
import random
import threading
import time
from pathlib import Path

import pydicom
import pytest
from pynetdicom import AE
from running_site import Site

from archive.phantom import make_phantom
from archive.store import Store
from domain.ids import series_stream
from domain.series import IndexingRequested, InstancesStored, SeriesIndexed
from eventlog.checking import check_log
from eventlog.log import EventLog
from eventlog.sealer import latest, seal
from eventlog.settings import LogSettings
from projections.catalogue import all_projections
from projections.checkpoint import wait_for
from projections.digest import table_digests
from projections.runner import Runner
from server.settings import ServerSettings

pytestmark = pytest.mark.slow

ROUNDS = int(os.environ.get("ANAMNESIS_TEST_KILL_ROUNDS", "50"))
SLICES = 6
CT = "1.2.840.10008.5.1.4.1.1.2"
EXPLICIT = "1.2.840.10008.1.2.1"


class Sender(threading.Thread):
    """Sends small series without end, and notes which instances were acknowledged."""

    def __init__(self, folder: Path, port: int) -> None:
        super().__init__(daemon=True)
        self._folder = folder
        self._port = port
        self.stopping = threading.Event()
        self.acknowledged: dict[str, str] = {}
        """SOP Instance UID → Series Instance UID"""

    def run(self) -> None:
        number = 0
        while not self.stopping.is_set():
            number += 1
            truth = make_phantom(self._folder / str(number), slices=SLICES, size=48, seed=number, slice_spacing_mm=20)
            waiting = list(truth.files)
            while waiting and not self.stopping.is_set():
                waiting = self._send(waiting)
            time.sleep(0.05)

    def _send(self, files: list[Path]) -> list[Path]:
        """Sends what it can; gives the files that were not acknowledged, to be sent again."""
        ae = AE(ae_title="KILLTEST")
        ae.add_requested_context(CT, EXPLICIT)
        ae.connection_timeout = ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 5
        association = ae.associate("127.0.0.1", self._port)
        left = list(files)
        if association.is_established:
            for file in files:
                dataset = pydicom.dcmread(file)
                try:
                    status = association.send_c_store(dataset)
                except (RuntimeError, ValueError):
                    break
                if "Status" not in status or status.Status != 0x0000:
                    break
                self.acknowledged[str(dataset.SOPInstanceUID)] = str(dataset.SeriesInstanceUID)
                left.remove(file)
            if association.is_established:
                association.release()
        else:
            time.sleep(0.1)
        return left


@pytest.mark.timeout(1500)
async def test_nothing_acknowledged_is_lost_and_every_series_has_one_index(tmp_path: Path) -> None:
    site = Site(tmp_path)
    await asyncio.to_thread(site.run, "init")
    site.start_server()
    site.start_worker()
    sender = Sender(tmp_path / "sent", site.dimse_port)
    sender.start()
    chance = random.Random(20261120)
    try:
        await _until(lambda: len(sender.acknowledged) >= SLICES, 60, "the server does not take anything")
        for _ in range(ROUNDS):
            await asyncio.sleep(chance.uniform(0.2, 2.5))
            await asyncio.to_thread(site.kill, chance.choice(["server", "worker", "database"]))
        before = len(sender.acknowledged)
        await _until(lambda: len(sender.acknowledged) >= before + SLICES, 90, "the server did not come back")
        sender.stopping.set()
        await asyncio.to_thread(sender.join)
        await _check(site, sender.acknowledged)
    finally:
        sender.stopping.set()
        await asyncio.to_thread(site.stop)


async def _check(site: Site, acknowledged: dict[str, str]) -> None:
    settings = LogSettings(data_dir=site.folder / "data")
    log = await EventLog.open(settings)
    try:
        store = Store(ServerSettings(data_dir=settings.data_dir).store_url)
        stored = await _all_stored(log, set(acknowledged))
        for uid in acknowledged:
            store.verify(stored[uid])
        await _each_has_one_index(log, set(acknowledged.values()))
        await _rebuilds_are_equal(log)
        await _seals_hold(log)
    finally:
        await log.close()


async def _all_stored(log: EventLog, wanted: set[str]) -> dict[str, str]:
    """SOP Instance UID → digest, once every wanted one is in the log; each is there once."""
    deadline = time.monotonic() + 60
    while True:
        counted: list[tuple[str, str]] = []
        position = 0
        while events := await log.read(position, 500, [InstancesStored]):
            position = events[-1].position
            counted += [(i.sop_instance_uid, i.sha256) for e in events for i in e.event.instances]  # type: ignore[attr-defined]
        stored = dict(counted)
        assert len(stored) == len(counted), "an instance was stored twice"
        if wanted <= stored.keys():
            return stored
        assert time.monotonic() < deadline, f"{len(wanted - stored.keys())} acknowledged instances are lost"
        await asyncio.sleep(0.2)


async def _each_has_one_index(log: EventLog, series: set[str]) -> None:
    """Every request that was not overtaken has one result, and the last request of every series has one."""
    deadline = time.monotonic() + 180
    for uid in sorted(series):
        while True:
            events = [e.event for e in await log.read_stream(series_stream(uid))]
            requests = [e.series_digest for e in events if isinstance(e, IndexingRequested)]
            results = [e.series_digest for e in events if isinstance(e, SeriesIndexed)]
            assert len(results) == len(set(results)), f"series {uid} was indexed twice for the same instances"
            last_stored = max(n for n, e in enumerate(events) if isinstance(e, InstancesStored))
            requested_since = any(isinstance(e, IndexingRequested) for e in events[last_stored:])
            if requested_since and requests[-1] in results:
                break
            if _too_few(events):
                break
            assert time.monotonic() < deadline, f"series {uid} has no index: {[type(e).__name__ for e in events]}"
            await asyncio.sleep(0.2)


def _too_few(events: list[object]) -> bool:
    """A series whose sending the end of the test cut off may be refused by name."""
    return type(events[-1]).__name__ == "IndexingRefused"


async def _rebuilds_are_equal(log: EventLog) -> None:
    head = await log.head()
    runner = Runner(log, all_projections())
    for projection in all_projections():
        await wait_for(log.pool, projection, head, timeout_s=60)
        async with log.pool.acquire() as connection:
            live = await table_digests(connection, projection)
        await runner.rebuild(projection.name)
        async with log.pool.acquire() as connection:
            assert await table_digests(connection, projection) == live, projection.name


async def _seals_hold(log: EventLog) -> None:
    """The server that was killed left a tree and checkpoints that this process goes on from."""
    assert await latest(log.pool) is not None
    assert (await seal(log)).size == await log.head()
    checked = await check_log(log)
    assert checked.holds, checked.discrepancies[:5]
    assert checked.checkpoints > 1


async def _until(condition, timeout_s: float, what: str) -> None:  # type: ignore[no-untyped-def]
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.1)
