"""The definitions of the implementation guide can be read from the server that they describe."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

import httpx
import pytest
import pytest_asyncio
from served_site import Site, served_site

from projections.fhir import guide
from projections.fhir.vocabulary import GUIDE
from server.as_of import HEADER

pytestmark = pytest.mark.asyncio(loop_scope="module")
PROFILE = "/fhir/StructureDefinition/finding-measurement"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(embedded_server: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    async with served_site(embedded_server, tmp_path_factory.mktemp("guide"), audit_reads=False) as served:
        yield served


async def ask(site: Site, url: str, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await site.client.get(url, headers={**await site.headers("fhir:read"), **named})


async def test_every_definition_is_read_as_it_ships(site: Site) -> None:
    for resource_type in guide.TYPES:
        for one in guide.ids(resource_type):
            answer = await ask(site, f"/fhir/{resource_type}/{one}")
            assert (answer.status_code, answer.json()) == (200, json.loads(guide.definition(resource_type, one) or b""))


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


async def test_the_capability_statement_names_the_guide_and_profiles_that_are_there(site: Site) -> None:
    statement = (await ask(site, "/fhir/metadata")).json()
    assert [guide.by_url(url) for url in statement["implementationGuide"]] == [(await ask(site, "/fhir/ImplementationGuide/anamnesis")).json()]
    assert statement["rest"][0]["searchParam"][0]["definition"] == f"{GUIDE}:SearchParameter:Resource-asof"
    of_observation = next(one for one in statement["rest"][0]["resource"] if one["type"] == "Observation")
    urls = {one["name"]: one.get("definition") for one in of_observation["searchParam"]}
    assert urls["body-structure"] == f"{GUIDE}:SearchParameter:Observation-body-structure"
    assert urls["status"] == "http://hl7.org/fhir/SearchParameter/Observation-status"
    named = {url for one in statement["rest"][0]["resource"] for url in one.get("supportedProfile", [])}
    assert named == {guide.profile_url(one) for ids in guide.PROFILES.values() for one in ids}
    for url in named:
        assert (await ask(site, f"/fhir/StructureDefinition/{url.rpartition(':')[2]}")).json()["url"] == url
