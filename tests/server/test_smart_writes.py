"""What is written with scopes of SMART: what stands there has to be within them, and what is made; alone, by a condition, in a Bundle."""

from __future__ import annotations

import base64
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from hypothesis import given, settings
from hypothesis import strategies as st
from served_site import Site, served_site
from smart_world import Json, Scope, World, make, observation, scopes, world

pytestmark = pytest.mark.asyncio(loop_scope="module")
IDS = [*(f"value{nth}-{number}" for nth in (0, 1) for number in range(3)), "nobody", "both", "new0", "new1"]
grants = st.lists(
    scopes(["c", "u", "d", "cud", "cruds", "cruds", "cus", "rs"]).filter(lambda one: one.type in ("Observation", "*")), min_size=1, max_size=3
)
contents = st.tuples(st.integers(0, 2), st.sampled_from(["final", "preliminary", "amended"]), st.integers(0, 2))
writes = st.tuples(st.sampled_from(["PUT", "PUT", "PATCH", "POST", "DELETE"]), st.sampled_from(IDS), contents)


class Made:
    def __init__(self, site: Site, patients: list[str], there: World) -> None:
        self.site, self.patients, self.world = site, patients, there
        self.standing: dict[str, Json] = {
            one.id: one.body for one in there.standing.values() if one.type == "Observation" and one.body is not None and one.id in IDS
        }
        of = {f"Patient/{one}": nth for nth, one in enumerate(patients)}
        written = [one for one in there.versions if one.type == "Observation" and one.body is not None and one.id in IDS]
        self.subjects = {one.id: of.get((one.body or {}).get("subject", {}).get("reference"), 2) for one in written}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def made(embedded_server: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Made]:
    folder: Path = tmp_path_factory.mktemp("smartwrites")
    async with served_site(embedded_server, folder, audit_reads=False) as site:
        patients = await make(site)
        yield Made(site, patients, await world(site))


async def send(site: Site, headers: dict[str, str], method: str, path: str, body: Any = None, **more: str) -> httpx.Response:
    kind = "application/json-patch+json" if isinstance(body, list) else "application/fhir+json"
    sent = {**headers, "content-type": kind, **{name.replace("_", "-"): value for name, value in more.items()}}
    content = None if body is None else json.dumps(body)
    return await site.client.request(method, f"/fhir/{path}".rstrip("/"), content=content, headers=sent)


class Rules:
    """What server/fhir/writing/rights.py should come to, said in the plainest way."""

    def __init__(self, made: Made, grant: Sequence[Scope], patient: str) -> None:
        self._world, self._grant, self._patient = made.world, grant, patient

    def may(self, letter: str) -> bool:
        return any(letter in one.letters for one in self._grant)

    def limited(self, letter: str) -> bool:
        return not any(letter in one.letters and one.level != "patient" and not one.query for one in self._grant)

    def shows(self, letter: str, body: Json) -> bool:
        return self._world.shows(self._grant, self._patient, letter, body)

    def status(self, method: str, before: Json | None, after: Json | None, *, was_there: bool) -> int:
        letter = {"POST": "c", "DELETE": "d"}.get(method, "u")
        if not self.may(letter):
            return 403
        if method != "POST" and self.limited(letter):
            if before is None:
                return 404
            if not self.shows(letter, before):
                return 403 if self.shows("r", before) or self.shows("s", before) else 404
        if method == "DELETE":
            return 204
        if before is None and method == "PATCH":
            return 410 if was_there else 404
        if before is None and not self.may("c"):
            return 403
        assert after is not None
        return (201 if before is None else 200) if self.shows("u" if before else "c", after) else 403


@settings(max_examples=60)
@given(grant=grants, who=st.integers(0, 1), asked=st.lists(writes, min_size=1, max_size=6), way=st.sampled_from(["alone", "batch", "transaction"]))
async def test_a_write_stays_within_the_scopes(made: Made, grant: list[Scope], who: int, asked: list[Any], way: str) -> None:
    """Whatever the way; where it is refused nothing changes."""
    headers = await made.site.headers(*map(str, grant), patient=made.patients[who])
    rules = Rules(made, grant, made.patients[who])
    for method, resource_id, (subject, status, number) in asked:
        of = None if subject == 2 else {"reference": f"Patient/{made.patients[subject]}"}
        before = made.standing.get(resource_id) if method != "POST" else None
        if method == "PATCH":
            body: Any = [{"op": "replace", "path": "/status", "value": status}]
            after = None if before is None else {**before, "status": status}
        else:
            body = after = None if method == "DELETE" else observation(resource_id, of, status, 0, number)
        if method == "PUT" and made.subjects.get(resource_id, subject) != subject:
            continue  # a resource is of one patient for ever, deleted or not
        path = "Observation" if method == "POST" else f"Observation/{resource_id}"
        expected = rules.status(method, before, after, was_there=resource_id in made.subjects)
        answer = await _send(made.site, headers, way, method, path, body)
        assert answer[0] == expected, (method, path, before, after, answer)
        if way != "transaction" and expected < 300 and method != "DELETE":
            assert after is not None
            assert bool(answer[1]) == rules.shows("r", after), answer
        if expected < 300 and method != "POST":
            if after is None:
                made.standing.pop(resource_id, None)
            else:
                made.standing[resource_id] = after
                made.subjects.setdefault(resource_id, subject)
        elif method != "POST":
            stands = await made.site.client.get(f"/fhir/{path}", headers=await made.site.headers("fhir:read"))
            assert (stands.status_code == 200) == (before is not None)
            if before is not None:
                assert stands.json()["status"] == before["status"]


