"""Bulk Data Export over HTTP: what is in it and what is not, for whom, as of when, and what becomes of its files."""

from __future__ import annotations

import asyncio
import gzip
import json
import resource
import stat
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from fhir.resources import get_fhir_model_class
from served_site import LIVER, LUNG, PLANTED_MRN, PLANTED_NAME, Site, served_site, slice_of

from domain.access import AccessesRecorded, Action
from server.audit import recorder
from server.exports import making
from server.fhir.export.jobs import FOLDER

STUDY, OTHER = "1.2.840.21.1", "1.2.840.21.2"
ASYNC = {"Prefer": "respond-async"}
LENIENT = {"Prefer": "respond-async, handling=lenient"}


@pytest_asyncio.fixture
async def site(embedded_server: str, tmp_path: Path) -> AsyncIterator[Site]:
    """Two people with an indexed study each."""
    async with served_site(embedded_server, tmp_path) as served:
        await served.store(slice_of(STUDY, 1), slice_of(OTHER, 1, patient_id="PLANTEDMRN88", name="Plantedother^Joe"))
        await served.index(f"{STUDY}.1", LIVER, LUNG)
        await served.index(f"{OTHER}.1", LIVER)
        yield served


class Exported:
    """A finished export: its manifest, and its resources."""

    def __init__(self, status: str, manifest: dict[str, Any], files: dict[str, bytes]) -> None:
        self.status = status
        self.manifest = manifest
        self.files = files

    def of(self, kind: str = "output") -> list[dict[str, Any]]:
        return [json.loads(line) for one in self.manifest[kind] for line in self.files[one["url"]].splitlines()]

    @property
    def types(self) -> Counter[str]:
        return Counter(one["resourceType"] for one in self.of())


Headers = dict[str, str]


async def asker(site: Site, *more: str, scopes: tuple[str, ...] = (), about: Headers | None = None) -> Headers:
    """Who has fhir:read and these scopes more, or these alone."""
    return await site.headers(*(scopes or ("fhir:read", *more)), **(about or {}))


async def kick_off(
    site: Site,
    path: str,
    *more: str,
    body: Any = None,
    prefer: Headers = ASYNC,
    scopes: tuple[str, ...] = (),
    about: Headers | None = None,
    **given: str,
) -> httpx.Response:
    headers = {**await asker(site, *more, scopes=scopes, about=about), **prefer}
    if body is None:
        return await site.client.get(f"/fhir/{path}", headers=headers, params=given or None)
    return await site.client.post(f"/fhir/{path}", headers={**headers, "Content-Type": "application/fhir+json"}, content=json.dumps(body))


async def ended(site: Site, status: str, headers: Headers | None = None) -> httpx.Response:
    while True:
        answer = await site.client.get(status, headers=headers or await site.headers("fhir:read"))
        if answer.status_code != 202:
            return answer
        assert int(answer.headers["retry-after"]) >= 1 and "resources" in answer.headers["x-progress"]
        await asyncio.sleep(0.1)


async def exported(site: Site, path: str, *scopes: str, **more: Any) -> Exported:
    begun = await kick_off(site, path, *scopes, **more)
    assert begun.status_code == 202, begun.text
    status = begun.headers["content-location"]
    headers = await asker(site, *scopes, scopes=more.get("scopes", ()), about=more.get("about"))
    answer = await ended(site, status, headers)
    assert answer.status_code == 200, answer.text
    manifest, files = answer.json(), {}
    for one in [*manifest["output"], *manifest["deleted"], *manifest["error"]]:
        file = await site.client.get(one["url"], headers=headers)
        assert file.status_code == 200 and file.headers["content-type"].startswith("application/fhir+ndjson")
        assert file.content.count(b"\n") == one["count"] and file.content.endswith(b"\n")
        files[one["url"]] = file.content
    return Exported(status, manifest, files)


async def write(site: Site, method: str, path: str, body: dict[str, Any] | None = None) -> httpx.Response:
    headers = {**await site.headers("fhir:read", "fhir:write"), "content-type": "application/fhir+json"}
    answer = await site.client.request(method, f"/fhir/{path}", content=json.dumps(body) if body else None, headers=headers)
    assert answer.status_code < 300, answer.text
    return answer


async def patients(site: Site) -> list[str]:
    """References to the two people: of the first study, and of the other."""
    found = []
    for study in (STUDY, OTHER):
        page = (await site.get(f"/fhir/Patient?_has:ImagingStudy:patient:identifier=urn:oid:{study}", "fhir:read")).json()
        found += [f"Patient/{one['resource']['id']}" for one in page["entry"]]
    return found


