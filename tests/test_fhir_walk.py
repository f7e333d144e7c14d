"""The whole of FHIR as a program uses it that has nothing but HTTP and a key: discovery, a token, a transaction, searches, a search parameter
of its own, a patch, and an export, against the running server."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from joserfc import jwt
from joserfc.jwk import ECKey
from running_site import PATIENCE_S, Site

KEY = ECKey.generate_key("P-384", {"kid": "walk"})
UCUM = "http://unitsofmeasure.org"
PATIENTS = 3


@dataclass
class Program:
    """What a registered program knows: an address, its client id and its key."""

    base: str
    client_id: str

    def token(self, scope: str) -> str:
        """SMART App Launch 2.2, backend-services.html."""
        address = httpx.get(f"{self.base}/.well-known/smart-configuration").json()["token_endpoint"]
        claims = {"iss": self.client_id, "sub": self.client_id, "aud": address, "exp": int(time.time()) + 60, "jti": uuid4().hex}
        form = {
            "grant_type": "client_credentials",
            "scope": scope,
            "client_assertion_type": "urn:ietf:params:oauth:client-assertion-type:jwt-bearer",
            "client_assertion": jwt.encode({"alg": "ES384", "kid": "walk"}, claims, KEY, algorithms=["ES384"]),
        }
        answer = httpx.post(address, data=form)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["access_token"])

    def client(self, scope: str) -> httpx.Client:
        return httpx.Client(headers={"Authorization": f"Bearer {self.token(scope)}", "Accept": "application/fhir+json"}, timeout=60)


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Program]:
    folder: Path = tmp_path_factory.mktemp("walk")
    site = Site(folder)
    site.run("init")
    site.start_server()
    try:
        site.wait_until_ready()
        (folder / "keys.json").write_text(json.dumps({"keys": [KEY.as_dict(private=False)]}))
        scopes = ("--scope", "system/*.cruds", "--scope", "identities:read")
        client_id = site.run("client", "register", "walk", *scopes, "--jwks", str(folder / "keys.json")).strip()
        yield Program(f"{site.url}/fhir", client_id)
    finally:
        site.stop()


def transaction() -> dict[str, Any]:
    entries = []
    for n in range(PATIENTS):
        patient = f"urn:uuid:{uuid4()}"
        entries.append({"fullUrl": patient, "request": {"method": "POST", "url": "Patient"}, "resource": {"resourceType": "Patient", "name": [{"family": f"Walker{n}"}]}})
        entries += [
            {
                "request": {"method": "PUT", "url": f"Observation/walk-{n}-{nth}"},
                "resource": {
                    "resourceType": "Observation",
                    "id": f"walk-{n}-{nth}",
                    "status": "final",
                    "code": {"coding": [{"system": "http://loinc.org", "code": "walk"}]},
                    "subject": {"reference": patient},
                    "valueQuantity": {"value": 10 * n + nth, "unit": "mL", "system": UCUM, "code": "mL"},
                    "note": [{"text": f"of {n}"}],
                },
            }
            for nth in range(2)
        ]
    return {"resourceType": "Bundle", "type": "transaction", "entry": entries}


def ids(bundle: dict[str, Any]) -> list[str]:
    return [entry["resource"]["id"] for entry in bundle.get("entry", [])]


def answered(answer: httpx.Response, status: int = 200) -> Any:
    assert answer.status_code == status, answer.text
    return answer.json() if answer.content else None


def test_a_program_with_a_key_walks_through_all_of_it(program: Program) -> None:
    base, client = program.base, program.client("system/*.cruds identities:read")
    made = answered(client.post(base, json=transaction()))
    assert [one["response"]["status"][:3] for one in made["entry"]] == ["201"] * 3 * PATIENTS
    patients = [one["response"]["location"].split("/_history/")[0] for one in made["entry"][::3]]

    # Searches: chain, _has, _include, quantities in another unit
    of_walker = answered(client.get(f"{base}/Observation?patient.family=walker2&_sort=value-quantity"))
    assert ids(of_walker) == ["walk-2-0", "walk-2-1"]
    measured = answered(client.get(f"{base}/Patient?_has:Observation:patient:value-quantity=gt0.019|{UCUM}|L"))
    assert [one["fullUrl"] for one in measured["entry"]] == [patients[2]]
    beside = answered(client.get(f"{base}/Observation?_id=walk-0-0&_include=Observation:patient"))
    assert {one["search"]["mode"] for one in beside["entry"]} == {"match", "include"} and len(beside["entry"]) == 2
    back = answered(client.get(f"{base}/Patient?family=walker1&_revinclude=Observation:patient"))
    assert len(back["entry"]) == 3

    # Of two that create the same on a condition, one does
    condition = {"If-None-Exist": "identifier=urn:walk|1"}
    organization = {"resourceType": "Organization", "name": "Walk", "identifier": [{"system": "urn:walk", "value": "1"}]}
    first, again = (client.post(f"{base}/Organization", json=organization, headers=condition) for _ in range(2))
    assert (first.status_code, again.status_code, first.json()["id"]) == (201, 200, again.json()["id"])

    # A search parameter of its own
    parameter = {
        "resourceType": "SearchParameter",
        "id": "note-text",
        "url": "http://example.org/fhir/SearchParameter/note-text",
        "name": "NoteText",
        "status": "active",
        "description": "Text of a note",
        "code": "note-text",
        "base": ["Observation"],
        "type": "string",
        "expression": "Observation.note.text",
    }
    answered(client.put(f"{base}/SearchParameter/note-text", json=parameter), 201)
    noted = until(lambda: client.get(f"{base}/Observation?note-text:exact=of 1"), 503)
    assert ids(noted.json()) == ["walk-1-0", "walk-1-1"]

    # A change of the version that was seen, and what it was before
    patch = [{"op": "replace", "path": "/status", "value": "amended"}]
    headers = {"Content-Type": "application/json-patch+json", "If-Match": 'W/"1"'}
    url = f"{base}/Observation/walk-1-0"
    assert answered(client.patch(url, json=patch, headers=headers))["status"] == "amended"
    answered(client.patch(url, json=patch, headers=headers), 412)
    history = answered(client.get(f"{url}/_history"))
    assert [one["resource"]["status"] for one in history["entry"]] == ["amended", "final"]
    everything = answered(client.get(f"{patients[1]}/$everything?_type=Observation"))
    assert ids(everything) == ["walk-1-0", "walk-1-1"]

    # An export, by a token that reads and no more
    reader = program.client("system/*.rs")
    answered(reader.put(url, json={"resourceType": "Observation", "id": "walk-1-0"}), 403)
    begun = reader.get(f"{base}/$export?_type=Observation,Patient", headers={"Prefer": "respond-async"})
    answered(begun, 202)
    manifest = until(lambda: reader.get(begun.headers["content-location"]), 202).json()
    exported = [json.loads(line) for one in manifest["output"] for line in reader.get(one["url"]).text.splitlines()]
    assert sorted(one["id"] for one in exported if one["resourceType"] == "Observation") == [f"walk-{n}-{nth}" for n in range(PATIENTS) for nth in range(2)]
    people = [one for one in exported if one["resourceType"] == "Patient"]
    assert len(people) == PATIENTS and "Walker" not in json.dumps(people)


def until(ask: Any, not_yet: int) -> httpx.Response:
    """The first answer that has another status."""
    deadline = time.monotonic() + PATIENCE_S
    while (answer := ask()).status_code == not_yet:
        assert time.monotonic() < deadline, answer.text
        time.sleep(0.1)
    answered(answer)
    found: httpx.Response = answer
    return found
