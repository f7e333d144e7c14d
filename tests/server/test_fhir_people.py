"""One person is one Patient: what clients write and what images say is joined by number, sealed under one key, and shown to those alone
who may see it."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio
from fhir.resources import get_fhir_model_class
from served_site import Site, erase, served_site, slice_of

from domain.clinical_record import ClinicalRecordWritten
from domain.ids import subject_stream
from projections.catalogue import projections
from projections.fhir.vocabulary import DIFFERS_EXTENSION, SUBJECT_SYSTEM
from projections.projection import schema_name
from projections.verification import verify

pytestmark = pytest.mark.asyncio(loop_scope="module")
ISSUER, SYSTEM = "HOSPITAL-A", "http://hospital-a.example/mrn"
NAMED = ("fhir:read", "fhir:write", "identities:read")
VEILED = ("fhir:read", "fhir:write")
SECRET = "Quirinalda"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site(embedded_server: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Site]:
    async with served_site(embedded_server, tmp_path_factory.mktemp("people"), patient_id_systems={ISSUER: SYSTEM}) as site:
        yield site


async def send(site: Site, method: str, path: str, body: object = None, scopes: tuple[str, ...] = NAMED, **headers: str) -> httpx.Response:
    sent = {**await site.headers(*scopes), "content-type": "application/fhir+json", **{k.replace("_", "-"): v for k, v in headers.items()}}
    return await site.client.request(method, f"/fhir/{path}", content=json.dumps(body) if body is not None else None, headers=sent)


def issues(answer: httpx.Response) -> list[tuple[str, str | None]]:
    return [(one["code"], one.get("expression", [None])[0]) for one in answer.json()["issue"]]


def number(value: str) -> dict[str, Any]:
    return {"system": SYSTEM, "value": value}


def person(*numbers: str, **more: Any) -> dict[str, Any]:
    """With something in every element that could tell who it is."""
    return {
        "resourceType": "Patient",
        "text": {"status": "generated", "div": f'<div xmlns="http://www.w3.org/1999/xhtml">{SECRET}</div>'},
        "extension": [{"url": "urn:test:mothers-name", "valueString": SECRET}],
        "identifier": [number(one) for one in numbers] + [{"value": f"{SECRET}-number"}],
        "active": True,
        "name": [{"family": SECRET, "given": ["Ada"]}],
        "telecom": [{"system": "phone", "value": f"+49 {SECRET}"}],
        "gender": "female",
        "birthDate": "1970-02-03",
        "_birthDate": {"extension": [{"url": "urn:test:time", "valueString": SECRET}]},
        "deceasedBoolean": False,
        "address": [{"city": SECRET, "extension": [{"url": "urn:test:height", "valueDecimal": 1.5}]}],
        "maritalStatus": {"text": SECRET},
        "photo": [{"title": SECRET}],
        "contact": [{"name": {"text": SECRET}}],
        "communication": [{"language": {"text": SECRET}}],
        "generalPractitioner": [{"reference": "Practitioner/p", "display": SECRET}],
        "managingOrganization": {"display": SECRET},
        "meta": {"tag": [{"system": "urn:test", "code": SECRET}], "source": f"urn:{SECRET}"},
    } | more


def without_meta(resource: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in resource.items() if name not in ("id", "meta")}


async def create(site: Site, resource: dict[str, Any], scopes: tuple[str, ...] = NAMED) -> str:
    answer = await send(site, "POST", "Patient", resource, scopes)
    assert answer.status_code == 201, answer.text
    return str(answer.json()["id"])


async def read(site: Site, patient_id: str, scopes: tuple[str, ...] = NAMED) -> dict[str, Any]:
    answer = await site.get(f"/fhir/Patient/{patient_id}", *scopes)
    assert answer.status_code == 200, answer.text
    get_fhir_model_class("Patient").model_validate(answer.json())
    return dict(answer.json())


async def image(site: Site, patient_id: str, *, study: str | None = None, **more: Any) -> None:
    file = slice_of(study or f"2.25.{uuid.uuid4().int}", 1, patient_id=patient_id, **{"IssuerOfPatientID": ISSUER, **more})
    await site.store(file)


async def subjects(site: Site) -> set[str]:
    bundle = (await site.get("/fhir/Patient", "fhir:read", _count="1000", _elements="id")).json()
    return {one["resource"]["id"] for one in bundle.get("entry", [])}


async def of_study(site: Site, uid: str) -> str:
    """The Patient of a study."""
    (entry,) = (await site.get("/fhir/ImagingStudy", "fhir:read", identifier=f"urn:dicom:uid|urn:oid:{uid}")).json()["entry"]
    return str(entry["resource"]["subject"]["reference"].removeprefix("Patient/"))


async def test_what_goes_in_comes_back_equal_to_those_who_may_see_it(site: Site) -> None:
    sent = person()
    answer = await send(site, "POST", "Patient", sent)
    assert (answer.status_code, answer.headers["etag"]) == (201, 'W/"1"')
    assert without_meta(answer.json()) == without_meta(sent) and answer.json()["meta"]["tag"] == sent["meta"]["tag"]
    assert (await site.get(f"/fhir/Patient/{answer.json()['id']}", *NAMED)).content == answer.content


async def test_everybody_else_sees_the_pseudonym_wherever_a_patient_is_shown(site: Site) -> None:
    answer = await send(site, "POST", "Patient", person(), VEILED)
    patient_id = answer.json()["id"]
    made = {
        "resourceType": "Patient", "id": patient_id, "identifier": [{"system": SUBJECT_SYSTEM, "value": patient_id}],
        "active": True, "gender": "female", "generalPractitioner": [{"reference": "Practitioner/p"}],
    }  # fmt: skip
    assert answer.status_code == 201 and {k: v for k, v in answer.json().items() if k != "meta"} == made
    about = {"resourceType": "Condition", "clinicalStatus": {"text": "active"}, "subject": {"reference": f"Patient/{patient_id}"}}
    assert (await send(site, "POST", "Condition", about)).status_code == 201
    bundle = {"resourceType": "Bundle", "type": "transaction", "entry": [{"resource": person(), "request": {"method": "POST", "url": "Patient"}}]}
    shown = [answer, await send(site, "POST", "", bundle, VEILED, prefer="return=representation")]
    for path in (
        f"Patient/{patient_id}", f"Patient/{patient_id}/_history", f"Patient/{patient_id}/_history/1", "Patient/_history", "_history",
        "Patient?_count=1000", f"Patient/{patient_id}/$everything", f"Patient/{patient_id}/$meta", f"Patient/{patient_id}/$validate",
        "Condition?_include=Condition:subject", f"Patient/{patient_id}?_summary=true", f"Patient/{patient_id}?_elements=name,birthDate",
    ):  # fmt: skip
        shown.append(await site.get(f"/fhir/{path}", "fhir:read"))
    await site.caught_up()  # the timeline is of the ledger, for which no write waits
    timeline = await site.get(f"/audit/timeline/Patient/{patient_id}", "audit:read")
    assert timeline.status_code == 200 and len(timeline.json()["entries"]) >= 1
    for one in (*shown, timeline):
        assert one.status_code < 300, one.text
        assert SECRET not in one.text and "1970" not in one.text, one.text


@pytest.mark.parametrize(
    "query",
    [
        f"Patient?name={SECRET}", "Patient?birthdate=1970-02-03", f"Patient?identifier={SYSTEM}|x", "Patient?identifier=x", "Patient?phone=1",
        "Patient?_tag=x", f"Patient?family:exact={SECRET}", "Patient?birthdate:missing=true", "Patient?_sort=birthdate", "Patient?_sort=-_id,name",
        "Patient?general-practitioner:identifier=x", "Patient?_profile=x", f"Condition?patient.name={SECRET}",
        f"Condition?subject:Patient.identifier={SYSTEM}|x", "Observation?performer.name=x", "Practitioner?_has:Patient:general-practitioner:name=x",
        "Patient?link.name=x", f"Encounter?_has:Condition:encounter:patient.name={SECRET}", "Practitioner/p/Patient?name=x",
        f"Patient?identifier={SUBJECT_SYSTEM}|x,y",
    ],
)  # fmt: skip
async def test_a_search_by_what_identifies_takes_the_scope_of_who_may_see_it(site: Site, query: str) -> None:
    refused = await site.get(f"/fhir/{query}", "fhir:read")
    assert refused.status_code == 403, refused.text
    assert (await site.get(f"/fhir/{query}", *NAMED)).status_code == 200
    path, _, form = query.partition("?")
    headers = {**await site.headers("fhir:read"), "content-type": "application/x-www-form-urlencoded"}
    assert (await site.client.post(f"/fhir/{path}/_search", content=form, headers=headers)).status_code == 403


async def test_a_search_by_what_everybody_sees_takes_none(site: Site) -> None:
    patient_id = await create(site, person())
    for query in (
        f"_id={patient_id}", "gender=female", "active=true", f"identifier={SUBJECT_SYSTEM}|{patient_id}", "general-practitioner=Practitioner/p",
        "general-practitioner.name=x", "_lastUpdated=gt2020", "_sort=-_lastUpdated,gender", "_has:Condition:patient:code=x",
    ):  # fmt: skip
        answer = await site.get(f"/fhir/Patient?{query}", "fhir:read")
        assert answer.status_code == 200, answer.text
    conditional = {"if-none-exist": f"name={SECRET}"}
    assert (await send(site, "POST", "Patient", person(), VEILED, **conditional)).status_code == 403
    assert (await send(site, "PUT", f"Patient?name={SECRET}", person(), VEILED)).status_code == 403


async def test_patients_are_found_by_what_clients_and_images_say_of_them(site: Site) -> None:
    value, family = uuid.uuid4().hex, f"Fam{uuid.uuid4().hex[:8]}"
    await image(site, value, name=f"{family}^Jane", PatientBirthDate="19680607")
    for query in (f"identifier={SYSTEM}|{value}", f"identifier={value}", f"family={family}", f"name={family}&birthdate=1968-06-07"):
        (entry,) = (await site.get(f"/fhir/Patient?{query}", *NAMED)).json()["entry"]
        assert entry["resource"]["name"][0]["family"] == family
    about = (await site.get(f"/fhir/ImagingStudy?patient.identifier={value}&_summary=count", *NAMED)).json()
    assert about["total"] == 1


async def test_who_sees_the_pseudonym_alone_cannot_put_it_in_the_place_of_the_person(site: Site) -> None:
    patient_id = await create(site, person())
    seen = await read(site, patient_id, VEILED)
    assert (await send(site, "PUT", f"Patient/{patient_id}", seen, VEILED)).status_code == 403
    patch = [{"op": "replace", "path": "/gender", "value": "male"}]
    assert (await send(site, "PATCH", f"Patient/{patient_id}", patch, VEILED, content_type="application/json-patch+json")).status_code == 403
    assert without_meta(await read(site, patient_id)) == without_meta(person())


async def test_images_of_a_number_come_to_the_patient_that_has_it(site: Site) -> None:
    value, study = uuid.uuid4().hex, f"2.25.{uuid.uuid4().int}"
    patient_id = await create(site, person(value))
    await image(site, value, study=study, name="Other^Name", PatientBirthDate="19700204", PatientSex="M")
    assert await of_study(site, study) == patient_id
    joined = await read(site, patient_id)
    assert joined["meta"]["versionId"] == "2"
    assert joined["identifier"] == [{"system": SUBJECT_SYSTEM, "value": patient_id}, *person(value)["identifier"]]
    differs = [
        {"url": DIFFERS_EXTENSION, "extension": [{"url": "gender", "valueCode": "male"}, {"url": "birthDate", "valueDate": "1970-02-04"}]}
    ]
    assert without_meta(joined) == {**without_meta(person(value)), "identifier": joined["identifier"], "extension": person()["extension"] + differs}
    assert (await read(site, patient_id, VEILED))["gender"] == "female"
    assert (await site.get(f"/fhir/Patient/{patient_id}/_history/1", *NAMED)).json()["identifier"] == person(value)["identifier"]


async def test_images_fill_what_no_client_says(site: Site) -> None:
    value = uuid.uuid4().hex
    patient_id = await create(site, {"resourceType": "Patient", "identifier": [number(value)], "telecom": [{"value": "1"}]})
    await image(site, value, name="Doe^Jane", PatientBirthDate="19700203", PatientSex="F")
    joined = await read(site, patient_id)
    assert (joined["name"][0]["family"], joined["birthDate"], joined["gender"]) == ("Doe", "1970-02-03", "female")
    assert joined["telecom"] == [{"value": "1"}] and "extension" not in joined


async def test_a_client_writes_to_the_patient_that_images_made(site: Site) -> None:
    value, study = uuid.uuid4().hex, f"2.25.{uuid.uuid4().int}"
    await image(site, value, study=study, name="Doe^Jane", PatientSex="F")
    patient_id = await of_study(site, study)
    taken = await send(site, "POST", "Patient", person(value))
    assert taken.status_code == 409 and issues(taken) == [("conflict", "Patient.identifier[0]")]
    assert f"Patient/{patient_id}" in taken.text
    unseen = await send(site, "POST", "Patient", person(value), VEILED)
    assert unseen.status_code == 409 and patient_id not in unseen.text
    found = await send(site, "POST", "Patient", person(value), if_none_exist=f"identifier={SYSTEM}|{value}")
    assert (found.status_code, found.json()["id"]) == (200, patient_id)
    written = await send(site, "PUT", f"Patient/{patient_id}", {**person(), "id": patient_id}, if_match='W/"1"')
    assert (written.status_code, written.headers["etag"]) == (200, 'W/"2"')
    joined = written.json()
    assert [one["value"] for one in joined["identifier"]] == [patient_id, value, f"{SECRET}-number"]
    assert joined["identifier"][1]["system"] == SYSTEM and joined["name"][0]["family"] == SECRET
    # what was read, put back, is nothing new of images' making
    again = await send(site, "PUT", f"Patient/{patient_id}", joined)
    assert without_meta(again.json())["identifier"] == joined["identifier"]
    patch = [{"op": "replace", "path": "/name/0/family", "value": "Later"}]
    patched = await send(site, "PATCH", f"Patient/{patient_id}", patch, content_type="application/json-patch+json")
    assert patched.json()["name"][0]["family"] == "Later"
    refused = await send(site, "DELETE", f"Patient/{patient_id}")
    assert refused.status_code == 409 and "/subjects/{id}/erasure" in refused.text


async def test_several_numbers_are_one_person_and_a_number_can_be_taken_away(site: Site) -> None:
    one, other, studies = uuid.uuid4().hex, uuid.uuid4().hex, [f"2.25.{uuid.uuid4().int}" for _ in range(3)]
    patient_id = await create(site, person(one, other))
    await image(site, one, study=studies[0])
    await image(site, other, study=studies[1])
    assert [await of_study(site, study) for study in studies[:2]] == [patient_id, patient_id]
    assert issues(await send(site, "POST", "Patient", person(other))) == [("conflict", "Patient.identifier[0]")]
    third = uuid.uuid4().hex
    for numbers in ((one, other, third), (one, other)):
        answer = await send(site, "PUT", f"Patient/{patient_id}", {**person(*numbers), "id": patient_id})
        assert answer.status_code == 200, answer.text
    await image(site, third, study=studies[2])
    assert await of_study(site, studies[2]) != patient_id


async def test_an_identifier_of_another_system_or_none_joins_nothing(site: Site) -> None:
    value, study = uuid.uuid4().hex, f"2.25.{uuid.uuid4().int}"
    first = await create(site, {"resourceType": "Patient", "identifier": [{"value": value}, {"system": "urn:other", "value": value}]})
    second = await create(site, {"resourceType": "Patient", "identifier": [{"value": value}]})
    await image(site, value, study=study)
    await image(site, value, study=study + "1", IssuerOfPatientID="")
    assert len({first, second, await of_study(site, study), await of_study(site, study + "1")}) == 4


async def test_fifty_clients_and_a_scanner_at_once_make_one_patient(site: Site) -> None:
    for _ in range(3):
        value, study, before = uuid.uuid4().hex, f"2.25.{uuid.uuid4().int}", await subjects(site)
        condition = f"identifier={SYSTEM}|{value}"
        answers = await asyncio.gather(
            *(send(site, "POST", "Patient", person(value), if_none_exist=condition) for _ in range(25)), image(site, value, study=study),
            *(send(site, "POST", "Patient", person(value), if_none_exist=condition) for _ in range(25)),
        )  # fmt: skip
        (made,) = await subjects(site) - before
        assert await of_study(site, study) == made
        for answer in answers:
            assert answer is None or (answer.status_code in (200, 201) and answer.json()["id"] == made), answer.text
        assert sum(answer is not None and answer.status_code == 201 for answer in answers) <= 1


async def test_a_bundle_brings_a_patient_and_all_that_is_of_it_sealed_under_one_key(site: Site) -> None:
    def entry(resource: dict[str, Any], nth: int) -> dict[str, Any]:
        return {"fullUrl": f"urn:uuid:{nth:08}-0000-4000-8000-000000000000", "resource": resource, "request": {"method": "POST", "url": resource["resourceType"]}}

    subject = {"reference": "urn:uuid:00000300-0000-4000-8000-000000000000"}
    observations = [
        {"resourceType": "Observation", "status": "final", "code": {"text": f"{nth}"}, "subject": subject, "effectiveDateTime": "2024-01-01"}
        for nth in range(300)
    ]
    entries = [entry(one, nth) for nth, one in enumerate(observations)]
    entries.insert(150, entry(person(), 300))
    answer = await send(site, "POST", "", {"resourceType": "Bundle", "type": "transaction", "entry": entries})
    assert answer.status_code == 200, answer.text
    patient_id = answer.json()["entry"][150]["response"]["location"].split("/Patient/")[1].split("/")[0]
    found = (await site.get("/fhir/Observation", "fhir:read", patient=f"Patient/{patient_id}", _summary="count")).json()
    assert found["total"] == 300
    rows = await site.services.pool.fetch("SELECT DISTINCT subject_id FROM fhir_v6.record WHERE type = 'Observation' AND subject_id = $1", patient_id)
    assert len(rows) == 1
    gone = await send(site, "DELETE", f"Patient/{patient_id}")
    assert gone.status_code == 409 and "Observation/" in gone.text


async def test_a_patient_of_whom_nothing_is_here_can_be_deleted_and_come_back(site: Site) -> None:
    value = uuid.uuid4().hex
    patient_id = await create(site, person(value))
    observed = {"resourceType": "Observation", "status": "final", "code": {"text": "x"}, "subject": {"reference": f"Patient/{patient_id}"}}
    observation = await send(site, "POST", "Observation", observed)
    assert (await send(site, "DELETE", f"Patient/{patient_id}")).status_code == 409
    both = [{"request": {"method": "DELETE", "url": url}} for url in (f"Patient/{patient_id}", f"Observation/{observation.json()['id']}")]
    answer = await send(site, "POST", "", {"resourceType": "Bundle", "type": "transaction", "entry": both})
    assert answer.status_code == 200, answer.text
    assert (await site.get(f"/fhir/Patient/{patient_id}", *NAMED)).status_code == 410
    assert (await send(site, "DELETE", f"Patient/{patient_id}")).status_code == 204
    assert issues(await send(site, "POST", "Observation", observed)) == [("not-found", "Observation.subject")]
    other = await create(site, person(value))  # the number is free again
    assert (await send(site, "DELETE", f"Patient/{other}")).status_code == 204
    back = await send(site, "PUT", f"Patient/{patient_id}", {**person(value), "id": patient_id})
    assert (back.status_code, back.headers["etag"]) == (201, 'W/"3"')
    assert (await send(site, "POST", "Observation", observed)).status_code == 201


async def test_a_client_may_choose_the_id_but_no_number_of_the_person(site: Site) -> None:
    assert (await send(site, "PUT", "Patient/pat-1", {**person(), "id": "pat-1"})).status_code == 201
    refused = await send(site, "PUT", "Patient/4711", {**person(), "id": "4711", "identifier": [{"value": "4711"}]})
    assert refused.status_code == 422 and issues(refused) == [("business-rule", "Patient.identifier[0].value")]
    derived = str(uuid.uuid5(uuid.NAMESPACE_DNS, "x"))
    assert (await send(site, "PUT", f"Patient/{derived}", {**person(), "id": derived})).status_code == 422


async def test_two_patients_are_not_merged_by_a_link(site: Site) -> None:
    other = await create(site, person())
    link = {"other": {"reference": f"Patient/{other}", "display": SECRET}, "type": "replaced-by"}
    refused = await send(site, "POST", "Patient", person(link=[link]))
    assert refused.status_code == 422 and issues(refused) == [("not-supported", "Patient.link[0].type")]
    made = await create(site, person(link=[{**link, "type": "seealso"}]))
    assert (await read(site, made, VEILED))["link"] == [{"other": {"reference": f"Patient/{other}"}, "type": "seealso"}]


async def test_a_person_is_forgotten_with_all_that_anybody_said_of_it(site: Site) -> None:
    one, other, study = uuid.uuid4().hex, uuid.uuid4().hex, f"2.25.{uuid.uuid4().int}"
    patient_id = await create(site, person(one, other, name=[{"family": "Forgottenname", "given": ["Eve"]}]))
    await image(site, one, study=study, name="Forgottenname^Eve")
    await send(site, "PUT", f"Patient/{patient_id}", {**person(one, other, name=[{"family": "Forgottenname2"}]), "id": patient_id})
    await site.services.recorder.flush()  # type: ignore[union-attr]
    await erase(site, patient_id)
    assert (await site.get(f"/fhir/Patient/{patient_id}", *NAMED)).status_code == 410
    assert (await site.get(f"/fhir/Patient/{patient_id}/_history/1", *NAMED)).status_code == 410
    for recorded in await site.services.log.read_stream(subject_stream(patient_id)):
        assert not isinstance(recorded.event, ClinicalRecordWritten) or recorded.event.resource == {}
    await site.caught_up()
    for projection in projections():
        schema = schema_name(projection)
        for (table,) in await site.services.pool.fetch("SELECT tablename FROM pg_tables WHERE schemaname = $1", schema):
            held = await site.services.pool.fetchval(f"SELECT count(*) FROM {schema}.{table} t WHERE t::text ILIKE '%forgottenname%'")
            assert held == 0, table
        verdict = await verify(site.services.log, projection)
        assert verdict.is_equal, [table.table for table in verdict.tables if not table.is_equal]
    refused = await send(site, "PUT", f"Patient/{patient_id}", {**person(), "id": patient_id})
    assert refused.status_code == 410
    before = await subjects(site)
    for value in (one, other):  # under each of its numbers
        headers = {**await site.headers("dicom:write"), "Content-Type": 'multipart/related; type="application/dicom"; boundary=b'}
        file = slice_of(f"2.25.{uuid.uuid4().int}", 1, patient_id=value, IssuerOfPatientID=ISSUER)
        body = b"--b\r\nContent-Type: application/dicom\r\n\r\n%s\r\n--b--\r\n" % file
        assert (await site.client.post("/dicomweb/studies", content=body, headers=headers)).status_code == 409
    assert await subjects(site) == before


async def test_a_client_only_person_is_forgotten_too(site: Site) -> None:
    patient_id = await create(site, person())
    await erase(site, patient_id)
    assert (await site.get(f"/fhir/Patient/{patient_id}", *NAMED)).status_code == 410