def says(answer: httpx.Response, status: int) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    issue: dict[str, Any] = answer.json()["issue"][0]
    return issue


async def test_the_whole_system_is_exported_as_searches_answer_it(site: Site) -> None:
    found = await exported(site, "$export")
    assert found.manifest["requiresAccessToken"] is True and found.manifest["error"] == found.manifest["deleted"] == []
    assert found.manifest["request"] == "http://site.test/fhir/$export"
    position = found.manifest["extension"]["urn:anamnesis:log:position"]
    for kind, count in found.types.items():
        page = (await site.get(f"/fhir/{kind}?_count=1000&_asof={position}", "fhir:read")).json()
        assert [one["resource"] for one in page["entry"]] == [one for one in found.of() if one["resourceType"] == kind]
        assert page["total"] == count
    assert {"Patient", "ImagingStudy", "Observation", "Device", "Provenance"} <= found.types.keys() and "AuditEvent" not in found.types
    assert PLANTED_MRN not in str(found.files) and PLANTED_NAME.partition("^")[0] not in str(found.files)


async def test_names_come_with_the_scope_for_them_and_audit_events_with_theirs(site: Site) -> None:
    found = await exported(site, "$export", "identities:read", "audit:read", _type="Patient,AuditEvent")
    assert found.types.keys() == {"Patient", "AuditEvent"}
    assert any("birthDate" in one or PLANTED_NAME.partition("^")[0] in str(one) for one in found.of())
    said = says(await kick_off(site, "$export", _type="AuditEvent"), 400)
    assert said["expression"] == ["http._type"]


async def test_what_is_written_meanwhile_is_not_in_it(site: Site) -> None:
    begun = await kick_off(site, "Patient/$export")
    await site.store(slice_of("1.2.840.21.3", 1, patient_id="LATE"))
    manifest = (await ended(site, begun.headers["content-location"])).json()
    assert {one["type"]: one["count"] for one in manifest["output"]}["Patient"] == 2
    earlier = await exported(site, "$export", _asof=str(manifest["extension"]["urn:anamnesis:log:position"]), _type="Patient")
    assert earlier.types == {"Patient": 2}
    assert (await exported(site, "$export", _type="Patient")).types == {"Patient": 3}


async def test_of_patients_is_what_is_in_their_compartments(site: Site) -> None:
    await write(site, "PUT", "Organization/o", {"resourceType": "Organization", "id": "o", "name": "O"})
    one, other = await patients(site)
    everything = (await site.get(f"/fhir/{one}/$everything", "fhir:read")).json()
    of_all = await exported(site, "Patient/$export")
    assert not {"Organization", "Device"} & of_all.types.keys()
    body = {"resourceType": "Parameters", "parameter": [{"name": "patient", "valueReference": {"reference": one}}]}
    of_one = await exported(site, "Patient/$export", body=body)
    there = [entry["resource"] for entry in everything["entry"] if entry["resource"]["resourceType"] not in ("Device", "Organization")]
    key = lambda each: (each["resourceType"], each["id"])  # noqa: E731
    assert sorted(of_one.of(), key=key) == sorted(there, key=key)
    assert other.removeprefix("Patient/") not in str(of_one.files)
    assert says(await kick_off(site, "Patient/$export", _type="Device"), 400)["expression"] == ["http._type"]


async def test_of_a_group_is_what_its_present_members_have(site: Site) -> None:
    one, other = await patients(site)
    member = lambda reference, **more: {"entity": {"reference": reference}, **more}  # noqa: E731
    group = {"resourceType": "Group", "id": "g", "type": "person", "membership": "enumerated"}
    await write(site, "PUT", "Group/g", {**group, "member": [member(one), member(other, inactive=True)]})
    found = await exported(site, "Group/g/$export", _type="Patient,Observation")
    assert found.types == {"Patient": 1, "Observation": 2} and {x["id"] for x in found.of() if x["resourceType"] == "Patient"} == {one[8:]}
    await write(site, "PUT", "Group/g", {**group, "member": [member(one, period={"end": "2020"}), member(other, period={"start": "2020-01"})]})
    assert (await exported(site, "Group/g/$export", _type="Patient,Observation")).types == {"Patient": 1, "Observation": 1}
    for of, at in ((one, "Parameters.parameter[0]"), ("Patient/nobody", "Parameters.parameter[0]")):
        body = {"resourceType": "Parameters", "parameter": [{"name": "patient", "valueReference": {"reference": of}}]}
        assert says(await kick_off(site, "Group/g/$export", body=body), 400)["expression"] == [at]
    await write(site, "PUT", "Group/g", {**group, "member": [member(one), member("Group/other")]})
    assert says(await kick_off(site, "Group/g/$export"), 422)["expression"] == ["Group.member[1].entity"]
    assert says(await kick_off(site, "Group/none/$export"), 404)["code"] == "not-found"


