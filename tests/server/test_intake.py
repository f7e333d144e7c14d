"""From the spool into the log: nothing lost, nothing doubled, whatever is interrupted and whoever else is at work."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import asyncpg
import pydicom
import pytest
import pytest_asyncio
from pydicom.data import get_testdata_file
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from archive.part10 import read_part10
from archive.rejects import Rejects
from archive.spool import Spool, SpooledInstance
from archive.store import Store
from domain.intake import FileRefused
from domain.principal import Principal, PrincipalKind
from domain.series import InstanceConflicted, InstancesStored
from domain.study import StudyRegistered
from domain.subject import SubjectDemographicsChanged, SubjectRegistered
from eventlog.log import EventLog
from eventlog.settings import LogSettings
from server.intake import Intake, sender_of
from server.verdict import Verdict

CT_CLASS = "1.2.840.10008.5.1.4.1.1.2"
CT = Path(str(get_testdata_file("CT_small.dcm")))


class Room:
    """An intake with its folders."""

    def __init__(self, log: EventLog, folder: Path) -> None:
        self.log, self.folder = log, folder
        self.spool, self.store, self.rejects = Spool(folder / "spool"), Store(str(folder / "archive")), Rejects(folder / "rejects")
        self.intake = self.another()

    def another(self) -> Intake:
        return Intake(self.log, self.store, self.spool, self.rejects, linger_s=0.02)

    async def take(self, *spooled: SpooledInstance, intake: Intake | None = None) -> list[Verdict]:
        futures = [(intake or self.intake).submit(one) for one in spooled]
        return list(await asyncio.wait_for(asyncio.gather(*map(asyncio.wrap_future, futures)), 60))

    async def stored_uids(self) -> list[str]:
        events = [e.event for e in await self.log.read(0, limit=5000, types=[InstancesStored])]
        return [i.sop_instance_uid for e in events if isinstance(e, InstancesStored) for i in e.instances]


@pytest_asyncio.fixture
async def room(event_log: EventLog, tmp_path: Path) -> AsyncIterator[Room]:
    room = Room(event_log, tmp_path)
    yield room
    await room.intake.close()


def spooled(spool: Spool, **elements: Any) -> SpooledInstance:
    """A CT slice in the spool, with a SOP Instance UID of its own unless one is given."""
    dataset = pydicom.dcmread(CT)
    dataset.SOPInstanceUID = generate_uid()
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    file = spool.folder.parent / "made"
    dataset.save_as(file)
    data = file.read_bytes()
    with file.open("rb") as opened:
        offset = read_part10(opened).dataset_offset
    file.unlink()
    return raw(spool, data[offset:], str(dataset.SOPInstanceUID))


def raw(spool: Spool, data_set: bytes, sop_instance_uid: str = "1.2.3") -> SpooledInstance:
    with spool.receive(
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        sop_instance_uid=sop_instance_uid,
        transfer_syntax_uid=ExplicitVRLittleEndian,
        door="dimse",
        sender="TESTER",
    ) as reception:
        reception.write(data_set)
        return reception.commit()


async def test_a_series_becomes_one_event_with_its_subject_and_study(room: Room) -> None:
    verdicts = await room.take(*(spooled(room.spool) for _ in range(5)))
    assert [v.outcome for v in verdicts] == ["stored"] * 5
    types = [e.type for e in await room.log.read(0)]
    assert types == ["SubjectRegistered", "StudyRegistered", "InstancesStored"]
    (event, *_) = await room.log.read(0, types=[InstancesStored])
    assert event.principal.id == "ae:TESTER"
    assert {v.position for v in verdicts} == {event.position}
    assert room.spool.depth() == 0


async def test_many_instances_are_batched_by_a_hundred(room: Room) -> None:
    await room.take(*(spooled(room.spool) for _ in range(130)))
    events = [e.event for e in await room.log.read(0, types=[InstancesStored])]
    sizes = [len(e.instances) for e in events if isinstance(e, InstancesStored)]
    assert sum(sizes) == 130 and max(sizes) <= 100


async def test_the_same_instance_twice_is_stored_once(room: Room) -> None:
    uid = generate_uid()
    both = [spooled(room.spool, SOPInstanceUID=uid) for _ in range(2)]
    assert sorted(v.outcome for v in await room.take(*both)) == ["duplicate", "stored"]
    assert [v.outcome for v in await room.take(spooled(room.spool, SOPInstanceUID=uid))] == ["duplicate"]
    assert await room.stored_uids() == [uid]


async def test_other_bytes_under_a_known_uid_are_kept_apart(room: Room) -> None:
    uid = generate_uid()
    await room.take(spooled(room.spool, SOPInstanceUID=uid))
    for _ in range(2):
        other = spooled(room.spool, SOPInstanceUID=uid, ImageComments="other")
        assert [v.outcome for v in await room.take(other)] == ["conflict"]
    (event,) = [e.event for e in await room.log.read(0, types=[InstanceConflicted])]
    assert isinstance(event, InstanceConflicted)
    assert room.store.has(event.kept_sha256) and room.store.has(event.conflicting_sha256)
    assert await room.stored_uids() == [uid] and room.spool.depth() == 0


async def test_a_series_that_names_another_study_is_refused_and_kept(room: Room) -> None:
    await room.take(spooled(room.spool))
    (verdict,) = await room.take(spooled(room.spool, StudyInstanceUID="1.2.3.4"))
    assert (verdict.outcome, verdict.reason) == ("refused", "other-study")
    (kept,) = room.rejects.listing()
    assert room.rejects.path(kept.reject_id).exists() and room.spool.depth() == 0


async def test_what_cannot_be_read_is_refused_with_its_reason(room: Room) -> None:
    whole = spooled(room.spool)
    data = whole.path.read_bytes()
    with whole.path.open("rb") as file:
        data_set = data[read_part10(file).dataset_offset :]
    await room.take(whole)
    verdicts = await room.take(raw(room.spool, data_set[:-2000]), raw(room.spool, b""), raw(room.spool, os.urandom(3000)))
    assert {v.outcome for v in verdicts} == {"refused"} and verdicts[0].reason == "truncated"
    events = [e.event for e in await room.log.read(0, types=[FileRefused])]
    assert len(events) == 3 and room.spool.depth() == 0
    assert [v.outcome for v in await room.take(raw(room.spool, data_set[:-2000]))] == ["refused"], "and again"


@pytest.mark.parametrize("uid", ["1.2/../3", "1.2 3", "1." * 80 + "1", "1.2\u00e9"])
async def test_what_is_no_uid_is_refused_and_a_strange_one_is_kept(room: Room, uid: str) -> None:
    with pydicom.config.disable_value_validation():
        (bad, strange) = await room.take(
            spooled(room.spool, SeriesInstanceUID=uid), spooled(room.spool, SeriesInstanceUID="1.007." + "1" * 72)
        )
    assert (bad.outcome, bad.reason, strange.outcome) == ("refused", "invalid-uid", "stored")


async def test_a_header_that_pydicom_has_to_read_is_recorded_too(room: Room) -> None:
    file = Path(str(get_testdata_file("MR_small_bigendian.dcm")))
    with file.open("rb") as opened:
        meta = read_part10(opened)
    with room.spool.receive(
        sop_class_uid=meta.sop_class_uid,
        sop_instance_uid=meta.sop_instance_uid,
        transfer_syntax_uid=meta.transfer_syntax_uid,
        door="dimse",
    ) as reception:
        reception.write(file.read_bytes()[meta.dataset_offset :])
        verdicts = await room.take(reception.commit())
    assert [v.outcome for v in verdicts] == ["stored"]


async def test_one_person_in_many_studies_at_once_is_registered_once(room: Room) -> None:
    """Studies are decided side by side, and meet at the subject's stream."""
    many = [
        spooled(room.spool, StudyInstanceUID=generate_uid(), SeriesInstanceUID=generate_uid(), PatientID="SAME") for _ in range(24)
    ]
    assert [v.outcome for v in await room.take(*many)] == ["stored"] * 24
    assert len(await room.log.read(0, types=[SubjectRegistered])) == 1
    assert len(await room.log.read(0, types=[StudyRegistered])) == 24
    assert room.spool.depth() == 0


