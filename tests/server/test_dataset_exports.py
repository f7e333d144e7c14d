"""Exports of datasets over HTTP: begun on the dataset's terms, made in the background, fetched in ranges, cancelled, erased, expired."""

from __future__ import annotations

import asyncio
import hashlib
import os
import resource
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from frozen_dataset import CURATOR, freeze, store_small_cases, subjects_in
from served_site import Site, erase, served_site

from domain.access import AccessesRecorded, Action
from domain.dataset import Purpose, Terms
from domain.dataset_export import DatasetExported
from server.cohorts.keeping import set_terms
from server.datasets.exporting import ROUTE, exporter
from server.datasets.jobs import FOLDER
from server.exports import making

WANTED = {"layouts": ["bids", "csv"], "purpose": "research"}
SCOPES = ("datasets:export", "dicom:read")
MEMBERS = (SCOPES, ("datasets:export",))


@dataclass
class Frozen(Site):
    """A site with a dataset."""

    dataset: str = ""


@asynccontextmanager
async def frozen_site(server: str, folder: Path, persons: int = 2, **more: Any) -> AsyncIterator[Frozen]:
    async with served_site(server, folder, **more) as served:
        await store_small_cases(served, persons)
        dataset = await freeze(served, members=[(await served.principal(*scopes)).id for scopes in MEMBERS])
        yield Frozen(served.services, served.client, served.tokens, dataset)


@pytest_asyncio.fixture
async def site(embedded_server: str, tmp_path: Path) -> AsyncIterator[Frozen]:
    async with frozen_site(embedded_server, tmp_path / "site") as site:
        yield site


async def begin(site: Frozen, *scopes: str, version: int = 1, **more: Any) -> httpx.Response:
    headers = await site.headers(*(scopes or SCOPES))
    return await site.client.post(f"/datasets/{site.dataset}/versions/{version}/exports", json={**WANTED, **more}, headers=headers)


async def ended(site: Frozen, export: str, *scopes: str) -> dict[str, Any]:
    while True:
        answer = await site.get(export, *(scopes or SCOPES))
        if answer.status_code != 200 or answer.json()["state"] != "running":
            return dict(answer.json())
        assert "X-Progress" in answer.headers and "Retry-After" in answer.headers
        await asyncio.sleep(0.05)


def path_of(answer: httpx.Response) -> str:
    assert answer.status_code == 202, answer.text
    return answer.headers["content-location"].removeprefix("http://site.test")


def folder(site: Frozen, export: str) -> Path:
    return site.services.settings.data_dir / FOLDER / export.rpartition("/")[2]


async def test_an_export_is_made_and_every_file_fetched(site: Frozen) -> None:
    export = path_of(await begin(site))
    status = await ended(site, export)
    assert status["state"] == "done" and status["percent"] == 100 and status["purpose"] == "research", status
    manifest = (await site.get(f"{export}/files/manifest.json", *SCOPES)).json()
    assert len(manifest["files"]) > 8
    for one in manifest["files"]:
        answer = await site.get(f"{export}/files/{one['path']}", *SCOPES)
        assert hashlib.sha256(answer.content).hexdigest() == one["sha256"] and len(answer.content) == one["bytes"]
    headers = {**await site.headers(*SCOPES), "Range": "bytes=10-19"}
    some = await site.client.get(f"{export}/files/tables/series.csv", headers=headers)
    whole = await site.get(f"{export}/files/tables/series.csv", *SCOPES)
    assert some.status_code == 206 and some.content == whole.content[10:20] and whole.headers["content-type"].startswith("text/csv")


async def test_whoever_looked_before_it_was_done_takes_nothing_of_it_away(site: Frozen) -> None:
    export = path_of(await begin(site))
    await ended(site, export)
    late = exporter(site.services)
    late._take_up([export.rpartition("/")[2]])  # running, as it was found a moment ago
    await asyncio.gather(*late._tasks.values())
    assert (await site.get(f"{export}/files/manifest.json", *SCOPES)).status_code == 200


async def test_that_it_was_made_and_read_is_in_the_log(site: Frozen) -> None:
    export = path_of(await begin(site))
    await ended(site, export)
    manifest = await site.get(f"{export}/files/manifest.json", *SCOPES)
    await site.caught_up()
    (made,) = await site.services.log.read(0, 10_000, {DatasetExported})
    assert isinstance(made.event, DatasetExported) and made.principal == await site.principal(*SCOPES)
    assert made.event.manifest_sha256 == hashlib.sha256(manifest.content).hexdigest()
    assert (made.event.purpose, made.event.version, made.event.subjects_count, made.event.left_out_count) == ("research", 1, 2, 0)
    accesses = [access for one in await site.services.log.read(0, 10_000, {AccessesRecorded}) for access in one.event.accesses]  # type: ignore[attr-defined]
    exports = [one for one in accesses if one.action is Action.EXPORT]
    assert {subject for one in exports for subject in one.subjects} == set(await subjects_in(site))
    assert {one.route for one in exports} == {ROUTE, "/datasets/exports/{export_id}/files/{path}"}