async def test_filters_of_a_type_are_alternatives_and_elements_are_cut(site: Site) -> None:
    found = await exported(
        site, "$export", _type="BodyStructure,Patient", _typeFilter="BodyStructure?included_structure=10200004,BodyStructure?included_structure=39607008&active=true"
    )
    assert found.types == {"BodyStructure": 5, "Patient": 2}  # three findings, and the two indexes
    assert (await exported(site, "$export", _type="BodyStructure", _typeFilter="BodyStructure?included_structure=39607008")).types == {"BodyStructure": 2}
    assert (await exported(site, "$export", _type="BodyStructure", _typeFilter="BodyStructure?included_structure=39607008&active=false")).types == {}
    cut = await exported(site, "$export", _type="Patient", _elements="gender")
    assert {name for one in cut.of() for name in one} == {"resourceType", "id", "meta", "gender"}
    assert {tag["code"] for one in cut.of() for tag in one["meta"]["tag"]} == {"SUBSETTED"}


@pytest.mark.parametrize(
    ("given", "expression"),
    [
        ({"_typeFilter": "Patient?favourite=1"}, "http._typeFilter"),
        ({"_typeFilter": "Patient?_sort=birthdate"}, "http._typeFilter"),
        ({"_typeFilter": "Nobody?x=1"}, "http._typeFilter"),
        ({"_type": "Nobody"}, "http._type"),
        ({"_since": "yesterday"}, "http._since"),
        ({"_outputFormat": "text/csv"}, "http._outputFormat"),
        ({"_elements": "favourite"}, "http._elements"),
        ({"includeAssociatedData": "LatestProvenanceResources"}, "http.includeAssociatedData"),
        ({"_until": "2026-01-01"}, "http._until"),
        ({"organizeOutputBy": "Patient"}, "http.organizeOutputBy"),
        ({"patient": "Patient/x"}, "http.patient"),
    ],
)
async def test_what_cannot_be_asked_is_refused_by_name(site: Site, given: dict[str, str], expression: str) -> None:
    assert says(await kick_off(site, "$export", **given), 400)["expression"] == [expression]
    assert says(await kick_off(site, "$export", prefer={}), 400)["expression"] == ["http.prefer"]
    assert await site.services.pool.fetchval("SELECT count(*) FROM fhir_export") == 0


async def test_what_lenient_handling_leaves_out_is_said_in_the_manifest(site: Site) -> None:
    found = await exported(site, "$export", prefer=LENIENT, _type="Patient", includeAssociatedData="x", _typeFilter="Patient?favourite=1")
    assert found.types == {"Patient": 2}
    (said,) = found.of("error")
    assert "includeAssociatedData" in str(said) and "favourite" in str(said)


async def test_since_gives_what_came_later_and_what_was_deleted(site: Site) -> None:
    one, _ = await patients(site)
    condition = {"resourceType": "Condition", "clinicalStatus": {"text": "active"}, "subject": {"reference": one}}
    for name in ("kept", "gone", "back"):
        await write(site, "PUT", f"Condition/{name}", {**condition, "id": name})
    first = await exported(site, "$export")
    position = str(first.manifest["extension"]["urn:anamnesis:log:position"])
    await write(site, "PUT", "Condition/new", {**condition, "id": "new"})
    await write(site, "DELETE", "Condition/gone")
    await write(site, "DELETE", "Condition/back")
    await write(site, "PUT", "Condition/back", {**condition, "id": "back"})
    for path in ("$export", "Patient/$export"):
        second = await exported(site, path, _since=position)
        assert {x["id"] for x in second.of() if x["resourceType"] == "Condition"} == {"new", "back"}
        assert second.types.keys() == {"Condition", "Provenance"}
        (bundle,) = second.of("deleted")
        get_fhir_model_class("Bundle").model_validate(bundle)
        assert bundle["type"] == "transaction"
        assert bundle["entry"] == [{"request": {"method": "DELETE", "url": "Condition/gone"}}]
        assert {x["type"] for x in second.manifest["deleted"]} == {"Bundle"}
    by_time = await exported(site, "$export", _since=first.manifest["transactionTime"], _type="Condition")
    assert {"new", "back"} <= {x["id"] for x in by_time.of()} <= {"new", "back", "kept", "gone"}
    assert [one["entry"] for one in by_time.of("deleted")] == [bundle["entry"]]
    nothing = await exported(site, "$export", _since="2999-01-01T00:00:00Z")
    assert nothing.files == {}


