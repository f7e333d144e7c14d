"""A world to hold SMART scopes against: two people, what is said of them, and the plainest look at what a grant shows of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from hypothesis import strategies as st
from served_site import LIVER, Site, slice_of

Json = dict[str, Any]
STUDY, OTHER = "1.2.840.99.1", "1.2.840.99.2"
TYPES = (
    "BodyStructure", "Condition", "DiagnosticReport", "Encounter", "Group", "ImagingSelection", "ImagingStudy", "Observation",
    "Patient", "Practitioner", "Provenance", "Device",
)  # fmt: skip
BOTH = ("fhir:read", "fhir:write")

OF_PATIENT: dict[str, Callable[[Json], list[Any]]] = {
    "Observation": lambda it: [it.get("subject"), *it.get("performer", [])],
    "Condition": lambda it: [it.get("subject")],
    "DiagnosticReport": lambda it: [it.get("subject")],
    "Encounter": lambda it: [it.get("subject")],
    "Group": lambda it: [one["entity"] for one in it.get("member", [])],
    "ImagingSelection": lambda it: [it.get("subject")],
    "ImagingStudy": lambda it: [it.get("subject")],
    "BodyStructure": lambda it: [it.get("patient")],
    "Provenance": lambda it: [it.get("patient")],
    "Patient": lambda it: [{"reference": f"Patient/{it['id']}"}],
}
"""Type → the references by which R5's CompartmentDefinition has it in the compartment of a Patient. Others never are."""


def patients_of(body: Json) -> set[str]:
    """References by which it is in compartments of Patients."""
    found = OF_PATIENT.get(body["resourceType"], lambda it: [])(body)
    return {one["reference"] for one in found if one and "reference" in one}


@dataclass(frozen=True)
class Version:
    type: str
    id: str
    version: int
    body: Json | None
    """None of a deletion."""

    @property
    def named(self) -> str:
        return f"{self.type}/{self.id}"

    @property
    def url(self) -> str:
        return f"{self.named}/_history/{self.version}"


@dataclass(frozen=True)
class Scope:
    level: str
    type: str
    letters: str
    query: str = ""

    def __str__(self) -> str:
        return f"{self.level}/{self.type}.{self.letters}{f'?{self.query}' if self.query else ''}"


class World:
    """Every version up to a position, and what of it a grant shows."""

    def __init__(self, versions: Sequence[Version]) -> None:
        self.versions = versions
        latest = {one.named: one for one in sorted(versions, key=lambda one: one.version)}
        self.standing = {named: one for named, one in latest.items() if one.body is not None}

    def shows(self, grant: Iterable[Scope], patient: str, letter: str, body: Json) -> bool:
        return any(self._covers(one, patient, letter, body) for one in grant)

    def _covers(self, scope: Scope, patient: str, letter: str, body: Json) -> bool:
        kind = body["resourceType"]
        if letter not in scope.letters or scope.type not in ("*", kind):
            return False
        if scope.level == "patient" and f"Patient/{patient}" not in patients_of(body):
            return False
        return not scope.query or CONSTRAINTS[scope.query](self, body)

    def history(self, grant: Sequence[Scope], patient: str, letter: str) -> list[Version]:
        """In the order of the world; a deletion is shown to who saw what was deleted."""
        bodies = {one.url: one.body for one in self.versions}
        shown = []
        for one in self.versions:
            body = one.body or bodies[f"{one.named}/_history/{one.version - 1}"]
            assert body is not None
            if self.shows(grant, patient, letter, body):
                shown.append(one)
        return shown

    def found(self, grant: Sequence[Scope], patient: str, letter: str = "s") -> dict[str, Json]:
        """What stands and is within reach, by type and id."""
        standing = {named: one.body for named, one in self.standing.items() if one.body is not None}
        return {named: body for named, body in standing.items() if self.shows(grant, patient, letter, body)}


def _codes(concept: Any) -> list[str]:
    return [one.get("code") for one in (concept or {}).get("coding", [])]


def _is_of_a_woman(world: World, it: Json) -> bool:
    target = world.standing.get((it.get("subject") or {}).get("reference", ""))
    return target is not None and target.body is not None and target.type == "Patient" and target.body.get("gender") == "female"


CONSTRAINTS: dict[str, Callable[[World, Json], bool]] = {
    "status=final": lambda world, it: it.get("status") == "final",
    "status:not=final": lambda world, it: it.get("status") != "final",
    "category=laboratory": lambda world, it: any("laboratory" in _codes(one) for one in it.get("category", [])),
    "category=laboratory&status=final": lambda world, it: it.get("status") == "final"
    and any("laboratory" in _codes(one) for one in it.get("category", [])),
    "subject:Patient.gender=female": _is_of_a_woman,
    "gender=female": lambda world, it: it.get("gender") == "female",
    "family=Adler": lambda world, it: any(one.get("family") == "Adler" for one in it.get("name", [])),
    "_tag=public": lambda world, it: any(one.get("code") == "public" for one in it.get("meta", {}).get("tag", [])),
    "_tag:missing=true": lambda world, it: not it.get("meta", {}).get("tag"),
}
OF_TYPE = {
    "Observation": ["status=final", "status:not=final", "category=laboratory", "category=laboratory&status=final", "subject:Patient.gender=female"],
    "DiagnosticReport": ["status=final", "subject:Patient.gender=female"],
    "Patient": ["gender=female"],
    "Practitioner": ["family=Adler"],
}


