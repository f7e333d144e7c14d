"""X-Provenance, AuditEvents of clients, reviews within a transaction, and what a history says of a resource that came back."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
from fhir.resources import get_fhir_model_class
from served_site import LIVER, LUNG, Site, served_site, slice_of

from domain.findings import finding_key
from domain.ids import series_stream
from domain.review import FindingReviewed, Verdict
from projections.catalogue import projections
from projections.fhir.vocabulary import observation_id
from projections.verification import verify

pytestmark = pytest.mark.asyncio(loop_scope="module")
STUDY = "1.2.826.0.1.3680043.8.498.82"
SERIES = f"{STUDY}.1"
SCOPES = ("fhir:read", "fhir:write", "reviews:write", "identities:read", "audit:read")
Json = dict[str, Any]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(embedded_server: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    async with served_site(embedded_server, tmp_path_factory.mktemp("told")) as site:
        await site.store(slice_of(STUDY, 1))
        await site.index(SERIES, LUNG, LIVER)
        yield site


async def send(site: Site, method: str, path: str, body: object = None, scopes: tuple[str, ...] = SCOPES, **headers: str) -> httpx.Response:
    sent = {**await site.headers(*scopes), "content-type": "application/fhir+json", **{k.replace("_", "-"): v for k, v in headers.items()}}
    content = json.dumps(body) if body is not None else None
    return await site.client.request(method, f"/fhir/{path}", content=content, headers=sent)


async def bundle(site: Site, kind: str, *entries: Json, **headers: str) -> httpx.Response:
    return await send(site, "POST", "", {"resourceType": "Bundle", "type": kind, "entry": list(entries)}, **headers)


def entry(method: str, url: str, resource: Json | None = None, **more: Any) -> Json:
    made = {"request": {"method": method, "url": url, **more.pop("request", {})}, **more}
    return made if resource is None else {**made, "resource": resource}


def basic(text: str, **more: Any) -> Json:
    return {"resourceType": "Basic", "code": {"text": text}, **more}


def told(**more: Any) -> str:
    return json.dumps({"resourceType": "Provenance", "agent": [{"who": {"display": "a ward"}}], "activity": {"text": "intake"}} | more)


async def of_clients(site: Site, target: str) -> list[Json]:
    """The Provenances of a resource that clients wrote."""
    found = (await site.get("/fhir/Provenance", *SCOPES, target=target, _count="100")).json()
    return [one["resource"] for one in found.get("entry", []) if one["resource"].get("activity", {}).get("text") == "intake"]


def issue(answer: httpx.Response) -> tuple[int, str, str | None]:
    (first, *_) = answer.json()["issue"]
    return answer.status_code, first["code"], first.get("expression", [None])[0]


async def test_a_provenance_comes_with_what_is_written_in_one_append(site: Site) -> None:
    before = await site.services.log.head()
    answer = await send(site, "PUT", "Basic/told", basic("one", id="told"), x_provenance=told())
    assert answer.status_code == 201, answer.text
    (said,) = await of_clients(site, "Basic/told")
    get_fhir_model_class("Provenance").model_validate(said)
    assert said["target"] == [{"reference": "Basic/told/_history/1", "type": "Basic"}] and "patient" not in said
    written = [one for one in await site.services.log.read(before, 100) if one.type == "ClinicalRecordWritten"]
    assert len(written) == 2 and len({one.correlation_id for one in written}) == 1
    assert written[1].position == written[0].position + 1
    # nothing new is written: there is nothing to tell of
    assert (await send(site, "PUT", "Basic/told", basic("one", id="told"), x_provenance=told())).status_code == 200
    assert len(await of_clients(site, "Basic/told")) == 1
    assert (await send(site, "DELETE", "Basic/told", x_provenance=told())).status_code == 204
    assert (await of_clients(site, "Basic/told"))[-1]["target"][0]["reference"] == "Basic/told/_history/2"


async def test_the_provenance_of_a_transaction_is_of_all_that_it_writes(site: Site) -> None:
    doctor = {"resourceType": "Practitioner", "name": [{"family": "Doc"}]}
    patient = {"resourceType": "Patient", "name": [{"family": "Told"}]}
    observation = {"resourceType": "Observation", "status": "final", "code": {"text": "x"}, "subject": {"reference": "urn:uuid:p"}}
    who = told(agent=[{"who": {"reference": "urn:uuid:d"}}])
    answer = await bundle(
        site,
        "transaction",
        entry("POST", "Observation", observation),
        entry("POST", "Patient", patient, fullUrl="urn:uuid:p"),
        x_provenance=told(),
    )
    places = [one["response"]["location"].split("/fhir/")[1] for one in answer.json()["entry"]]
    (said,) = await of_clients(site, places[0].split("/_history")[0])
    assert sorted(one["reference"] for one in said["target"]) == sorted(places)
    assert said["patient"]["reference"] == places[1].split("/_history")[0]
    answer = await bundle(site, "transaction", entry("POST", "Practitioner", doctor, fullUrl="urn:uuid:d"), x_provenance=who)
    place = answer.json()["entry"][0]["response"]["location"].split("/fhir/")[1]
    (said,) = await of_clients(site, place.split("/_history")[0])
    assert said["agent"][0]["who"]["reference"] == place.split("/_history")[0]
    answer = await bundle(site, "batch", entry("PUT", "Basic/b1", basic("1", id="b1")), entry("PUT", "Basic/b2", basic("2", id="b2")), x_provenance=told())
    assert [len(await of_clients(site, f"Basic/{one}")) for one in ("b1", "b2")] == [1, 1]


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("{", (400, "structure", "http.x-provenance")),
        ("[]", (400, "structure", "http.x-provenance")),
        ('{"resourceType": "Basic"}', (400, "invalid", "http.x-provenance")),
        (told(target=[{"reference": "Basic/x"}]), (400, "invalid", "http.x-provenance")),
        (told(colour="red"), (400, "structure", "Provenance.colour")),
        (json.dumps({"resourceType": "Provenance"}), (400, "required", "Provenance.agent")),
        (told(patient={"reference": "Patient/nobody"}), (422, "not-found", "Provenance.patient")),
        (told(extension=[{"url": "urn:anamnesis:fhir:StructureDefinition:log-entry", "valueString": "1"}]), (422, "business-rule", "Provenance.extension")),
        (told(activity={"text": "x" * 17000}), (413, "too-long", "http.x-provenance")),
    ],
)  # fmt: skip
async def test_a_provenance_that_is_none_keeps_the_write_from_happening(site: Site, header: str, expected: tuple[int, str, str]) -> None:
    answer = await send(site, "PUT", "Basic/never", basic("x", id="never"), x_provenance=header)
    assert issue(answer) == expected, answer.text
    assert (await site.get("/fhir/Basic/never", "fhir:read")).status_code == 404


async def test_an_audit_event_of_a_client_is_created_and_never_changed(site: Site) -> None:
    said = {
        "resourceType": "AuditEvent",
        "id": "seen",
        "code": {"text": "read"},
        "recorded": "2026-01-01T00:00:00Z",
        "agent": [{"who": {"display": "PACS"}}],
        "source": {"observer": {"display": "PACS"}},
    }
    assert (await send(site, "PUT", "AuditEvent/seen", said)).status_code == 201
    assert (await send(site, "PUT", "AuditEvent/seen", said)).status_code == 200
    assert issue(await send(site, "PUT", "AuditEvent/seen", {**said, "code": {"text": "none"}}))[:2] == (405, "not-supported")
    patch = [{"op": "replace", "path": "/code/text", "value": "x"}]
    assert (await send(site, "PATCH", "AuditEvent/seen", patch, content_type="application/json-patch+json")).status_code == 405
    assert (await send(site, "DELETE", "AuditEvent/seen")).status_code == 405
    assert issue(await bundle(site, "transaction", entry("DELETE", "AuditEvent/seen")))[:2] == (405, "not-supported")
    assert (await site.get("/fhir/AuditEvent/seen", *SCOPES)).json()["code"] == {"text": "read"}


def finding(label: str) -> str:
    return finding_key(SERIES, "baseline", label)


async def reviews(site: Site) -> list[tuple[str, Verdict]]:
    recorded = await site.services.log.read_stream(series_stream(SERIES))
    return [(one.event.label, one.event.verdict) for one in recorded if isinstance(one.event, FindingReviewed)]


async def reviewed(site: Site, label: str, status: str) -> Json:
    return {**(await site.get(f"/fhir/Observation/{observation_id(finding(label))}", "fhir:read")).json(), "status": status}


async def test_reviews_are_part_of_a_transaction(site: Site) -> None:
    lung, liver = await reviewed(site, "lung_left", "final"), await reviewed(site, "liver", "entered-in-error")
    put = [entry("PUT", f"Observation/{one['id']}", one) for one in (lung, liver)]
    bad = entry("POST", "Observation", {"resourceType": "Observation", "status": "final", "code": {"text": "x"}, "subject": {"reference": "Patient/no"}})
    assert (await bundle(site, "transaction", *put, bad)).status_code == 422
    stale = entry("PUT", f"Observation/{lung['id']}", lung, request={"ifMatch": 'W/"9"'})
    assert issue(await bundle(site, "transaction", stale, put[1])) == (412, "conflict", "Bundle.entry[0]")
    assert await reviews(site) == []
    before = await site.services.log.head()
    report = {"resourceType": "Basic", "code": {"text": "read"}, "subject": lung["subject"]}
    answer = await bundle(site, "transaction", *put, entry("POST", "Basic", report), prefer="return=representation", x_provenance=told())
    assert answer.status_code == 200, answer.text
    made = answer.json()["entry"]
    assert [one["response"]["status"] for one in made] == ["200 OK", "200 OK", "201 Created"]
    assert [one["resource"].get("status") for one in made] == ["final", "entered-in-error", None]
    assert [one["response"]["etag"] for one in made[:2]] == ['W/"2"', 'W/"2"']
    assert await reviews(site) == [("lung_left", Verdict.ACCEPTED), ("liver", Verdict.REJECTED)]
    recorded = [one for one in await site.services.log.read(before, 100) if one.type != "AccessesRecorded"]
    assert len({one.correlation_id for one in recorded}) == 1 and len(recorded) == 4
    (said,) = await of_clients(site, f"Observation/{lung['id']}")
    assert len(said["target"]) == 3
    without = tuple(one for one in SCOPES if one != "reviews:write")
    refused = await send(site, "POST", "", {"resourceType": "Bundle", "type": "transaction", "entry": put}, without)
    assert refused.status_code == 403


async def test_a_review_of_what_was_measured_anew_is_refused(site: Site) -> None:
    lung = await reviewed(site, "lung_left", "entered-in-error")
    version = f'W/"{lung["meta"]["versionId"]}"'
    await site.store(slice_of(STUDY, 2))
    await site.index(SERIES, LUNG)  # of more slices, in which no liver is found
    count = len(await reviews(site))
    path = f"Observation/{lung['id']}"
    assert (await send(site, "PUT", path, lung, if_match=version)).status_code == 412
    gone = await reviewed(site, "liver", "final")
    assert issue(await send(site, "PUT", f"Observation/{gone['id']}", gone))[0] == 409
    assert len(await reviews(site)) == count
    now = await reviewed(site, "lung_left", "final")
    done = await asyncio.gather(*(send(site, "PUT", path, now, if_match=f'W/"{now["meta"]["versionId"]}"') for _ in range(8)))
    assert sorted({one.status_code for one in done}) in ([200], [200, 412])
    assert len(await reviews(site)) in (count, count + 1)


async def test_a_history_says_that_a_resource_came_back(site: Site) -> None:
    for method, body in (("PUT", basic("1", id="back")), ("DELETE", None), ("PUT", basic("2", id="back")), ("PUT", basic("3", id="back"))):
        answer = await send(site, method, "Basic/back", body)
    assert answer.status_code == 200
    expected = [("PUT", "200"), ("PUT", "201"), ("DELETE", "204"), ("POST", "201")]
    for path in ("Basic/back/_history", "Basic/_history?_count=4"):
        entries = (await site.get(f"/fhir/{path}", "fhir:read")).json()["entry"]
        assert [(one["request"]["method"], one["response"]["status"]) for one in entries] == expected
    page = (await site.get("/fhir/Basic/back/_history?_count=2", "fhir:read")).json()
    assert [one["response"]["status"] for one in page["entry"]] == ["200", "201"]


async def test_a_rebuild_gives_the_same_rows(site: Site) -> None:
    await site.caught_up()
    for projection in projections():
        assert (await verify(site.services.log, projection)).is_equal