async def test_two_intakes_share_a_series_without_loss(room: Room) -> None:
    """A server and `anamnesis ingest` at the same time, each with states of its own that become stale."""
    second = room.another()
    uids = [generate_uid() for _ in range(12)]
    rounds = []
    for uid in uids:
        pair = [spooled(room.spool, SOPInstanceUID=uid) for _ in range(2)]
        rounds += await asyncio.gather(room.take(pair[0]), room.take(pair[1], intake=second))
    assert sorted(v.outcome for pair in rounds for v in pair) == ["duplicate"] * 12 + ["stored"] * 12
    assert sorted(await room.stored_uids()) == sorted(uids)
    await second.close()


async def test_while_the_database_is_down_instances_wait_and_then_are_stored(
    room: Room, log_settings: LogSettings
) -> None:
    await room.take(spooled(room.spool))
    assert log_settings.database_url is not None
    url = log_settings.database_url.get_secret_value()
    name = url.partition("?")[0].rsplit("/", 1)[1]
    admin = await asyncpg.connect(url.replace(f"/{name}", "/postgres"))
    try:
        await admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS false')
        await admin.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name)
        waiting = [room.intake.submit(spooled(room.spool)) for _ in range(3)]
        answered, _ = await asyncio.wait([asyncio.wrap_future(one) for one in waiting], timeout=1.5)
        assert not answered and room.spool.depth() == 3
        await admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
        outcomes = {(await asyncio.wrap_future(one)).outcome for one in waiting}
        assert outcomes <= {"stored", "duplicate"}
    finally:
        await admin.execute(f'ALTER DATABASE "{name}" ALLOW_CONNECTIONS true')
        await admin.close()
    assert len(await room.stored_uids()) == 4 and room.spool.depth() == 0


