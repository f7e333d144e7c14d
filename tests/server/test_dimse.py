"""C-STORE and C-ECHO, by both lanes, from dcmtk and pynetdicom; and what neither of them would send."""

from __future__ import annotations

import asyncio
import os
import random
import shutil
import socket
import struct
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path

import pydicom
import pytest
import pytest_asyncio
from hypothesis import given
from hypothesis import strategies as st
from pydicom.data import get_testdata_file
from pydicom.uid import generate_uid
from pynetdicom import AE

from archive.part10 import read_part10
from archive.rejects import Rejects
from archive.spool import Spool
from archive.store import Store
from domain.series import InstancesStored
from eventlog.log import EventLog
from server.dimse.errors import DimseError
from server.dimse.fast_lane import FastLane
from server.dimse.pynetdicom_lane import PynetdicomLane
from server.dimse.reception import Receiver
from server.dimse.wire import read_command
from server.intake import Intake

CT = "1.2.840.10008.5.1.4.1.1.2"
DCMTK = {**os.environ, "TCP_NODELAY": "1"}


class Site:
    def __init__(self, log: EventLog, folder: Path) -> None:
        self.log = log
        self.spool = Spool(folder / "spool")
        self.store = Store(str(folder / "archive"))
        self.rejects = Rejects(folder / "rejects")
        self.intake = Intake(log, self.store, self.spool, self.rejects, linger_s=0.05)
        self.lane: FastLane | PynetdicomLane

    async def stored(self, count: int) -> list[InstancesStored]:
        """The InstancesStored events, once they hold this many instances."""
        for _ in range(500):
            events = [e.event for e in await self.log.read(0, types=[InstancesStored])]
            if sum(len(e.instances) for e in events if isinstance(e, InstancesStored)) >= count:
                return [e for e in events if isinstance(e, InstancesStored)]
            await asyncio.sleep(0.02)
        raise AssertionError(f"not {count} instances in the log")


@pytest_asyncio.fixture(params=[FastLane, PynetdicomLane])
async def site(request: pytest.FixtureRequest, event_log: EventLog, tmp_path: Path) -> AsyncIterator[Site]:
    site = Site(event_log, tmp_path)
    site.lane = request.param(Receiver(site.spool, site.intake), host="127.0.0.1", port=0, max_associations=8)
    site.lane.start()
    yield site
    site.lane.stop()
    await site.intake.close()


async def run(*command: str) -> subprocess.CompletedProcess[str]:
    return await asyncio.to_thread(
        subprocess.run, command, env=DCMTK, capture_output=True, text=True, timeout=60
    )


def copies(folder: Path, count: int) -> list[Path]:
    """One CT slice many times, each with its own SOP Instance UID."""
    folder.mkdir()
    dataset = pydicom.dcmread(get_testdata_file("CT_small.dcm"))
    del dataset[0xFFFCFFFC]  # storescu leaves the padding out
    files = []
    for n in range(count):
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        dataset.InstanceNumber = n
        files.append(folder / f"{n}.dcm")
        dataset.save_as(files[-1])
    return files


async def test_echo(site: Site) -> None:
    echo = await run("/usr/bin/echoscu", "127.0.0.1", str(site.lane.port))
    assert echo.returncode == 0, echo.stderr


async def test_storescu_sends_and_the_bytes_are_those_that_were_sent(site: Site, tmp_path: Path) -> None:
    files = copies(tmp_path / "in", 12)
    sent = await run("/usr/bin/storescu", "-R", "+sd", "127.0.0.1", str(site.lane.port), str(tmp_path / "in"))
    assert sent.returncode == 0, sent.stderr
    (event, *rest) = await site.stored(12)
    assert event.door == "dimse"
    instances = {i.sop_instance_uid: i for e in (event, *rest) for i in e.instances}
    for file in files:
        original = pydicom.dcmread(file)
        instance = instances[original.SOPInstanceUID]
        kept = site.store.local_path(instance.sha256)
        assert kept is not None
        assert _data_set(kept) == _data_set(file) and instance.transfer_syntax_uid == original.file_meta.TransferSyntaxUID


async def test_compressed_instances_stay_as_they_are(site: Site) -> None:
    names = ["JPEG2000.dcm", "MR_small_RLE.dcm", "SC_rgb_jpeg_dcmtk.dcm"]
    for name in names:
        sent = await run("/usr/bin/dcmsend", "-nh", "-dn", "127.0.0.1", str(site.lane.port), str(get_testdata_file(name)))
        assert sent.returncode == 0, sent.stderr
    stored = [i for e in await site.stored(len(names)) for i in e.instances]
    assert {i.transfer_syntax_uid for i in stored} == {
        str(pydicom.dcmread(get_testdata_file(name)).file_meta.TransferSyntaxUID) for name in names
    }


