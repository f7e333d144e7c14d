"""`anamnesis ingest`: what it says, how it ends, and that it says nothing of the person."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.uid import generate_uid

from archive.rejects import Rejects
from archive.spool import Spool
from archive.store import Store
from domain.intake import FileRefused
from domain.series import InstanceConflicted, InstancesStored
from eventlog.log import EventLog
from eventlog.settings import LogSettings
from server.cli.ingest import ingest_files
from server.intake import Intake

CT = Path(str(get_testdata_file("CT_small.dcm")))
NAME = str(pydicom.dcmread(CT).PatientName)


class Home:
    """An archive and a log, with no server."""

    def __init__(self, log: EventLog, folder: Path) -> None:
        self.log = log
        self.spool, self.store, self.rejects = Spool(folder / "spool"), Store(str(folder / "archive")), Rejects(folder / "rejects")
        self.intake = Intake(log, self.store, self.spool, self.rejects, linger_s=0.02)

    async def ingest(self, *paths: Path) -> dict[str, int]:
        self.last = await ingest_files(list(paths), log=self.log, spool=self.spool, rejects=self.rejects, intake=self.intake)
        return {name: count for name, count in self.last.counts.items() if count}


@pytest.fixture
async def home(event_log: EventLog, tmp_path: Path):  # type: ignore[no-untyped-def]
    home = Home(event_log, tmp_path / "home")
    yield home
    await home.intake.close()


def slices(folder: Path, count: int) -> Path:
    folder.mkdir(parents=True)
    dataset = pydicom.dcmread(CT)
    for n in range(count):
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        dataset.save_as(folder / f"{n}.dcm")
    return folder


async def test_stored_then_duplicates_and_the_spool_is_empty(home: Home, tmp_path: Path) -> None:
    folder = slices(tmp_path / "in", 5)
    assert await home.ingest(folder) == {"stored": 5} and home.last.is_fine
    assert await home.ingest(folder) == {"duplicate": 5} and home.last.is_fine
    events = [e.event for e in await home.log.read(0, types=[InstancesStored])]
    assert sum(len(e.instances) for e in events if isinstance(e, InstancesStored)) == 5
    assert home.spool.depth() == 0


async def test_a_zip_says_the_same_as_its_folder(home: Home, tmp_path: Path) -> None:
    folder = slices(tmp_path / "in", 3)
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for file in folder.iterdir():
            archive.write(file, file.name)
    assert await home.ingest(tmp_path / "x.zip") == {"stored": 3}
    assert await home.ingest(folder) == {"duplicate": 3}


async def test_refused_files_are_named_with_their_reason_and_kept_as_they_were(home: Home, tmp_path: Path) -> None:
    folder = slices(tmp_path / "in", 1)
    (folder / "noise").write_bytes(b"<html>not found</html>" * 20)
    (folder / "cut.dcm").write_bytes(CT.read_bytes()[:-5000])
    nameless = pydicom.dcmread(CT)
    del nameless.SeriesInstanceUID
    nameless.save_as(folder / "nameless.dcm")
    assert await home.ingest(folder) == {"stored": 1, "refused": 3} and not home.last.is_fine
    reasons = {Path(one.file).name: one.reason for one in home.last.outcomes if one.outcome == "refused"}
    assert reasons == {"noise": "not-dicom", "cut.dcm": "truncated", "nameless.dcm": "missing-uid"}
    kept = {home.rejects.path(one.reject_id).read_bytes() for one in home.rejects.listing()}
    assert kept == {(folder / name).read_bytes() for name in reasons}
    events = [e.event for e in await home.log.read(0, types=[FileRefused])]
    assert sorted(e.reason for e in events if isinstance(e, FileRefused)) == sorted(reasons.values())


async def test_other_bytes_under_a_known_uid_are_a_conflict(home: Home, tmp_path: Path) -> None:
    folder = slices(tmp_path / "in", 1)
    other = pydicom.dcmread(folder / "0.dcm")
    other.PixelData = bytes(len(other.PixelData))
    (tmp_path / "other").mkdir()
    other.save_as(tmp_path / "other" / "0.dcm")
    assert await home.ingest(folder) == {"stored": 1}
    for _ in range(2):
        assert await home.ingest(tmp_path / "other") == {"conflict": 1} and not home.last.is_fine
    (conflict,) = [e.event for e in await home.log.read(0, types=[InstanceConflicted])]
    assert isinstance(conflict, InstanceConflicted)
    assert home.store.has(conflict.kept_sha256) and home.store.has(conflict.conflicting_sha256)


async def test_a_file_whose_meta_information_disagrees_is_stored_under_the_data_sets_uid(home: Home, tmp_path: Path) -> None:
    folder = slices(tmp_path / "in", 1)
    dataset = pydicom.dcmread(folder / "0.dcm")
    assert await home.ingest(folder) == {"stored": 1}
    dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset.save_as(folder / "0.dcm")
    assert await home.ingest(folder) == {"duplicate": 1}, "the same data set is the same file"


def anamnesis(settings: LogSettings, *arguments: str) -> subprocess.CompletedProcess[str]:
    assert settings.database_url is not None
    environment = {
        **os.environ,
        "ANAMNESIS_DATA_DIR": str(settings.data_dir),
        "ANAMNESIS_DATABASE_URL": settings.database_url.get_secret_value(),
    }
    code = "import sys; from server.cli import main; main()"
    return subprocess.run([sys.executable, "-c", code, *arguments], env=environment, capture_output=True, text=True, timeout=120)


def test_the_command_ends_with_0_1_or_2_and_never_shows_a_name(log_settings: LogSettings, tmp_path: Path) -> None:
    folder = slices(tmp_path / "in", 2)
    fine = anamnesis(log_settings, "ingest", str(folder))
    assert fine.returncode == 0 and "stored" in fine.stdout, fine.stderr
    (folder / "noise").write_bytes(b"no DICOM at all" * 20)
    mixed = anamnesis(log_settings, "ingest", str(folder), "--json")
    assert mixed.returncode == 1, mixed.stderr
    report = json.loads(mixed.stdout)
    assert (report["duplicate"], report["refused"]) == (2, 1) and len(report["files"]) == 3
    assert anamnesis(log_settings, "ingest", str(tmp_path / "nowhere")).returncode == 2
    assert all(NAME not in text for run in (fine, mixed) for text in (run.stdout, run.stderr))
