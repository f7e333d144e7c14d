"""Backups: made while a site takes in, restored elsewhere on either kind of PostgreSQL, equal in events, views and bytes; and what is
damaged, missing, erased or another's is named."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import Any

import asyncpg
import fsspec
import httpx
import msgspec
import pytest
import pytest_asyncio
from conftest import drop_database, fresh_database
from pydantic import SecretStr
from running_site import Site

from archive.phantom import make_phantom
from archive.rejects import Rejects
from archive.spool import Spool
from archive.store import Store
from domain.condition import Level
from domain.dataset import DatasetFrozen, DatasetSplit
from domain.principal import device
from domain.series import InstancesStored
from eventlog.checking import check_log
from eventlog.envelope import NewEvent, StreamAppend
from eventlog.errors import HalfRestored, KeyEncryptionKeyWrong
from eventlog.kek import load_keys
from eventlog.log import EventLog
from eventlog.schema import migrate
from eventlog.sealer import rotate_key, seal
from eventlog.settings import LogSettings
from eventlog.vault import make_key_encryption_key
from projections.catalogue import all_projections
from projections.digest import table_digests
from projections.runner import Runner
from server.backup import manifest, objects, segments, tables
from server.backup.destination import Destination
from server.backup.errors import (
    BackupDamaged,
    BackupNotFound,
    BackupOfAnotherSite,
    LogNotAsSealed,
    LogTookAnotherCourse,
    ObjectsMissing,
    TargetNotEmpty,
)
from server.backup.making import back_up
from server.backup.restoring import restore
from server.backup.segments import Segment
from server.backup.verifying import verify
from server.cli.ingest import ingest_files
from server.cohorts.lists import keep_list
from server.intake import Intake
from server.settings import ServerSettings

pytestmark = pytest.mark.slow

PATIENCE_S = 120.0
EVENT_ROWS = "SELECT event::text FROM event WHERE position <= $1 ORDER BY position"


class Home:
    """A site without a server: settings, and what one does with them."""

    def __init__(self, folder: Path, url: str) -> None:
        self.folder = folder
        self.url = url
        self.settings = ServerSettings(data_dir=folder, database_url=SecretStr(url))

    @property
    def store(self) -> Store:
        return Store(self.settings.store_url)

    @property
    def environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("ANAMNESIS_")}
        return kept | {"ANAMNESIS_DATA_DIR": str(self.folder), "ANAMNESIS_DATABASE_URL": self.url, "COLUMNS": "200"}

    async def take_in(self, *paths: Path) -> None:
        log = await EventLog.open(self.settings)
        spool, rejects = Spool(self.settings.spool_dir), Rejects(self.settings.rejects_dir)
        intake = Intake(log, self.store, spool, rejects, linger_s=0)
        await ingest_files(list(paths), log=log, spool=spool, rejects=rejects, intake=intake)
        await intake.close()
        await log.close()

    async def phantom(self, seed: int, slices: int = 3) -> None:
        """A series of invented person number ``seed``."""
        scan = self.folder.parent / f"scan-{uuid.uuid4().hex[:6]}"
        make_phantom(scan, slices=slices, size=32, seed=seed, slice_spacing_mm=20, patient_id=f"MRN-{seed}")
        await self.take_in(scan)

    async def execute(self, *statements: str) -> None:
        connection = await asyncpg.connect(self.url)
        for statement in statements:
            await connection.execute(statement)
        await connection.close()

    async def fetch(self, query: str, *arguments: Any) -> list[asyncpg.Record]:
        connection = await asyncpg.connect(self.url)
        try:
            return list(await connection.fetch(query, *arguments))
        finally:
            await connection.close()

    async def position(self) -> int:
        return int((await self.fetch("SELECT position FROM log_head"))[0][0])

    async def digests(self) -> dict[str, dict[str, str]]:
        """Of every table of every read model, once all have caught up."""
        log = await EventLog.open(self.settings)
        try:
            await Runner(log, all_projections()).catch_up()
            async with log.pool.acquire() as connection:
                return {p.name: await table_digests(connection, p) for p in all_projections()}
        finally:
            await log.close()

    async def stored(self, position: int = 1 << 62) -> dict[str, str]:
        """SHA-256 → the path of the instance below /dicomweb."""
        log = await EventLog.open(self.settings)
        found: dict[str, str] = {}
        at = 0
        while events := await log.read(at, 500, [InstancesStored]):
            at = events[-1].position
            for e in (e.event for e in events if e.position <= position):
                assert isinstance(e, InstancesStored)
                found |= {i.sha256: f"/studies/{e.study_uid}/series/{e.series_uid}/instances/{i.sop_instance_uid}" for i in e.instances}
        await log.close()
        return found


def give_key(source: ServerSettings, target: ServerSettings) -> None:
    target.kek_file.parent.mkdir(mode=0o700, parents=True)
    shutil.copyfile(source.kek_file, target.kek_file)


@pytest_asyncio.fixture
async def home(database_url: str, tmp_path: Path) -> Home:
    """A site that has taken in two persons' series."""
    home = Home(tmp_path / "home", database_url)
    make_key_encryption_key(home.settings)
    await migrate(home.settings)
    await home.phantom(1)
    await home.phantom(2)
    return home


