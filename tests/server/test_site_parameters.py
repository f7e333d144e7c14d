"""Search parameters that a site adds: written as resources, indexed in the background, and then like any other."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from served_site import Site, served_site

from projections.fhir.projection import SCHEMA, FhirProjection
from projections.fhir.search import indexing
from projections.fhir.search.site import Known
from projections.verification import verify
from server.app import create_app

Json = dict[str, Any]
READ = "fhir:read"
BOTH = ("fhir:read", "fhir:write")
ACUITY = "http://example.org/acuity"
PATIENCE_S = 20.0


def parameter(code: str, kind: str, expression: str | None, *bases: str, **more: Any) -> Json:
    said = {"status": "active", "name": code.replace("-", "_").title(), "description": f"Finds by {code}", **more}
    made = {"resourceType": "SearchParameter", "url": f"http://example.org/{code}", "code": code, "base": list(bases), "type": kind, **said}
    return made if expression is None else {**made, "expression": expression}


def condition(nth: int, **more: Any) -> Json:
    """Of acuity nth, in grams; every other one notes a page."""
    acuity = {"url": ACUITY, "valueQuantity": {"value": nth, "system": "http://unitsofmeasure.org", "code": "g"}}
    made = {"resourceType": "Condition", "clinicalStatus": {"text": "active"}, "subject": {"reference": "Group/g"}, "extension": [acuity], **more}
    return made | ({"note": [{"text": f"Page {nth}", "authorReference": {"reference": "Practitioner/doc"}}]} if nth % 2 else {})


@pytest_asyncio.fixture
async def site(embedded_server: str, tmp_path: Path) -> AsyncIterator[Site]:
    async with served_site(embedded_server, tmp_path, audit_reads=False) as served:
        yield served


async def put(site: Site, resource: Json, resource_id: str, expected: int = 201) -> httpx.Response:
    headers = {**await site.headers(*BOTH), "content-type": "application/fhir+json"}
    path = f"/fhir/{resource['resourceType']}/{resource_id}"
    answer = await site.client.put(path, content=json.dumps({**resource, "id": resource_id}), headers=headers)
    assert answer.status_code == expected, answer.text
    return answer


async def refused(site: Site, resource: Json) -> tuple[list[str], str]:
    (issue,) = (await put(site, resource, "refused", 422)).json()["issue"]
    return issue["expression"], issue["diagnostics"]


async def until(site: Site, query: str, is_it: Callable[[httpx.Response], bool]) -> httpx.Response:
    async with asyncio.timeout(PATIENCE_S):
        while not is_it(answer := await site.get(f"/fhir/{query}", READ)):
            await asyncio.sleep(0.02)
    return answer


async def indexed(site: Site, query: str) -> list[str]:
    """The ids that a search finds as soon as it may be asked; until then it says how far it is, and never a part."""
    answer = await until(site, query, lambda one: one.status_code != 503)
    assert answer.status_code == 200, answer.text
    return ids(answer)


def ids(answer: httpx.Response, mode: str = "match") -> list[str]:
    return [one["resource"]["id"] for one in answer.json().get("entry", []) if one["search"]["mode"] == mode]


async def equals_the_log(site: Site) -> None:
    await site.caught_up()
    verdict = await verify(site.services.log, FhirProjection())
    assert verdict.is_equal, [one for one in verdict.tables if not one.is_equal]


ACUITY_PARAMETER = parameter("acuity", "quantity", f"Condition.extension('{ACUITY}').value.ofType(Quantity)", "Condition")


async def test_what_was_there_and_what_comes_is_found(site: Site) -> None:
    for nth in range(4):
        await put(site, condition(nth), f"c{nth}")
    await put(site, condition(9), "c0", 200)  # as of now; once it was 0
    before = int((await site.get("/fhir/Condition", READ)).headers["Anamnesis-Position"])
    assert (await site.get("/fhir/Condition?acuity=gt1", READ)).status_code == 400
    await put(site, ACUITY_PARAMETER, "acuity")
    assert await indexed(site, "Condition?acuity=gt1|http://unitsofmeasure.org|g") == ["c2", "c3", "c0"]
    await put(site, condition(7), "c7")
    assert await indexed(site, "Condition?acuity=ge0.003|http://unitsofmeasure.org|kg&_sort=-acuity") == ["c0", "c7", "c3"]
    assert await indexed(site, f"Condition?acuity=0&_asof={before - 1}") == ["c0"]
    assert await indexed(site, "Condition?acuity:missing=false&_count=0&_total=accurate") == []
    await equals_the_log(site)


async def test_it_works_as_any_other_does(site: Site) -> None:
    await put(site, {"resourceType": "Practitioner", "name": [{"family": "Weiß"}]}, "doc")
    for nth in range(4):
        await put(site, condition(nth), f"c{nth}")
    author = parameter("note-author", "reference", "Condition.note.author.ofType(Reference)", "Condition", target=["Practitioner", "Patient"])
    await put(site, author, "note-author")
    await put(site, parameter("note-text", "string", "Condition.note.text", "Condition"), "note-text")
    await put(site, ACUITY_PARAMETER, "acuity")
    parts = [{"definition": "http://example.org/note-text", "expression": "text"}, {"definition": "http://example.org/note-author", "expression": "author.ofType(Reference)"}]
    await put(site, parameter("note-by", "composite", "Condition.note", "Condition", component=parts), "note-by")
    await put(site, parameter("profile-tag", "token", "Resource.meta.tag", "Resource"), "everywhere")
    for query, found in [
        ("Condition?note-author=Practitioner/doc", ["c1", "c3"]),
        ("Condition?note-author:missing=true", ["c0", "c2"]),
        ("Condition?note-author:Practitioner.name=weiss", ["c1", "c3"]),
        ("Condition?note-text:contains=GE 3", ["c3"]),
        ("Condition?note-text:exact=Page 1", ["c1"]),
        ("Condition?note-by=page 3$Practitioner/doc", ["c3"]),
        ("Condition?_sort=-note-text&note-text:missing=false", ["c3", "c1"]),
        ("Practitioner?_has:Condition:note-author:acuity=3", ["doc"]),
        ("Practitioner?profile-tag=x", []),
        ("Condition?note-author:Practitioner.profile-tag:missing=true", ["c1", "c3"]),
    ]:
        assert await indexed(site, query) == found, query
    assert ids(await site.get("/fhir/Condition?acuity=3&_include=Condition:note-author", READ), "include") == ["doc"]
    assert ids(await site.get("/fhir/Practitioner?_revinclude=Condition:note-author", READ), "include") == ["c1", "c3"]
    statement = (await site.get("/fhir/metadata", READ)).json()
    of = {one["type"]: one for one in statement["rest"][0]["resource"]}
    claimed = {one["name"]: one for one in of["Condition"]["searchParam"]}
    assert claimed["note-author"] == {"name": "note-author", "type": "reference", "definition": "http://example.org/note-author"}
    assert "Condition:note-author" in of["Condition"]["searchInclude"] and "Condition:note-author" in of["Practitioner"]["searchRevInclude"]
    without = {kind for kind, resource in of.items() if "profile-tag" not in {one["name"] for one in resource["searchParam"]}}
    assert without == {"Patient"}
    headers = {**await site.headers(*BOTH), "if-none-exist": "acuity=3"}
    assert (await site.client.post("/fhir/Condition", json=condition(3), headers=headers)).status_code == 200
    await equals_the_log(site)


async def test_what_is_being_indexed_is_refused_and_says_how_far(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    held = asyncio.Event()
    work = FhirProjection.work

    async def slowly(self: FhirProjection, connection: Any) -> bool:
        await held.wait()
        return await work(self, connection)

    for nth in range(6):
        await put(site, condition(nth), f"c{nth}")
    monkeypatch.setattr(FhirProjection, "work", slowly)
    monkeypatch.setattr(indexing, "VERSIONS_A_PIECE", 2)
    await put(site, {**ACUITY_PARAMETER, "status": "draft"}, "acuity")
    assert (await site.get("/fhir/Condition?acuity=3", READ)).status_code == 400
    await put(site, ACUITY_PARAMETER, "acuity", 200)
    for query in ("Condition?acuity=3", "Condition?_sort=acuity", "Group?_has:Condition:subject:acuity=1"):
        answer = await site.get(f"/fhir/{query}", READ, **{})
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "5"), answer.text
        (issue,) = answer.json()["issue"]
        assert issue["code"] == "transient" and "0 %" in issue["diagnostics"] and issue["expression"] == ["http.acuity"]
    lenient = await site.client.get("/fhir/Condition?acuity=3", headers={**await site.headers(READ), "prefer": "handling=lenient"})
    assert lenient.status_code == 503
    rest = (await site.get("/fhir/metadata", READ)).json()["rest"][0]
    assert "Condition.acuity (0 %)" in rest["documentation"]
    assert not any(one["name"] == "acuity" for resource in rest["resource"] for one in resource["searchParam"])
    held.set()
    assert await indexed(site, "Condition?acuity=3") == ["c3"]
    assert "acuity" not in (await site.get("/fhir/metadata", READ)).json()["rest"][0]["documentation"]
    await equals_the_log(site)


@pytest.mark.parametrize("how", ["retired", "deleted", "changed"])
async def test_what_is_taken_away_is_gone_and_its_rows_too(site: Site, how: str) -> None:
    for nth in range(4):
        await put(site, condition(nth), f"c{nth}")
    await put(site, ACUITY_PARAMETER, "acuity")
    assert await indexed(site, "Condition?acuity=3") == ["c3"]
    page = (await site.get("/fhir/Condition?acuity=lt3&_count=1", READ)).json()
    (following,) = [one["url"] for one in page["link"] if one["relation"] == "next"]
    match how:
        case "retired":
            await put(site, {**ACUITY_PARAMETER, "status": "retired"}, "acuity", 200)
        case "deleted":
            assert (await site.client.delete("/fhir/SearchParameter/acuity", headers=await site.headers(*BOTH))).status_code == 204
        case "changed":
            await put(site, {**ACUITY_PARAMETER, "type": "number", "expression": "Condition.extension('none').value.ofType(decimal)"}, "acuity", 200)
            assert await indexed(site, "Condition?acuity=3") == []
    if how != "changed":
        assert (await site.get("/fhir/Condition?acuity=3", READ)).status_code == 400
        again = await site.client.get(following, headers=await site.headers(READ))
        assert again.status_code == 400 and "acuity" in again.text  # and never every Condition
    await equals_the_log(site)
    assert await site.services.pool.fetchval(f"SELECT count(*) FROM {SCHEMA}.quantity WHERE canonical LIKE '%gram%'") == 0
    await put(site, ACUITY_PARAMETER, "acuity", 200 if how != "deleted" else 201)
    assert await indexed(site, "Condition?acuity=3") == ["c3"]
    await equals_the_log(site)


@pytest.mark.parametrize(
    ("change", "at", "said"),
    [
        ({"expression": "Condition.note.text.contains('x')"}, "expression", "contains"),
        ({"expression": "Condition.((("}, "expression", "cannot be compiled"),
        ({"expression": "(" * 70}, "expression", "parentheses"),
        ({"expression": "Condition.nothing"}, "expression", "no value"),
        ({"expression": "Patient.name"}, "expression", "no value"),
        ({"expression": "Condition.extension.value.extension.value.extension.value"}, "expression", "leads to more than"),
        ({"expression": None}, "expression", "without"),
        ({"code": "code"}, "code", "already"),
        ({"code": "_text"}, "code", "begins with a letter"),
        ({"code": "has:colon"}, "code", "letters"),
        ({"type": "special"}, "type", "one of"),
        ({"base": ["DomainResource"], "code": "identifier"}, "code", "already"),
        ({"base": ["Nonsense"]}, "base", "Nonsense"),
        ({"target": ["Nonsense"]}, "target", "Nonsense"),
        ({"base": ["Patient"], "expression": "Patient.contact.name.text"}, "base", "sealed"),
        ({"processingMode": "phonetic"}, "processingMode", "normal"),
        ({"component": [{"definition": "http://example.org/x", "expression": "text"}]}, "component[0].definition", "no parameter"),
        ({"type": "composite", "expression": "Condition.note"}, "component", "composite"),
    ],
)
async def test_what_could_never_be_indexed_is_refused_when_it_is_written(site: Site, change: Json, at: str, said: str) -> None:
    body = {name: value for name, value in {**parameter("mine", "string", "Condition.note.text", "Condition"), **change}.items() if value is not None}
    if at in ("base", "target"):  # R5 binds these, as its models know: whatever gets past them is refused here
        answer = await put(site, body, "refused", 422)
        assert answer.json()["issue"][0]["expression"] == [f"SearchParameter.{at}"]
        return
    expression, diagnostics = await refused(site, body)
    assert expression == [f"SearchParameter.{at}"] and said in diagnostics, diagnostics
    await put(site, {**body, "status": "draft"}, "draft")  # nobody searches by it


async def test_a_name_is_not_found_by_another_name_for_it(site: Site) -> None:
    """The rows of R5's parameters hold what identifies: who may not search by them may not by a site's that leads to the same."""
    await put(site, parameter("known-as", "string", "Patient.name.family", "Patient"), "known-as")
    author = parameter("note-author", "reference", "Condition.note.author.ofType(Reference)", "Condition", target=["Patient"])
    await put(site, author, "note-author")
    queries = ("Patient?known-as=x", "Patient?_sort=known-as", "Condition?note-author.family=x", "Condition?note-author:Patient.known-as=x")
    for query in queries:
        await until(site, query, lambda one: one.status_code != 503)
        assert (await site.get(f"/fhir/{query}", READ)).status_code == 403, query
        assert (await site.get(f"/fhir/{query}", READ, "identities:read")).status_code == 200, query


async def test_every_process_of_a_site_learns_of_it_with_the_next_request(site: Site) -> None:
    """Another process is one that keeps its own mind over the same database."""
    await put(site, condition(3), "c3")
    other = Site(replace(site.services, known=Known()), site.client, site.tokens)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(create_app(other.services)), base_url="http://other.test") as client:
        other.client = client
        assert (await other.get("/fhir/Condition?acuity=3", READ)).status_code == 400
        await put(site, ACUITY_PARAMETER, "acuity")
        assert await indexed(other, "Condition?acuity=3") == ["c3"]
        assert "acuity" in (await other.get("/fhir/metadata", READ)).text
        await put(other, {**ACUITY_PARAMETER, "status": "retired"}, "acuity", 200)
        assert (await site.get("/fhir/Condition?acuity=3", READ)).status_code == 400


async def test_two_of_one_code_are_refused_also_within_one_bundle(site: Site) -> None:
    await put(site, parameter("mine", "string", "Condition.note.text", "Condition"), "first")
    expression, _ = await refused(site, parameter("mine", "token", "Condition.language", "Condition", "Patient"))
    assert expression == ["SearchParameter.code"]
    entries = [
        {"resource": parameter("other", "string", "Condition.note.text", "Condition"), "request": {"method": "POST", "url": "SearchParameter"}}
    ] * 2
    answer = await site.client.post("/fhir", json={"resourceType": "Bundle", "type": "transaction", "entry": entries}, headers=await site.headers(*BOTH))
    assert answer.status_code == 422
    assert answer.json()["issue"][0]["expression"] == ["Bundle.entry[1].resource.code"]


async def test_of_two_that_take_one_code_at_once_the_first_of_the_log_has_it(site: Site) -> None:
    both = [parameter("mine", "string", expression, "Condition") for expression in ("Condition.note.text", "Condition.code.text")]
    answers: list[Awaitable[httpx.Response]] = []
    headers = {**await site.headers(*BOTH), "content-type": "application/fhir+json"}
    for nth, one in enumerate(both):
        answers.append(site.client.put(f"/fhir/SearchParameter/p{nth}", content=json.dumps({**one, "id": f"p{nth}"}), headers=headers))
    statuses = [one.status_code for one in await asyncio.gather(*answers)]
    assert 201 in statuses and set(statuses) <= {201, 422}
    await put(site, condition(1), "c1")
    assert await indexed(site, "Condition?mine:contains=page") in (["c1"], [])
    assert await site.services.pool.fetchval(f"SELECT count(*) FROM {SCHEMA}.search_parameter WHERE problem = ''") == 1
    await equals_the_log(site)
