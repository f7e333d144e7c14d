"""Search over HTTP: chains, what comes beside the matches, order, quantities in other units, and what is refused by name."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st
from served_site import Site, served_site

from projections.fhir.definitions import resource_types
from server.fhir.outcome import FhirError
from server.fhir.parameters import MODIFIERS, NOT_SERVED, supported
from server.fhir.search import Search

pytestmark = pytest.mark.asyncio(loop_scope="module")
BOTH = ("fhir:read", "fhir:write")
TAG = {"tag": [{"system": "urn:test", "code": "search"}]}
RESOURCES: list[dict[str, Any]] = [
    {"resourceType": "Organization", "id": "house", "name": "Haus Süd"},
    {"resourceType": "Practitioner", "id": "doc", "name": [{"family": "Weiß", "given": ["Ada"]}], "identifier": [{"value": "D-1"}]},
    {
        "resourceType": "PractitionerRole",
        "id": "role",
        "practitioner": {"reference": "Practitioner/doc"},
        "organization": {"reference": "Organization/house"},
    },
    *(
        {
            "resourceType": "Specimen",
            "id": f"s{nth}",
            "identifier": [
                {"system": "urn:s", "value": f"S{nth}", "type": {"coding": [{"system": "urn:t", "code": "ACSN"}]}},
            ],
            "receivedTime": f"2024-0{nth}-01",
            "collection": {
                "collector": {"reference": "PractitionerRole/role" if nth == 1 else "Practitioner/doc"},
                "quantity": {"value": nth * 500, "unit": "mm3", "system": "http://unitsofmeasure.org", "code": "mm3"},
            },
            "type": {"coding": [{"system": "urn:kind", "code": "blood", "display": "Venous Blood"}]} if nth < 3 else {"text": "Other"},
        }
        for nth in (1, 2, 3)
    ),
    {
        "resourceType": "Questionnaire",
        "id": "q",
        "status": "active",
        "url": "http://example.org/forms/one/two",
    },
    *(
        {"resourceType": "Task", "id": name, "status": "ready", "intent": "order", "for": {"reference": "Group/g"}, "focus": {"reference": reference}}
        for name, reference in [
            ("here", "Specimen/s1"),
            ("in-full", "http://site.test/fhir/Specimen/s1"),
            ("elsewhere", "http://other.test/fhir/Specimen/s1"),
            ("version", "Specimen/s1/_history/1"),
            ("urn", "urn:uuid:c757873d-ec9a-4326-a141-556f43239520"),
        ]
    ),
    {"resourceType": "RiskAssessment", "id": "r", "status": "final", "subject": {"reference": "Group/g"}, "prediction": [{"probabilityDecimal": 0.25}]},
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(embedded_server: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    folder: Path = tmp_path_factory.mktemp("search")
    async with served_site(embedded_server, folder) as site:
        headers = {**await site.headers(*BOTH), "content-type": "application/fhir+json"}
        for resource in RESOURCES:
            path = f"/fhir/{resource['resourceType']}/{resource['id']}"
            answer = await site.client.put(path, content=json.dumps({**resource, "meta": TAG}), headers=headers)
            assert answer.status_code == 201, answer.text
        await site.caught_up()
        yield site


async def search(site: Site, query: str, **headers: str) -> httpx.Response:
    return await site.client.get(f"/fhir/{query}", headers={**await site.headers("fhir:read"), **headers})


async def ids(site: Site, query: str, mode: str = "match") -> list[str]:
    answer = await search(site, query)
    assert answer.status_code == 200, answer.text
    entries = answer.json().get("entry", [])
    return [f"{e['resource']['resourceType']}/{e['resource']['id']}" for e in entries if e["search"]["mode"] == mode]


@pytest.mark.parametrize(
    ("query", "found"),
    [
        ("Specimen?_tag=urn:test|search&collected:missing=true", ["s1", "s2", "s3"]),
        ("Specimen?type=urn:kind|blood", ["s1", "s2"]),
        ("Specimen?type:not=blood", ["s3"]),
        ("Specimen?type:text=venous", ["s1", "s2"]),
        ("Specimen?type:code-text=BLO", ["s1", "s2"]),
        ("Specimen?type:missing=true", []),
        ("Specimen?identifier:of-type=urn:t|ACSN|S2", ["s2"]),
        ("Specimen?collector:PractitionerRole.organization.name=haus sud", ["s1"]),
        ("Specimen?collector:Practitioner.name=WEISS", ["s2", "s3"]),
        ("Specimen?collector:Practitioner.name:exact=WEISS", []),
        ("Specimen?collector=Practitioner/doc", ["s2", "s3"]),
        ("Practitioner?_has:PractitionerRole:practitioner:organization.name=Haus", ["doc"]),
        ("Practitioner?_has:Specimen:collector:type=nothing", []),
        ("Task?focus=Specimen/s1&_sort=_id", ["here", "in-full", "version"]),
        ("Task?focus=http://site.test/fhir/Specimen/s1&_sort=_id", ["here", "in-full", "version"]),
        ("Task?focus:Specimen=s1&_sort=_id", ["here", "in-full", "version"]),
        ("Task?focus=Specimen/s1/_history/7&_sort=_id", ["here", "in-full", "version"]),
        ("Task?focus=http://other.test/fhir/Specimen/s1", ["elsewhere"]),
        ("Task?focus:Specimen=http://other.test/fhir/Specimen/s1", ["elsewhere"]),
        ("Task?focus:Patient=http://other.test/fhir/Specimen/s1", []),
        ("Task?focus=http://third.test/fhir/Specimen/s1", []),
        ("Task?focus=urn:uuid:c757873d-ec9a-4326-a141-556f43239520", ["urn"]),
        ("Task?focus:missing=true", []),
        ("Specimen?_id:not=s1,s2&_tag=search", ["s3"]),
        ("Specimen?_source:missing=true&_tag:not=search", []),
        ("Specimen?_language:missing=false", []),
        ("Specimen?_profile=http://example.org/none", []),
        ("Specimen?_lastUpdated=gt2000&_sort=-_id&_count=1", ["s3"]),
        ("Questionnaire?url:contains=FORMS", []),
        ("Questionnaire?url:contains=forms/one", ["q"]),
        ("Questionnaire?url:below=http://example.org/forms", ["q"]),
        ("Questionnaire?url:above=http://example.org/forms/one/two/three", ["q"]),
        ("Questionnaire?url=http://example.org/forms", []),
        ("RiskAssessment?probability=ge0.25", ["r"]),
        ("RiskAssessment?probability=0.3", ["r"]),
        ("RiskAssessment?probability=0.30", []),
    ],
)
async def test_a_search_finds(site: Site, query: str, found: list[str]) -> None:
    assert [one.partition("/")[2] for one in await ids(site, query)] == found


async def test_what_matches_refer_to_comes_beside_them(site: Site) -> None:
    query = "Specimen?_id=s1&_include=Specimen:collector&_include:iterate=PractitionerRole:*"
    assert await ids(site, query) == ["Specimen/s1"]
    assert await ids(site, query, "include") == ["PractitionerRole/role", "Organization/house", "Practitioner/doc"]
    assert await ids(site, "Specimen?_id=s1&_include=Specimen:collector:Practitioner", "include") == []


async def test_what_is_referred_to_by_its_url_here_comes_beside_too(site: Site) -> None:
    assert await ids(site, "Task?_id=in-full,elsewhere&_include=Task:focus", "include") == ["Specimen/s1"]
    assert await ids(site, "Specimen?_id=s1&_revinclude=Task:focus", "include") == ["Task/here", "Task/in-full", "Task/version"]


@pytest.mark.parametrize(
    ("query", "why"),
    [
        *((f"Specimen?{name}=x", why) for name, why in NOT_SERVED.items() if name not in ("near", "contains", "section-text", "section-code-text")),
        ("Location?near=1|2", "places"),
        ("Specimen?type:in=x", "terminology"),
        ("Specimen?type:not-in=x", "terminology"),
        ("Specimen?type:above=x", "terminology"),
        ("Specimen?type:text-advanced=x", "words"),
        ("Specimen?collector:below=Practitioner/doc", "hierarchies"),
        ("Specimen?collector:text=doc", "displays"),
        ("Practitioner?family:text=x", "words"),
    ],
)
async def test_what_r5_has_and_is_not_served_is_refused_with_the_reason(site: Site, query: str, why: str) -> None:
    answer = await search(site, query)
    assert answer.status_code == 400 and why in answer.json()["issue"][0]["diagnostics"], answer.text
    assert answer.json()["issue"][0]["code"] == "not-supported"


R5_MODIFIERS = {
    "above", "below", "code-text", "contains", "exact", "identifier", "in", "missing", "not", "not-in", "of-type", "text", "text-advanced",
}  # fmt: skip
OF_TYPE = {
    "token": "Specimen?type",
    "string": "Practitioner?family",
    "uri": "Questionnaire?url",
    "date": "Specimen?collected",
    "number": "RiskAssessment?probability",
    "quantity": "Observation?value-quantity",
    "reference": "Specimen?collector",
    "composite": "Observation?code-value-quantity",
}
VALUES = {"missing": "true", "of-type": "a|b|c"}


@pytest.mark.parametrize("kind", OF_TYPE)
async def test_each_modifier_works_or_is_refused_by_name(site: Site, kind: str) -> None:
    for modifier in sorted(R5_MODIFIERS):
        query = "Specimen?identifier" if (kind, modifier) == ("token", "of-type") else OF_TYPE[kind]
        answer = await search(site, f"{query}:{modifier}={VALUES.get(modifier, 'x')}")
        if modifier in MODIFIERS[kind]:
            assert answer.status_code == 200, (kind, modifier, answer.text)
        else:
            assert answer.status_code == 400 and f":{modifier}" in answer.json()["issue"][0]["diagnostics"], (kind, modifier, answer.text)


async def test_what_refers_to_matches_comes_beside_them(site: Site) -> None:
    query = "Practitioner?_id=doc&_revinclude=Specimen:collector&_revinclude=PractitionerRole:practitioner"
    assert await ids(site, query, "include") == ["Specimen/s2", "Specimen/s3", "PractitionerRole/role"]


async def test_sorted_pages(site: Site) -> None:
    found = []
    answer = await search(site, "Specimen?_sort=type,-identifier&_count=1")
    while True:
        bundle = answer.json()
        found += [one["resource"]["id"] for one in bundle["entry"]]
        following = next((one["url"] for one in bundle["link"] if one["relation"] == "next"), None)
        if following is None:
            break
        answer = await site.client.get(following, headers=await site.headers("fhir:read"))
    assert sorted(found) == ["s1", "s2", "s3"] and found.index("s2") < found.index("s1")


@pytest.mark.parametrize(
    ("query", "name"),
    [
        ("Specimen?nonsense=1", "nonsense"),
        ("Specimen?type:in=http://example.org/vs", "type:in"),
        ("Specimen?type:below=x", "type:below"),
        ("Specimen?type:exact=x", "type:exact"),
        ("Specimen?collector.nonsense=x", "nonsense"),
        ("Specimen?type.code=x", "type.code"),
        ("Specimen?received=ge2024-13", "received"),
        ("Specimen?_sort=nonsense", "_sort"),
        ("Specimen?_include=Specimen:type", "_include"),
        ("Specimen?_include=Nothing:collector", "_include"),
        ("Specimen?_revinclude:again=Specimen:collector", "_revinclude"),
        ("Specimen?_has:Nothing:subject:code=x", "_has:Nothing:subject:code"),
        ("RiskAssessment?probability=much", "probability"),
        ("Specimen?identifier:of-type=a|b", "identifier:of-type"),
        ("Specimen?_text=blood", "_text"),
        ("Observation?code-value-quantity=only", "code-value-quantity"),
    ],
)
async def test_what_cannot_be_searched_by_is_refused_by_name(site: Site, query: str, name: str) -> None:
    answer = await search(site, query)
    assert answer.status_code == 400, answer.text
    (issue,) = answer.json()["issue"]
    assert issue["expression"] == [f"http.{name}"]


async def test_lenient_handling_leaves_out_what_is_not_known_and_says_so(site: Site) -> None:
    answer = await search(site, "Specimen?type:in=x&nonsense=1&_sort=nonsense&type=blood", prefer="handling=lenient")
    bundle = answer.json()
    assert bundle["total"] == 2
    (said,) = [one["resource"]["issue"][0]["diagnostics"] for one in bundle["entry"] if one["search"]["mode"] == "outcome"]
    assert all(name in said for name in ("type:in", "nonsense", "_sort"))
    (own,) = [one["url"] for one in bundle["link"] if one["relation"] == "self"]
    assert "nonsense" not in own and "type=blood" in own


async def test_who_may_not_read_audit_events_learns_nothing_of_them_by_a_search(site: Site) -> None:
    for query in ("Patient?_has:AuditEvent:patient:action=R", "Patient?_revinclude=AuditEvent:patient"):
        assert (await search(site, query)).status_code == 403


@settings(max_examples=300)
@given(
    resource_type=st.sampled_from(resource_types()),
    data=st.data(),
    modifier=st.sampled_from(["", ":missing", ":not", ":exact", ":in", ":Patient", ":identifier", ".name", ".code:text"]),
    value=st.text(st.sampled_from("ab1|$,\\:/.-T%éß\0 "), max_size=12) | st.text(max_size=6),
)
def test_no_search_string_is_too_strange_to_be_parsed_or_refused(resource_type: str, data: st.DataObject, modifier: str, value: str) -> None:
    code = data.draw(st.sampled_from(sorted(supported(resource_type))))
    refused = None
    try:
        Search.parsed(resource_type, [(f"{code}{modifier}", value)], lenient=False)
    except FhirError as error:
        refused = error
    assert refused is None or (refused.status == 400 and refused.expression)
