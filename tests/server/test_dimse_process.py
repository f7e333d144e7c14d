"""DIMSE in a process of its own: instances reach the log, and neither side's death loses one that was acknowledged."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest
import pytest_asyncio
from pynetdicom import AE

from archive.phantom import make_phantom
from archive.rejects import Rejects
from archive.spool import Spool
from archive.store import Store
from domain.series import InstancesStored
from eventlog.log import EventLog
from server.dimse.own_process import DimseProcess
from server.intake import Intake
from server.settings import ServerSettings

CT, EXPLICIT = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.1.2.1"


class Site:
    def __init__(self, log: EventLog, folder: Path) -> None:
        self.log = log
        self.settings = ServerSettings(data_dir=folder, dimse_port=0)
        self.spool = Spool(self.settings.spool_dir)
        self.intake = Intake(log, Store(self.settings.store_url), self.spool, Rejects(self.settings.rejects_dir))
        loop = asyncio.get_running_loop()
        self.dimse = DimseProcess(self.settings, self.intake, lambda: loop.call_soon_threadsafe(self.intake.resume))

    async def stored(self) -> set[str]:
        events = [e.event for e in await self.log.read(0, 10_000, [InstancesStored])]
        return {i.sop_instance_uid for e in events if isinstance(e, InstancesStored) for i in e.instances}


@pytest_asyncio.fixture
async def site(event_log: EventLog, tmp_path: Path) -> AsyncIterator[Site]:
    site = Site(event_log, tmp_path)
    await asyncio.to_thread(site.dimse.start)
    yield site
    await asyncio.to_thread(site.dimse.stop)
    await site.intake.close()


async def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 30
    while True:
        answer = condition()
        if await answer if asyncio.iscoroutine(answer) else answer:  # type: ignore[misc]
            return
        assert time.monotonic() < deadline, what
        await asyncio.sleep(0.05)


def send(port: int, files: list[Path]) -> set[str]:
    """SOP Instance UIDs of those that were acknowledged before the association broke, if it did."""
    import pydicom

    entity = AE(ae_title="TEST")
    entity.add_requested_context(CT, EXPLICIT)
    entity.dimse_timeout = entity.network_timeout = 10
    association = entity.associate("127.0.0.1", port)
    acknowledged = set()
    for file in files if association.is_established else []:
        try:
            status = association.send_c_store(pydicom.dcmread(file))
        except (RuntimeError, ValueError):
            break
        if status.get("Status") != 0:
            break
        acknowledged.add(str(pydicom.dcmread(file, stop_before_pixels=True).SOPInstanceUID))
    if association.is_established:
        association.release()
    return acknowledged


async def test_what_is_sent_is_in_the_log_and_the_spool_is_empty(site: Site, tmp_path: Path) -> None:
    truth = make_phantom(tmp_path / "ct", slices=12, size=64)
    acknowledged = await asyncio.to_thread(send, site.dimse.port, list(truth.files))
    assert len(acknowledged) == 12
    await until(lambda: _all_in(site, acknowledged), "an instance is not in the log")
    await until(lambda: site.spool.depth() == 0, "the spool is not empty")


async def _all_in(site: Site, uids: set[str]) -> bool:
    return uids <= await site.stored()


async def test_a_killed_process_is_replaced_on_its_port_and_what_it_acknowledged_is_stored(site: Site, tmp_path: Path) -> None:
    truth = make_phantom(tmp_path / "ct", slices=60, size=64)
    port, first = site.dimse.port, site.dimse.process_id
    sending = asyncio.create_task(asyncio.to_thread(send, port, list(truth.files)))
    await until(lambda: any(site.settings.spool_dir.rglob("*.dcm")) or _some_in(site), "nothing arrives")
    os.kill(first, signal.SIGKILL)
    acknowledged = await sending
    assert 0 < len(acknowledged) < 60
    await until(lambda: site.dimse.process_id != first and _listens(port), "nobody listens again")
    acknowledged |= await asyncio.to_thread(send, port, list(truth.files))
    assert len(acknowledged) == 60
    await until(lambda: _all_in(site, acknowledged), "an acknowledged instance is lost")
    await until(lambda: site.spool.depth() == 0, "the spool is not empty")


async def _some_in(site: Site) -> bool:
    return bool(await site.stored())


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def test_the_process_goes_when_nobody_holds_its_other_end(site: Site) -> None:
    """As when the server is killed: the kernel closes the socket."""
    process = psutil.Process(site.dimse.process_id)
    site.dimse._stopping.set()
    site.dimse._socket.shutdown(socket.SHUT_RDWR)
    await asyncio.to_thread(psutil.wait_procs, [process], timeout=10)
    assert not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


async def test_a_port_that_is_taken_is_an_error_at_once(event_log: EventLog, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        site = Site(event_log, tmp_path)
        site.dimse.port = taken.getsockname()[1]
        with pytest.raises(OSError, match="in use"):
            await asyncio.to_thread(site.dimse.start)
        await site.intake.close()