def scopes(letters: Sequence[str]) -> st.SearchStrategy[Scope]:
    def of(kind: str) -> st.SearchStrategy[Scope]:
        own = OF_TYPE.get(kind, [])
        return st.builds(
            Scope,
            st.sampled_from(["patient", "patient", "user", "system"]),
            st.just(kind),
            st.sampled_from(letters),
            st.sampled_from(["", *own, "_tag=public", "_tag:missing=true"]),
        )

    return st.sampled_from([*TYPES, "Observation", "Observation", "Patient", "*", "*"]).flatmap(of)


async def make(site: Site) -> list[str]:
    """Fills the site; gives the ids of its Patients: a woman, and a man."""
    await site.store(slice_of(STUDY, 1))
    await site.store(slice_of(OTHER, 1, patient_id="PLANTEDMRN88", name="Plantedother^Joe", PatientSex="M"))
    await site.index(f"{STUDY}.1", LIVER)
    await site.index(f"{OTHER}.1", LIVER)
    page = (await site.get("/fhir/Patient", "fhir:read")).json()
    by_gender = {one["resource"]["gender"]: one["resource"]["id"] for one in page["entry"]}
    woman, man = by_gender["female"], by_gender["male"]
    for nth, (name, tag) in enumerate((("Adler", "public"), ("Berg", None))):
        await write(site, _tagged({"resourceType": "Practitioner", "id": f"doctor{nth}", "name": [{"family": name}]}, tag))
    for nth, patient in enumerate((woman, man)):
        subject = {"reference": f"Patient/{patient}"}
        await write(site, {"resourceType": "Encounter", "id": f"visit{nth}", "status": "completed", "subject": subject})
        await write(site, _tagged({"resourceType": "Condition", "id": f"illness{nth}", "clinicalStatus": {"text": "active"}, "subject": subject}, "public"))
        for number, status in enumerate(("final", "preliminary", "final")):
            await write(site, observation(f"value{nth}-{number}", subject, status, nth, number))
        results = [{"reference": f"Observation/value{nth}-{number}"} for number in range(3)]
        report = {"resourceType": "DiagnosticReport", "id": f"report{nth}", "code": {"text": "a"}, "subject": subject, "result": results}
        await write(site, {**report, "status": "final", "performer": [{"reference": "Practitioner/doctor0"}]})
        # What was final is amended, and what was preliminary becomes final: each version is judged for itself.
        await write(site, observation(f"value{nth}-0", subject, "amended", nth, 0))
        await write(site, observation(f"value{nth}-1", subject, "final", nth, 1))
        gone = await site.client.delete(f"/fhir/Observation/value{nth}-2", headers=await site.headers(*BOTH))
        assert gone.status_code == 204
    of_both = {"resourceType": "Group", "id": "both", "type": "person", "membership": "enumerated"}
    await write(site, {**of_both, "member": [{"entity": {"reference": f"Patient/{one}"}} for one in (woman, man)]})
    # Of nobody; and of her, performed by him, and so in both compartments.
    await write(site, observation("nobody", None, "final", 0, 1))
    await write(site, {**observation("both", {"reference": f"Patient/{woman}"}, "final", 0, 0), "performer": [{"reference": f"Patient/{man}"}]})
    await site.caught_up()
    return [woman, man]


def observation(resource_id: str, subject: Json | None, status: str, nth: int, number: int) -> Json:
    made: Json = {
        "resourceType": "Observation",
        "id": resource_id,
        "status": status,
        "code": {"coding": [{"system": "urn:codes", "code": "ab"[number % 2]}]},
        "category": [{"coding": [{"code": "laboratory" if number < 2 else "imaging"}]}],
        "performer": [{"reference": f"Practitioner/doctor{number % 2}"}],
        "encounter": {"reference": f"Encounter/visit{nth}"},
    }
    return _tagged(made if subject is None else {**made, "subject": subject}, "public" if number == 1 else None)


def _tagged(resource: Json, tag: str | None) -> Json:
    return resource if tag is None else {**resource, "meta": {"tag": [{"system": "urn:tags", "code": tag}]}}


async def write(site: Site, resource: Json) -> None:
    path = f"/fhir/{resource['resourceType']}/{resource['id']}"
    answer = await site.client.put(path, headers=await site.headers(*BOTH), json=resource)
    assert answer.status_code in (200, 201), answer.text


async def world(site: Site, position: int | None = None) -> World:
    """As somebody sees it who may read everything, the earliest version first."""
    url: str | None = f"/fhir/_history?_count=1000&_sort=_lastUpdated{f'&_asof={position}' if position is not None else ''}"
    versions = []
    while url:
        page = (await site.client.get(url, headers=await site.headers("fhir:read"))).json()
        versions += [_version(entry) for entry in page.get("entry", [])]
        url = next((one["url"] for one in page["link"] if one["relation"] == "next"), None)
    return World(versions)


def _version(entry: Json) -> Version:
    kind, resource_id = entry["fullUrl"].split("/")[-2:]
    return Version(kind, resource_id, int(entry["response"]["etag"][3:-1]), entry.get("resource"))
