"""Whatever scopes of SMART a token has, and whatever way it takes: nothing beyond them is ever in an answer, and nothing within is missing.

Held against a plain look at every version that there is (tests/smart_world.py).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st
from served_site import Site, served_site
from smart_world import OF_PATIENT, TYPES, Json, Scope, Version, World, make, patients_of, scopes, world

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.slow]
grants = st.lists(scopes(["r", "s", "rs", "rs", "cruds"]), min_size=1, max_size=3)


@dataclass(repr=False)
class Made:
    site: Site
    patients: list[str]
    now: World
    earlier: World
    middle: int


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def made(embedded_server: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Made]:
    folder: Path = tmp_path_factory.mktemp("reach")
    async with served_site(embedded_server, folder, audit_reads=False) as site:
        patients = await make(site)
        middle = await site.caught_up() - 9
        yield Made(site, patients, await world(site), await world(site, middle), middle)


@dataclass(repr=False)
class Asker:
    """Somebody with a grant, and what the plain look says that it shows."""

    made: Made
    grant: Sequence[Scope]
    patient: str

    async def get(self, path: str) -> httpx.Response:
        scopes = [str(one) for one in self.grant]
        url = path if path.startswith("http") else f"/fhir/{path}".replace("/?", "?")
        return await self.made.site.client.get(url, headers=await self.made.site.headers(*scopes, patient=self.patient))

    async def entries(self, path: str) -> list[Json] | None:
        """Of all pages; None where it is refused, by a name."""
        found: list[Json] = []
        url: str | None = path
        while url:
            answer = await self.get(url)
            if answer.status_code == 403:
                assert "needs the scope" in answer.json()["issue"][0]["diagnostics"]
                return None
            assert answer.status_code == 200, (path, answer.text)
            page = answer.json()
            if "total" in page and url == path:
                total = page["total"]
            found += page.get("entry", [])
            url = next((one["url"] for one in page["link"] if one["relation"] == "next"), None)
        if "total" in page:
            assert total == len([one for one in found if one.get("search", {}).get("mode") != "include"])
        return found

    async def search(self, path: str) -> list[str] | None:
        entries = await self.entries(path)
        return None if entries is None else sorted(named(one["resource"]) for one in entries)

    def may(self, letter: str, kind: str) -> bool:
        """With some resource of the type, real or not."""
        return any(
            letter in one.letters and one.type in ("*", kind) and (one.level != "patient" or kind in OF_PATIENT or kind == "Basic")
            for one in self.grant
        )

    def found(self, letter: str = "s", at: World | None = None) -> dict[str, Json]:
        return (at or self.made.now).found(self.grant, self.patient, letter)

    def history(self, letter: str, at: World | None = None) -> list[Version]:
        return (at or self.made.now).history(self.grant, self.patient, letter)


def named(resource: Json) -> str:
    return f"{resource['resourceType']}/{resource['id']}"


def refers(resource: Any) -> set[str]:
    """Every reference that stands anywhere in it."""
    if isinstance(resource, dict):
        own = {resource["reference"]} if isinstance(resource.get("reference"), str) else set()
        return own.union(*(refers(one) for one in resource.values()))
    return set().union(*(refers(one) for one in resource)) if isinstance(resource, list) else set()


def asked(number: int) -> Any:
    """A test over so many random grants of this module's site."""

    def decorate(test: Any) -> Any:
        return settings(max_examples=number)(given(grant=grants, who=st.integers(0, 1))(test))

    return decorate


@asked(60)
async def test_a_search_finds_what_is_within_reach(made: Made, grant: list[Scope], who: int) -> None:
    asker = Asker(made, grant, made.patients[who])
    for kind in TYPES:
        expected = sorted(one for one in asker.found() if one.startswith(f"{kind}/"))
        found = await asker.search(f"{kind}?_count=2")
        assert found == (expected if asker.may("s", kind) else None), kind
    before = asker.found(at=made.earlier)
    found = await asker.search(f"Observation?_asof={made.middle}&_sort=-date,status")
    assert found == (sorted(one for one in before if one.startswith("Observation/")) if asker.may("s", "Observation") else None)
    for patient in made.patients:
        for kind in ("Observation", "Condition", "Patient"):
            own = [one for one in asker.found().values() if one["resourceType"] == kind]
            there = sorted(named(one) for one in own if f"Patient/{patient}" in patients_of(one))
            found = await asker.search(f"Patient/{patient}/{kind}")
            assert found == (there if asker.may("s", kind) else None)
    several = await asker.search("?_type=Observation,Patient&_count=3")
    expected = sorted(one for one in asker.found() if one.startswith(("Observation/", "Patient/")))
    assert several == (expected if asker.may("s", "Observation") and asker.may("s", "Patient") else None)
    form = await made.site.client.post(
        "/fhir/Observation/_search", headers=await made.site.headers(*map(str, grant), patient=asker.patient), data={"code": "b"}
    )
    assert (form.status_code == 200) == asker.may("s", "Observation")
    if form.status_code == 200:
        b = [one for one in asker.found().values() if one["resourceType"] == "Observation"]
        assert form.json()["total"] == len([one for one in b if one["code"].get("coding", [{}])[0].get("code") == "b"])


