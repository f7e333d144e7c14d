"""Writing FHIR resources over HTTP: what goes in comes back equal, versions, deletions, preferences, preconditions, refusals."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from fhir.resources import get_fhir_model_class
from served_site import LUNG, Site, served_site, slice_of

from projections.catalogue import projections
from projections.verification import verify

pytestmark = pytest.mark.asyncio(loop_scope="module")
STUDY = "1.2.826.0.1.3680043.8.498.77"
BOTH = ("fhir:read", "fhir:write")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(embedded_server: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    """With one patient, whose study has an indexed series."""
    folder: Path = tmp_path_factory.mktemp("writes")
    async with served_site(embedded_server, folder) as site:
        await site.store(slice_of(STUDY, 1))
        await site.index(f"{STUDY}.1", LUNG)
        yield site


async def send(site: Site, method: str, path: str, body: object = None, **headers: str) -> httpx.Response:
    """As one who may read and write; the body as JSON, or as the text that it is."""
    content = body if isinstance(body, str | bytes) else json.dumps(body) if body is not None else None
    sent = {**await site.headers(*BOTH), "content-type": "application/fhir+json", **{k.replace("_", "-"): v for k, v in headers.items()}}
    return await site.client.request(method, f"/fhir/{path}", content=content, headers=sent)


async def patient(site: Site) -> str:
    bundle = (await site.get("/fhir/Patient", "fhir:read")).json()
    return f"Patient/{bundle['entry'][0]['resource']['id']}"


def condition(subject: str, text: str = "Fracture of the left tibia") -> dict[str, Any]:
    return {
        "resourceType": "Condition",
        "clinicalStatus": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/condition-clinical", "code": "active"}]},
        "code": {"text": text},
        "subject": {"reference": subject},
        "_recordedDate": {"extension": [{"url": "urn:test", "valueString": "ünknown"}]},
    }


def without_meta(resource: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in resource.items() if name not in ("id", "meta")}


def issues(answer: httpx.Response) -> list[tuple[str, str | None]]:
    """Code and expression of each issue of an answer that has to be an OperationOutcome."""
    body = answer.json()
    get_fhir_model_class("OperationOutcome").model_validate(body)
    return [(one["code"], one.get("expression", [None])[0]) for one in body["issue"]]


async def test_what_goes_in_comes_back_equal_and_can_be_read_at_once(site: Site) -> None:
    sent = condition(await patient(site))
    sent["meta"] = {"tag": [{"system": "urn:test", "code": "t"}], "versionId": "77", "lastUpdated": "1999-01-01T00:00:00Z"}
    answer = await send(site, "POST", "Condition", sent | {"id": "not-this-one"})
    assert answer.status_code == 201, answer.text
    made = answer.json()
    assert answer.headers["etag"] == 'W/"1"' and "last-modified" in answer.headers
    assert answer.headers["location"] == f"http://site.test/fhir/Condition/{made['id']}/_history/1"
    assert made["id"] != "not-this-one" and without_meta(made) == without_meta(sent)
    assert made["meta"] | {"lastUpdated": ""} == {"versionId": "1", "lastUpdated": "", "tag": sent["meta"]["tag"]}
    assert made["meta"]["lastUpdated"] > "2026"
    read = await site.get(f"/fhir/Condition/{made['id']}", "fhir:read")
    assert read.content == answer.content and read.headers["etag"] == 'W/"1"'


async def test_decimals_keep_the_precision_that_they_are_written_with(site: Site) -> None:
    text = (
        '{"resourceType": "Observation", "status": "final", "code": {"text": "mass"}, "subject": {"reference": "%s"},'
        ' "valueQuantity": {"value": 1.500, "unit": "kg"}, "component": [{"code": {"text": "x"}, "valueQuantity": {"value": 1E-3}}]}'
    )
    made = await send(site, "POST", "Observation", text % await patient(site))
    assert made.status_code == 201, made.text
    read = json.loads((await site.get(f"/fhir/Observation/{made.json()['id']}", "fhir:read")).content, parse_float=Decimal)
    assert str(read["valueQuantity"]["value"]) == "1.500" and read["component"][0]["valueQuantity"]["value"] == Decimal("0.001")


async def test_an_update_makes_the_next_version_and_the_same_again_none(site: Site) -> None:
    subject = await patient(site)
    first = {**condition(subject), "id": "tibia.1"}
    made = await send(site, "PUT", "Condition/tibia.1", first)
    assert (made.status_code, made.json()["id"], made.headers["etag"]) == (201, "tibia.1", 'W/"1"')
    again = await send(site, "PUT", "Condition/tibia.1", first)
    assert (again.status_code, again.headers["etag"]) == (200, 'W/"1"')
    changed = await send(site, "PUT", "Condition/tibia.1", {**condition(subject, "of the right one"), "id": "tibia.1"})
    assert (changed.status_code, changed.headers["etag"]) == (200, 'W/"2"')
    assert changed.headers["location"].endswith("/Condition/tibia.1/_history/2")
    before = await site.get("/fhir/Condition/tibia.1/_history/1", "fhir:read")
    assert before.json()["code"]["text"] == "Fracture of the left tibia"
    as_of = await site.get("/fhir/Condition/tibia.1", "fhir:read", _asof=made.headers["anamnesis-position"])
    assert as_of.content == before.content


async def test_a_deleted_resource_is_gone_stays_in_its_history_and_can_come_back(site: Site) -> None:
    subject = await patient(site)
    made = await send(site, "PUT", "Condition/gone", {**condition(subject), "id": "gone"})
    deleted = await send(site, "DELETE", "Condition/gone")
    assert (deleted.status_code, deleted.content, deleted.headers["etag"]) == (204, b"", 'W/"2"')
    assert (await send(site, "DELETE", "Condition/gone")).status_code == 204
    assert (await site.get("/fhir/Condition/gone", "fhir:read")).status_code == 410
    assert (await site.get("/fhir/Condition/gone/_history/2", "fhir:read")).status_code == 410
    assert (await site.get("/fhir/Condition/gone", "fhir:read", _asof=made.headers["anamnesis-position"])).status_code == 200
    assert "gone" not in [one["resource"]["id"] for one in (await site.get("/fhir/Condition", "fhir:read")).json()["entry"]]
    back = await send(site, "PUT", "Condition/gone", {**condition(subject), "id": "gone"})
    assert (back.status_code, back.headers["etag"]) == (201, 'W/"3"')
    entries = (await site.get("/fhir/Condition/gone/_history", "fhir:read")).json()["entry"]
    assert [(one["request"]["method"], "resource" in one) for one in entries] == [("PUT", True), ("DELETE", False), ("POST", True)]
    assert (await send(site, "DELETE", "Condition/never-there")).status_code == 204


async def test_each_write_has_its_provenance(site: Site) -> None:
    subject = await patient(site)
    await send(site, "PUT", "Condition/proven", {**condition(subject), "id": "proven"})
    await send(site, "PUT", "Condition/proven", {**condition(subject, "other"), "id": "proven"})
    await send(site, "DELETE", "Condition/proven")
    found = (await site.get("/fhir/Provenance", "fhir:read", target="Condition/proven")).json()["entry"]
    said = {(one["resource"]["target"][0]["reference"], one["resource"]["activity"]["coding"][0]["code"]) for one in found}
    assert said == {
        ("Condition/proven/_history/1", "originate"),
        ("Condition/proven/_history/2", "amend"),
        ("Condition/proven/_history/3", "deprecate"),
    }
    assert {one["resource"]["patient"]["reference"] for one in found} == {subject}
    for one in found:
        get_fhir_model_class("Provenance").model_validate(one["resource"])


async def test_if_match_and_if_none_match_are_held_to(site: Site) -> None:
    subject = await patient(site)
    body = {**condition(subject), "id": "matched"}
    assert (await send(site, "PUT", "Condition/matched", body, if_match='W/"1"')).status_code == 412
    assert (await send(site, "PUT", "Condition/matched", body, if_none_match="*")).status_code == 201
    refused = await send(site, "PUT", "Condition/matched", body, if_none_match="*")
    assert (refused.status_code, issues(refused)) == (412, [("conflict", None)])
    changed = {**condition(subject, "changed"), "id": "matched"}
    assert (await send(site, "PUT", "Condition/matched", changed, if_match='W/"1"')).status_code == 200
    assert (await send(site, "PUT", "Condition/matched", body, if_match='W/"1"')).status_code == 412
    assert (await send(site, "PUT", "Condition/matched", body, if_match="one")).status_code == 400
    assert (await send(site, "DELETE", "Condition/matched", if_match='W/"1"')).status_code == 412
    assert (await send(site, "DELETE", "Condition/matched", if_match='W/"2"')).status_code == 204


async def test_the_answer_is_what_the_client_prefers(site: Site) -> None:
    body = condition(await patient(site))
    minimal = await send(site, "POST", "Condition", body, prefer="return=minimal")
    assert (minimal.status_code, minimal.content) == (201, b"") and minimal.headers["etag"] == 'W/"1"' and minimal.headers["location"]
    said = await send(site, "POST", "Condition", body, prefer="return=OperationOutcome")
    assert said.status_code == 201 and issues(said) == [("informational", None)]
    shown = await send(site, "POST", "Condition", body, prefer="return=representation")
    assert shown.json()["resourceType"] == "Condition"


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"code": "no concept"}, ("structure", "Condition.code")),
        ({"subject": None}, ("structure", "Condition.subject")),
        ({"colour": "red"}, ("structure", "Condition.colour")),
        ({"code": {"coding": [{"code": ["a"]}]}}, ("structure", "Condition.code.coding[0].code")),
        ({"resourceType": "Conditions"}, ("structure", "resourceType")),
        ({"resourceType": "Observation"}, ("invalid", "resourceType")),
        ({"id": "with space"}, ("structure", "Condition.id")),
        ({"code": {"text": "\0"}}, ("value", None)),
        ({"code": {"text": ""}}, ("structure", "Condition.code.text")),
        ({"clinicalStatus": {"coding": []}}, ("structure", "Condition.clinicalStatus.coding")),
    ],
)
async def test_a_fault_of_the_body_is_named_by_its_element(site: Site, change: dict[str, Any], expected: tuple[str, str | None]) -> None:
    body = {name: value for name, value in {**condition(await patient(site)), **change}.items() if value is not None or name == "subject"}
    answer = await send(site, "POST", "Condition", body)
    assert answer.status_code == 400, answer.text
    assert expected in issues(answer)


async def test_every_fault_has_an_issue_of_its_own(site: Site) -> None:
    answer = await send(site, "POST", "Condition", {"resourceType": "Condition", "code": 3, "colour": 1})
    assert answer.status_code == 400
    assert set(issues(answer)) == {
        ("required", "Condition.clinicalStatus"),
        ("required", "Condition.subject"),
        ("structure", "Condition.code"),
        ("structure", "Condition.colour"),
    }


@pytest.mark.parametrize("body", ["", "{", "[]", '"text"', "{}", '{"resourceType": 1}', "[" * 100_000, '{"a": 1e999999999999}', b"\xff"])
async def test_what_is_no_resource_is_refused(site: Site, body: str | bytes) -> None:
    answer = await send(site, "POST", "Condition", body)
    assert answer.status_code == 400 and issues(answer)


async def test_what_a_write_may_not_be_is_refused(site: Site) -> None:
    body = condition(await patient(site))
    assert (await send(site, "PUT", "Condition/other", {**body, "id": "one"})).status_code == 400
    assert (await send(site, "PUT", "Condition/other", body)).status_code == 400
    assert (await send(site, "PUT", "Condition/a%20b", {**body, "id": "a b"})).status_code == 400
    assert (await send(site, "POST", "Conditions", body)).status_code == 404
    assert (await send(site, "POST", "Condition", body, content_type="application/fhir+xml")).status_code == 415
    reader = await site.client.post("/fhir/Condition", json=body, headers=await site.headers("fhir:read"))
    assert reader.status_code == 403 and "fhir:write" in reader.headers["www-authenticate"]


async def test_a_resource_is_of_a_patient_that_is_there_and_stays_of_that_one(site: Site) -> None:
    refused = await send(site, "POST", "Condition", condition("Patient/nobody"))
    assert (refused.status_code, issues(refused)) == (422, [("not-found", "Condition.subject")])
    await site.store(slice_of("1.2.826.0.1.3680043.8.498.78", 1, patient_id="OTHER-1", name="Other^One"))
    first, second = [f"Patient/{one['resource']['id']}" for one in (await site.get("/fhir/Patient", "fhir:read")).json()["entry"]]
    assert (await send(site, "PUT", "Condition/moving", {**condition(first), "id": "moving"})).status_code == 201
    moved = await send(site, "PUT", "Condition/moving", {**condition(second), "id": "moving"})
    assert (moved.status_code, issues(moved)) == (422, [("business-rule", None)])
    absolute = condition(f"http://site.test/fhir/{first}")
    assert (await send(site, "PUT", "Condition/moving", {**absolute, "id": "moving"})).status_code == 200


async def test_a_resource_without_a_patient_is_written_too(site: Site) -> None:
    organization = {"resourceType": "Organization", "id": "hospital", "name": "Hospital", "active": True}
    assert (await send(site, "PUT", "Organization/hospital", organization)).status_code == 201
    assert without_meta((await site.get("/fhir/Organization/hospital", "fhir:read")).json()) == without_meta(organization)
    (said,) = (await site.get("/fhir/Provenance", "fhir:read", target="Organization/hospital")).json()["entry"]
    assert "patient" not in said["resource"]


async def test_what_curation_makes_is_refused_with_what_to_use_instead(site: Site) -> None:
    for kind in ("ImagingStudy", "ImagingSelection", "Provenance"):
        projected = (await site.get(f"/fhir/{kind}", "fhir:read", _count="1")).json()["entry"][0]["resource"]
        projected.pop("extension", None)
        for method, body in (("PUT", projected), ("DELETE", None)):
            answer = await send(site, method, f"{kind}/{projected['id']}", body)
            assert answer.status_code == 405, answer.text
            assert issues(answer) == [("not-supported", kind)]
    taken = {"resourceType": "Observation", "id": "0d1fb6a8-6c4c-5f0e-8a37-2c3a53a8b4f1", "status": "final", "code": {"text": "x"}}
    answer = await send(site, "PUT", f"Observation/{taken['id']}", taken)
    assert (answer.status_code, issues(answer)) == (422, [("business-rule", "Observation.id")])


async def test_nobody_forges_a_place_in_the_log(site: Site) -> None:
    (said,) = (await site.get("/fhir/Provenance", "fhir:read", _count="1")).json()["entry"]
    forged = await send(site, "POST", "Provenance", without_meta(said["resource"]))
    assert (forged.status_code, issues(forged)) == (422, [("business-rule", "Provenance.extension")])


async def test_a_rebuild_gives_the_same_rows(site: Site) -> None:
    await site.caught_up()
    for projection in projections():
        verdict = await verify(site.services.log, projection)
        assert verdict.is_equal, [table.table for table in verdict.tables if not table.is_equal]
