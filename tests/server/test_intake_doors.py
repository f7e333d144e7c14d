"""Every real file by each of the three doors: stored with its data set byte for byte, or refused with a reason."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace

import httpx
import pytest_asyncio
from fastapi import FastAPI

from archive.errors import Refused
from archive.header import read_header
from archive.part10 import read_part10
from archive.rejects import Rejects
from archive.spool import Spool
from archive.store import Store
from domain.intake import FileRefused
from domain.principal import PrincipalKind
from domain.series import InstanceConflicted, InstancesStored
from eventlog.log import EventLog
from server.auth.principals import Verifiers
from server.auth.tokens import TokenVerifier, create_token
from server.cli.files import MEDIA_STORAGE_DIRECTORY
from server.cli.ingest import ingest_files
from server.dicomweb import stow
from server.intake import Intake


class House:
    def __init__(self, log: EventLog, folder: Path) -> None:
        self.log = log
        self.spool, self.store, self.rejects = Spool(folder / "spool"), Store(str(folder / "archive")), Rejects(folder / "rejects")
        self.intake = Intake(log, self.store, self.spool, self.rejects, linger_s=0.05)

    async def events(self, *types: type) -> list[object]:
        return [e.event for e in await self.log.read(0, limit=10_000, types=types)]

    async def kept(self) -> Counter[str]:
        """Digests of the objects that the log knows, by instance or as a conflict."""
        found: Counter[str] = Counter()
        for event in await self.events(InstancesStored, InstanceConflicted):
            if isinstance(event, InstancesStored):
                found.update(i.sha256 for i in event.instances)
            elif isinstance(event, InstanceConflicted):
                found[event.conflicting_sha256] += 1
        return found

    def data_sets(self, digests: Counter[str]) -> set[bytes]:
        return {data_set(self.store.open(digest).read()) for digest in digests}


@pytest_asyncio.fixture
async def house(event_log: EventLog, tmp_path: Path) -> AsyncIterator[House]:
    house = House(event_log, tmp_path)
    yield house
    await house.intake.close()


def data_set(data: bytes) -> bytes:
    return data[read_part10(io.BytesIO(data)).dataset_offset :]


def real_files(folder: Path) -> tuple[list[Path], list[Path]]:
    """Those that are instances, and those that the archive must refuse."""
    good: list[Path] = []
    bad: list[Path] = []
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and (p.suffix in ("", ".dcm"))):
        try:
            header = read_header(path)
        except Refused:
            with path.open("rb") as file:
                is_medium = file.read(132)[128:] == b"DICM" and is_directory(path)
            (bad if not is_medium else []).append(path)
        else:
            if header.sop_class_uid != MEDIA_STORAGE_DIRECTORY:
                good.append(path)
    return good, bad


def is_directory(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            return read_part10(file).sop_class_uid == MEDIA_STORAGE_DIRECTORY
    except Refused:
        return False


async def test_ingest_takes_every_real_file_or_names_the_reason(house: House, dicom_data: Path) -> None:
    good, bad = real_files(dicom_data)
    done = await ingest_files([*good, *bad], log=house.log, spool=house.spool, rejects=house.rejects, intake=house.intake)
    by_file = {one.file: one for one in done.outcomes}
    assert len(by_file) == len(good) + len(bad) and good
    # Files that name a series of another file's study are refused as such; nothing else that can be read is.
    assert {one.reason for path in good if (one := by_file[str(path)]).outcome == "refused"} <= {"other-study"}
    assert all(by_file[str(path)].outcome == "refused" and by_file[str(path)].reason for path in bad)
    kept = house.data_sets(await house.kept())
    assert kept == {data_set(p.read_bytes()) for p in good if by_file[str(p)].outcome != "refused"}
    assert house.spool.depth() == 0


async def test_stow_answers_for_every_real_file(house: House, dicom_data: Path) -> None:
    good, bad = real_files(dicom_data)
    app = FastAPI()
    app.include_router(stow.router)
    app.state.services = SimpleNamespace(
        settings=SimpleNamespace(public_url="https://x"), log=house.log, pool=house.log.pool, store=house.store, spool=house.spool,
        rejects=house.rejects, intake=house.intake, verifiers=Verifiers(tokens=TokenVerifier(house.log.pool)),
    )  # fmt: skip
    _, token = await create_token(
        house.log.pool, name="t", scopes=["dicom:write"], lifetime=timedelta(hours=1), kind=PrincipalKind.DEVICE, on_behalf_of=None
    )
    files = [*good, *bad]
    answered = stored = 0
    headers = {"Authorization": f"Bearer {token}", "Prefer": "respond-async", "Content-Type": "multipart/related; boundary=edge-of-a-part"}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x", headers=headers, timeout=120) as client:
        for start in range(0, len(files), 50):
            parts = [p.read_bytes() for p in files[start : start + 50]]
            body = b"".join(b"--edge-of-a-part\r\n\r\n" + part + b"\r\n" for part in parts) + b"--edge-of-a-part--"
            answer = (await client.post("/studies", content=body)).json()
            sizes = [len(answer.get(tag, {}).get("Value", [])) for tag in ("00081198", "00081199", "0008119A")]
            answered, stored = answered + sum(sizes), stored + sizes[1]
    assert answered == len(files)
    refused = [e for e in await house.events(FileRefused) if isinstance(e, FileRefused)]
    assert {e.reason for e in refused} <= {"not-dicom", "truncated", "missing-uid", "unreadable", "other-study"}
    kept = house.data_sets(await house.kept())
    assert kept <= {data_set(p.read_bytes()) for p in good} and stored > 0.8 * len(good)
    assert house.spool.depth() == 0