async def test_it_leaves_on_its_terms_alone(site: Frozen) -> None:
    for purpose, status in (("education", 403), ("resale", 422)):
        refused = await begin(site, purpose=purpose)
        assert refused.status_code == status, refused.text
    assert "is meant for research" in (await begin(site, purpose="education")).json()["detail"]
    await set_terms(site.services.log, site.dataset, Terms(intended_uses=(Purpose.RESEARCH,)), CURATOR)
    refused = await begin(site)
    assert refused.status_code == 409 and "has no license" in refused.json()["detail"]
    assert (await begin(site, version=7)).status_code == 404
    stranger = await begin(site, "datasets:export", "dicom:read", "metrics:read")
    assert stranger.status_code == 403


async def test_what_it_holds_asks_for_the_scopes_of_that(site: Frozen) -> None:
    assert (await begin(site, "dicom:read")).status_code == 403
    without = await begin(site, "datasets:export", layouts=["dicom"])
    assert without.status_code == 403 and "dicom:read" in without.json()["detail"]
    named = await begin(site, fields=["Modality", "PatientName"])
    assert named.status_code == 403 and "identities:read" in named.json()["detail"]
    for wrong in ({"layouts": []}, {"layouts": ["zip"]}, {"fields": ["NoSuchField"]}, {"nnunet_id": 1000}, {"colour": "red"}):
        assert (await begin(site, **wrong)).status_code == 422


async def test_the_export_of_another_is_not_there(site: Frozen) -> None:
    export = path_of(await begin(site))
    await ended(site, export)
    for path in (export, f"{export}/files/manifest.json"):
        assert (await site.get(path, "datasets:export", "audit:read")).status_code == 404
    assert (await site.get(f"{export}/files/manifest.json", "admin")).status_code == 200
    for path in (".export/plan.json", "../manifest.json", "%2e%2e/x", "tables", "none.csv"):
        assert (await site.get(f"{export}/files/{path}", *SCOPES)).status_code == 404


async def test_cancelled_nothing_of_it_is_left(site: Frozen) -> None:
    export = path_of(await begin(site))
    cancelled = await site.client.delete(export, headers=await site.headers(*SCOPES))
    assert cancelled.status_code == 202
    assert (await site.get(export, *SCOPES)).status_code == 404
    while folder(site, export).exists():
        await asyncio.sleep(0.1)


async def test_an_erasure_takes_it(site: Frozen) -> None:
    export = path_of(await begin(site))
    assert (await ended(site, export))["state"] == "done"
    gone, left = await subjects_in(site)
    await erase(site, gone)
    assert (await ended(site, export))["state"] == "erased" and not folder(site, export).exists()
    assert (await site.get(f"{export}/files/manifest.json", *SCOPES)).status_code == 410
    again = path_of(await begin(site))
    assert (await ended(site, again))["state"] == "done"
    manifest = (await site.get(f"{again}/files/manifest.json", *SCOPES)).json()
    assert {one["subject_id"] for one in manifest["members"]} == {left}
    assert [one["reason"] for one in manifest["left_out"]] == ["subject-erased"]


async def test_a_lost_instance_ends_it_by_name_and_it_goes_on_when_mended(site: Frozen) -> None:
    lost = next(one for one in sorted((site.services.settings.data_dir / "archive").rglob("*")) if one.is_file() and one.read_bytes()[128:132] == b"DICM")
    kept = lost.with_name("kept")
    os.rename(lost, kept)
    export = path_of(await begin(site, layouts=["dicom", "bids"]))
    status = await ended(site, export)
    assert (status["state"], status["problem"]) == ("failed", "not-in-archive") and "restore it" in status["detail"]
    os.rename(kept, lost)
    resumed = await site.client.post(f"{export}/resumption", headers=await site.headers(*SCOPES))
    assert resumed.status_code == 202, resumed.text
    assert (await ended(site, export))["state"] == "done"
    again = await site.client.post(f"{export}/resumption", headers=await site.headers(*SCOPES))
    assert again.status_code == 409


async def test_more_at_once_are_refused_and_old_ones_expire(embedded_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(making, "SWEEP_S", 0.1)
    async with frozen_site(embedded_server, tmp_path / "site", 1, dataset_exports=1, dataset_export_keep_hours=1 / 3600) as site:
        export = path_of(await begin(site))
        refused = await begin(site)
        assert refused.status_code == 429 and refused.headers["retry-after"]
        while (await site.get(export, *SCOPES)).status_code == 200:
            await asyncio.sleep(0.1)
        while folder(site, export).exists():
            await asyncio.sleep(0.1)


async def test_a_full_disk_is_said_and_it_goes_on_when_there_is_room(site: Frozen) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (6000, hard))  # as on a disk that is full: the child process has it too
    try:
        export = path_of(await begin(site))
        status = await ended(site, export)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert (status["state"], status["problem"]) == ("failed", "disk-full") and "make room" in status["detail"]
    assert status["files"] > 0 and list(folder(site, export).rglob("*.nii.gz"))
    resumed = await site.client.post(f"{export}/resumption", headers=await site.headers(*SCOPES))
    assert resumed.status_code == 202 and (await ended(site, export))["state"] == "done"
