"""Health says what cannot work; metrics count by route and never by id."""

from __future__ import annotations

import re
import shutil
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from prometheus_client.parser import text_string_to_metric_families
from pydantic import SecretStr

import server.health
from eventlog.vault import make_key_encryption_key
from server.app import create_app
from server.auth.tokens import create_token
from server.services import Services, open_services
from server.settings import ServerSettings


class Site:
    def __init__(self, services: Services, client: httpx.AsyncClient, token: str) -> None:
        self.services, self.client, self.token = services, client, token

    async def metrics(self) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
        """Sample name → labels → value."""
        answer = await self.client.get("/metrics", headers={"Authorization": f"Bearer {self.token}"})
        assert answer.status_code == 200
        found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
        for family in text_string_to_metric_families(answer.text):
            for sample in family.samples:
                found.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
        return found


@pytest_asyncio.fixture
async def site(database_url: str, tmp_path: Path) -> AsyncIterator[Site]:
    settings = ServerSettings(data_dir=tmp_path / "data", database_url=SecretStr(database_url))
    make_key_encryption_key(settings)
    async with open_services(settings, dimse=False) as services:
        _, token = await create_token(services.pool, name="prometheus", scopes=["metrics:read"], lifetime=timedelta(hours=1))
        transport = httpx.ASGITransport(create_app(services), raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://testserver") as client:
            yield Site(services, client, token)


async def test_a_server_that_can_work_is_ready(site: Site) -> None:
    assert (await site.client.get("/health/live")).json() == {"status": "live"}
    answer = await site.client.get("/health/ready")
    assert (answer.status_code, answer.json()) == (200, {"status": "ready", "problems": []})


async def test_a_paused_projection_is_named(site: Site) -> None:
    await site.services.pool.execute("UPDATE projection_checkpoint SET state = 'paused', problem = 'X' WHERE name = 'fhir'")
    answer = await site.client.get("/health/ready")
    assert (answer.status_code, answer.json()["problems"]) == (503, ["projection fhir is paused"])
    assert (await site.metrics())["anamnesis_projection_paused"][(("projection", "fhir"),)] == 1


async def test_a_database_that_is_gone_is_named_and_the_process_still_lives(site: Site) -> None:
    await site.services.pool.close()
    answer = await site.client.get("/health/ready")
    assert (answer.status_code, answer.json()["problems"]) == (503, ["the database does not answer"])
    assert (await site.client.get("/health/live")).status_code == 200


async def test_a_full_disk_is_named(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server.health, "LEAST_FREE_BYTES", 1 << 62)
    assert (await site.client.get("/health/ready")).json()["problems"] == ["the spool's disk is nearly full"]


async def test_a_spool_that_is_gone_is_named(site: Site) -> None:
    shutil.rmtree(site.services.settings.spool_dir)
    answer = await site.client.get("/health/ready")
    assert (answer.status_code, answer.json()["problems"]) == (503, ["the spool cannot be written"])


async def test_metrics_tell_head_lag_and_spool(site: Site) -> None:
    found = await site.metrics()
    assert found["anamnesis_log_position"][()] == 0
    assert found["anamnesis_spool_instances"][()] == 0
    assert {dict(labels)["projection"] for labels in found["anamnesis_projection_lag_events"]} >= {"fhir", "dicom"}


async def test_requests_are_counted_by_route_and_never_by_what_they_ask_for(site: Site) -> None:
    await site.client.get("/fhir/Patient/secret-id", params={"identifier": "MRN123"})
    await site.client.get("/nowhere/secret-id")
    await site.client.request("SECRET", "/fhir/Patient/x")
    labels = [dict(labels) for labels in (await site.metrics())["anamnesis_http_request_seconds_count"]]
    assert {"method": "GET", "route": "/fhir/{resource_type}/{resource_id}", "status": "401"} in labels
    assert {"method": "GET", "route": "none", "status": "404"} in labels
    assert {one["method"] for one in labels} <= {"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "other"}
    assert not re.search("secret|MRN123", repr(labels), re.IGNORECASE)