@pytest_asyncio.fixture
async def elsewhere(home: Home, embedded_server: str, tmp_path: Path) -> AsyncIterator[Home]:
    """An empty place with the key of ``home``."""
    url = await fresh_database(embedded_server)
    there = Home(tmp_path / "elsewhere", url)
    give_key(home.settings, there.settings)
    yield there
    await drop_database(embedded_server, url)


@pytest.fixture
def dest(tmp_path: Path) -> Path:
    return tmp_path / "backup"


def files_below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


async def assert_same(source: Home, target: Home) -> None:
    """Events, every other table, and the files."""
    head = await source.position()
    assert await target.fetch(EVENT_ROWS, head) == await source.fetch(EVENT_ROWS, head)
    connection = await asyncpg.connect(source.url)
    names = set(await tables.columns_of_tables(connection)) - tables.LEFT_OUT
    await connection.close()
    assert {"subject_key", "site_secret", "access_token", "log_head", "checkpoint", "tree_tile"} <= names
    for name in names:
        query = f'SELECT t::text FROM "{name}" t ORDER BY 1'
        assert await target.fetch(query) == await source.fetch(query), name
    for sha256 in await source.stored():
        assert target.store.open(sha256).read() == source.store.open(sha256).read()


@pytest.mark.timeout(600)
async def test_a_site_is_backed_up_under_load_and_restored_on_the_other_kind_of_postgresql_and_back(
    tmp_path: Path, dicom_data: Path, external_server: str
) -> None:
    folder = tmp_path / "site"
    folder.mkdir()
    site = Site(folder)
    await asyncio.to_thread(site.run, "init")
    site.start_server()
    try:
        await asyncio.to_thread(site.wait_until_ready)
        await asyncio.to_thread(site.run, "ingest", str(dicom_data / "modalities" / "mr_small"), exit_codes=(0, 1))
        loads = [dicom_data / "ct", dicom_data / "modalities" / "mr_tcga_lihc_siemens30"]
        load = asyncio.create_task(asyncio.to_thread(site.run, "ingest", *map(str, loads), exit_codes=(0, 1)))
        dest, under_load = str(tmp_path / "backup"), []
        while not load.done() or not under_load:
            under_load.append(json.loads(await asyncio.to_thread(site.run, "backup", dest, "--json")))
        await load
        last = json.loads(await asyncio.to_thread(site.run, "backup", dest, "--json"))
        assert last["position"] > under_load[0]["position"] > 0
    finally:
        await asyncio.to_thread(site.stop)
    quiet = json.loads(await asyncio.to_thread(site.run, "backup", dest, "--json"))
    assert json.loads(await asyncio.to_thread(site.run, "backup", "verify", dest, "--json"))["problems"] == []

    original = _embedded(folder / "data")
    async with _open(original) as (url, digests):
        await _restored_under_load(tmp_path, external_server, original, url, dest, under_load[0]["position"])

        external_url = await fresh_database(external_server)
        external = Home(tmp_path / "external", external_url)
        give_key(original, external.settings)
        await restore(external.settings, dest)
        source = Home(original.data_dir, url)
        assert await external.position() == quiet["position"]
        await assert_same(source, external)
        assert await external.digests() == digests
    await _serves_every_instance(tmp_path, external, folder / "data")

    back = str(tmp_path / "backup-of-external")
    again = await back_up(external.settings, back)
    at_end = await external.digests()
    home = _embedded(tmp_path / "home")
    give_key(original, home)
    await restore(home, back)
    async with _open(home) as (url, digests):
        assert digests == at_end
        restored = Home(home.data_dir, url)
        assert await restored.position() == again.position
        await assert_same(external, restored)
    await drop_database(external_server, external_url)


