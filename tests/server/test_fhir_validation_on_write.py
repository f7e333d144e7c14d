"""`ANAMNESIS_FHIR_VALIDATION`: what a write is refused for, or only warned of, beyond its structure."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import httpx
import pytest
from served_site import Site, served_site

BAD: dict[str, Any] = {  # qty-3: a code for a unit has a system
    "resourceType": "Observation",
    "status": "final",
    "code": {"text": "x"},
    "valueQuantity": {"value": 1, "code": "mm"},
}
GOOD: dict[str, Any] = {**BAD, "valueQuantity": {"value": 1, "unit": "mm"}}


async def write(site: Site, body: dict[str, Any], path: str = "/fhir/Observation", method: str = "POST") -> httpx.Response:
    return await site.client.request(method, path, json=body, headers=await site.headers("fhir:write", "fhir:read"))


async def test_off_takes_what_has_the_structure_of_r5(embedded_server: str, tmp_path: Path) -> None:
    async with served_site(embedded_server, tmp_path) as site:
        assert (await write(site, BAD)).status_code == 201


async def test_warn_takes_it_and_says_so_in_the_log(embedded_server: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    async with served_site(embedded_server, tmp_path, fhir_validation="warn") as site:
        with caplog.at_level(logging.WARNING, "server.fhir.writing.validity"):
            assert (await write(site, GOOD)).status_code == 201
            assert caplog.messages == []
            assert (await write(site, BAD)).status_code == 201
        assert [text.partition(", the first in ")[2] for text in caplog.messages] == ["Observation.value.ofType(Quantity)"]


async def test_enforce_refuses_every_way_of_writing_it(embedded_server: str, tmp_path: Path) -> None:
    async with served_site(embedded_server, tmp_path, fhir_validation="enforce") as site:
        made = await write(site, GOOD)
        assert made.status_code == 201
        there = f"/fhir/Observation/{made.json()['id']}"
        for answer in (await write(site, BAD), await write(site, BAD | {"id": made.json()["id"]}, there, "PUT")):
            (issue,) = answer.json()["issue"]
            assert (answer.status_code, issue["code"], issue["expression"]) == (422, "invariant", ["Observation.value.ofType(Quantity)"])
        entries = [{"resource": one, "request": {"method": "POST", "url": "Observation"}} for one in (GOOD, BAD)]
        answer = await write(site, {"resourceType": "Bundle", "type": "transaction", "entry": entries}, "/fhir")
        (issue,) = answer.json()["issue"]
        assert (answer.status_code, issue["expression"]) == (422, ["Bundle.entry[1].resource.value.ofType(Quantity)"])
        found = await site.get("/fhir/Observation", "fhir:write", "fhir:read", _summary="count")
        assert found.json()["total"] == 1
