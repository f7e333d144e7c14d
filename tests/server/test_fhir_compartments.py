"""Searching within a compartment, and several types at once: the same searches with another reach, recorded and paged as all others."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from fhir.resources import get_fhir_model_class
from served_site import LIVER, LUNG, Site, served_site, slice_of

from domain.access import AccessesRecorded, Action
from projections.dicom import DicomProjection
from projections.fhir.vocabulary import study_id
from projections.projection import schema_name

STUDY, OTHER = "1.2.840.17.1", "1.2.840.17.2"


@pytest_asyncio.fixture
async def site(embedded_server: str, tmp_path: Path) -> AsyncIterator[Site]:
    """Two people with an indexed study each."""
    async with served_site(embedded_server, tmp_path) as served:
        await served.store(slice_of(STUDY, 1))
        await served.store(slice_of(OTHER, 1, patient_id="PLANTEDMRN88", name="Plantedother^Joe"))
        await served.index(f"{STUDY}.1", LIVER, LUNG)
        await served.index(f"{OTHER}.1", LIVER)
        yield served


async def patient(site: Site, study_uid: str = STUDY) -> str:
    found = await site.services.pool.fetchval(
        f"SELECT subject_id FROM {schema_name(DicomProjection())}.study WHERE study_uid = $1", study_uid
    )
    return f"Patient/{found}"


async def found(site: Site, url: str, *scopes: str) -> list[dict[str, Any]]:
    """Over all pages."""
    resources: list[dict[str, Any]] = []
    following: str | None = url
    while following:
        answer = await site.client.get(following, headers=await site.headers("fhir:read", *scopes))
        assert answer.status_code == 200, answer.text
        page = answer.json()
        get_fhir_model_class("Bundle").model_validate(page)
        resources += [entry["resource"] for entry in page.get("entry", [])]
        following = next((one["url"] for one in page["link"] if one["relation"] == "next"), None)
    return resources


def says(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    issue: dict[str, Any] = answer.json()["issue"][0]
    return issue


async def test_a_compartment_holds_what_is_of_its_patient(site: Site) -> None:
    mine, other = await patient(site), await patient(site, OTHER)
    for kind, count in (("Observation", 2), ("ImagingStudy", 1), ("BodyStructure", 3)):
        within = await found(site, f"/fhir/{mine}/{kind}?_count=1")
        assert within == await found(site, f"/fhir/{kind}?patient={mine}") and len(within) == count
    assert await found(site, f"/fhir/{other}/ImagingStudy?_id={study_id(STUDY)}") == []
    assert await found(site, f"/fhir/{mine}/Observation?status=final") == []
    assert len(await found(site, f"/fhir/{mine}/Patient")) == 1


async def test_a_compartment_is_searched_by_post_and_as_of_a_position_too(site: Site) -> None:
    mine = await patient(site)
    headers = await site.headers("fhir:read")
    answer = await site.client.post(f"/fhir/{mine}/Observation/_search", headers=headers, data={"_summary": "count"})
    assert answer.json()["total"] == 2
    assert await found(site, f"/fhir/{mine}/Observation?_asof=1") == []


async def test_other_compartments_are_those_of_r5(site: Site) -> None:
    """That of a Device has messages alone, not what the device measured."""
    (device,) = await found(site, "/fhir/Device")
    headers = await site.headers("fhir:read", "fhir:write")
    body = {"resourceType": "Communication", "status": "completed", "sender": {"reference": f"Device/{device['id']}"}}
    made = await site.client.post("/fhir/Communication", headers=headers, json=body)
    assert made.status_code == 201, made.text
    assert [one["id"] for one in await found(site, f"/fhir/Device/{device['id']}/Communication")] == [made.json()["id"]]
    says(await site.get(f"/fhir/Device/{device['id']}/Observation", "fhir:read"), 404)


async def test_what_is_no_compartment_is_not_found(site: Site) -> None:
    mine = await patient(site)
    for path in (f"{mine}/Device", f"{mine}/Nonsense", f"ImagingStudy/{study_id(STUDY)}/Observation", f"{mine}/$nonsense"):
        assert says(await site.get(f"/fhir/{path}", "fhir:read"), 404)["code"] == "not-supported"
    assert says(await site.get(f"/fhir/{mine}/AuditEvent", "fhir:read"), 403)["code"] == "forbidden"
    assert says(await site.get(f"/fhir/{mine}/Observation?nonsense=1", "fhir:read"), 400)["expression"] == ["http.nonsense"]


async def test_several_types_are_searched_at_once_in_pages(site: Site) -> None:
    expected = await found(site, "/fhir/BodyStructure") + await found(site, "/fhir/ImagingStudy") + await found(site, "/fhir/Patient")
    assert await found(site, "/fhir?_type=Patient,ImagingStudy&_type=BodyStructure&_count=2") == expected
    page = (await site.get("/fhir?_type=Patient,ImagingStudy&_total=accurate&_count=3", "fhir:read")).json()
    assert (page["total"], len(page["entry"])) == (4, 3)
    by_id = await found(site, f"/fhir?_type=Patient,ImagingStudy&_id={study_id(STUDY)}")
    assert [one["id"] for one in by_id] == [study_id(STUDY)]
    form = {"_type": "Patient,Device", "_summary": "count"}
    assert (await site.client.post("/fhir/_search", headers=await site.headers("fhir:read"), data=form)).json()["total"] == 3


@pytest.mark.parametrize(
    ("query", "name"),
    [("", "_type"), ("_type=", "_type"), ("_type=Nonsense", "_type"), ("_type=Patient,Device&gender=male", "gender"), ("_type=Patient,Device&_sort=_id", "_sort")],
)
async def test_what_several_types_cannot_mean_is_refused(site: Site, query: str, name: str) -> None:
    assert says(await site.get(f"/fhir?{query}", "fhir:read"), 400)["expression"] == [f"http.{name}"]
    assert says(await site.get("/fhir?_type=Patient,AuditEvent", "fhir:read"), 403)["code"] == "forbidden"


async def test_such_searches_are_recorded_as_searches(site: Site) -> None:
    mine = await patient(site)
    await site.get(f"/fhir/{mine}/Observation?status=preliminary", "fhir:read")
    await site.get("/fhir?_type=Patient,ImagingStudy&_count=1000", "fhir:read")
    await site.caught_up()
    events = [one.event for one in await site.services.log.read(0, 1000, [AccessesRecorded])]
    within, system = [a for event in events if isinstance(event, AccessesRecorded) for a in event.accesses if a.action is Action.SEARCH]
    subject, other = mine.partition("/")[2], (await patient(site, OTHER)).partition("/")[2]
    assert (within.resource_type, within.parameters, within.subjects) == ("Observation", ("status",), (subject,))
    assert within.things == (mine,)
    assert (system.parameters, system.subjects) == (("_count", "_type"), tuple(sorted((subject, other))))
