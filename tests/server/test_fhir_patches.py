"""JSON Patch over HTTP, and the review that an update or patch of a finding is."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from served_site import LIVER, LUNG, Site, served_site, slice_of

from domain.findings import finding_key
from domain.ids import series_stream
from domain.review import FindingReviewed, Verdict
from projections.fhir.vocabulary import index_id, observation_id

pytestmark = pytest.mark.asyncio(loop_scope="module")
STUDY = "1.2.826.0.1.3680043.8.498.80"
SERIES = f"{STUDY}.1"
REVIEWER = ("fhir:read", "fhir:write", "reviews:write")
JSON_PATCH = "application/json-patch+json"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(embedded_server: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    folder: Path = tmp_path_factory.mktemp("patches")
    async with served_site(embedded_server, folder) as site:
        await site.store(slice_of(STUDY, 1))
        await site.index(SERIES, LUNG, LIVER)
        yield site


async def send(
    site: Site, method: str, path: str, body: object, scopes: tuple[str, ...] = REVIEWER, media_type: str = "", **headers: str
) -> httpx.Response:
    content_type = media_type or (JSON_PATCH if method == "PATCH" else "application/fhir+json")
    sent = {**await site.headers(*scopes), "content-type": content_type, **{k.replace("_", "-"): v for k, v in headers.items()}}
    return await site.client.request(method, f"/fhir/{path}", content=json.dumps(body), headers=sent)


async def basic(site: Site, resource_id: str, **more: Any) -> None:
    body = {"resourceType": "Basic", "id": resource_id, "code": {"text": "one"}, **more}
    assert (await send(site, "PUT", f"Basic/{resource_id}", body)).status_code == 201


def said(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["issue"][0]["code"]


async def test_a_patch_changes_what_it_names(site: Site) -> None:
    await basic(site, "patched", identifier=[{"value": "a"}])
    operations = [
        {"op": "test", "path": "/code/text", "value": "one"},
        {"op": "replace", "path": "/code/text", "value": "two"},
        {"op": "add", "path": "/identifier/-", "value": {"value": "b"}},
        {"op": "remove", "path": "/identifier/0"},
    ]
    answer = await send(site, "PATCH", "Basic/patched", operations)
    assert (answer.status_code, answer.headers["etag"]) == (200, 'W/"2"'), answer.text
    assert (answer.json()["code"], answer.json()["identifier"]) == ({"text": "two"}, [{"value": "b"}])
    again = await send(site, "PATCH", "Basic/patched", operations)
    assert said(again) == (422, "business-rule")
    assert (await site.get("/fhir/Basic/patched", "fhir:read")).headers["etag"] == 'W/"2"'


@pytest.mark.parametrize(
    ("operations", "expected"),
    [
        ([{"op": "remove", "path": "/nothing"}], (422, "processing")),
        ([{"op": "add", "path": "/a/b/c", "value": 1}], (422, "processing")),
        ([{"op": "replace", "path": "", "value": []}], (422, "processing")),
        ([{"op": "add", "path": "/colour", "value": "red"}], (400, "structure")),
        ([{"op": "remove", "path": "/code"}], (400, "required")),
        ([{"op": "replace", "path": "/id", "value": "other"}], (422, "business-rule")),
        ([{"op": "replace", "path": "/resourceType", "value": "Condition"}], (422, "business-rule")),
        ([{"op": "turn", "path": "/code"}], (400, "invalid")),
        ([{"op": "add", "path": "/code"}], (400, "invalid")),
        ([{"op": "add", "path": "code", "value": 1}], (400, "invalid")),
        ({"op": "remove", "path": "/code"}, (400, "structure")),
        ([7], (400, "structure")),
    ],
)
async def test_a_patch_that_does_not_fit_changes_nothing(site: Site, operations: object, expected: tuple[int, str]) -> None:
    await send(site, "PUT", "Basic/kept", {"resourceType": "Basic", "id": "kept", "code": {"text": "one"}})
    answer = await send(site, "PATCH", "Basic/kept", operations)
    assert said(answer) == expected, answer.text
    assert (await site.get("/fhir/Basic/kept", "fhir:read")).headers["etag"] == 'W/"1"'


async def test_a_patch_that_copies_without_end_is_stopped(site: Site) -> None:
    await basic(site, "copied", extension=[{"url": "urn:x", "valueString": "x" * 1000}])
    doubling = [{"op": "copy", "from": "/extension", "path": "/extension/-"} for _ in range(40)]
    answer = await send(site, "PATCH", "Basic/copied", doubling)
    assert said(answer) == (413, "too-long")
    nesting = [{"op": "copy", "from": "/extension", "path": "/extension/0/extension"} for _ in range(900)]
    assert said(await send(site, "PATCH", "Basic/copied", nesting))[0] in (400, 422)


async def test_a_patch_needs_its_resource_and_its_version(site: Site) -> None:
    change = [{"op": "replace", "path": "/code/text", "value": "new"}]
    assert (await send(site, "PATCH", "Basic/nobody", change)).status_code == 404
    await basic(site, "versioned", identifier=[{"system": "urn:p", "value": "v"}])
    assert (await send(site, "PATCH", "Basic/versioned", change, if_match='W/"7"')).status_code == 412
    assert (await send(site, "PATCH", "Basic/versioned", change, if_match='W/"1"')).status_code == 200
    assert (await send(site, "PATCH", "Basic/versioned", change, media_type="application/xml-patch+xml")).status_code == 415
    await send(site, "DELETE", "Basic/versioned", None)
    assert (await send(site, "PATCH", "Basic/versioned", change)).status_code == 410


async def test_a_conditional_patch_patches_what_it_finds(site: Site) -> None:
    body = {"resourceType": "Observation", "status": "preliminary", "code": {"text": "x"}, "identifier": [{"system": "urn:p", "value": "c"}]}
    assert (await send(site, "POST", "Observation", body)).status_code == 201
    change = [{"op": "replace", "path": "/status", "value": "final"}]
    answer = await send(site, "PATCH", "Observation?identifier=urn:p|c", change)
    assert (answer.status_code, answer.json()["status"]) == (200, "final")
    assert said(await send(site, "PATCH", "Observation?identifier=urn:p|none", change)) == (404, "not-found")


@pytest.mark.parametrize("kind", ["batch", "transaction"])
async def test_a_bundle_takes_patches_as_binaries(site: Site, kind: str) -> None:
    await basic(site, f"in-{kind}")
    change = [{"op": "replace", "path": "/code/text", "value": kind}]
    binary = {"resourceType": "Binary", "contentType": JSON_PATCH, "data": base64.b64encode(json.dumps(change).encode()).decode()}
    entry = {"resource": binary, "request": {"method": "PATCH", "url": f"Basic/in-{kind}"}}
    answer = await send(site, "POST", "", {"resourceType": "Bundle", "type": kind, "entry": [entry]})
    assert [one["response"]["status"] for one in answer.json()["entry"]] == ["200 OK"], answer.text
    assert (await site.get(f"/fhir/Basic/in-{kind}", "fhir:read")).json()["code"]["text"] == kind


def finding(label: str) -> str:
    return finding_key(SERIES, "baseline", label)


async def reviews(site: Site, label: str) -> list[tuple[Verdict, str]]:
    recorded = await site.services.log.read_stream(series_stream(SERIES))
    events = [one.event for one in recorded if isinstance(one.event, FindingReviewed)]
    return [(one.verdict, one.comment) for one in events if one.label == label]


async def test_an_update_of_a_findings_observation_is_a_review(site: Site) -> None:
    path = f"Observation/{observation_id(finding('lung_left'))}"
    before = await site.get(f"/fhir/{path}", "fhir:read")
    rejected = {**before.json(), "status": "entered-in-error", "note": [{"text": "this is the right one"}]}
    assert (await send(site, "PUT", path, rejected, if_match='W/"9"')).status_code == 412
    assert (await send(site, "PUT", path, rejected, scopes=("fhir:read", "fhir:write"))).status_code == 403
    answer = await send(site, "PUT", path, rejected, if_match=before.headers["etag"])
    assert (answer.status_code, answer.json()["status"]) == (200, "entered-in-error"), answer.text
    assert await reviews(site, "lung_left") == [(Verdict.REJECTED, "this is the right one")]
    structure = (await site.get(f"/fhir/BodyStructure/{finding('lung_left')}", "fhir:read")).json()
    assert structure["active"] is False
    again = await send(site, "PUT", path, answer.json())
    assert (again.status_code, again.headers["etag"]) == (200, answer.headers["etag"])
    assert len(await reviews(site, "lung_left")) == 1


async def test_a_patch_of_a_findings_structure_is_a_review(site: Site) -> None:
    path = f"BodyStructure/{finding('liver')}"
    answer = await send(site, "PATCH", path, [{"op": "replace", "path": "/active", "value": False}])
    assert (answer.status_code, answer.json()["active"]) == (200, False), answer.text
    answer = await send(site, "PATCH", path, [{"op": "replace", "path": "/active", "value": True}])
    assert answer.json()["active"] is True
    assert await reviews(site, "liver") == [(Verdict.REJECTED, ""), (Verdict.ACCEPTED, "")]
    observation = (await site.get(f"/fhir/Observation/{observation_id(finding('liver'))}", "fhir:read")).json()
    assert observation["status"] == "corrected"


async def test_what_was_measured_cannot_be_changed(site: Site) -> None:
    path = f"Observation/{observation_id(finding('liver'))}"
    larger = [{"op": "replace", "path": "/component/0/valueQuantity/value", "value": 99}]
    answer = await send(site, "PATCH", path, larger)
    assert said(answer) == (422, "business-rule")
    assert answer.json()["issue"][0]["expression"] == ["Observation.component"]
    assert said(await send(site, "PATCH", path, [{"op": "replace", "path": "/status", "value": "cancelled"}])) == (422, "business-rule")
    for path in (f"BodyStructure/{index_id(SERIES)}", f"Device/{await device(site)}"):
        answer = await send(site, "PATCH", path, [{"op": "add", "path": "/description", "value": "x"}])
        assert said(answer) == (405, "not-supported")
    deleted = await send(site, "DELETE", f"BodyStructure/{finding('liver')}", None)
    assert said(deleted) == (405, "not-supported") and "active=false" in deleted.json()["issue"][0]["diagnostics"]
    assert len(await reviews(site, "liver")) == 2


async def device(site: Site) -> str:
    return str((await site.get("/fhir/Device", "fhir:read")).json()["entry"][0]["resource"]["id"])