@asked(60)
async def test_a_chain_sees_only_what_one_may_search(made: Made, grant: list[Scope], who: int) -> None:
    asker = Asker(made, grant, made.patients[who])
    there = asker.found()
    women = {one for one, body in there.items() if one.startswith("Patient/") and body.get("gender") == "female"}
    observations = {one: body for one, body in there.items() if one.startswith("Observation/")}

    async def check(path: str, through: Sequence[str], expected: set[str]) -> None:
        found = await asker.search(path)
        assert found == (sorted(expected) if all(asker.may("s", kind) for kind in through) else None), path

    of_women = {one for one, body in observations.items() if body.get("subject", {}).get("reference") in women}
    await check("Observation?subject:Patient.gender=female", ("Observation", "Patient"), of_women)
    await check("Observation?patient.gender=female", ("Observation", "Patient"), of_women)
    finals = {body.get("subject", {}).get("reference") for body in observations.values() if body["status"] == "final"}
    await check("Patient?_has:Observation:subject:status=final", ("Observation", "Patient"), {one for one in there if one.startswith("Patient/")} & finals)
    adlers = {one for one, body in there.items() if one.startswith("Practitioner/") and body["name"][0]["family"] == "Adler"}
    by_adler = {one for one, body in observations.items() if adlers & refers(body.get("performer", []))}
    reports = {
        one for one, body in there.items() if one.startswith("DiagnosticReport/") and by_adler & refers(body.get("result", []))
    }
    path = "DiagnosticReport?result:Observation.performer:Practitioner.family=Adler"
    await check(path, ("DiagnosticReport", "Observation", "Practitioner"), reports)
    visited = {
        one
        for one in there
        if one.startswith("Encounter/") and any(body.get("encounter", {}).get("reference") == one for key, body in observations.items() if key in by_adler)
    }
    path = "Encounter?_has:Observation:encounter:performer:Practitioner.family=Adler"
    await check(path, ("Encounter", "Observation", "Practitioner"), visited)


@asked(60)
async def test_what_comes_beside_matches_is_within_reach(made: Made, grant: list[Scope], who: int) -> None:
    asker = Asker(made, grant, made.patients[who])
    readable, found = asker.found("r"), asker.found("s")
    reports = {one: body for one, body in found.items() if one.startswith("DiagnosticReport/")}

    async def check(path: str, through: Sequence[tuple[str, str]], expected: set[str]) -> None:
        entries = await asker.entries(path)
        if not all(asker.may(letter, kind) for letter, kind in through):
            assert entries is None, path
            return
        assert entries is not None, path
        beside = sorted(named(one["resource"]) for one in entries if one["search"]["mode"] == "include")
        assert beside == sorted(expected), path

    results = {one for body in reports.values() for one in refers(body["result"])} & readable.keys()
    search = ("s", "DiagnosticReport")
    await check("DiagnosticReport?_include=DiagnosticReport:result:Observation", (search, ("r", "Observation")), results)
    performers = {one for kind in results for one in refers(readable[kind].get("performer", []))} & readable.keys()
    path = "DiagnosticReport?_include=DiagnosticReport:result:Observation&_include:iterate=Observation:performer"
    await check(path, (search, ("r", "Observation")), results | performers)
    everything = {one for body in reports.values() for one in refers(body)} & readable.keys()
    await check("DiagnosticReport?_include=DiagnosticReport:*", (search,), everything)
    observations = {one: body for one, body in found.items() if one.startswith("Observation/")}
    visits = {one for one in found if one.startswith("Encounter/")}
    path = "Encounter?_revinclude=Observation:encounter"
    expected = {one for one, body in observations.items() if body.get("encounter", {}).get("reference") in visits}
    await check(path, (("s", "Encounter"), ("s", "Observation")), expected)


@asked(25)
async def test_a_read_of_what_is_out_of_reach_is_one_of_what_is_not_there(made: Made, grant: list[Scope], who: int) -> None:
    asker = Asker(made, grant, made.patients[who])
    for at, suffix in ((made.now, ""), (made.earlier, f"?_asof={made.middle}")):
        within = {one.url for one in asker.history("r", at)}
        latest = {one.named: one for one in sorted(at.versions, key=lambda one: one.version)}
        for one in at.versions:
            if one.type not in TYPES:
                continue
            expected = 403 if not asker.may("r", one.type) else 404 if one.url not in within else 410 if one.body is None else 200
            for path in (one.url, f"{one.url}/$meta"):
                await _reads(asker, path, suffix, one, expected)
            if latest[one.named] == one:
                for path in (one.named, f"{one.named}/$meta", f"{one.named}/$validate"):
                    await _reads(asker, path, suffix, one, expected)


