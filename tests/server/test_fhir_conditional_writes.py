"""Conditional create, update and delete: no duplicates, whoever asks at once and through whichever server."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
import uvicorn
from listening_site import KEEP_ALIVE_S
from served_site import Site, served_site

from server.app import create_app
from server.services import Services, open_services

pytestmark = pytest.mark.asyncio(loop_scope="module")
CLIENTS = 50
SYSTEM = "urn:test:lab"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(embedded_server: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    async with served_site(embedded_server, tmp_path_factory.mktemp("conditional")) as site:
        yield site


def observation(value: str, text: str = "potassium") -> dict[str, Any]:
    return {
        "resourceType": "Observation",
        "identifier": [{"system": SYSTEM, "value": value}],
        "status": "final",
        "code": {"text": text},
    }


async def send(site: Site, method: str, path: str, body: object = None, **headers: str) -> httpx.Response:
    sent = {**await site.headers("fhir:read", "fhir:write"), "content-type": "application/fhir+json"}
    sent |= {name.replace("_", "-"): value for name, value in headers.items()}
    return await site.client.request(method, f"/fhir/{path}", content=json.dumps(body) if body else None, headers=sent)


async def found(site: Site, value: str) -> list[dict[str, Any]]:
    bundle = (await site.get("/fhir/Observation", "fhir:read", identifier=f"{SYSTEM}|{value}")).json()
    return [one["resource"] for one in bundle.get("entry", [])]


@asynccontextmanager
async def over_tcp(services: Services) -> AsyncIterator[str]:
    """The application on a port of its own; gives its URL."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=256)
    server = uvicorn.Server(uvicorn.Config(create_app(services), log_level="warning", lifespan="off", timeout_keep_alive=KEEP_ALIVE_S))
    serving = asyncio.create_task(server.serve([listening]))
    while not server.started:
        await asyncio.sleep(0.01)
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    server.should_exit = True
    await serving


async def test_fifty_clients_at_two_servers_make_one_resource(site: Site, tmp_path: Path) -> None:
    settings = site.services.settings
    async with open_services(settings, dimse=False) as other, over_tcp(site.services) as first, over_tcp(other) as second:
        headers = {**await site.headers("fhir:read", "fhir:write"), "If-None-Exist": f"identifier={SYSTEM}|fifty"}
        clients = [httpx.AsyncClient(base_url=url, headers=headers, timeout=60) for url in (first, second) * (CLIENTS // 2)]
        try:
            posted = [client.post("/fhir/Observation", json=observation("fifty", f"by {n}")) for n, client in enumerate(clients)]
            answers = await asyncio.gather(*posted)
        finally:
            for client in clients:
                await client.aclose()
    assert sorted(answer.status_code for answer in answers) == [200] * (CLIENTS - 1) + [201]
    assert len({answer.headers["location"].partition("/fhir/")[2] for answer in answers}) == 1
    assert len({answer.content for answer in answers}) == 1
    (made,) = await found(site, "fifty")
    assert made["meta"]["versionId"] == "1"


async def test_conditional_updates_at_once_make_one_resource_with_a_version_each(site: Site) -> None:
    path = f"Observation?identifier={SYSTEM}|updated"
    answers = await asyncio.gather(*(send(site, "PUT", path, observation("updated", f"by {n}")) for n in range(20)))
    assert sorted(answer.status_code for answer in answers) == [200] * 19 + [201]
    (made,) = await found(site, "updated")
    assert made["meta"]["versionId"] == "20"


async def test_a_condition_makes_another_once_what_it_made_is_gone(site: Site) -> None:
    condition = {"if_none_exist": f"identifier={SYSTEM}|again"}
    first = await send(site, "POST", "Observation", observation("again"), **condition)
    assert (await send(site, "POST", "Observation", observation("again"), **condition)).status_code == 200
    assert (await send(site, "DELETE", f"Observation/{first.json()['id']}")).status_code == 204
    second = await send(site, "POST", "Observation", observation("again"), **condition)
    assert second.status_code == 201 and second.json()["id"] != first.json()["id"]
    assert "again" not in second.json()["id"]


async def test_a_condition_that_finds_many_is_refused(site: Site) -> None:
    for _ in range(2):
        assert (await send(site, "POST", "Observation", observation("many"))).status_code == 201
    query = f"identifier={SYSTEM}|many"
    for method, path, body, headers in (
        ("POST", "Observation", observation("many"), {"if_none_exist": query}),
        ("PUT", f"Observation?{query}", observation("many"), {}),
        ("DELETE", f"Observation?{query}", None, {}),
    ):
        answer = await send(site, method, path, body, **headers)
        assert (answer.status_code, answer.json()["issue"][0]["code"]) == (412, "multiple-matches")


async def test_a_conditional_update_holds_to_the_id_that_it_gives(site: Site) -> None:
    path = f"Observation?identifier={SYSTEM}|own-id"
    made = await send(site, "PUT", path, {**observation("own-id"), "id": "mine"})
    assert (made.status_code, made.json()["id"]) == (201, "mine")
    same = await send(site, "PUT", path, {**observation("own-id", "sodium"), "id": "mine"})
    assert (same.status_code, same.headers["etag"]) == (200, 'W/"2"')
    assert (await send(site, "PUT", path, {**observation("own-id"), "id": "yours"})).status_code == 400
    assert (await send(site, "PUT", path, observation("own-id"), if_match='W/"1"')).status_code == 412
    taken = await send(site, "PUT", f"Observation?identifier={SYSTEM}|elsewhere", {**observation("elsewhere"), "id": "mine"})
    assert taken.status_code == 409


async def test_a_conditional_delete_deletes_what_it_finds(site: Site) -> None:
    query = f"identifier={SYSTEM}|to-go"
    await send(site, "POST", "Observation", observation("to-go"))
    assert (await send(site, "DELETE", f"Observation?{query}")).status_code == 204
    assert await found(site, "to-go") == []
    assert (await send(site, "DELETE", f"Observation?{query}")).status_code == 204


@pytest.mark.parametrize("condition", ["", "nonsense=1", "identifier=", "_count=1"])
async def test_a_condition_that_cannot_be_asked_writes_nothing(site: Site, condition: str) -> None:
    before = await site.services.log.head()
    answer = await send(site, "POST", "Observation", observation("none"), if_none_exist=condition)
    assert answer.status_code == 400 and answer.json()["issue"][0]["expression"]
    assert (await send(site, "DELETE", "Observation")).status_code == 400
    head = await site.services.log.head()
    assert await found(site, "none") == [] and head - before <= 2  # what was recorded of who asked


async def test_a_condition_takes_the_right_to_read_and_is_recorded_as_a_search(site: Site) -> None:
    headers = {**await site.headers("fhir:write"), "if-none-exist": f"identifier={SYSTEM}|x"}
    answer = await site.client.post("/fhir/Observation", json=observation("x"), headers=headers)
    assert answer.status_code == 403 and "fhir:read" in answer.headers["www-authenticate"]
    await send(site, "POST", "Observation", observation("seen"), if_none_exist=f"identifier={SYSTEM}|seen")
    await site.caught_up()
    mine = (await site.principal("fhir:read", "fhir:write")).id
    seen = (await site.get("/fhir/AuditEvent", "fhir:read", "audit:read", agent=mine, _count="500")).json()["entry"]
    assert any(detail["valueString"] == "identifier" for one in seen for e in one["resource"].get("entity", ()) for detail in e.get("detail", ()))
    assert SYSTEM not in json.dumps(seen)