async def test_files_are_for_who_asked_and_are_kept_apart(site: Site) -> None:
    found = await exported(site, "$export", _type="Patient")
    (url,) = found.files
    for stranger in (await site.headers("fhir:read", "dicom:read"), await site.headers("fhir:read", "fhir:write")):
        for asked in (url, found.status):
            assert says(await site.client.get(asked, headers=stranger), 404)["code"] == "not-found"
    assert (await site.client.get(url, headers=await site.headers("admin"))).status_code == 200
    assert (await site.client.get(url)).status_code == 401
    mine = await site.headers("fhir:read")
    assert says(await site.client.get(f"{url}x", headers=mine), 404)["code"] == "not-found"
    part = await site.client.get(url, headers={**mine, "Range": "bytes=5-9"})
    assert (part.status_code, part.content) == (206, found.files[url][5:10])
    async with site.client.stream("GET", url, headers={**mine, "Accept-Encoding": "gzip", "Accept": "application/fhir+ndjson"}) as packed:
        assert packed.headers["content-encoding"] == "gzip"
        assert gzip.decompress(b"".join([chunk async for chunk in packed.aiter_raw()])) == found.files[url]
    head = await site.client.head(url, headers={**mine, "Accept-Encoding": "identity"})
    assert (head.status_code, head.headers["content-length"], head.content) == (200, str(len(found.files[url])), b"")
    folder = site.services.settings.data_dir / FOLDER
    modes = {stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*") if path.is_file()}
    assert modes == {0o600} and {stat.S_IMODE(path.stat().st_mode) for path in (folder, *folder.iterdir())} == {0o700}


async def test_who_is_in_an_export_is_in_the_log_before_it_can_be_had(site: Site) -> None:
    found = await exported(site, "Patient/$export")
    await site.caught_up()
    events = await site.services.log.read(0, 5000, [AccessesRecorded])
    accesses = [access for one in events if isinstance(one.event, AccessesRecorded) for access in one.event.accesses if access.action is Action.EXPORT]
    disclosed = Counter(subject for access in accesses for subject in access.subjects)
    assert disclosed == {one["id"]: 1 for one in found.of() if one["resourceType"] == "Patient"}
    assert {access.principal.id for access in accesses} == {(await site.principal("fhir:read")).id}
    routes = {access.route for access in accesses}
    assert routes == {"/fhir/Patient/$export", "/fhir/{resource_type}/$export", "/fhir/$export/{export_id}/{file_name}"}


async def test_nothing_is_exported_that_cannot_be_recorded(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(recorder, "MAX_HELD", 0)
    for path, body in (("$export", None), ("$export", {"resourceType": "Parameters"}), ("Patient/$export", None)):
        assert says(await kick_off(site, path, body=body), 503)["code"] == "transient"
    assert await site.services.pool.fetchval("SELECT count(*) FROM fhir_export") == 0


async def test_a_cancelled_export_is_gone(site: Site) -> None:
    found = await exported(site, "$export", _type="Patient")
    begun = (await kick_off(site, "$export")).headers["content-location"]
    mine = await site.headers("fhir:read")
    for status in (found.status, begun):
        assert (await site.client.delete(status, headers=await site.headers("fhir:write", "fhir:read"))).status_code == 404
        assert (await site.client.delete(status, headers=mine)).status_code == 202
        assert says(await site.client.get(status, headers=mine), 404)["code"] == "not-found"
    folder = site.services.settings.data_dir / FOLDER
    while list(folder.iterdir()):
        await asyncio.sleep(0.1)


async def test_no_more_are_made_at_once_than_the_setting_says(embedded_server: str, tmp_path: Path) -> None:
    async with served_site(embedded_server, tmp_path, fhir_exports=1) as site:
        answers = [await kick_off(site, "$export") for _ in range(2)]
        assert [one.status_code for one in answers] == [202, 429]
        assert int(answers[1].headers["retry-after"]) > 0
        await ended(site, answers[0].headers["content-location"])
        assert (await kick_off(site, "$export")).status_code == 202


async def test_it_expires(embedded_server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(making, "SWEEP_S", 0.1)
    async with served_site(embedded_server, tmp_path, fhir_export_keep_hours=2 / 3600) as site:
        await site.store(slice_of(STUDY, 1))
        begun = await kick_off(site, "$export")
        answer = await ended(site, begun.headers["content-location"])
        assert answer.status_code == 200 and "expires" in answer.headers
        while (await site.client.get(begun.headers["content-location"], headers=await site.headers("fhir:read"))).status_code != 404:
            await asyncio.sleep(0.1)
        while list((tmp_path / FOLDER).iterdir()):
            await asyncio.sleep(0.1)


@contextmanager
def no_file_beyond(size: int) -> Iterator[None]:
    """As on a disk that is full: what is written beyond is refused."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


async def test_a_full_disk_is_said_and_leaves_nothing(site: Site) -> None:
    with no_file_beyond(2000):
        begun = await kick_off(site, "$export")
        assert says(await ended(site, begun.headers["content-location"]), 507)["code"] == "no-store"
    assert list((site.services.settings.data_dir / FOLDER).iterdir()) == []
    assert (await exported(site, "$export")).types


async def test_an_erasure_takes_every_export_from_before_it(site: Site) -> None:
    one, other = await patients(site)
    before = await exported(site, "$export")
    eraser, confirmer = await site.headers("subjects:erase"), await site.headers("subjects:erase", "metrics:read")
    subject = one.removeprefix("Patient/")
    asked = await site.client.post(f"/subjects/{subject}/erasure", json={"legal_basis": "gdpr-17-1-b"}, headers=eraser)
    assert asked.status_code < 300, asked.text
    await site.client.post(f"/subjects/{subject}/erasure/confirmation", headers=confirmer)
    while "purged_at" not in (await site.client.get(f"/subjects/{subject}/erasure", headers=eraser)).json():
        await asyncio.sleep(0.1)
    assert list((site.services.settings.data_dir / FOLDER).iterdir()) == []
    mine = await site.headers("fhir:read")
    for url in (before.status, *before.files):
        assert says(await site.client.get(url, headers=mine), 410)["code"] == "deleted"
    assert await site.services.pool.fetchval("SELECT bool_and(asked = '') FROM fhir_export WHERE state = 'erased'")
    after = await exported(site, "$export", _since=str(before.manifest["extension"]["urn:anamnesis:log:position"]))
    erased = {entry["request"]["url"] for bundle in after.of("deleted") for entry in bundle["entry"]}
    assert one in erased and other not in erased
    assert erased >= {f"{x['resourceType']}/{x['id']}" for x in before.of() if subject in json.dumps(x)}
    assert subject not in str([x for x in after.of() if x["resourceType"] != "Provenance"])  # that of the erasure names it


async def test_no_more_is_exported_than_scopes_of_smart_reach(site: Site) -> None:
    one, other = await patients(site)
    mine = {"patient": one.removeprefix("Patient/")}
    for nth, subject in enumerate((one, other)):
        condition = {"resourceType": "Condition", "id": f"c{nth}", "clinicalStatus": {"text": "active"}, "subject": {"reference": subject}}
        await write(site, "PUT", f"Condition/c{nth}", condition)
    position = str(await site.caught_up())
    for nth in range(2):
        await write(site, "DELETE", f"Condition/c{nth}")
    whole = (await exported(site, "$export")).of()
    of_patient = await exported(site, "$export", scopes=("patient/*.rs",), about=mine)
    assert {other.removeprefix("Patient/")} & set(json.dumps(of_patient.of()).split('"')) == set()
    assert of_patient.types == {kind: n for kind, n in Counter(x["resourceType"] for x in whole if one in json.dumps(x) or x["id"] == one[8:]).items()}
    narrowed = await exported(site, "$export", scopes=("system/Observation.rs", "system/BodyStructure.rs?active=false", "system/Device.r"))
    assert narrowed.types == {"Observation": 3}
    since = await exported(site, "$export", scopes=("patient/Condition.rs",), about=mine, _since=position)
    assert [entry["request"]["url"] for bundle in since.of("deleted") for entry in bundle["entry"]] == ["Condition/c0"]
    chained = await kick_off(site, "$export", scopes=("system/Observation.rs",), _typeFilter="Observation?subject:Patient.gender=female")
    assert chained.status_code == 403
    await write(site, "PUT", "Group/g", {"resourceType": "Group", "id": "g", "type": "person", "membership": "enumerated", "member": [{"entity": {"reference": other}}]})
    assert (await kick_off(site, "Group/g/$export", scopes=("patient/*.rs",), about=mine)).status_code == 404
    assert (await kick_off(site, "Group/g/$export", scopes=("system/Patient.rs",))).status_code == 403
    assert (await exported(site, "Group/g/$export", scopes=("system/Patient.rs", "system/Group.rs"))).types == {"Patient": 1, "Group": 1}
