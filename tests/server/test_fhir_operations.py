"""`$everything` and `$meta`: whole, about nobody else, as of one position, and recorded as reads."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from fhir.resources import get_fhir_model_class
from served_site import LIVER, LUNG, PLANTED_NAME, Site, served_site, slice_of

from domain.access import AccessesRecorded, Action
from domain.ids import SubjectId
from domain.principal import Principal, PrincipalKind
from domain.subject import LegalBasis
from projections.dicom import DicomProjection
from projections.fhir.vocabulary import selection_id, study_id
from projections.projection import schema_name
from server.fhir.meta import _CODINGS
from server.subjects import confirm_erasure, request_erasure, status_of

STUDY, OTHER = "1.2.840.11.1", "1.2.840.11.2"
SERIES = f"{STUDY}.1"
ERASERS = [Principal(id=f"token:{name}", kind=PrincipalKind.PERSON) for name in ("one", "two")]
OF_STUDY = f"/fhir/ImagingStudy/{study_id(STUDY)}/$everything"


@pytest_asyncio.fixture
async def site(embedded_server: str, tmp_path: Path) -> AsyncIterator[Site]:
    """Two people with an indexed study each; the algorithm is the same."""
    async with served_site(embedded_server, tmp_path) as served:
        await served.store(slice_of(STUDY, 1))
        await served.store(slice_of(OTHER, 1, patient_id="PLANTEDMRN88", name="Plantedother^Joe"))
        await served.index(SERIES, LIVER, LUNG)
        await served.index(f"{OTHER}.1", LIVER)
        yield served


async def subject_of(site: Site, study_uid: str) -> str:
    found = await site.services.pool.fetchval(
        f"SELECT subject_id FROM {schema_name(DicomProjection())}.study WHERE study_uid = $1", study_uid
    )
    return str(found)


async def of_patient(site: Site) -> str:
    return f"/fhir/Patient/{await subject_of(site, STUDY)}/$everything"


async def all_pages(site: Site, url: str, *scopes: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    following: str | None = url
    while following:
        answer = await site.client.get(following, headers=await site.headers("fhir:read", *scopes))
        assert answer.status_code == 200, answer.text
        page = answer.json()
        get_fhir_model_class("Bundle").model_validate(page)
        found += [entry["resource"] for entry in page.get("entry", [])]
        following = next((one["url"] for one in page["link"] if one["relation"] == "next"), None)
    return found


def kinds(found: list[dict[str, Any]]) -> Counter[str]:
    return Counter(one["resourceType"] for one in found)


def says(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    issue: dict[str, Any] = answer.json()["issue"][0]
    return issue


async def test_everything_of_a_patient_is_all_of_it_and_nothing_of_another(site: Site) -> None:
    found = await all_pages(site, await of_patient(site))
    provenance = kinds(found).pop("Provenance")
    assert kinds(found) == {
        "Patient": 1, "ImagingStudy": 1, "ImagingSelection": 1, "BodyStructure": 3, "Observation": 2, "Device": 1, "Provenance": provenance
    }  # fmt: skip
    assert provenance >= 4  # registered, study registered, stored, requested, indexed
    other = await subject_of(site, OTHER)
    assert other not in str(found) and study_id(OTHER) not in str(found)


async def test_everything_of_a_study_is_the_same_but_for_what_is_not_of_its_images(site: Site) -> None:
    of_study, of_person = await all_pages(site, OF_STUDY), await all_pages(site, await of_patient(site))
    missing = [one for one in of_person if one not in of_study]
    assert [one for one in of_study if one not in of_person] == []
    assert {one["resourceType"] for one in missing} == {"Provenance"}
    assert {target["reference"].split("/")[0] for one in missing for target in one["target"]} == {"Patient"}


async def test_it_comes_in_pages_as_of_one_position_while_writes_go_on(site: Site) -> None:
    for url in (await of_patient(site), OF_STUDY):
        headers = await site.headers("fhir:read")
        page = (await site.client.get(f"{url}?_count=4", headers=headers)).json()
        position = page["link"][0]["url"].rpartition("=")[2]
        seen = [entry["resource"] for entry in page["entry"]]
        await site.store(slice_of(STUDY, int(position)))
        await site.index(SERIES, LUNG)
        following = [one["url"] for one in page["link"] if one["relation"] == "next"]
        assert "_type" not in following[0] and "_asof" in following[0]
        seen += await all_pages(site, following[0])
        assert seen == await all_pages(site, f"{url}?_asof={position}")
        assert len(seen) > 8


async def test_it_can_be_narrowed(site: Site) -> None:
    url = await of_patient(site)
    assert kinds(await all_pages(site, f"{url}?_type=Observation,Device")) == {"Observation": 2, "Device": 1}
    assert await all_pages(site, f"{url}?_since=2999") == []
    latest = max(one["meta"]["lastUpdated"] for one in await all_pages(site, url))
    assert all(one["meta"]["lastUpdated"] >= latest for one in await all_pages(site, f"{url}?_since={latest}"))
    summary = await all_pages(site, f"{url}?_summary=true&_type=ImagingStudy")
    assert "instance" not in summary[0]["series"][0]


@pytest.mark.parametrize(
    ("query", "name"), [("_type=Nonsense", "_type"), ("_type=AuditEvent", "_type"), ("_count=0", "_count")]
)
async def test_what_it_cannot_mean_is_refused(site: Site, query: str, name: str) -> None:
    for url in (await of_patient(site), OF_STUDY):
        assert says(await site.get(f"{url}?{query}", "fhir:read"), 400)["expression"] == [f"http.{name}"]


async def test_everything_of_a_patient_may_be_of_a_time_of_care(site: Site) -> None:
    url = await of_patient(site)
    patient = url.split("/fhir/")[1].removesuffix("/$everything")
    written = {
        "Condition/over": {"onsetDateTime": "2019-05", "abatementDateTime": "2020-02-03"},
        "Condition/ongoing": {"onsetDateTime": "2019-05"},
        "Condition/later": {"onsetDateTime": "2025-01-01"},
        "Condition/undated": {},
        "Encounter/stay": {"status": "completed", "actualPeriod": {"start": "2020-01-30", "end": "2020-03-01"}},
    }
    headers = {**await site.headers("fhir:write", "fhir:read"), "Content-Type": "application/fhir+json"}
    for path, more in written.items():
        kind, _, resource_id = path.partition("/")
        status = {"clinicalStatus": {"text": "active"}} if kind == "Condition" else {}
        body = {"resourceType": kind, "id": resource_id, **status, "subject": {"reference": patient}, **more}
        assert (await site.client.put(f"/fhir/{path}", json=body, headers=headers)).status_code == 201
    in_range = {
        "start=2020-02&end=2020-02": {"Condition/over", "Condition/ongoing", "Condition/undated", "Encounter/stay"},
        "start=2020-02-04": {"Condition/ongoing", "Condition/later", "Condition/undated", "Encounter/stay"},
        "end=2019-06-01": {"Condition/over", "Condition/ongoing", "Condition/undated"},
        "start=2024-06-01&end=2026": {"Condition/ongoing", "Condition/later", "Condition/undated"},
    }
    for query, wanted in in_range.items():
        found = await all_pages(site, f"{url}?{query}&_count=2")
        named = {f"{one['resourceType']}/{one['id']}" for one in found}
        assert named & written.keys() == wanted, query
        assert patient in named  # it is of no time
        assert ("ImagingStudy" in kinds(found)) == ("start=2020-02-04" in query), query  # of 2024-01-31
    for path in (f"{OF_STUDY}?start=2020", f"{url}?start=2024-02&end=2024-01", f"{url}?start=lately"):
        assert says(await site.get(path, "fhir:read"), 400)["expression"] == ["http.start"]


async def test_accesses_are_in_it_for_those_who_may_read_them(site: Site) -> None:
    url = await of_patient(site)
    assert await all_pages(site, url)
    await site.caught_up()
    assert "AuditEvent" not in kinds(await all_pages(site, url))
    (seen, *_) = await all_pages(site, f"{url}?_type=AuditEvent", "audit:read")
    assert seen["resourceType"] == "AuditEvent"


async def test_names_are_in_it_for_those_who_may_see_them(site: Site) -> None:
    url, family = f"{await of_patient(site)}?_type=Patient", PLANTED_NAME.partition("^")[0]
    assert family in str(await all_pages(site, url, "identities:read"))
    assert family not in str(await all_pages(site, url))


async def test_what_is_not_there_has_nothing(site: Site) -> None:
    assert says(await site.get("/fhir/Patient/none/$everything", "fhir:read"), 404)["code"] == "not-found"
    assert says(await site.get(f"/fhir/ImagingSelection/{selection_id(SERIES)}/$everything", "fhir:read"), 404)["code"] == "not-supported"
    assert says(await site.get(f"{OF_STUDY}?_asof=1", "fhir:read"), 404)["code"] == "not-found"


async def test_nothing_is_left_of_an_erased_patient(site: Site) -> None:
    url = await of_patient(site)
    subject_id = SubjectId(await subject_of(site, STUDY))
    await request_erasure(site.services.log, subject_id, LegalBasis.CONSENT_WITHDRAWN, ERASERS[0])
    await confirm_erasure(site.services.log, subject_id, ERASERS[1])
    async with asyncio.timeout(120):
        while (await status_of(site.services.log, subject_id)).purged_at is None:
            await asyncio.sleep(0.05)
    await site.caught_up()
    for path in (url, OF_STUDY):
        assert says(await site.get(path, "fhir:read"), 410)["code"] == "deleted"


async def test_who_asked_for_everything_is_recorded(site: Site) -> None:
    await site.get(OF_STUDY, "fhir:read")
    await site.get(f"/fhir/ImagingSelection/{selection_id(SERIES)}/$meta", "fhir:read")
    await site.caught_up()
    events = [one.event for one in await site.services.log.read(0, 1000, [AccessesRecorded])]
    seen = [a for event in events if isinstance(event, AccessesRecorded) for a in event.accesses if a.action is Action.READ]
    assert [(one.resource_type, one.subjects) for one in seen] == [
        (kind, (await subject_of(site, STUDY),)) for kind in ("ImagingStudy", "ImagingSelection")
    ]


async def test_meta_is_what_the_resource_says_of_itself(site: Site) -> None:
    path = f"/fhir/Patient/{await subject_of(site, STUDY)}"
    for one in (path, f"{path}/_history/1"):
        answer = await site.get(f"{one}/$meta", "fhir:read")
        get_fhir_model_class("Parameters").model_validate(answer.json())
        assert answer.json()["parameter"] == [{"name": "return", "valueMeta": (await site.get(one, "fhir:read")).json()["meta"]}]
    shown = await site.get(f"{path}/$meta", "fhir:read", "identities:read")
    assert "PSEUDED" in answer.text and "PSEUDED" not in shown.text
    says(await site.get("/fhir/Patient/none/$meta", "fhir:read"), 404)
    assert says(await site.get(f"{path}/$meta?_summary=true", "fhir:read"), 400)["expression"] == ["http._summary"]


async def test_meta_of_a_type_and_of_the_system_is_every_label_that_is_there(site: Site) -> None:
    headers = {**await site.headers("fhir:write", "fhir:read"), "Content-Type": "application/fhir+json"}
    before = await site.caught_up()
    one, other = {"system": "urn:one", "code": "x"}, {"system": "urn:other", "code": "x"}
    for nth, tags in enumerate(([one], [one, other], [{"code": "bare"}], [one])):
        meta = {"tag": tags, "profile": ["http://example.org/basic"], "security": [{"system": "urn:s", "code": "R"}]}
        made = {"resourceType": "Basic", "id": f"b{nth}", "meta": meta, "code": {"text": "b"}}
        assert (await site.client.put(f"/fhir/Basic/b{nth}", json=made, headers=headers)).status_code == 201

    async def labels(path: str, *scopes: str) -> dict[str, Any]:
        answer = await site.get(f"/fhir/{path}", *(scopes or ("fhir:read",)))
        assert answer.status_code == 200, answer.text
        get_fhir_model_class("Parameters").model_validate(answer.json())
        return dict(answer.json()["parameter"][0]["valueMeta"]) if "parameter" in answer.json() else {}

    basic = {"profile": ["http://example.org/basic"], "security": [{"system": "urn:s", "code": "R"}], "tag": [{"code": "bare"}, one, other]}
    assert await labels("Basic/$meta") == basic
    whole = await labels("$meta")
    assert {one["code"] for one in whole["security"]} == {"R", "AIAST"} and whole["tag"] == basic["tag"]
    assert await labels(f"Basic/$meta?_asof={before}") == {} == await labels("Device/$meta?_asof=0")
    assert await labels("$meta", "system/Basic.r", "system/Patient.r?gender=female") == basic
    assert says(await site.get("/fhir/Patient/$meta", "system/Patient.r?gender=female"), 403)["code"] == "forbidden"
    assert says(await site.get("/fhir/Basic/$meta?_since=2020", "fhir:read"), 400)["expression"] == ["http._since"]
    plan = "\n".join(row[0] for row in await site.services.pool.fetch(f"EXPLAIN {_CODINGS}", [1, 2], 3, 4))
    assert plan.count("token_label") == 3, plan
