"""kill -9 of server and database while an export is written: started again it goes on, and its files are, byte for byte, those of an
export that nobody disturbed."""

from __future__ import annotations

import os
import random
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from running_site import PATIENCE_S, Site

from server.fhir.export.jobs import FOLDER

pytestmark = pytest.mark.slow

ROUNDS = int(os.environ.get("ANAMNESIS_TEST_EXPORT_KILL_ROUNDS", "4"))
BUNDLES, RESOURCES = 12, 1000
"""More than is noted at once (LINES_A_NOTE), so that there is something to go on from."""


@pytest.mark.timeout(600)
def test_a_killed_export_goes_on_and_gives_the_same_bytes(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.run("init")
    site.start_server()
    try:
        site.wait_until_ready()
        token = site.token("fhir:read", "fhir:write")
        client = httpx.Client(base_url=site.url, headers={"Authorization": f"Bearer {token}"}, timeout=60)
        for nth in range(BUNDLES):
            assert client.post("/fhir", json=bundle(nth)).status_code == 200
        undisturbed = begin(client)
        manifest = finished(client, undisturbed)
        position = manifest["extension"]["urn:anamnesis:log:position"]
        expected = files_of(client, manifest)
        whole = written(site, undisturbed)
        assert whole > 0 and sum(one["count"] for one in manifest["output"]) >= BUNDLES * RESOURCES
        rng, gone_on = random.Random(7), 0
        for nth in range(ROUNDS):
            status = begin(client, position)
            reach = whole * (0.9 if nth == 0 else rng.uniform(0.0, 1.0))
            while written(site, status) < reach:
                time.sleep(0.001)
            before = inodes(site, status)
            site.kill("database" if nth % 4 == 3 else "server")
            site.wait_until_ready()
            assert files_of(client, finished(client, status)) == expected
            gone_on += bool(before.items() & inodes(site, status).items())
            client.post("/fhir", json=bundle(BUNDLES + nth))  # the log goes on, and the export stays where it is
        assert gone_on > 0
    finally:
        site.stop()


def bundle(number: int) -> dict[str, Any]:
    entries = []
    for nth in range(RESOURCES):
        resource_id = f"{number}.{nth}"
        resource = {"resourceType": "Basic", "id": resource_id, "code": {"text": "x" * 300}}
        entries.append({"resource": resource, "request": {"method": "PUT", "url": f"Basic/{resource_id}"}})
    return {"resourceType": "Bundle", "type": "transaction", "entry": entries}


def begin(client: httpx.Client, position: int | None = None) -> str:
    """The export's status URL."""
    answer = client.get("/fhir/$export", params={"_asof": position} if position else None, headers={"Prefer": "respond-async"})
    assert answer.status_code == 202, answer.text
    return str(answer.headers["content-location"])


def finished(client: httpx.Client, status: str) -> dict[str, Any]:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            answer = client.get(status)
        except httpx.TransportError:
            answer = httpx.Response(503)
        if answer.status_code == 200:
            return dict(answer.json())
        assert answer.status_code in (202, 503) and time.monotonic() < deadline, answer.text
        time.sleep(0.05)


def files_of(client: httpx.Client, manifest: dict[str, Any]) -> dict[str, bytes]:
    """Name → what is in it."""
    return {one["url"].rpartition("/")[2]: client.get(one["url"]).content for one in manifest["output"]}


def folder(site: Site, status: str) -> Path:
    return site.folder / "data" / FOLDER / status.rpartition("/")[2]


def written(site: Site, status: str) -> int:
    """Bytes, so far."""
    return sum(path.stat().st_size for path in folder(site, status).glob("*"))


def inodes(site: Site, status: str) -> dict[str, int]:
    """A file that was begun anew would be another one."""
    return {path.name: path.stat().st_ino for path in folder(site, status).glob("*")}