async def test_pynetdicom_sends_too_and_a_broken_data_set_is_kept(site: Site) -> None:
    dataset = pydicom.dcmread(get_testdata_file("CT_small.dcm"))
    del dataset.StudyInstanceUID

    def send() -> int:
        ae = AE(ae_title="TESTER")
        ae.add_requested_context(CT, dataset.file_meta.TransferSyntaxUID)
        association = ae.associate("127.0.0.1", site.lane.port)
        assert association.is_established
        status = association.send_c_store(dataset).Status
        association.release()
        return int(status)

    assert await asyncio.to_thread(send) == 0x0000, "parsing never fails a store"
    for _ in range(200):
        if kept := list(site.rejects.listing()):
            break
        await asyncio.sleep(0.02)
    assert [r.reason for r in kept] == ["missing-uid"]


async def test_several_associations_at_once(site: Site, tmp_path: Path) -> None:
    for n in range(4):
        copies(tmp_path / f"in{n}", 10)
    results = await asyncio.gather(
        *(run("/usr/bin/storescu", "-R", "+sd", "127.0.0.1", str(site.lane.port), str(tmp_path / f"in{n}")) for n in range(4))
    )
    assert [r.returncode for r in results] == [0] * 4
    await site.stored(40)


async def test_a_caller_that_is_not_on_the_list_is_rejected(event_log: EventLog, tmp_path: Path) -> None:
    site = Site(event_log, tmp_path)
    for lane_type in (FastLane, PynetdicomLane):
        told: list[bool] = []
        receiver = Receiver(site.spool, site.intake, lambda told=told: told.append(True))
        lane = lane_type(receiver, host="127.0.0.1", port=0, allowed_ae_titles=frozenset({"SCANNER"}))
        lane.start()
        refused = await run("/usr/bin/echoscu", "-aet", "STRANGER", "127.0.0.1", str(lane.port))
        assert refused.returncode != 0 and "Calling AE Title Not Recognized" in refused.stderr
        assert (await run("/usr/bin/echoscu", "-aet", "SCANNER", "127.0.0.1", str(lane.port))).returncode == 0
        lane.stop()
        assert told == [True]
    await site.intake.close()


async def test_a_sender_that_vanishes_leaves_nothing_behind(event_log: EventLog, tmp_path: Path) -> None:
    site = Site(event_log, tmp_path)
    lane = FastLane(Receiver(site.spool, site.intake), host="127.0.0.1", port=0)
    lane.start()

    def send_half() -> None:
        ae = AE()
        ae.add_requested_context(CT, "1.2.840.10008.1.2.1")
        association = ae.associate("127.0.0.1", lane.port)
        raw = association.dul.socket.socket
        command = b"".join(
            struct.pack("<HHI", 0, e, len(v)) + v
            for e, v in (
                (0x0002, CT.encode() + b"\0"), (0x0100, b"\x01\0"), (0x0110, b"\x01\0"), (0x0700, b"\0\0"),
                (0x0800, b"\0\0"), (0x1000, b"1.2.3\0"),
            )
        )  # fmt: skip
        for control, value in ((3, command), (0, b"half a data set")):
            item = struct.pack(">IBB", len(value) + 2, 1, control) + value
            raw.sendall(struct.pack(">BBI", 4, 0, len(item)) + item)
        association.abort()

    await asyncio.to_thread(send_half)
    for _ in range(200):
        if not list(site.spool.folder.iterdir()):
            break
        await asyncio.sleep(0.02)
    assert list(site.spool.folder.iterdir()) == []
    lane.stop()
    await site.intake.close()


async def test_noise_on_the_port_harms_nobody(event_log: EventLog, tmp_path: Path) -> None:
    site = Site(event_log, tmp_path)
    lane = FastLane(Receiver(site.spool, site.intake), host="127.0.0.1", port=0)
    lane.start()
    chance = random.Random(7)

    def shout() -> None:
        for _ in range(60):
            with socket.create_connection(("127.0.0.1", lane.port)) as noisy:
                noisy.sendall(bytes([chance.choice([1, 4, 5, 7, 9]), 0]) + struct.pack(">I", chance.randrange(300)) + chance.randbytes(200))

    await asyncio.to_thread(shout)
    assert (await run("/usr/bin/echoscu", "127.0.0.1", str(lane.port))).returncode == 0
    lane.stop()
    await site.intake.close()


@given(st.binary(max_size=200))
def test_a_command_set_reads_or_is_refused_by_name(data: bytes) -> None:
    try:
        read_command(data)
    except DimseError:
        pass


def _data_set(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(read_part10(file).dataset_offset)
        return file.read()


def test_the_sender_is_dcmtk() -> None:
    assert shutil.which("storescu", path="/usr/bin"), "apt-get install dcmtk"