def _embedded(folder: Path) -> ServerSettings:
    return ServerSettings(data_dir=folder)


class _open:
    """An embedded database kept up: its URL, and the digests of its read models."""

    def __init__(self, settings: ServerSettings) -> None:
        self._settings = settings

    async def __aenter__(self) -> tuple[str, dict[str, dict[str, str]]]:
        self._log = await EventLog.open(self._settings)
        await Runner(self._log, all_projections()).catch_up()
        async with self._log.pool.acquire() as connection:
            return self._log.url, {p.name: await table_digests(connection, p) for p in all_projections()}

    async def __aexit__(self, *_: object) -> None:
        await self._log.close()


async def _restored_under_load(
    tmp_path: Path, server: str, original: ServerSettings, url: str, dest: str, position: int
) -> None:
    """The backup that was made while the site took in: its events are the log's, its objects are all there, its views are those of a
    log that ends there."""
    restored_url = await fresh_database(server)
    then = Home(tmp_path / "then", restored_url)
    give_key(original, then.settings)
    assert (await restore(then.settings, dest, position=position)).position == position
    source = Home(original.data_dir, url)
    rows = await then.fetch(EVENT_ROWS, 1 << 60)
    assert len(rows) == position and rows == await source.fetch(EVENT_ROWS, position)
    for sha256 in await then.stored():
        then.store.verify(sha256)
    caught_up = await then.digests()
    log = await EventLog.open(then.settings)
    for projection in all_projections():
        await Runner(log, all_projections()).rebuild(projection.name)
    await log.close()
    assert await then.digests() == caught_up
    await drop_database(server, restored_url)


async def _serves_every_instance(tmp_path: Path, external: Home, original: Path) -> None:
    site = Site(tmp_path)
    site.environment |= {"ANAMNESIS_DATA_DIR": str(external.folder), "ANAMNESIS_DATABASE_URL": external.url}
    token = await asyncio.to_thread(site.token, "dicom:read")
    site.start("restored", "serve")
    try:
        await asyncio.to_thread(site.wait_until_ready)
        headers = {"Authorization": f"Bearer {token}", "Accept": 'multipart/related; type="application/dicom"; transfer-syntax=*'}
        archive = Store(str(original / "archive"))
        wanted = await external.stored()
        assert len(wanted) > 100
        async with httpx.AsyncClient(headers=headers, base_url=f"{site.url}/dicomweb", timeout=60) as client:
            for sha256, path in wanted.items():
                answer = await client.get(path)
                assert answer.status_code == 200, (path, answer.text)
                assert archive.open(sha256).read() in answer.content
    finally:
        await asyncio.to_thread(site.stop)


async def test_the_second_backup_copies_only_what_is_new(home: Home, dest: Path, elsewhere: Home) -> None:
    first = await back_up(home.settings, str(dest))
    before = {path: path.stat().st_mtime_ns for path in files_below(dest / "objects")}
    assert (first.events_new, first.objects_new, first.objects) == (await home.position(), 6, 6)
    await home.phantom(3)
    second = await back_up(home.settings, str(dest))
    assert (second.events_new, second.objects_new, second.objects) == (await home.position() - first.position, 3, 9)
    after = {path: path.stat().st_mtime_ns for path in files_below(dest / "objects")}
    assert len(after) == 9 and before.items() <= after.items()
    assert (await restore(elsewhere.settings, str(dest))).position == second.position
    await assert_same(home, elsewhere)


async def test_lists_of_datasets_are_backed_up_and_restored(home: Home, dest: Path, elsewhere: Home) -> None:
    lists = [b'{"series_uid":"1.2.3"}\n', b'{"part":"train","subject_id":"s"}\n']
    members, assignment = (keep_list(home.store, home.folder / "lists", lines) for lines in lists)
    frozen = DatasetFrozen(
        dataset_id="d", subject_id="k", version=1, at_position=1, level=Level.SERIES, query_sha256="q", members_sha256=members,
        members_bytes=len(lists[0]), subjects_count=1, studies_count=1, series_count=1, instances_count=1, bytes=1,
    )  # fmt: skip
    split = DatasetSplit(dataset_id="d", version=1, seed="1", parts=(), assignment_sha256=assignment, assignment_bytes=len(lists[1]))
    log = await EventLog.open(home.settings)
    await log.append([StreamAppend(stream="dataset-d", events=[NewEvent(event=frozen), NewEvent(event=split)])], principal=device("curator"))
    await log.close()
    assert (await back_up(home.settings, str(dest))).objects == 8
    await restore(elsewhere.settings, str(dest))
    assert [elsewhere.store.open(sha256).read() for sha256 in (members, assignment)] == lists


