"""Batch and transaction Bundles: all or nothing, references between entries, order, answers; and what a batch does one by one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from fhir.resources import get_fhir_model_class
from served_site import Site, served_site, slice_of

pytestmark = pytest.mark.asyncio(loop_scope="module")
BOTH = ("fhir:read", "fhir:write")
SYSTEM = "urn:test:lab"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(embedded_server: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    """With one patient."""
    folder: Path = tmp_path_factory.mktemp("transactions")
    async with served_site(embedded_server, folder) as site:
        await site.store(slice_of("1.2.826.0.1.3680043.8.498.79", 1))
        yield site


async def patient(site: Site) -> str:
    bundle = (await site.get("/fhir/Patient", "fhir:read")).json()
    return f"Patient/{bundle['entry'][0]['resource']['id']}"


async def post(site: Site, kind: str, *entries: dict[str, Any], scopes: tuple[str, ...] = BOTH, **headers: str) -> httpx.Response:
    sent = {**await site.headers(*scopes), "content-type": "application/fhir+json", **headers}
    answer = await site.client.post("/fhir", content=json.dumps({"resourceType": "Bundle", "type": kind, "entry": list(entries)}), headers=sent)
    get_fhir_model_class(answer.json()["resourceType"]).model_validate(answer.json())
    return answer


def entry(method: str, url: str, resource: dict[str, Any] | None = None, full_url: str | None = None, **request: str) -> dict[str, Any]:
    made: dict[str, Any] = {"request": {"method": method, "url": url, **request}}
    if full_url is not None:
        made["fullUrl"] = full_url
    if resource is not None:
        made["resource"] = resource
    return made


def observation(value: str, **more: Any) -> dict[str, Any]:
    return {
        "resourceType": "Observation",
        "identifier": [{"system": SYSTEM, "value": value}],
        "status": "final",
        "code": {"text": "potassium"},
        **more,
    }


def statuses(answer: httpx.Response) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [one["response"]["status"].split()[0] for one in answer.json()["entry"]]


async def read(site: Site, location: str) -> dict[str, Any]:
    answer = await site.get("/fhir/" + location.partition("/fhir/")[2], "fhir:read")
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def test_entries_point_to_each_other_whatever_their_order(site: Site) -> None:
    report = {
        "resourceType": "DiagnosticReport",
        "status": "final",
        "code": {"text": "panel"},
        "subject": {"reference": await patient(site)},
        "result": [{"reference": "urn:uuid:0b4d7f0e-0000-4000-8000-000000000001"}, {"reference": "http://elsewhere.test/fhir/Observation/77"}],
        "text": {
            "status": "generated",
            "div": '<div xmlns="http://www.w3.org/1999/xhtml"><a href="urn:uuid:0b4d7f0e-0000-4000-8000-000000000001">it</a></div>',
        },
        "identifier": [{"system": "urn:ietf:rfc:3986", "value": "urn:uuid:0b4d7f0e-0000-4000-8000-000000000001"}],
    }
    linked = observation("linked", extension=[{"url": "urn:x", "valueUri": "urn:uuid:0b4d7f0e-0000-4000-8000-000000000002"}])
    answer = await post(
        site,
        "transaction",
        entry("POST", "DiagnosticReport", report, "urn:uuid:0b4d7f0e-0000-4000-8000-000000000002"),
        entry("POST", "Observation", linked, "urn:uuid:0b4d7f0e-0000-4000-8000-000000000001"),
        entry("POST", "Observation", observation("seventy-seven"), "http://elsewhere.test/fhir/Observation/77"),
    )
    assert statuses(answer) == ["201", "201", "201"]
    made, first, second = [await read(site, one["response"]["location"]) for one in answer.json()["entry"]]
    assert [one["reference"] for one in made["result"]] == [f"Observation/{first['id']}", f"Observation/{second['id']}"]
    assert f'href="Observation/{first["id"]}"' in made["text"]["div"]
    assert made["identifier"][0]["value"] == "urn:uuid:0b4d7f0e-0000-4000-8000-000000000001"
    assert first["extension"][0]["valueUri"] == f"DiagnosticReport/{made['id']}"


async def test_one_fault_and_nothing_is_written(site: Site) -> None:
    before = await site.services.log.head()
    good = entry("PUT", "Observation/never", {**observation("never"), "id": "never"})
    for bad, status, where in (
        (entry("POST", "Observation", {"resourceType": "Observation", "code": {"text": "x"}}), 400, "Bundle.entry[1].resource.status"),
        (entry("POST", "Condition", observation("x")), 400, "Bundle.entry[1].resource.resourceType"),
        (entry("PUT", "Observation/never", {**observation("x"), "id": "never"}), 400, "Bundle.entry[1]"),
        (entry("PUT", "Observation/other", {**observation("x"), "id": "other"}, ifMatch='W/"4"'), 412, "Bundle.entry[1]"),
        (entry("POST", "Observation", observation("x", subject={"reference": "Patient/nobody"})), 422, "Bundle.entry[1].resource.subject"),
        (entry("POST", "Observation", observation("x", focus=[{"reference": "Observation?identifier=urn:no|no"}])), 412, "Bundle.entry[1].resource.focus[0].reference"),
        (entry("DELETE", "Observation"), 400, "Bundle.entry[1].request.url"),
        (entry("POST", "../metrics"), 400, "Bundle.entry[1].request.url"),
        (entry("SEND", "Observation"), 400, "Bundle.entry[1].request.method"),
        ({"resource": observation("x")}, 400, "Bundle.entry[1].request"),
    ):
        answer = await post(site, "transaction", good, bad)
        assert answer.status_code == status, answer.text
        assert answer.json()["issue"][0]["expression"] == [where]
    assert (await site.get("/fhir/Observation/never", "fhir:read")).status_code == 404
    written = [one for one in await site.services.log.read(before, 1000) if one.type.startswith("ClinicalRecord")]
    assert written == []


async def test_deleting_comes_first_and_reading_last(site: Site) -> None:
    await post(site, "transaction", entry("PUT", "Observation/old", {**observation("ordered"), "id": "old"}))
    answer = await post(
        site,
        "transaction",
        entry("GET", f"Observation?identifier={SYSTEM}|ordered"),
        entry("PUT", "Observation/new", {**observation("ordered"), "id": "new"}),
        entry("DELETE", "Observation/old"),
        entry("GET", "Observation/new"),
        entry("GET", "Observation/old"),
    )
    assert statuses(answer) == ["200", "201", "204", "200", "410"]
    found = answer.json()["entry"][0]["resource"]
    assert [one["resource"]["id"] for one in found["entry"]] == ["new"]
    positions = {one.stream: one.position for one in await site.services.log.read(0, 10_000) if one.type.startswith("ClinicalRecord")}
    assert positions["record-Observation-old"] < positions["record-Observation-new"]


async def test_conditions_and_conditional_references_hold_in_a_transaction(site: Site) -> None:
    def entries(text: str) -> list[dict[str, Any]]:
        return [
            entry("POST", "Observation", observation("cond"), "urn:uuid:1", ifNoneExist=f"identifier={SYSTEM}|cond"),
            entry("PUT", f"Observation?identifier={SYSTEM}|cond-2", observation("cond-2", note=[{"text": text}])),
            entry("POST", "Observation", observation("pointing", focus=[{"reference": "urn:uuid:1"}])),
        ]

    first = await post(site, "transaction", *entries("a"))
    assert statuses(first) == ["201", "201", "201"]
    again = await post(
        site,
        "transaction",
        *entries("b"),
        entry("POST", "Observation", observation("further", focus=[{"reference": f"Observation?identifier={SYSTEM}|cond"}])),
    )
    assert statuses(again) == ["200", "200", "201", "201"]
    places = [one["response"]["location"] for one in again.json()["entry"]]
    cond = places[0].partition("/fhir/")[2].partition("/_history")[0]
    for place in places[2:]:
        assert (await read(site, place))["focus"] == [{"reference": cond}]
    gone = await post(site, "transaction", entry("DELETE", f"Observation?identifier={SYSTEM}|cond-2"))
    assert statuses(gone) == ["204"]


async def test_transactions_at_once_that_share_a_resource_all_take_effect(site: Site) -> None:
    """Each writes a resource of its own, and one that all of them write."""

    def both(n: int) -> list[dict[str, Any]]:
        shared = {**observation("shared", note=[{"text": str(n)}]), "id": "shared"}
        return [entry("PUT", "Observation/shared", shared), entry("PUT", f"Observation/own-{n}", {**observation("own"), "id": f"own-{n}"})]

    answers = await asyncio.gather(*(post(site, "transaction", *both(n)) for n in range(12)))
    assert all(answer.status_code == 200 for answer in answers)
    assert (await read(site, "/fhir/Observation/shared"))["meta"]["versionId"] == "12"
    for answer in answers:
        events = [one for one in await site.services.log.read(int(answer.headers["anamnesis-position"]) - 2, 2)]
        assert len({one.correlation_id for one in events}) == 1


async def test_what_is_answered_is_what_the_client_prefers(site: Site) -> None:
    one = entry("POST", "Observation", observation("preferred"))
    plain = (await post(site, "transaction", one)).json()["entry"][0]
    assert "resource" not in plain and {"status", "location", "etag", "lastModified"} == set(plain["response"])
    shown = (await post(site, "transaction", one, prefer="return=representation")).json()["entry"][0]
    assert shown["resource"]["identifier"][0]["value"] == "preferred"
    said = (await post(site, "transaction", one, prefer="return=OperationOutcome")).json()["entry"][0]
    assert said["response"]["outcome"]["resourceType"] == "OperationOutcome"


async def test_a_batch_does_each_by_itself(site: Site) -> None:
    answer = await post(
        site,
        "batch",
        entry("POST", "Observation", observation("in-batch")),
        entry("POST", "Observation", {"resourceType": "Observation"}),
        entry("PUT", "Observation/b", {**observation("in-batch"), "id": "b"}),
        entry("DELETE", "Observation/nothing"),
        entry("GET", "Observation/never-there"),
        entry("GET", f"Observation?identifier={SYSTEM}|in-batch&_summary=count"),
        entry("POST", "Observation", observation("in-batch"), ifNoneExist="identifier="),
    )
    assert answer.json()["type"] == "batch-response"
    assert statuses(answer) == ["201", "400", "201", "204", "404", "200", "400"]
    assert "outcome" in answer.json()["entry"][1]["response"] and "resource" not in answer.json()["entry"][1]


async def test_decimals_in_a_bundle_keep_their_precision(site: Site) -> None:
    for kind in ("batch", "transaction"):
        text = json.dumps(observation("exact", valueQuantity={"value": 7})).replace('"value": 7', '"value": 7.10')
        body = '{"resourceType": "Bundle", "type": "%s", "entry": [{"request": {"method": "POST", "url": "Observation"}, "resource": %s}]}'
        headers = {**await site.headers(*BOTH), "content-type": "application/fhir+json"}
        answer = await site.client.post("/fhir", content=body % (kind, text), headers=headers)
        location = answer.json()["entry"][0]["response"]["location"]
        stored = await site.get("/fhir/" + location.partition("/fhir/")[2], "fhir:read")
        assert str(json.loads(stored.content, parse_float=Decimal)["valueQuantity"]["value"]) == "7.10"


async def test_each_entry_takes_its_own_scope(site: Site) -> None:
    reading = entry("GET", "Observation?_count=1")
    assert statuses(await post(site, "batch", reading, scopes=("fhir:read",))) == ["200"]
    writing = entry("POST", "Observation", observation("no-scope"))
    assert statuses(await post(site, "batch", writing, reading, scopes=("fhir:read",))) == ["403", "200"]
    assert (await post(site, "transaction", writing, reading, scopes=("fhir:read",))).status_code == 403
    assert statuses(await post(site, "transaction", reading, scopes=("fhir:read",))) == ["200"]
    assert statuses(await post(site, "batch", entry("GET", "AuditEvent"), scopes=("fhir:read",))) == ["403"]


@pytest.mark.parametrize("kind", ["history", "", 3, None])
async def test_what_is_no_batch_and_no_transaction_is_refused(site: Site, kind: object) -> None:
    headers = {**await site.headers(*BOTH), "content-type": "application/fhir+json"}
    answer = await site.client.post("/fhir", json={"resourceType": "Bundle", "type": kind}, headers=headers)
    assert answer.status_code == 400 and answer.json()["issue"][0]["expression"] == ["Bundle.type"]
    assert statuses_of_nothing((await post(site, "transaction")).json())


def statuses_of_nothing(body: dict[str, Any]) -> bool:
    return body == {"resourceType": "Bundle", "type": "transaction-response"}
