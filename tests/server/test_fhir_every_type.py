"""A rich resource of every R5 type goes in and comes back equal; and values that no index could hold stop nobody."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
import rich_resources
from rich_resources import rich_resource
from served_site import Site, served_site, slice_of

from projections.catalogue import projections
from projections.checkpoint import statuses
from projections.fhir.definitions import resource_types
from projections.verification import verify

SIX = ("Citation", "CodeSystem", "DeviceDefinition", "InsurancePlan", "MeasureReport", "PackagedProductDefinition", "Questionnaire")
DEPTHS = {"ClaimResponse": 7, "ExplanationOfBenefit": 7, **dict.fromkeys(SIX, 6), **dict.fromkeys(("Contract", "StructureMap"), 4)}
"""How deep the maker goes where what is required stands deeper, or at other places, than with 5."""
LEFT_OUT = {"Contract": ("term",), "StructureMap": ("dependent",)}
"""Elements that hold themselves, of which the maker leaves out what is required."""

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(embedded_server: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    folder: Path = tmp_path_factory.mktemp("every-type")
    async with served_site(embedded_server, folder) as site:
        await site.store(slice_of("1.2.3.4", 1))
        yield site


async def put(site: Site, resource: dict[str, Any]) -> Any:
    headers = {**await site.headers("fhir:read", "fhir:write", "identities:read"), "content-type": "application/fhir+json"}
    path = f"/fhir/{resource['resourceType']}/{resource['id']}"
    return await site.client.put(path, content=json.dumps(resource), headers=headers)


def of_patient(tree: Any, patient_id: str) -> Any:
    """With every reference to a Patient to the one that is there."""
    if isinstance(tree, dict):
        if str(tree.get("reference", "")).startswith("Patient/"):
            return {**tree, "reference": f"Patient/{patient_id}"}
        return {name: of_patient(value, patient_id) for name, value in tree.items()}
    return [of_patient(one, patient_id) for one in tree] if isinstance(tree, list) else tree


def without(tree: Any, names: Sequence[str]) -> Any:
    if isinstance(tree, dict):
        return {name: without(value, names) for name, value in tree.items() if name not in names}
    return [without(one, names) for one in tree] if isinstance(tree, list) else tree


def without_version(resource: dict[str, Any]) -> dict[str, Any]:
    meta = {name: value for name, value in resource.get("meta", {}).items() if name.lstrip("_") not in ("versionId", "lastUpdated")}
    return {**resource, "meta": meta}


@pytest.mark.parametrize("resource_type", resource_types())
async def test_a_rich_resource_comes_back_equal(site: Site, resource_type: str, monkeypatch: pytest.MonkeyPatch) -> None:
    patient_id = (await site.get("/fhir/Patient", "fhir:read")).json()["entry"][0]["resource"]["id"]
    monkeypatch.setattr(rich_resources, "DEPTH", DEPTHS.get(resource_type, 5))
    for seed in range(2):
        made = without(rich_resource(resource_type, seed), LEFT_OUT.get(resource_type, ()))
        sent = of_patient(made, patient_id) | {"id": f"rich-{seed}"}
        answer = await put(site, sent)
        assert answer.status_code == 201, answer.text
        read = await site.get(f"/fhir/{resource_type}/rich-{seed}", "fhir:read", "audit:read", "identities:read")
        back = json.loads(read.content, parse_float=Decimal)
        assert without_version(back) == without_version(json.loads(json.dumps(sent), parse_float=Decimal))
        found = (await site.get(f"/fhir/{resource_type}", "fhir:read", "audit:read", _id=f"rich-{seed}")).json()
        assert [one["resource"]["id"] for one in found["entry"]] == [f"rich-{seed}"]


LONG = "x" * 20_000
HOSTILE: list[dict[str, Any]] = [
    {"resourceType": "Observation", "status": "final", "code": {"coding": [{"system": f"urn:{LONG}", "code": LONG, "display": LONG}], "text": LONG}},
    {"resourceType": "Observation", "status": "final", "code": {"text": "x"}, "subject": {"reference": f"Group/{LONG}"}},
    {"resourceType": "Observation", "status": "final", "code": {"text": "x"}, "derivedFrom": [{"reference": f"http://{LONG}/Observation/{LONG}"}]},
    {"resourceType": "Observation", "status": "final", "code": {"text": "x"}, "identifier": [{"system": f"urn:{LONG}", "value": LONG}]},
    {"resourceType": "Observation", "status": "final", "code": {"text": "x"}, "effectiveDateTime": "9999-12-31T23:59:59+00:00"},
    {"resourceType": "Observation", "status": "final", "code": {"text": "x"}, "effectiveDateTime": "0001-01-01T00:00:00+14:00"},
    {"resourceType": "Observation", "status": "final", "code": {"text": "x"}, "effectivePeriod": {"start": "9999", "end": "0001"}},
    {"resourceType": "Observation", "status": "final", "code": {"text": "x"}, "valueQuantity": {"value": 10**40, "code": LONG, "system": LONG}},
    {"resourceType": "Observation", "status": "final", "code": {"text": "x"}, "valueString": LONG},
    {"resourceType": "Organization", "name": "\U0001f9e0" * 5000},
    {"resourceType": "ValueSet", "status": "active", "url": f"http://{LONG}", "version": LONG},
    {"resourceType": "RiskAssessment", "status": "final", "subject": {"reference": "Group/1"}, "prediction": [{"probabilityDecimal": 1e300}]},
]


@pytest.mark.parametrize("nth", range(len(HOSTILE)))
async def test_no_value_stops_the_read_model(site: Site, nth: int) -> None:
    answer = await put(site, {**HOSTILE[nth], "id": f"hostile-{nth}"})
    assert answer.status_code in (201, 400, 422), answer.text
    assert answer.status_code != 201 or answer.json()["resourceType"] != "OperationOutcome", answer.text
    assert {one.name: one.problem for one in await statuses(site.services.pool)} == {one.name: None for one in projections()}


async def test_a_rebuild_of_all_of_it_gives_the_same_rows(site: Site) -> None:
    await site.caught_up()
    for projection in projections():
        verdict = await verify(site.services.log, projection)
        assert verdict.is_equal, [table.table for table in verdict.tables if not table.is_equal]