_VICTIM = """
import asyncio, os, signal, sys
from pathlib import Path
from pydantic import SecretStr
from archive.rejects import Rejects
from archive.spool import Spool
from archive.store import Store
from eventlog.log import EventLog
from eventlog.settings import LogSettings
from server import intake as module
sys.path.insert(0, os.environ["TESTS"])
import test_intake

def die(*_, **__):
    os.kill(os.getpid(), signal.SIGKILL)

async def main(folder, point):
    log = await EventLog.open(LogSettings(data_dir=folder / "data", database_url=SecretStr(os.environ["URL"])))
    spool, store = Spool(folder / "spool"), Store(str(folder / "archive"))
    many = [test_intake.spooled(spool, SOPInstanceUID=f"1.2.3.{n}", ImageComments=str(n)) for n in range(3)]
    bad = test_intake.raw(spool, b"noise" * 100)
    print("acknowledged", flush=True)
    if point == "before-store":
        Store.put = die
    if point == "before-append":
        EventLog.append = die
    if point == "before-unlink":
        Path.unlink = die
    if point == "before-reject":
        Rejects.keep = die
    intake = module.Intake(log, store, spool, Rejects(folder / "rejects"), linger_s=0.02)
    for one in [*([] if point == "before-reject" else many), bad, *many]:
        intake.submit(one)
    await asyncio.sleep(30)

asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
"""


@pytest.mark.parametrize("point", ["before-store", "before-append", "before-unlink", "before-reject"])
async def test_a_kill_at_any_step_loses_nothing_and_doubles_nothing(
    event_log: EventLog, log_settings: LogSettings, tmp_path: Path, point: str
) -> None:
    assert log_settings.database_url is not None
    (tmp_path / "data").mkdir(exist_ok=True)
    environment = {**os.environ, "URL": log_settings.database_url.get_secret_value(), "TESTS": str(Path(__file__).parent)}
    victim = await asyncio.to_thread(
        subprocess.run, [sys.executable, "-W", "ignore", "-c", _VICTIM, str(tmp_path), point],
        env=environment, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert victim.returncode == -signal.SIGKILL and "acknowledged" in victim.stdout, victim.stderr
    room = Room(event_log, tmp_path)
    assert room.intake.resume() > 0
    await _until(lambda: room.spool.depth() == 0)
    await room.intake.close()
    assert sorted(await room.stored_uids()) == ["1.2.3.0", "1.2.3.1", "1.2.3.2"]
    refused = [e.event for e in await event_log.read(0, types=[FileRefused])]
    assert len(refused) == 1 and len(list(room.rejects.listing())) == 1
    assert [folder for folder in room.spool.root.iterdir() if folder != room.spool.folder and list(folder.iterdir())] == []
    await _restart_finds_nothing(event_log, tmp_path)


async def _restart_finds_nothing(log: EventLog, folder: Path) -> None:
    head = await log.head()
    again = Room(log, folder)
    assert again.intake.resume() == 0
    await again.intake.close()
    assert await log.head() == head


async def test_a_second_look_at_the_person_says_what_changed(room: Room) -> None:
    await room.take(spooled(room.spool, PatientBirthDate="19700101"))
    await room.take(spooled(room.spool, PatientBirthDate="19700102"))
    assert len(await room.log.read(0, types=[SubjectDemographicsChanged])) == 1


async def test_who_sent_what_is_known_after_a_crash(room: Room) -> None:
    """The spool remembers a person who stored by HTTP as a person."""
    someone = Principal(id="token:3f2a9c51d0e7", kind=PrincipalKind.PERSON)
    with room.spool.receive(
        sop_class_uid=CT_CLASS, sop_instance_uid="1.2.3", transfer_syntax_uid=ExplicitVRLittleEndian, door="stow", sender=sender_of(someone)
    ) as reception:
        reception.write(b"no data set")
        await room.take(reception.commit())
    (event,) = await room.log.read(0)
    assert event.principal == someone


async def test_closing_decides_what_was_handed_over(event_log: EventLog, tmp_path: Path) -> None:
    room = Room(event_log, tmp_path)
    futures = [room.intake.submit(spooled(room.spool)) for _ in range(4)]
    await room.intake.close()
    assert [f.result(0).outcome for f in futures] == ["stored"] * 4


async def _until(holds: Callable[[], bool], timeout_s: float = 20.0) -> None:
    async with asyncio.timeout(timeout_s):
        while not holds():
            await asyncio.sleep(0.02)
