"""kill -9 of server and database while transactions come in: each is there as a whole or not at all, and none that was acknowledged is lost."""

from __future__ import annotations

import asyncio
import os
import random
import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import httpx
import pytest
from running_site import Site

from domain.clinical_record import ClinicalRecordWritten
from eventlog.checking import check_log
from eventlog.log import EventLog
from server.settings import ServerSettings

pytestmark = pytest.mark.slow

ROUNDS = int(os.environ.get("ANAMNESIS_TEST_TRANSACTION_KILL_ROUNDS", "4"))
RESOURCES = 25
CLIENTS = 4


class Sender(threading.Thread):
    """Sends transactions without end, each of a number of its own, and notes which were acknowledged."""

    def __init__(self, url: str, token: str, name: str) -> None:
        super().__init__(daemon=True)
        self._client = httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=20)
        self._name = name
        self.stopping = threading.Event()
        self.acknowledged: set[str] = set()

    def run(self) -> None:
        number = 0
        while not self.stopping.is_set():
            number += 1
            transaction = f"{self._name}-{number}"
            try:
                answer = self._client.post("/fhir", json=bundle(transaction))
            except httpx.HTTPError:
                time.sleep(0.05)
                continue
            if answer.status_code == 200:
                self.acknowledged.add(transaction)


def bundle(transaction: str) -> dict[str, Any]:
    entries = []
    for nth in range(RESOURCES):
        resource_id = f"{transaction}.{nth}"
        resource = {"resourceType": "Basic", "id": resource_id, "code": {"text": "x" * 200}, "identifier": [{"value": transaction}]}
        entries.append({"resource": resource, "request": {"method": "PUT", "url": f"Basic/{resource_id}"}})
    return {"resourceType": "Bundle", "type": "transaction", "entry": entries}


@pytest.mark.timeout(900)
async def test_a_transaction_is_there_as_a_whole_or_not_at_all(tmp_path: Path) -> None:
    site = Site(tmp_path)
    await asyncio.to_thread(site.run, "init")
    site.start_server()
    rng = random.Random(4)
    try:
        await asyncio.to_thread(site.wait_until_ready)
        token = await asyncio.to_thread(site.token, "fhir:read", "fhir:write")
        senders = [Sender(site.url, token, f"c{n}") for n in range(CLIENTS)]
        for sender in senders:
            sender.start()
        for nth in range(ROUNDS):
            await asyncio.sleep(rng.uniform(0.3, 1.5))
            await asyncio.to_thread(site.kill, "database" if nth % 3 == 2 else "server")
            await asyncio.to_thread(site.wait_until_ready)
        for sender in senders:
            sender.stopping.set()
        for sender in senders:
            await asyncio.to_thread(sender.join, 60)
        acknowledged = set().union(*(sender.acknowledged for sender in senders))
        found = await written(site)
        assert acknowledged and acknowledged <= found.keys()
        assert {len(one) for one in found.values()} == {RESOURCES}
        async with httpx.AsyncClient(base_url=site.url, headers={"Authorization": f"Bearer {token}"}, timeout=30) as client:
            for transaction in sorted(acknowledged)[-20:]:
                answers = [await client.get(f"/fhir/Basic/{transaction}.{nth}") for nth in range(RESOURCES)]
                assert {answer.status_code for answer in answers} == {200}
    finally:
        await asyncio.to_thread(site.stop)


async def written(site: Site) -> dict[str, set[str]]:
    """Transaction → its resources that are in the log, which holds together."""
    settings = ServerSettings(data_dir=site.folder / "data")
    log = await EventLog.open(settings)
    found: dict[str, set[str]] = defaultdict(set)
    try:
        position = 0
        while events := await log.read(position, 2000, [ClinicalRecordWritten]):
            position = events[-1].position
            for one in events:
                assert isinstance(one.event, ClinicalRecordWritten)
                found[one.event.resource_id.rpartition(".")[0]].add(one.event.resource_id)
        checked = await check_log(log)
        assert checked.holds, checked.discrepancies[:5]
    finally:
        await log.close()
    return dict(found)