async def _send(site: Site, headers: dict[str, str], way: str, method: str, path: str, body: Any) -> tuple[int, Any]:
    """The status of the one write, and what was answered of the resource."""
    if way == "alone":
        answer = await send(site, headers, method, path, body)
        return answer.status_code, answer.json() if answer.content and answer.status_code < 300 else None
    resource = body
    if isinstance(body, list):
        data = base64.b64encode(json.dumps(body).encode()).decode()
        resource = {"resourceType": "Binary", "contentType": "application/json-patch+json", "data": data}
    entry = {"request": {"method": method, "url": path}, **({"resource": resource} if resource is not None else {})}
    answer = await send(site, headers, "POST", "", {"resourceType": "Bundle", "type": way, "entry": [entry]})
    if way == "transaction" and answer.status_code != 200:
        return answer.status_code, None
    assert answer.status_code == 200, answer.text
    (made,) = answer.json()["entry"]
    return int(made["response"]["status"][:3]), made.get("resource")


async def test_a_condition_finds_what_one_may_search(made: Made) -> None:
    """Of another patient's it finds nothing, and so makes a new one; which of two was there first, nobody can tell."""
    woman, man = made.patients
    everybody = await made.site.headers("fhir:read", "fhir:write")
    hers = await made.site.headers("patient/Condition.cruds", patient=woman)
    identifier = [{"system": "urn:conditional", "value": "1"}]

    def condition(patient: str, text: str = "a") -> Json:
        subject = {"reference": f"Patient/{patient}"}
        return {"resourceType": "Condition", "clinicalStatus": {"text": text}, "identifier": identifier, "subject": subject}

    query = "identifier=urn:conditional|1"
    his = await send(made.site, everybody, "POST", "Condition", condition(man), if_none_exist=query)
    assert his.status_code == 201
    for method, path, more in (("DELETE", f"Condition?{query}", {}), ("PATCH", f"Condition?{query}", {})):
        body = [{"op": "replace", "path": "/clinicalStatus/text", "value": "b"}] if method == "PATCH" else None
        answer = await send(made.site, hers, method, path, body, **more)
        assert answer.status_code == (404 if method == "PATCH" else 204), answer.text
    assert (await send(made.site, hers, "POST", "Condition", condition(man), if_none_exist=query)).status_code == 403
    made_hers = await send(made.site, hers, "POST", "Condition", condition(woman), if_none_exist=query)
    assert made_hers.status_code == 201, made_hers.text
    again = await send(made.site, hers, "POST", "Condition", condition(woman), if_none_exist=query)
    assert (again.status_code, again.json()["id"]) == (200, made_hers.json()["id"])
    replaced = await send(made.site, hers, "PUT", f"Condition?{query}", condition(woman, "b"))
    assert (replaced.status_code, replaced.json()["id"]) == (200, made_hers.json()["id"])
    untouched = await send(made.site, everybody, "GET", f"Condition/{his.json()['id']}")
    assert untouched.json()["clinicalStatus"] == {"text": "a"}
    # Without `s` a condition asks what may not be asked.
    blind = await made.site.headers("patient/Condition.cud", patient=woman)
    refused = await send(made.site, blind, "POST", "Condition", condition(woman), if_none_exist=query)
    assert refused.status_code == 403 and 'scope="patient/Condition.s"' in refused.headers["www-authenticate"]


async def test_a_transaction_is_refused_as_a_whole_and_its_references_are_looked_up_within_reach(made: Made) -> None:
    woman, man = made.patients
    hers = await made.site.headers("patient/*.cruds", patient=woman)
    before = (await send(made.site, hers, "GET", "Condition")).json()["total"]

    def entry(patient: str, subject: str | None = None) -> Json:
        resource = {"resourceType": "Condition", "clinicalStatus": {"text": "a"}, "subject": {"reference": subject or f"Patient/{patient}"}}
        return {"request": {"method": "POST", "url": "Condition"}, "resource": resource}

    bundle = {"resourceType": "Bundle", "type": "transaction", "entry": [entry(woman), entry(man)]}
    refused = await send(made.site, hers, "POST", "", bundle)
    assert refused.status_code == 403
    assert refused.json()["issue"][0]["expression"] == ["Bundle.entry[1].resource"]
    assert (await send(made.site, hers, "GET", "Condition")).json()["total"] == before
    for gender, status in (("male", 412), ("female", 200)):
        bundle["entry"] = [entry(woman, f"Patient?gender={gender}")]
        answer = await send(made.site, hers, "POST", "", bundle)
        assert answer.status_code == status, answer.text


async def test_a_finding_is_reviewed_within_reach(made: Made) -> None:
    """Beside reviews:write; of another patient's finding nothing is known."""
    woman, man = made.patients
    for patient, expected in ((man, 404), (woman, 200)):
        page = (await send(made.site, await made.site.headers("fhir:read"), "GET", f"Observation?patient={patient}&_count=100")).json()
        found = [one["resource"] for one in page["entry"] if one["resource"]["status"] == "preliminary" and len(one["resource"]["id"]) == 36]
        assert found
        patch = [{"op": "replace", "path": "/status", "value": "final"}]
        path = f"Observation/{found[0]['id']}"
        without = await made.site.headers("patient/*.cruds", patient=woman)
        assert (await send(made.site, without, "PATCH", path, patch)).status_code == (403 if expected == 200 else 404)
        within = await made.site.headers("patient/*.cruds", "reviews:write", patient=woman)
        held = await made.site.headers("patient/*.rs", "patient/Observation.u?status=preliminary", "reviews:write", patient=woman)
        assert (await send(made.site, held, "PATCH", path, patch)).status_code == (403 if expected == 200 else 404)
        assert (await send(made.site, within, "PATCH", path, patch)).status_code == expected
