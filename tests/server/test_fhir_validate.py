"""`$validate` over HTTP: of what is sent and of what is here, by type and by instance, and whatever is sent is answered."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st
from served_site import LIVER, Site, served_site, slice_of

from projections.fhir import guide
from projections.fhir.vocabulary import index_id, observation_id, study_id
from server.as_of import HEADER

pytestmark = pytest.mark.asyncio(loop_scope="module")
STUDY = "1.2.840.14.1"
HERE = f"/fhir/ImagingStudy/{study_id(STUDY)}"
GOOD = {"resourceType": "Patient", "active": True}
BAD = {"resourceType": "Patient", "gender": "F"}
CURATED = guide.profile_url("curated-study")

Issues = list[tuple[str, str, str]]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(embedded_server: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    async with served_site(embedded_server, tmp_path_factory.mktemp("validate")) as served:
        await served.store(slice_of(STUDY, 1))
        await served.index(f"{STUDY}.1", LIVER)
        yield served


async def ask(
    site: Site, path: str, body: Any = None, *, method: str = "POST", scopes: tuple[str, ...] = ("fhir:read",), **url: str
) -> httpx.Response:
    sent: dict[str, Any] = {} if body is None else {"content": body} if isinstance(body, bytes) else {"json": body}
    headers = {**await site.headers(*scopes), "Content-Type": "application/fhir+json"}
    return await site.client.request(method, path, headers=headers, params=url or None, **sent)


async def said(site: Site, path: str, body: Any = None, **more: Any) -> Issues:
    answer = await ask(site, path, body, **more)
    assert answer.status_code == 200, answer.text
    outcome = answer.json()
    assert outcome["resourceType"] == "OperationOutcome" and answer.headers["content-type"].startswith("application/fhir+json")
    return [(one["severity"], one["code"], one.get("expression", [""])[0]) for one in outcome["issue"]]


async def refused(site: Site, path: str, body: Any = None, **more: Any) -> tuple[int, str]:
    answer = await ask(site, path, body, **more)
    (issue,) = answer.json()["issue"]
    return answer.status_code, issue["code"]


def wrapped(*parameters: dict[str, Any]) -> dict[str, Any]:
    return {"resourceType": "Parameters", "parameter": list(parameters)}


FINE = [("information", "informational", "")]
GENDER = [("error", "code-invalid", "Patient.gender")]


async def test_a_resource_and_parameters_with_one_are_validated_alike(site: Site) -> None:
    for resource, issues in ((GOOD, FINE), (BAD, GENDER)):
        assert await said(site, "/fhir/Patient/$validate", resource) == issues
        assert await said(site, "/fhir/Patient/$validate", wrapped({"name": "resource", "resource": resource})) == issues
        assert await said(site, "/fhir/Patient/$validate", resource, mode="create") == issues


async def test_what_may_be_created_is_said_to_be(site: Site) -> None:
    assert await said(site, "/fhir/Basic/$validate", {"resourceType": "Basic", "code": {"text": "x"}}, mode="create") == FINE


async def test_parameters_may_be_what_is_validated(site: Site) -> None:
    assert await said(site, "/fhir/Parameters/$validate", wrapped({"name": "x", "valueBoolean": True})) == FINE
    issues = await said(site, "/fhir/Parameters/$validate", wrapped({"valueBoolean": True}))
    assert ("error", "required", "Parameters.parameter[0].name") in issues
    inner = {"name": "resource", "resource": wrapped({"name": "x", "valueString": "y"})}
    assert await said(site, "/fhir/Parameters/$validate", wrapped(inner)) == FINE


async def test_every_resource_that_is_here_is_valid_and_conforms(site: Site) -> None:
    series = f"{STUDY}.1"
    (patient,) = (await site.get("/fhir/Patient", "fhir:read")).json()["entry"]
    (finding,) = (await site.get("/fhir/Observation", "fhir:read")).json()["entry"]
    paths = [HERE, f"/fhir/BodyStructure/{index_id(series)}", f"/fhir/Patient/{patient['resource']['id']}"]
    paths.append(f"/fhir/Observation/{finding['resource']['id']}")
    assert finding["resource"]["id"] == observation_id(finding["resource"]["identifier"][0]["value"])
    for path in paths:
        for method in ("GET", "POST"):
            assert await said(site, f"{path}/$validate", method=method) == FINE
    assert await said(site, f"{HERE}/$validate", method="GET", mode="profile", profile=CURATED) == FINE
    assert (await ask(site, f"{HERE}/$validate", method="GET", _asof="3")).headers[HEADER] == "3"
    head = await ask(site, f"{HERE}/$validate", method="HEAD")
    assert head.status_code == 200 and not head.content


async def test_a_profile_is_asked_for_in_the_url_or_in_parameters(site: Site) -> None:
    study = (await site.get(HERE, "fhir:read")).json()
    del study["numberOfSeries"]
    profile = {"name": "profile", "valueCanonical": CURATED}
    in_body = await said(site, "/fhir/ImagingStudy/$validate", wrapped({"name": "resource", "resource": study}, profile))
    in_url = await said(site, "/fhir/ImagingStudy/$validate", study, profile=CURATED)
    assert in_body == in_url and ("error", "required", "ImagingStudy.numberOfSeries") in in_body
    assert await said(site, "/fhir/ImagingStudy/$validate", study) == FINE
    base = "http://hl7.org/fhir/StructureDefinition/ImagingStudy"
    assert await said(site, "/fhir/ImagingStudy/$validate", study, profile=base) == FINE
    assert ("error", "invalid", "Patient") in await said(site, "/fhir/Patient/$validate", GOOD, profile=base)


async def test_what_is_sent_must_be_of_the_type_and_the_id_of_the_url(site: Site) -> None:
    assert await said(site, "/fhir/Observation/$validate", GOOD) == [("error", "invalid", "Patient")]
    study = (await site.get(HERE, "fhir:read")).json()
    warned = [("warning", "business-rule", "ImagingStudy")]
    assert await said(site, f"{HERE}/$validate", study, mode="update") == warned
    assert await said(site, f"{HERE}/$validate", study | {"id": "other"}) == [("error", "invalid", "ImagingStudy.id")]


async def test_what_curation_made_is_not_to_be_deleted(site: Site) -> None:
    assert await said(site, f"{HERE}/$validate", mode="delete") == [("error", "business-rule", "ImagingStudy")]


async def test_what_cannot_be_asked_is_an_error(site: Site) -> None:
    path, one = "/fhir/Patient/$validate", {"name": "resource", "resource": GOOD}
    assert await refused(site, path) == (400, "required")
    assert await refused(site, path, wrapped()) == (400, "required")
    assert await refused(site, path, b"{") == (400, "structure")
    assert await refused(site, path, b"[" * 100_000) == (400, "structure")
    assert await refused(site, path, GOOD, mode="maybe") == (400, "value")
    assert await refused(site, path, GOOD, mode="update") == (400, "invalid")
    assert await refused(site, path, GOOD, mode="profile") == (400, "required")
    assert await refused(site, path, GOOD, profile="urn:nobody") == (400, "not-found")
    assert await refused(site, path, GOOD, usageContext="x") == (400, "not-supported")
    assert await refused(site, path, wrapped(one, {"name": "usageContext", "valueCode": "x"})) == (400, "not-supported")
    assert await refused(site, path, wrapped(one, one)) == (400, "value")
    assert await refused(site, path, wrapped(one, {"name": "mode", "valueBoolean": True})) == (400, "value")
    assert await refused(site, path, {"resourceType": "Parameters", "parameter": {}}) == (400, "structure")
    assert await refused(site, f"{HERE}/$validate", GOOD, mode="create") == (400, "invalid")
    assert await refused(site, f"{HERE}/$validate", GOOD, mode="delete") == (400, "invalid")
    assert await refused(site, "/fhir/Patient/nobody/$validate", method="GET") == (404, "not-found")
    assert await refused(site, "/fhir/Patient/no id/$validate", GOOD) == (404, "not-found")
    assert await refused(site, "/fhir/Nothing/$validate", GOOD) == (404, "not-supported")
    headers = {**await site.headers("fhir:read"), "Content-Type": "application/fhir+xml"}
    assert (await site.client.post(path, content=b"<Patient/>", headers=headers)).status_code == 415


async def test_it_takes_the_scope_to_read(site: Site) -> None:
    assert (await site.client.post("/fhir/Patient/$validate", json=GOOD)).status_code == 401
    for path, method in (("/fhir/Patient/$validate", "POST"), (f"{HERE}/$validate", "GET")):
        assert (await ask(site, path, GOOD if method == "POST" else None, method=method, scopes=("dicom:read",))).status_code == 403
    assert (await ask(site, "/fhir/AuditEvent/x/$validate", method="GET")).status_code == 403


async def test_looking_at_what_is_here_is_recorded_and_looking_at_what_is_sent_is_not(site: Site) -> None:
    async def recorded() -> int:
        await site.caught_up()
        found = await site.get("/fhir/AuditEvent", "fhir:read", "audit:read", entity=HERE.removeprefix("/fhir/"), _summary="count")
        return int(found.json()["total"])

    before = await recorded()
    await said(site, "/fhir/Patient/$validate", GOOD)
    assert await recorded() == before
    for method in ("GET", "POST"):
        count = await recorded()
        await said(site, f"{HERE}/$validate", method=method)
        assert await recorded() > count


LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8)
NAMES = st.sampled_from(["resourceType", "parameter", "name", "resource", "valueCode", "id", "extension", "contained", "meta", "profile"])
TREES = st.recursive(
    LEAVES | st.sampled_from(["Parameters", "Patient", "Bundle", "resource", "mode"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES | st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=150, deadline=None)
@given(body=st.binary(max_size=40) | TREES.map(lambda tree: json.dumps(tree).encode()), mode=st.none() | st.text(max_size=6))
async def test_no_body_is_a_fault_of_the_server(site: Site, body: bytes, mode: str | None) -> None:
    for path in ("/fhir/Patient/$validate", "/fhir/Parameters/$validate", f"{HERE}/$validate"):
        answer = await ask(site, path, body, **({} if mode is None else {"mode": mode}))
        assert answer.status_code in (200, 400), answer.text
        assert answer.json()["resourceType"] == "OperationOutcome" and answer.json()["issue"]
