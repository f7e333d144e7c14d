"""A frozen dataset, exported on two machines whose embedded databases were fed with the same events: byte for byte the same."""

from __future__ import annotations

import asyncio
import filecmp
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from frozen_dataset import (
    CURATOR,
    LIVER_CT,
    PROJECT,
    cohorts_follow,
    freeze,
    of_another_person,
    store_liver_cases,
    store_small_cases,
    subjects_in,
)
from served_site import Site, served_site

from domain.project import Role
from eventlog.embedded import EmbeddedPostgres
from eventlog.envelope import NewEvent, StreamAppend
from server.cohorts.keeping import admit_member
from server.datasets.folder import STATE
from server.datasets.jobs import FOLDER
from server.datasets.plan import Layout

SCOPES = ("datasets:export", "dicom:read")


@pytest.fixture
def other_server(tmp_path: Path) -> Iterator[str]:
    server = EmbeddedPostgres(tmp_path / "postgresql")
    yield server.url("postgres")
    server.leave()


@pytest.mark.timeout(300)
async def test_two_machines_export_the_same_bytes(embedded_server: str, other_server: str, tmp_path: Path, dicom_data: Path) -> None:
    here, there = tmp_path / "here", tmp_path / "there"
    async with served_site(embedded_server, here, site="north") as site:
        await store_liver_cases(site, dicom_data, persons=2)
        await store_small_cases(site)
        livers = await subjects_in(site, "SEG")
        parts = {one: "test" for one in await subjects_in(site)} | dict(zip(livers, ("train", "validation"), strict=True))
        dataset = await freeze(site, parts)
        async with served_site(other_server, there, site="north") as other:
            await feed(site, other)
            shutil.copytree(here / "archive", there / "archive", dirs_exist_ok=True)
            await site.store(*of_another_person(dicom_data / LIVER_CT, 7))  # what comes later changes nothing
            first, second, again = await export(site, dataset), await export(other, dataset), await export(other, dataset)
    assert len(files_in(first)) > 40
    assert files_in(first) == files_in(second) == files_in(again)
    for one in (second, again):
        _, differing, unreadable = filecmp.cmpfiles(first, one, files_in(first), shallow=False)
        assert not differing and not unreadable


async def feed(site: Site, other: Site) -> None:
    """Every event, at its position, under its id, of its time and principal."""
    for recorded in await site.services.log.read(0, 100_000):
        new = NewEvent(event=recorded.event, event_id=recorded.event_id, occurred_at=recorded.occurred_at, causation_id=recorded.causation_id)
        append = StreamAppend(stream=recorded.stream, events=[new])
        appended = await other.services.log.append([append], principal=recorded.principal, correlation_id=recorded.correlation_id)
        assert appended.last == recorded.position
    await cohorts_follow(other)


async def export(site: Site, dataset: str) -> Path:
    """The folder of its files."""
    await admit_member(site.services.log, PROJECT, (await site.principal(*SCOPES)).id, Role.VIEWER, CURATOR)
    headers = await site.headers(*SCOPES)
    wanted = {"layouts": [*Layout], "purpose": "research"}
    begun = await site.client.post(f"/datasets/{dataset}/versions/1/exports", json=wanted, headers=headers)
    assert begun.status_code == 202, begun.text
    status = begun.headers["content-location"]
    while (answer := (await site.client.get(status, headers=headers)).json())["state"] == "running":
        await asyncio.sleep(0.1)
    assert answer["state"] == "done", answer
    return site.services.settings.data_dir / FOLDER / answer["export_id"]


def files_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file() and STATE not in path.relative_to(folder).parts)
