"""Datasets and saved cohorts through the client: what was frozen is what arrives, file by file, and is the same the next time."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from cutting_proxy import cutting_proxy
from imaged_site import MadeFinding
from listening_site import ListeningSite
from served_site import slice_of

from anamnesis.client import AsyncClient, Client, field, has
from anamnesis.client.errors import BytesDiffer, NotFound, NotPermitted, QuestionRefused

Sources = dict[str, list[Path]]
CURATOR = ("cohorts:read", "cohorts:write", "dicom:read")
LIVERS = has("finding", (field("label") == "liver") & (field("verdict") == "accepted"))


@pytest.fixture(scope="module")
def curator(imaged_site: ListeningSite) -> str:
    return imaged_site.do(imaged_site.site.headers(*CURATOR))["Authorization"].split()[1]


@pytest.fixture
def client(imaged_site: ListeningSite, curator: str) -> Iterator[Client]:
    with Client(imaged_site.url, token=curator) as client:
        yield client


@pytest.fixture(scope="module")
def project(imaged_site: ListeningSite, curator: str) -> str:
    with Client(imaged_site.url, token=curator) as client:
        return client.create_project("livers", "Livers of all kinds").project_id


def test_what_was_frozen_is_what_is_fetched(client: Client, project: str, made_findings: list[MadeFinding], sources: Sources, tmp_path: Path) -> None:
    expected = {one.series_uid for one in made_findings if one.label == "liver" and one.verdict == "accepted"}
    dataset = client.create_dataset("Livers 1", project=project, license="CC-BY-4.0", intended_uses=["research", "education"])
    assert dataset.intended_uses == ["research", "education"] and client.dataset("Livers 1") == dataset
    version = client.series(LIVERS).pinned().freeze(dataset)
    assert (version.version, version.series, version.level) == (1, len(expected), "series")
    assert {one.series_uid for one in version.members()} == expected == set(version.to_pandas()["series_uid"])
    divided = version.divide({"train": 0.5, "test": 0.5}, seed="7")
    assert divided.split is not None and sum(part.subjects for part in divided.split.parts) == version.subjects

    told: list[tuple[int, int]] = []
    folder = divided.fetch(tmp_path / "livers", told=lambda done, total: told.append((done, total)))
    rows = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    assert told[-1] == (len(expected), len(expected)) and len(rows) == sum(len(sources[uid]) for uid in expected) == version.instances
    for row in rows:
        data = (folder / row["file"]).read_bytes()
        assert hashlib.sha256(data).hexdigest() == row["sha256"] and row["file"].startswith(f"{row['split']}/{row['subject_id']}/")
    assert {row["split"] for row in rows} <= {"train", "test"}
    fetched = {pydicom.dcmread(folder / row["file"], stop_before_pixels=True).SOPInstanceUID for row in rows}
    assert fetched == {pydicom.dcmread(file, stop_before_pixels=True).SOPInstanceUID for uid in expected for file in sources[uid]}

    first = folder / rows[0]["file"]
    first.unlink()
    manifest = (folder / "manifest.jsonl").read_bytes()
    divided.fetch(folder)
    assert first.exists() and (folder / "manifest.jsonl").read_bytes() == manifest
    first.write_bytes(first.read_bytes()[:-1] + b"!")
    with pytest.raises(BytesDiffer, match="frozen"):
        divided.fetch(folder)


def test_a_version_stays_as_it_was_when_more_arrives(imaged_site: ListeningSite, client: Client, project: str) -> None:
    def store(number: int) -> None:
        imaged_site.do(imaged_site.site.store(slice_of("1.2.55", number, patient_id="GROWS", KVP=55)))

    store(1)
    dataset = client.create_dataset("Growing", project=project)
    cohort = client.series(field("KVP") == 55)
    first = dataset.freeze(cohort)
    assert dataset.freeze(cohort).version == first.version == 1, "nothing new is no version"
    store(2)
    second = dataset.freeze(cohort)
    assert (second.version, second.instances, first.instances) == (2, 2, 1)
    assert [one.members_sha256 for one in dataset.versions()] == [first.members_sha256, second.members_sha256]
    assert dataset.version(1) == first and dataset.version() == second
    assert [len(one.instances) for one in dataset.version(1).members()] == [1]
    with pytest.raises(NotFound, match="there are 2"):
        dataset.version(3)


def test_a_version_is_fetched_as_of_its_position(imaged_site: ListeningSite, client: Client, project: str, tmp_path: Path) -> None:
    files = client.dataset("Growing").version(1).fetch(tmp_path)
    assert len(list(files.rglob("*.dcm"))) == 1


def test_a_cohort_is_kept_and_says_what_entered_and_why(imaged_site: ListeningSite, client: Client, project: str) -> None:
    cohort = client.series((field("KVP") == 77) & (field("Modality") == "CT"))
    saved = cohort.ticked("Modality", "CT").save("Seventy-seven", description="kV").share(project)
    assert saved.shared_in == [project] and client.cohort("Seventy-seven") == saved == client.cohorts()[-1]
    before = client.position()
    imaged_site.do(imaged_site.site.store(slice_of("1.2.66", 1, patient_id="ENTERS", KVP=77)))
    changed = saved.changes(before)
    assert (changed.before_count, changed.after_count, changed.entered_count, changed.left_count) == (0, 1, 1, 0)
    assert changed.entered[0].series_uid == "1.2.66.1" and "InstancesStored" in {why.type for why in changed.entered[0].reasons}
    assert [one.series_uid for one in saved.cohort()] == ["1.2.66.1"] and saved.cohort(as_of=before).count() == 0
    assert cohort.changes(before).entered == changed.entered
    assert cohort.save("Seventy-seven", cohort_id=saved.cohort_id).version in (1, 2)
    with pytest.raises(NotFound):
        client.cohort("nothing of this name")


def test_async_freezes_and_fetches_as_sync_does(imaged_site: ListeningSite, client: Client, curator: str, project: str, tmp_path: Path) -> None:
    async def fetched() -> tuple[Path, str]:
        async with AsyncClient(imaged_site.url, token=curator) as other:
            dataset = await other.create_dataset("Async", project=project)
            version = await other.series(field("KVP") == 55).freeze(dataset)
            assert await version.members() == client.dataset("Async").version().members()
            saved = await other.series(field("KVP") == 55).save("Async")
            assert await saved.cohort().count() == (await saved.changes(0)).after_count
            return await version.fetch(tmp_path / "async"), (await (await other.dataset("Async")).version()).members_sha256

    folder, digest = asyncio.run(fetched())
    version = client.dataset("Async").version()
    assert version.members_sha256 == digest
    assert (version.fetch(tmp_path / "sync") / "manifest.jsonl").read_bytes() == (folder / "manifest.jsonl").read_bytes()


def test_who_may_only_read_keeps_nothing(imaged_site: ListeningSite, token: str) -> None:
    with Client(imaged_site.url, token=token) as reader:
        with pytest.raises(NotPermitted, match="cohorts:write"):
            reader.series().save("mine")
        assert reader.datasets() == []


@pytest.fixture(scope="module")
def exporter(imaged_site: ListeningSite) -> str:
    return imaged_site.do(imaged_site.site.headers(*CURATOR, "datasets:export"))["Authorization"].split()[1]


def test_an_export_arrives_whole_whatever_breaks(imaged_site: ListeningSite, exporter: str, made_findings: list[MadeFinding], sources: Sources, tmp_path: Path) -> None:
    with cutting_proxy(imaged_site.url) as proxy, Client(proxy.url, token=exporter) as client:
        project = client.create_project("exports").project_id
        dataset = client.create_dataset("Exported", project=project, license="CC-BY-4.0", intended_uses=["research"])
        version = client.series(LIVERS & (field("Modality") == "CT")).freeze(dataset)
        told: list[tuple[int, int]] = []
        export = version.export("dicom", "jsonl", purpose="research")
        assert export.wait(told=lambda done, of: told.append((done, of))).state == "done" and told[-1] == (100, 100)
        folder = export.fetch(tmp_path / "whole")
        proxy.cuts = [10**9, 10**9, 100_000, 10**9, 2_000, 60_000]
        again = export.fetch(tmp_path / "again")
        assert proxy.cuts == []
        with pytest.raises(NotPermitted):
            version.export("jsonl", purpose="product-development")
        with pytest.raises(QuestionRefused):
            version.export("nonsense", purpose="research")
    (series,) = [one.series_uid for one in made_findings if one.volume_ml == 1432.5]
    there = {str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest() for file in folder.rglob("*") if file.is_file()}
    assert there == {str(file.relative_to(again)): hashlib.sha256(file.read_bytes()).hexdigest() for file in again.rglob("*") if file.is_file()}
    sums = dict(reversed(line.split("  ", 1)) for line in (folder / "SHA256SUMS").read_text().splitlines())
    assert sums == {path: digest for path, digest in there.items() if path != "SHA256SUMS"} and "manifest.json" in sums
    exported = [pydicom.dcmread(file, stop_before_pixels=True) for file in folder.rglob("*.dcm")]
    assert {header.SeriesInstanceUID for header in exported} == {series} and len(exported) == len(sources[series])
