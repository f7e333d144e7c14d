"""The definitions of the implementation guide can be read from the server that they describe."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio
from served_site import LIVER, LUNG, Site, served_site, slice_of

from domain.findings import finding_key
from projections.fhir import guide
from projections.fhir.vocabulary import GUIDE
from server.as_of import HEADER

pytestmark = pytest.mark.asyncio(loop_scope="module")
STUDY = "1.2.840.9.1"
LUNG_KEY = finding_key(f"{STUDY}.1", "baseline", "lung_left")
PROFILE = "/fhir/StructureDefinition/finding-measurement"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(embedded_server: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    async with served_site(embedded_server, tmp_path_factory.mktemp("guide"), audit_reads=False) as served:
        await served.store(slice_of(STUDY, 1))
        await served.index(f"{STUDY}.1", LIVER, LUNG)
        yield served


async def ask(site: Site, url: str, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await site.client.get(url, headers={**await site.headers("fhir:read"), **named})


async def test_every_definition_is_read_as_it_ships(site: Site) -> None:
    for resource_type in guide.TYPES:
        for one in guide.ids(resource_type):
            answer = await ask(site, f"/fhir/{resource_type}/{one}")
            assert (answer.status_code, answer.json()) == (200, json.loads(guide.definition(resource_type, one) or b""))


SHIPPED = [
    (f"StructureDefinition?url={GUIDE}:StructureDefinition:segmenter", ["segmenter"]),
    ("StructureDefinition?type=BodyStructure&derivation=constraint", ["finding-structure", "series-index"]),
    ("StructureDefinition?kind=resource&base=http://hl7.org/fhir/StructureDefinition/Device", ["segmenter"]),
    ("StructureDefinition?_id=segmenter,nothing", ["segmenter"]),
    ("SearchParameter?code=volume", ["Observation-volume"]),
    ("SearchParameter?base=BodyStructure&status=active&_sort=code", ["BodyStructure-active", "BodyStructure-structure-laterality"]),
    ("ValueSet?name=finding&_sort=_id", ["finding-components", "finding-status"]),
    ("OperationDefinition?code=everything&kind=operation", ["ImagingStudy-everything"]),
    ("ValueSet?status=retired", []),
    ("SearchParameter?component:missing=false", ["Observation-structure-volume"]),
    ("ValueSet?_asof=0&url=urn:anamnesis:fhir:ValueSet:sides", ["sides"]),
]


@pytest.mark.parametrize(("search", "ids"), SHIPPED)
async def test_what_ships_is_found_as_all_else(site: Site, search: str, ids: list[str]) -> None:
    answer = await ask(site, f"/fhir/{search}")
    assert answer.status_code == 200, answer.text
    assert [one["resource"]["id"] for one in answer.json().get("entry", [])] == ids
    assert answer.json()["total"] == len(ids)


async def test_what_ships_is_paged_with_what_clients_wrote(site: Site) -> None:
    headers = await site.headers("fhir:read", "fhir:write")
    mine = {"resourceType": "ValueSet", "id": "mine", "url": "http://example.org/mine", "status": "active", "name": "Mine"}
    assert (await site.client.put("/fhir/ValueSet/mine", json=mine, headers=headers)).status_code in (200, 201)
    found: list[str] = []
    bundle = (await ask(site, "/fhir/ValueSet?_count=2&_total=accurate&_elements=url")).json()
    total = bundle["total"]
    while True:
        found += [one["resource"]["id"] for one in bundle["entry"]]
        following = [one["url"] for one in bundle["link"] if one["relation"] == "next"]
        if not following:
            break
        bundle = (await ask(site, following[0])).json()
    assert found == [*guide.ids("ValueSet"), "mine"] and total == len(found)
    history = (await ask(site, "/fhir/ValueSet/_history")).json()
    assert [one["resource"]["id"] for one in history["entry"]] == ["mine"]  # what ships did not happen here
    assert (await ask(site, "/fhir/ValueSet/sides/_history")).status_code == 404


async def test_a_condition_that_finds_what_ships_writes_nothing(site: Site) -> None:
    headers = {**await site.headers("fhir:read", "fhir:write"), "If-None-Exist": f"url={GUIDE}:ValueSet:sides"}
    mine = {"resourceType": "ValueSet", "url": f"{GUIDE}:ValueSet:sides", "status": "active"}
    for method, path in (("POST", "/fhir/ValueSet"), ("PUT", f"/fhir/ValueSet?url={GUIDE}:ValueSet:sides")):
        assert (await site.client.request(method, path, json=mine, headers=headers)).status_code == 405
    assert (await site.client.delete(f"/fhir/ValueSet?url={GUIDE}:ValueSet:sides", headers=headers)).status_code == 405
    assert (await ask(site, "/fhir/ValueSet/sides")).status_code == 200


async def test_a_definition_is_sent_once_and_says_its_version(site: Site) -> None:
    answer = await ask(site, PROFILE)
    assert answer.headers["etag"] == f'W/"{guide.version()}"' and HEADER.lower() in answer.headers
    assert (await ask(site, PROFILE, If_None_Match=answer.headers["etag"])).status_code == 304
    assert (await ask(site, PROFILE, If_Modified_Since="Sat, 21 Nov 2026 00:00:00 GMT")).status_code == 200


async def test_a_part_of_it_can_be_asked_for(site: Site) -> None:
    part = (await ask(site, f"{PROFILE}?_elements=url,title")).json()
    assert part["url"] == guide.profile_url("finding-measurement") and "snapshot" not in part


async def test_what_the_guide_has_not_is_not_found(site: Site) -> None:
    for url in ("/fhir/StructureDefinition/nothing", "/fhir/Patient/finding-measurement", f"{PROFILE}/_history/1"):
        assert (await ask(site, url)).status_code == 404


async def test_nobody_writes_a_definition_that_ships(site: Site) -> None:
    headers = await site.headers("fhir:read", "fhir:write")
    definition = guide.definition("ValueSet", "sides")
    for method, body in (("PUT", definition), ("DELETE", None)):
        refused = await site.client.request(
            method, "/fhir/ValueSet/sides", content=body, headers={**headers, "Content-Type": "application/fhir+json"}
        )
        assert refused.status_code == 405, refused.text
        assert refused.json()["issue"][0]["expression"]
    assert (await ask(site, "/fhir/ValueSet/sides")).content == definition


FOUND = [
    ("BodyStructure?structure-laterality=http://snomed.info/sct|7771000&description:missing=false", None),
    ("BodyStructure?structure-laterality=http://snomed.info/sct|7771000", 2),
    ("BodyStructure?structure-laterality=http://snomed.info/sct|24028007", 0),
    ("BodyStructure?active=true", 3),
    ("BodyStructure?active=false", 0),
    (f"ImagingSelection?series-uid={STUDY}.1", 1),
    (f"ImagingSelection?series-uid={STUDY}.2", 0),
    (f"Observation?body-structure=BodyStructure/{LUNG_KEY}", 1),
    ("Observation?body-structure.included_structure=http://snomed.info/sct|39607008", 1),
    ("Observation?body-structure.structure-laterality=7771000", 1),
    ("Observation?body-site:missing=true", 2),
    ("Observation?body-site=39607008", 0),
    ("Observation?volume=10||mm3", 2),
    ("Observation?volume=0.01|http://unitsofmeasure.org|mL", 2),
    ("Observation?volume=gt10||mm3", 0),
    (f"Observation?structure-volume=BodyStructure/{LUNG_KEY}$ge10||mm3", 1),
    (f"Observation?structure-volume=BodyStructure/{LUNG_KEY}$gt10||mm3", 0),
    ("Provenance?agent-identifier=urn:anamnesis:principal|nobody", 0),
]
"""Search by a parameter of the guide → how many it finds (None: it is refused)."""


@pytest.mark.parametrize(("search", "count"), FOUND)
async def test_the_parameters_of_the_guide_find_what_they_say(site: Site, search: str, count: int | None) -> None:
    answer = await ask(site, f"/fhir/{search}")
    if count is None:
        assert (answer.status_code, answer.json()["resourceType"]) == (400, "OperationOutcome")
    else:
        assert answer.status_code == 200, answer.text
        assert answer.json()["total"] == count == len(answer.json().get("entry", []))


async def test_who_acted_is_found_by_identifier(site: Site) -> None:
    everything = (await ask(site, "/fhir/Provenance")).json()
    who = next(one["resource"]["agent"][0]["who"]["identifier"] for one in everything["entry"] if "identifier" in one["resource"]["agent"][0]["who"])
    found = (await ask(site, f"/fhir/Provenance?agent-identifier={who['system']}|{who['value']}")).json()
    assert 0 < found["total"] < everything["total"]


async def test_every_parameter_of_the_guide_is_tried() -> None:
    tried = {search.partition("=")[0].partition(":")[0] for search, _ in FOUND}
    assert tried >= {f"{one.base[0]}?{one.code}" for one in guide.search_parameters() if one.base != ("Resource",)}


async def test_the_capability_statement_names_the_guide_and_profiles_that_are_there(site: Site) -> None:
    statement = (await ask(site, "/fhir/metadata")).json()
    assert [guide.by_url(url) for url in statement["implementationGuide"]] == [(await ask(site, "/fhir/ImplementationGuide/anamnesis")).json()]
    of_all = {one["name"]: one.get("definition") for one in statement["rest"][0]["searchParam"]}
    assert of_all["_asof"] == f"{GUIDE}:SearchParameter:Resource-asof"
    of_observation = next(one for one in statement["rest"][0]["resource"] if one["type"] == "Observation")
    urls = {one["name"]: one.get("definition") for one in of_observation["searchParam"]}
    assert urls["body-structure"] == f"{GUIDE}:SearchParameter:Observation-body-structure"
    assert urls["status"] == "http://hl7.org/fhir/SearchParameter/Observation-status"
    named = {url for one in statement["rest"][0]["resource"] for url in one.get("supportedProfile", [])}
    assert named == {guide.profile_url(one) for ids in guide.PROFILES.values() for one in ids}
    for url in named:
        assert (await ask(site, f"/fhir/StructureDefinition/{url.rpartition(':')[2]}")).json()["url"] == url
