"""Pages are snapshots: while four clients write and the server is killed, each link leads on, nothing is skipped and nothing comes twice."""

from __future__ import annotations

import random
import threading
import time
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from running_site import Site

pytestmark = pytest.mark.slow

RESOURCES = 120
WRITERS = 4
PAGE = 9
SEARCHED_FOR = "urn:planted|sought"
SEARCHES = (
    f"/fhir/Basic?code={SEARCHED_FOR}",
    f"/fhir/Basic?code={SEARCHED_FOR}&_sort=created,-_id",
    "/fhir/Basic/_history?_since=2020",
)


class Writer(threading.Thread):
    """Creates, changes and deletes what is searched for, without end; what a killed server does not answer is left."""

    def __init__(self, site: Site, token: str, seed: int) -> None:
        super().__init__(daemon=True)
        self._client = httpx.Client(base_url=site.url, headers={"Authorization": f"Bearer {token}"}, timeout=30)
        self._rng = random.Random(seed)
        self._name = f"writer-{seed}"
        self.stopping = threading.Event()
        self.written = 0

    def run(self) -> None:
        while not self.stopping.is_set():
            resource_id = f"{self._rng.randrange(RESOURCES)}"
            try:
                match self._rng.randrange(4):
                    case 0:
                        answer = self._client.delete(f"/fhir/Basic/{resource_id}")
                    case 1:
                        answer = self._client.post("/fhir/Basic", json=basic(None, self._name))
                    case _:
                        answer = self._client.put(f"/fhir/Basic/{resource_id}", json=basic(resource_id, f"{self._name} {self.written}"))
                self.written += answer.is_success
            except httpx.TransportError:
                time.sleep(0.05)


def basic(resource_id: str | None, text: str) -> dict[str, Any]:
    system, _, code = SEARCHED_FOR.partition("|")
    made: dict[str, Any] = {"resourceType": "Basic", "code": {"coding": [{"system": system, "code": code}], "text": text}, "created": "2024-05-06"}
    return made if resource_id is None else {**made, "id": resource_id}


def wait_until_written(writers: list[Writer], before: int) -> None:
    """Until somebody wrote what the snapshot must not have."""
    deadline = time.monotonic() + 60
    while sum(one.written for one in writers) <= before:
        assert time.monotonic() < deadline, "nobody writes"
        time.sleep(0.02)


def keys(bundle: dict[str, Any]) -> list[str]:
    """Which versions, deletions among them."""
    return [f"{entry['fullUrl']} {entry.get('response', entry.get('resource', {}).get('meta'))}" for entry in bundle.get("entry", [])]


@pytest.mark.timeout(600)
def test_pages_neither_skip_nor_repeat_while_four_write_and_the_server_is_killed(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.run("init")
    site.start_server()
    writers: list[Writer] = []
    try:
        site.wait_until_ready()
        token = site.token("fhir:read", "fhir:write")
        client = httpx.Client(base_url=site.url, headers={"Authorization": f"Bearer {token}"}, timeout=60)
        entries = [{"request": {"method": "PUT", "url": f"Basic/{n}"}, "resource": basic(f"{n}", "first")} for n in range(RESOURCES)]
        assert client.post("/fhir", json={"resourceType": "Bundle", "type": "transaction", "entry": entries}).status_code == 200
        writers = [Writer(site, token, seed) for seed in range(WRITERS)]
        for one in writers:
            one.start()
        for search in SEARCHES:
            page = read(client, f"{search}&_count={PAGE}")
            (position,) = parse_qs(urlsplit(page["link"][0]["url"]).query)["_asof"]
            whole = read(client, f"{search}&_count=1000&_asof={position}")
            seen, pages = keys(page), 1
            while following := next((one["url"] for one in page["link"] if one["relation"] == "next"), None):
                assert set(parse_qs(urlsplit(following).query)) == {"_asof", "_page"} and "sought" not in following
                if pages == 3:
                    before = sum(one.written for one in writers)
                    site.kill("server")
                    site.wait_until_ready()
                    wait_until_written(writers, before)
                page = read(client, following)
                seen += keys(page)
                pages += 1
            assert seen == keys(whole) and len(set(seen)) == len(seen) > 3 * PAGE, search
    finally:
        for one in writers:
            one.stopping.set()
        site.stop()


def read(client: httpx.Client, url: str) -> dict[str, Any]:
    answer = client.get(url)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found