async def test_full_segments_are_written_once(home: Home, dest: Path, elsewhere: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "MAX_EVENTS", 4)
    await back_up(home.settings, str(dest))
    full = {p: p.stat().st_mtime_ns for p in files_below(dest / "events") if p.name == f"{1:016}-{4:016}"}
    assert full
    await home.phantom(3)
    made = await back_up(home.settings, str(dest))
    names = [p.name for p in files_below(dest / "events")]
    assert names == [p.name for p in files_below(dest / "named")]
    assert [(int(n[:16]), int(n[17:])) for n in names] == [(n, min(n + 3, made.position)) for n in range(1, made.position + 1, 4)]
    assert full.items() <= {p: p.stat().st_mtime_ns for p in files_below(dest / "events")}.items()
    assert verify(str(dest), load_keys(home.settings)).problems == []
    assert (await restore(elsewhere.settings, str(dest), position=made.position - 1)).position < made.position


async def test_any_file_system_of_fsspec_will_do(home: Home, elsewhere: Home) -> None:
    dest = f"memory://backups-{uuid.uuid4().hex}/anamnesis"
    await back_up(home.settings, dest)
    await home.phantom(3)
    assert (await back_up(home.settings, dest)).objects_new == 3
    assert verify(dest, load_keys(home.settings)).problems == []
    await restore(elsewhere.settings, dest)
    await assert_same(home, elsewhere)
    fsspec.filesystem("memory").rm(dest, recursive=True)


async def test_an_archive_that_is_not_a_folder_is_backed_up_and_restored_too(
    home: Home, elsewhere: Home, dest: Path, tmp_path: Path
) -> None:
    root = f"memory://archive-{uuid.uuid4().hex}"
    for sha256 in await home.stored():
        with fsspec.open(f"{root}/home/{sha256[:2]}/{sha256}", "wb") as file:
            file.write(home.store.open(sha256).read())
    home.settings = home.settings.model_copy(update={"archive_url": f"{root}/home"})
    elsewhere.settings = elsewhere.settings.model_copy(update={"archive_url": f"{root}/elsewhere"})
    await back_up(home.settings, str(dest))
    await restore(elsewhere.settings, str(dest))
    await assert_same(home, elsewhere)


async def test_a_backup_holds_neither_a_key_nor_an_identity(home: Home, dest: Path) -> None:
    connection_secrets = await home.fetch("SELECT wrapped FROM subject_key")
    await back_up(home.settings, str(dest))
    kek = home.settings.kek_file.read_bytes().strip()
    [some, *_] = await home.stored()
    planted = [b"MRN-1", b"MRN-2", b"Phantom^"]
    assert planted[0] in home.store.open(some).read() + home.store.open((await home.stored()).popitem()[0]).read()
    for path in files_below(dest):
        data = path.read_bytes() + str(path.relative_to(dest)).encode()
        for secret in (kek, base64.b64decode(kek), *planted, *(bytes(row["wrapped"]) for row in connection_secrets)):
            assert secret not in data, path


@pytest.mark.parametrize("byte", range(6))
async def test_a_damaged_byte_is_found_in_every_file_and_named(home: Home, dest: Path, byte: int) -> None:
    """First and last bytes, and some between: whatever the file, whatever the byte."""
    keks = load_keys(home.settings)
    spoil_me = home.settings.data_dir.parent / "spoilt.dcm"
    spoil_me.write_bytes(b"no image at all")
    await home.take_in(spoil_me)
    await back_up(home.settings, str(dest))
    await home.phantom(3)
    await back_up(home.settings, str(dest))
    assert verify(str(dest), keks).problems == []
    chance = random.Random(byte)
    paths = files_below(dest)
    assert {p.relative_to(dest).parts[0] for p in paths} == {"events", "named", "objects", "tables", "manifests"}
    for path in paths:
        data = path.read_bytes()
        at = {0: 0, 1: len(data) - 1}.get(byte, chance.randrange(len(data)))
        path.write_bytes(data[:at] + bytes([data[at] ^ 1 << chance.randrange(8)]) + data[at + 1 :])
        problems = verify(str(dest), keks).problems
        assert any(str(path.relative_to(dest)) in problem for problem in problems), (path, at, problems)
        path.write_bytes(data)
    assert verify(str(dest), keks).problems == []