async def _reads(asker: Asker, path: str, suffix: str, version: Version, expected: int) -> None:
    answer = await asker.get(f"{path}{suffix}")
    assert answer.status_code == expected, (path, answer.text)
    if expected == 404:  # in the very words of what never was
        nothing = await asker.get(f"{path.replace(version.id, 'nothing')}{suffix}")
        assert nothing.text.replace("nothing", version.id) == answer.text
        assert nothing.headers.keys() == answer.headers.keys()


@asked(40)
async def test_histories_show_the_versions_within_reach(made: Made, grant: list[Scope], who: int) -> None:
    asker = Asker(made, grant, made.patients[who])
    for at, more in ((made.now, ""), (made.earlier, f"&_asof={made.middle}")):
        searched = [one.url for one in asker.history("s", at)]
        readable = [one.url for one in asker.history("r", at)]
        if any("s" in one.letters for one in grant):
            assert await _history(asker, f"_history?_count=7&_sort=_lastUpdated{more}") == searched
            assert await _history(asker, f"_history?_count=1000{more}") == searched[::-1]
        for kind in ("Observation", "Patient", "Practitioner"):
            own = [one for one in searched if one.startswith(f"{kind}/")]
            found = await _history(asker, f"{kind}/_history?_count=3&_sort=_lastUpdated{more}")
            assert found == (own if asker.may("s", kind) else None), kind
        for one in {one.named for one in at.versions if one.type in ("Observation", "Patient")}:
            own = [url for url in readable if url.startswith(f"{one}/")]
            if own:
                assert await _history(asker, f"{one}/_history?_sort=_lastUpdated&_count=1{more}") == own
            else:
                assert (await asker.get(f"{one}/_history?{more}")).status_code == (404 if asker.may("r", one.split("/")[0]) else 403)


async def _history(asker: Asker, path: str) -> list[str] | None:
    entries = await asker.entries(path)
    if entries is None:
        return None
    return ["/".join([*one["fullUrl"].split("/")[-2:], "_history", one["response"]["etag"][3:-1]]) for one in entries]


@asked(40)
async def test_everything_is_what_may_be_read(made: Made, grant: list[Scope], who: int) -> None:
    asker = Asker(made, grant, made.patients[who])
    readable = asker.found("r")
    for patient in made.patients:
        focal = f"Patient/{patient}"
        plain = await made.site.client.get(f"/fhir/{focal}/$everything?_count=1000", headers=await made.site.headers("fhir:read"))
        whole = {named(one["resource"]) for one in plain.json()["entry"]}
        if focal not in readable:
            answer = await asker.get(f"{focal}/$everything")
            assert answer.status_code == (404 if asker.may("r", "Patient") else 403)
            continue
        found = set(await asker.search(f"{focal}/$everything?_count=3") or [])
        own = {one for one, body in readable.items() if focal in patients_of(body)}
        referred = {one for body in (readable[one] for one in own) for one in refers(body)} & readable.keys() & whole
        assert own <= found <= whole & readable.keys()
        assert referred <= found


async def test_other_ways_to_the_same_tell_no_more(made: Made) -> None:
    """HEAD, a conditional read, counts, entries of a Bundle, validation in place of what is here."""
    site, (woman, man) = made.site, made.patients
    hers = await site.headers("patient/*.cruds", patient=woman)
    everybody = await site.headers("fhir:read")
    for number, status in (("value0-0", 200), ("value1-0", 404), ("nothing", 404)):
        path = f"/fhir/Observation/{number}"
        assert (await site.client.head(path, headers=hers)).status_code == status
        etag = (await site.client.get(path, headers=everybody)).headers.get("etag", 'W/"1"')
        conditional = await site.client.get(path, headers={**hers, "If-None-Match": etag})
        assert conditional.status_code == (304 if status == 200 else 404)
        for kind in ("batch", "transaction"):
            bundle = {"resourceType": "Bundle", "type": kind, "entry": [{"request": {"method": "GET", "url": f"Observation/{number}"}}]}
            (entry,) = (await site.client.post("/fhir", headers=hers, json=bundle)).json()["entry"]
            assert entry["response"]["status"][:3] == str(status)
            assert ("resource" in entry) == (status == 200)
        body = {"resourceType": "Observation", "id": number, "status": "final", "code": {"text": "a"}}
        validated = await site.client.post(f"{path}/$validate?mode=update", headers=hers, json=body)
        assert validated.status_code == status
        deleting = await site.client.get(f"{path}/$validate?mode=delete", headers=hers)
        assert deleting.status_code == status
    for path, there in (("Observation", "value1-0"), (f"Patient/{man}/Observation", "value1-0"), ("Observation", "value0-0")):
        for how in ("_summary=count", "_count=0", "_total=accurate&_count=1"):
            counted = (await site.client.get(f"/fhir/{path}?_id={there}&{how}", headers=hers)).json()
            assert counted["total"] == (1 if there == "value0-0" else 0)
    assert (await site.client.get(f"/fhir/Patient/{man}/$everything", headers=hers)).status_code == 404
    refused = await site.client.get("/fhir/Practitioner/doctor0", headers=hers)
    assert refused.status_code == 403 and 'scope="patient/Practitioner.r"' in refused.headers["www-authenticate"]
