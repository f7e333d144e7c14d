"""kill -9 of server and database while a dataset is exported: started again it goes on, nothing that was whole is made anew, and the files
are, byte for byte, those of an export that nobody disturbed."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import httpx
import pytest
from frozen_dataset import LIVER_CT, files_in, of_another_person
from running_site import PATIENCE_S, Site

from anamnesis.client import Client
from server.datasets.folder import STATE
from server.datasets.jobs import FOLDER

ROUNDS = int(os.environ.get("ANAMNESIS_TEST_EXPORT_KILL_ROUNDS", "2"))
WANTED = {"layouts": ["dicom", "nnunet", "bids", "parquet"], "purpose": "research"}


@pytest.mark.timeout(600)
def test_a_killed_export_goes_on_and_gives_the_same_bytes(tmp_path: Path, dicom_data: Path) -> None:
    site = Site(tmp_path)
    site.run("init")
    images = tmp_path / "images"
    images.mkdir()
    for person in range(3):
        files = of_another_person(dicom_data / LIVER_CT, person) if person else files_in(dicom_data / LIVER_CT)
        for number, content in enumerate(files):
            (images / f"{person}-{number}.dcm").write_bytes(content)
    site.start_server()
    try:
        site.wait_until_ready()
        site.run("ingest", str(images))
        token = site.token("cohorts:read", "cohorts:write", "datasets:export", "dicom:read")
        with Client(site.url, token=token) as client:
            client.create_project("livers")
            frozen = client.create_dataset("Livers", project="livers", license="CC-BY-4.0", intended_uses=["research"])
            wait_for_series(client, 3)
            frozen.freeze(client.series("Modality = CT"))
        http = httpx.Client(base_url=site.url, headers={"Authorization": f"Bearer {token}"}, timeout=60)
        path = f"/datasets/{frozen.dataset_id}/versions/1/exports"
        undisturbed = finished(site, http, begin(http, path))
        expected = contents(undisturbed)
        assert len(expected) > 30
        rng, gone_on = random.Random(11), 0
        for nth in range(ROUNDS):
            export = begin(http, path)
            folder = site.folder / "data" / FOLDER / export
            reach = rng.randint(3, len(expected) - 8)
            while len(written(folder)) < reach:
                time.sleep(0.001)
            before = {name: (folder / name).stat().st_ino for name in written(folder)}
            site.kill("database" if nth % 2 else "server")
            site.wait_until_ready()
            assert contents(finished(site, http, export)) == expected
            gone_on += sum(before[name] == (folder / name).stat().st_ino for name in before)
        assert gone_on > 0
    finally:
        site.stop()


def wait_for_series(client: Client, count: int) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while client.series("Modality = CT").counts().series < count:
        assert time.monotonic() < deadline
        time.sleep(0.2)


def begin(http: httpx.Client, path: str) -> str:
    answer = http.post(path, json=WANTED)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["export_id"])


def finished(site: Site, http: httpx.Client, export: str) -> Path:
    """The folder of its files."""
    deadline = time.monotonic() + 3 * PATIENCE_S
    while True:
        try:
            answer = http.get(f"/datasets/exports/{export}")
        except httpx.TransportError:
            answer = httpx.Response(503)
        if answer.status_code == 200 and answer.json()["state"] != "running":
            assert answer.json()["state"] == "done", answer.text
            return site.folder / "data" / FOLDER / export
        assert answer.status_code in (200, 503) and time.monotonic() < deadline, answer.text
        time.sleep(0.1)


def written(folder: Path) -> list[str]:
    return [name for path in folder.rglob("*") if STATE not in (parts := path.relative_to(folder).parts) and path.is_file() and (name := "/".join(parts))]


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in written(folder)}