@pytest.mark.parametrize("folder", ["events", "objects", "tables", "manifests"])
async def test_a_damaged_or_missing_file_ends_a_restore_which_goes_on_once_it_is_mended(
    home: Home, dest: Path, elsewhere: Home, folder: str
) -> None:
    await back_up(home.settings, str(dest))
    path = next(p for p in files_below(dest / folder) if p.name != "log_head")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 4]) + data[len(data) // 2 + 1 :])
    with pytest.raises(BackupDamaged, match=str(path.relative_to(dest)).replace("+", r"\+")):
        await restore(elsewhere.settings, str(dest))
    path.unlink()
    with pytest.raises(BackupNotFound if folder == "manifests" else BackupDamaged):
        await restore(elsewhere.settings, str(dest))
    path.write_bytes(data)
    await restore(elsewhere.settings, str(dest))
    await assert_same(home, elsewhere)


async def test_what_is_damaged_and_removed_is_written_again_by_the_next_backup(home: Home, dest: Path) -> None:
    await back_up(home.settings, str(dest))
    for folder in ("events", "objects", "named"):
        files_below(dest / folder)[0].unlink()
    await back_up(home.settings, str(dest))
    assert verify(str(dest), load_keys(home.settings)).problems == []


@pytest.mark.timeout(300)
async def test_a_backup_that_was_killed_is_no_backup_and_the_next_one_is_whole(home: Home, dest: Path) -> None:
    scan = home.folder.parent / "many"
    make_phantom(scan, slices=150, size=128, seed=5, slice_spacing_mm=1)
    await home.take_in(scan)
    await _killed_when(home, lambda: len(files_below(dest / "objects")) > 5, "backup", str(dest))
    assert 0 < len(files_below(dest / "objects")) < len(await home.stored())
    with pytest.raises(BackupNotFound):
        verify(str(dest), load_keys(home.settings))
    await back_up(home.settings, str(dest))
    assert verify(str(dest), load_keys(home.settings)).problems == []
    assert not [path for path in files_below(dest) if path.name.startswith(".")]


@pytest.mark.timeout(300)
async def test_a_restore_that_was_killed_keeps_the_server_away_until_it_was_run_again(home: Home, dest: Path, elsewhere: Home) -> None:
    scan = home.folder.parent / "many"
    make_phantom(scan, slices=150, size=128, seed=5, slice_spacing_mm=1)
    await home.take_in(scan)
    await back_up(home.settings, str(dest))
    archive = Path(elsewhere.settings.store_url)
    await _killed_when(elsewhere, lambda: len(files_below(archive)) > 5, "restore", str(dest))
    assert 0 < len(files_below(archive)) < len(await home.stored())
    with pytest.raises(HalfRestored, match="anamnesis restore"):
        await EventLog.open(elsewhere.settings)
    command = [sys.executable, "-m", "server.cli", "serve", "--no-dimse"]
    refused = await asyncio.to_thread(subprocess.run, command, env=elsewhere.environment, capture_output=True, text=True, timeout=60)
    assert refused.returncode == 2 and "HalfRestored" in refused.stderr and len(refused.stderr.splitlines()) == 1
    await restore(elsewhere.settings, str(dest))
    await assert_same(home, elsewhere)
    assert not (elsewhere.folder / "restoring").exists()


async def _killed_when(home: Home, reached: Any, *arguments: str) -> None:
    command = [sys.executable, "-m", "server.cli", *arguments]
    process = await asyncio.create_subprocess_exec(*command, env=home.environment, stdout=asyncio.subprocess.DEVNULL)
    deadline = time.monotonic() + PATIENCE_S
    while not reached():
        assert process.returncode is None and time.monotonic() < deadline
        await asyncio.sleep(0.002)
    process.kill()
    assert await process.wait() == -signal.SIGKILL


async def test_an_instance_that_the_archive_lacks_is_reported_by_its_digest(home: Home, dest: Path, elsewhere: Home) -> None:
    lost, altered, *_ = await home.stored()
    (Path(home.settings.store_url) / lost[:2] / lost).unlink()
    path = Path(home.settings.store_url) / altered[:2] / altered
    path.write_bytes(path.read_bytes()[:-1] + b"\x55")
    with pytest.raises(ObjectsMissing, match=lost) as raised:
        await back_up(home.settings, str(dest))
    assert altered in str(raised.value)
    with pytest.raises(BackupNotFound):
        verify(str(dest), load_keys(home.settings))
    assert (await back_up(home.settings, str(dest), in_spite_of_missing=True)).missing == 2
    assert verify(str(dest), load_keys(home.settings)).problems == []
    assert sorted((await restore(elsewhere.settings, str(dest))).missing) == sorted([lost, altered])


async def test_what_an_earlier_backup_holds_is_not_missing(home: Home, dest: Path) -> None:
    await back_up(home.settings, str(dest))
    lost, *_ = await home.stored()
    (Path(home.settings.store_url) / lost[:2] / lost).unlink()
    assert (await back_up(home.settings, str(dest))).missing == 0
    assert objects.path(lost) in Destination(str(dest)).listing(f"objects/{lost[:2]}")


async def test_erasure_reaches_earlier_backups_which_stay_restorable(home: Home, dest: Path, elsewhere: Home) -> None:
    early = await back_up(home.settings, str(dest))
    log = await EventLog.open(home.settings)
    key = log.vault.derive("anamnesis backup")
    subject = log.vault.subject_id("MRN-1", "", otherwise="")
    stored = [e.event for e in await log.read(0, 100, [InstancesStored])]
    of_subject = [i.sha256 for e in stored if e.subject_id == subject for i in e.instances]  # type: ignore[attr-defined]
    assert len(of_subject) == 3
    async with log.pool.acquire() as connection:
        await log.vault.destroy(subject, connection)
    await log.close()
    [row] = await home.fetch("SELECT wrapped FROM subject_key WHERE subject_id = $1", subject)
    assert row["wrapped"] is None
    for sha256 in of_subject:
        (Path(home.settings.store_url) / sha256[:2] / sha256).unlink()
    late = await back_up(home.settings, str(dest))
    assert late.removed == len(of_subject) and late.objects == 3
    destination = Destination(str(dest))
    for one in manifest.read_all(destination):
        assert tables.destroyed_subjects(destination, key, one) == {subject}
        assert set(destination.listing(one.folder)) == one.own_files
    assert not {path.name for path in files_below(dest / "objects")} & set(of_subject)
    assert verify(str(dest), load_keys(home.settings)).problems == []
    restored = await restore(elsewhere.settings, str(dest), position=early.position)
    assert restored.objects == 3
    assert await elsewhere.fetch(EVENT_ROWS, 1 << 60) == await home.fetch(EVENT_ROWS, early.position)


async def test_only_as_many_backups_are_kept_as_asked_for(home: Home, dest: Path) -> None:
    made = [(await back_up(home.settings, str(dest), keep=2)).name for _ in range(4)]
    assert manifest.names(Destination(str(dest))) == made[2:]
    assert [p.name for p in sorted((dest / "tables").iterdir())] == made[2:]
    assert verify(str(dest), load_keys(home.settings)).problems == []


async def test_a_table_that_a_later_version_adds_is_not_forgotten(home: Home, dest: Path) -> None:
    await home.execute(
        "CREATE TABLE later (id int GENERATED ALWAYS AS IDENTITY, note text)", "INSERT INTO later (note) VALUES (E'a\\nb\\tc'), (NULL)"
    )
    await back_up(home.settings, str(dest))
    destination = Destination(str(dest))
    one = manifest.newest(destination)
    key = manifest.key_of(one, load_keys(home.settings))
    table = one.table("later")
    assert table is not None and table.rows == 2 and one.sequences["later_id_seq"] == 2
    assert [dict(row) for row in tables.records(destination, key, one, table)] == [
        {"id": b"1", "note": rb"a\nb\tc"}, {"id": b"2", "note": None}
    ]  # fmt: skip


async def test_an_altered_event_is_named_and_no_backup_is_made_of_it(home: Home, dest: Path) -> None:
    await home.execute(
        "ALTER TABLE event DISABLE TRIGGER USER",
        "UPDATE event SET occurred_at = occurred_at + interval '1 s' WHERE position = 2",
        "ALTER TABLE event ENABLE TRIGGER USER",
    )
    with pytest.raises(segments.EventDamaged, match=r"position 2 \(stream .*\) does not have its digest"):
        await back_up(home.settings, str(dest))
    with pytest.raises(BackupNotFound):
        verify(str(dest), load_keys(home.settings))


async def test_a_backup_is_of_a_signed_checkpoint_which_is_checked_where_it_goes(home: Home, dest: Path, elsewhere: Home) -> None:
    first = await back_up(home.settings, str(dest))
    await home.phantom(3)
    log = await EventLog.open(home.settings)
    await rotate_key(log)
    await log.close()
    second = await back_up(home.settings, str(dest))
    verified = verify(str(dest), load_keys(home.settings))
    assert (verified.problems, verified.checkpoint_size) == ([], second.position)
    assert [one.checkpoint_size for one in manifest.read_all(Destination(str(dest)))] == [first.position, second.position]
    assert (await restore(elsewhere.settings, str(dest))).checkpoint_size == second.position
    log = await EventLog.open(elsewhere.settings)
    assert (await check_log(log)).discrepancies == []
    await log.close()


async def test_what_is_not_what_was_signed_is_not_backed_up(home: Home, dest: Path) -> None:
    """An event and its digest are replaced by another's, and the tree with them: only the signed root tells."""
    kept = await back_up(home.settings, str(dest))
    await home.phantom(3)
    log = await EventLog.open(home.settings)
    await seal(log)
    await log.close()
    position = kept.position + 1
    await home.execute(
        "ALTER TABLE event DISABLE TRIGGER USER",
        f"UPDATE event SET digest = sha256('another') WHERE position = {position}",
        "ALTER TABLE event ENABLE TRIGGER USER",
    )
    with pytest.raises(LogNotAsSealed, match="do not have the root that the signed checkpoint"):
        await back_up(home.settings, str(dest))
    assert verify(str(dest), load_keys(home.settings)).position == kept.position


@pytest.mark.parametrize("change", ["root", "signature", "size"])
async def test_a_forged_checkpoint_in_a_backup_is_found(home: Home, dest: Path, elsewhere: Home, change: str) -> None:
    """By somebody who has the backup's key and not the one that signs."""
    await back_up(home.settings, str(dest))
    destination = Destination(str(dest))
    one = manifest.newest(destination)
    key = manifest.key_of(one, load_keys(home.settings))
    assert one.checkpoint_note is not None and one.checkpoint_size is not None
    lines = one.checkpoint_note.split("\n")
    if change == "root":
        lines[2] = base64.b64encode(bytes(32)).decode()
    elif change == "size":
        lines[1] = str(one.checkpoint_size - 1)
    else:
        lines[4:] = [f"\u2014 anamnesis/{one.site} {base64.b64encode(bytes(68)).decode()}", ""]
    manifest.write(destination, msgspec.structs.replace(one, checkpoint_note="\n".join(lines)), key)
    assert any("signed checkpoint at" in problem for problem in verify(str(dest), load_keys(home.settings)).problems)
    with pytest.raises(BackupDamaged, match="signed checkpoint at"):
        await restore(elsewhere.settings, str(dest))
    assert await elsewhere.fetch("SELECT position FROM event") == []


async def test_a_log_that_went_another_way_does_not_go_into_the_same_destination(home: Home, dest: Path, elsewhere: Home) -> None:
    await back_up(home.settings, str(dest))
    await restore(elsewhere.settings, str(dest))
    await home.phantom(3)
    await elsewhere.phantom(4)
    await back_up(home.settings, str(dest))
    with pytest.raises(LogTookAnotherCourse):
        await back_up(elsewhere.settings, str(dest))
    assert verify(str(dest), load_keys(home.settings)).problems == []


async def test_another_site_s_destination_and_a_wrong_key_are_refused(
    home: Home, dest: Path, log_settings: LogSettings, embedded_server: str, tmp_path: Path
) -> None:
    await back_up(home.settings, str(dest))
    url = await fresh_database(embedded_server)
    other = Home(tmp_path / "other", url)
    make_key_encryption_key(other.settings)
    with pytest.raises(KeyEncryptionKeyWrong, match="key-encryption key whose id is"):
        verify(str(dest), load_keys(other.settings))
    with pytest.raises(KeyEncryptionKeyWrong):
        await restore(other.settings, str(dest))
    await migrate(other.settings)
    with pytest.raises(BackupOfAnotherSite):
        await back_up(other.settings, str(dest))
    await drop_database(embedded_server, url)


async def test_a_target_that_is_not_empty_is_refused_and_says_what_is_there(home: Home, dest: Path, elsewhere: Home) -> None:
    await back_up(home.settings, str(dest))
    with pytest.raises(TargetNotEmpty, match=r"rows in table event.*objects in"):
        await restore(home.settings, str(dest))
    stray = elsewhere.settings.rejects_dir
    stray.mkdir(parents=True)
    (stray / "something").write_text("kept")
    with pytest.raises(TargetNotEmpty, match="refused files in"):
        await restore(elsewhere.settings, str(dest))
    (stray / "something").unlink()
    await migrate(elsewhere.settings)
    await restore(elsewhere.settings, str(dest))
    await assert_same(home, elsewhere)


async def test_what_waits_in_the_spool_and_what_was_refused_is_restored_and_taken_up(
    home: Home, dest: Path, elsewhere: Home, tmp_path: Path
) -> None:
    bad = tmp_path / "bad.dcm"
    bad.write_bytes(b"this is no image")
    await home.take_in(bad)
    [waiting] = make_phantom(tmp_path / "waiting", slices=1, size=32, seed=9, patient_id="MRN-9").files
    spool = Spool(home.settings.spool_dir)
    data = waiting.read_bytes()
    with spool.receive(sop_class_uid="1.2.840.10008.5.1.4.1.1.2", sop_instance_uid="1.2", transfer_syntax_uid="1.2.840.10008.1.2.1", door="dimse") as reception:
        reception.write(data[_dataset_offset(waiting) :])
        spooled = reception.commit()
    made = await back_up(home.settings, str(dest))
    assert made.files == 3
    await restore(elsewhere.settings, str(dest))
    assert [(p.name, p.read_bytes()) for p in files_below(elsewhere.settings.rejects_dir)] == [
        (p.name, p.read_bytes()) for p in files_below(home.settings.rejects_dir)
    ]
    log = await EventLog.open(elsewhere.settings)
    intake = Intake(log, elsewhere.store, Spool(elsewhere.settings.spool_dir), Rejects(elsewhere.settings.rejects_dir), linger_s=0)
    intake.resume()
    deadline = time.monotonic() + PATIENCE_S
    while not (decided := files_below(elsewhere.settings.spool_dir) == []):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)
    await intake.close()
    await log.close()
    assert decided
    assert spooled.sha256 in await elsewhere.stored() or spooled.sha256 in str(list(Rejects(elsewhere.settings.rejects_dir).listing()))


