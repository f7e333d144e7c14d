"""Read models in a process of their own: who writes reads it at once, and a process that was killed is replaced."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio
from served_site import Site, erase, served_site

from eventlog.leases import lease
from projections.checkpoint import statuses
from server.services import Services

FHIR = {"Content-Type": "application/fhir+json"}


@pytest_asyncio.fixture
async def site(embedded_server: str, tmp_path: Path) -> AsyncIterator[Site]:
    async with served_site(embedded_server, tmp_path, projecting=True) as site:
        yield site


async def create(site: Site) -> str:
    """A Basic; gives its URL."""
    headers = {**await site.headers("fhir:write", "fhir:read"), **FHIR}
    answer = await site.client.post("/fhir/Basic", json={"resourceType": "Basic", "code": {"text": "seen"}}, headers=headers)
    assert answer.status_code == 201, answer.text
    assert answer.json()["code"] == {"text": "seen"}  # it is read from the read model
    return answer.headers["location"]


async def process_of(services: Services, *, beside: int | None = None) -> int:
    """The process that keeps the read models, once it is another than ``beside``."""
    assert services.projecting is not None
    while (found := services.projecting.process_id) in (None, beside):
        await asyncio.sleep(0.05)
    assert found is not None
    return found


async def test_who_writes_reads_it_at_once(site: Site) -> None:
    async with asyncio.timeout(60):
        for location in await asyncio.gather(*(create(site) for _ in range(20))):
            assert (await site.get(location, "fhir:read")).status_code == 200


async def test_this_process_keeps_none_itself(site: Site) -> None:
    async with asyncio.timeout(60):
        await create(site)
        for status in await statuses(site.services.pool):
            async with lease(site.services.log, f"projection {status.name}_v{status.version}") as free:
                assert not free
        os.kill(await process_of(site.services), signal.SIGSTOP)
        position = await site.services.log.head()
        try:
            writing = asyncio.create_task(create(site))
            while await site.services.log.head() == position:
                await asyncio.sleep(0.02)
            assert not writing.done()
        finally:
            os.kill(await process_of(site.services), signal.SIGCONT)
        await writing


async def test_a_process_that_was_killed_is_replaced_and_loses_nothing(site: Site) -> None:
    async with asyncio.timeout(60):
        locations = [await create(site)]
        for _ in range(2):
            victim = await process_of(site.services)
            os.kill(victim, signal.SIGKILL)
            locations += await asyncio.gather(*(create(site) for _ in range(5)))
            assert await process_of(site.services, beside=victim) != victim
        for location in locations:
            assert (await site.get(location, "fhir:read")).status_code == 200


async def test_accesses_and_erasures_go_through_it(site: Site) -> None:
    async with asyncio.timeout(60):
        headers = {**await site.headers("fhir:write", "identities:read"), **FHIR}
        answer = await site.client.post("/fhir/Patient", json={"resourceType": "Patient", "gender": "female"}, headers=headers)
        assert answer.status_code == 201, answer.text
        patient = answer.json()["id"]
        await site.get(f"/fhir/Patient/{patient}", "fhir:read")
        await site.caught_up()
        found = await site.get("/fhir/AuditEvent", "fhir:read", "audit:read", patient=f"Patient/{patient}")
        assert found.json()["entry"]
        await erase(site, patient)
        await site.caught_up()
        assert (await site.get(f"/fhir/Patient/{patient}", "fhir:read")).status_code in (404, 410)