def _dataset_offset(path: Path) -> int:
    from archive.part10 import read_part10

    with path.open("rb") as file:
        return read_part10(file).dataset_offset


async def test_the_command_line_says_what_it_did(home: Home, dest: Path, elsewhere: Home) -> None:
    def run(home: Home, *arguments: str, code: int = 0) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "server.cli", *arguments], env=home.environment, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == code, done.stderr
        return done

    kek = load_keys(home.settings).first_id
    said = (await asyncio.to_thread(run, home, "backup", str(dest))).stdout
    assert kek in said and "Keep it elsewhere" in said
    assert kek in (await asyncio.to_thread(run, home, "backup", "list", str(dest))).stdout
    listed = json.loads((await asyncio.to_thread(run, home, "backup", "list", str(dest), "--json")).stdout)
    assert [one["position"] for one in listed] == [await home.position()]
    assert "All is well" in (await asyncio.to_thread(run, home, "backup", "verify", str(dest))).stdout
    restored = json.loads((await asyncio.to_thread(run, elsewhere, "restore", str(dest), "--json")).stdout)
    assert restored["position"] == await home.position()
    refused = (await asyncio.to_thread(run, elsewhere, "restore", str(dest), code=2)).stderr
    assert "TargetNotEmpty" in refused and len(refused.splitlines()) == 1
    broken = files_below(dest / "objects")[0]
    broken.write_bytes(b"")
    assert str(broken.relative_to(dest)) in (await asyncio.to_thread(run, home, "backup", "verify", str(dest), code=1)).stdout


def covered(*pairs: tuple[int, int], up_to: int) -> Iterable[tuple[int, int]]:
    return [(s.first, s.last) for s in segments.covering([Segment(*pair) for pair in pairs], up_to)]


def test_the_longest_segments_without_a_gap_are_chosen() -> None:
    assert covered((1, 10), (11, 14), (11, 20), (21, 22), up_to=22) == [(1, 10), (11, 20), (21, 22)]
    assert covered((1, 10), (11, 14), (11, 20), up_to=15) == [(1, 10), (11, 14)]
    assert covered((2, 10), up_to=10) == []
    assert covered((1, 3), (5, 9), up_to=9) == [(1, 3)]
