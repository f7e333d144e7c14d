"""Clients that we did not write, over real HTTP: fhirpy, which speaks any version, and fhirclient, as far as R4 and R5 are one.

fhirclient has the models of R4, and refuses a resource that R5 changed (a Device, an ImagingStudy). What it does with resources that are the same in both is what any client of its kind does.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from fhirclient.client import FHIRClient
from fhirclient.models.fhirabstractbase import FHIRValidationError
from fhirclient.models.organization import Organization
from fhirclient.models.patient import Patient
from fhirclient.server import FHIRNotFoundException, FHIRServer
from fhirpy import AsyncFHIRClient
from fhirpy.base.exceptions import AuthorizationError, OperationOutcome, ResourceNotFound
from listening_site import behind_a_socket
from served_site import LIVER, LUNG, PLANTED_NAME, Site, served_site, slice_of

from projections.fhir.vocabulary import study_id

PEOPLE = 5
STUDY = "1.2.840.15.0"


@dataclass
class Served:
    site: Site
    url: str
    token: str


@pytest_asyncio.fixture
async def served(embedded_server: str, tmp_path: Path) -> AsyncIterator[Served]:
    """Five people with an indexed study each, behind a socket."""
    async with served_site(embedded_server, tmp_path) as site:
        for n in range(PEOPLE):
            await site.store(slice_of(f"1.2.840.15.{n}", 1, patient_id=f"PLANTEDMRN{n}", name=f"{PLANTED_NAME}{n}"))
            await site.index(f"1.2.840.15.{n}.1", LIVER, LUNG)
        token = (await site.headers("fhir:read", "fhir:write", "identities:read"))["Authorization"]
        async with behind_a_socket(site) as url:
            yield Served(site, f"{url}/fhir", token)


async def test_fhirpy_reads_searches_and_pages(served: Served) -> None:
    client = AsyncFHIRClient(served.url, authorization=served.token)
    studies = client.resources("ImagingStudy")
    assert len(await studies.search(modality="CT").fetch()) == PEOPLE
    assert [one["id"] for one in await studies.search(_id=study_id(STUDY)).fetch()] == [study_id(STUDY)]
    seen = [one["id"] async for one in client.resources("Observation").limit(3)]
    assert len(seen) == len(set(seen)) == 2 * PEOPLE
    assert await client.resources("Observation").limit(4).fetch_all() != []
    study = await client.get("ImagingStudy", study_id(STUDY))
    patient = await client.reference(reference=study["subject"]["reference"]).to_resource()
    assert patient["name"][0]["family"].startswith(PLANTED_NAME.partition("^")[0])
    first = await client.resources("Patient").search(gender="female").first()
    assert first is not None and first.resourceType == "Patient"


async def test_fhirpy_chains_reverses_and_includes(served: Served) -> None:
    client = AsyncFHIRClient(served.url, authorization=served.token)
    patients = client.resources("Patient")
    assert len(await patients.has("Observation", "patient", status="preliminary").fetch()) == PEOPLE
    assert await patients.has("Observation", "patient", status="final").fetch() == []
    assert len(await client.resources("ImagingStudy").search(subject__Patient__gender="female").fetch()) == PEOPLE
    bundle = await client.resources("ImagingStudy").search(_id=study_id(STUDY)).include("ImagingStudy", "patient").revinclude("Observation", "part-of").fetch_raw()
    found = [entry["resource"]["resourceType"] for entry in bundle["entry"]]
    assert sorted(found) == ["ImagingStudy", "Observation", "Observation", "Patient"]
    latest = await client.resources("Provenance").sort("-recorded").limit(1).fetch()
    assert len(latest) == 1


async def test_fhirpy_sends_a_transaction_and_is_told_that_its_patch_is_none_of_r5(served: Served) -> None:
    """It sends a part of the resource, as another server takes it."""
    client = AsyncFHIRClient(served.url, authorization=served.token)
    patient = await client.resources("Patient").first()
    assert patient is not None
    condition = {"resourceType": "Condition", "id": "of-fhirpy", "clinicalStatus": {"text": "active"}, "subject": {"reference": f"Patient/{patient.id}"}}
    entry = [{"request": {"method": "PUT", "url": "Condition/of-fhirpy"}, "resource": condition}]
    answered = await client.resource("Bundle", type="transaction", entry=entry).save()
    assert answered is None or answered["type"] == "transaction-response"
    with pytest.raises(OperationOutcome) as refused:
        await client.patch("Condition", "of-fhirpy", clinicalStatus={"text": "resolved"})
    assert refused.value.resource["issue"][0]["expression"] == ["http.content-type"]
    assert (await client.get("Condition", "of-fhirpy"))["clinicalStatus"]["text"] == "active"


async def test_fhirpy_takes_our_refusals_for_what_they_are(served: Served) -> None:
    client = AsyncFHIRClient(served.url, authorization=served.token)
    with pytest.raises(ResourceNotFound):
        await client.get("Patient", "none")
    with pytest.raises(OperationOutcome) as refused:
        await client.resources("Patient").search(nonsense="1").fetch()
    assert refused.value.resource["issue"][0]["expression"] == ["http.nonsense"]
    with pytest.raises(AuthorizationError):
        await AsyncFHIRClient(served.url, authorization="Bearer wrong").resources("Patient").fetch()


async def test_fhirpy_counts_where_it_is_lenient_about_a_parameter_of_another_server(served: Served) -> None:
    """Its count() sends _totalMethod, which is Aidbox's own: refused as anything that nobody knows, unless the client prefers otherwise."""
    strict = AsyncFHIRClient(served.url, authorization=served.token)
    with pytest.raises(OperationOutcome):
        await strict.resources("Patient").count()
    lenient = AsyncFHIRClient(served.url, authorization=served.token, extra_headers={"Prefer": "handling=lenient"})
    assert await lenient.resources("Patient").count() == PEOPLE


async def test_fhirpy_executes_operations_and_histories(served: Served) -> None:
    client = AsyncFHIRClient(served.url, authorization=served.token)
    everything = await client.execute(f"ImagingStudy/{study_id(STUDY)}/$everything", "get")
    assert {entry["resource"]["resourceType"] for entry in everything["entry"]} >= {"ImagingStudy", "Patient", "Observation", "Device"}
    history: Any = await client.execute("_history", "get", params={"_count": 5})
    assert (history["type"], len(history["entry"])) == ("history", 5)


async def test_fhirpy_creates_updates_and_deletes(served: Served) -> None:
    client = AsyncFHIRClient(served.url, authorization=served.token)
    patient = await client.resources("Patient").first()
    said = {"subject": {"reference": f"Patient/{patient.id}"}, "clinicalStatus": {"text": "active"}}
    condition = client.resource("Condition", **said)
    await condition.save()
    assert condition.id and condition.meta["versionId"] == "1"
    condition["clinicalStatus"] = {"text": "resolved"}
    await condition.save()
    assert (condition.meta["versionId"], (await client.get("Condition", condition.id))["clinicalStatus"]["text"]) == ("2", "resolved")
    with pytest.raises(OperationOutcome) as refused:  # its conditional create is not R5's (If-None-Exist): ignored, it would make another
        await client.resources("Condition").search(_id=condition.id).get_or_create(client.resource("Condition", **said))
    assert refused.value.resource["issue"][0]["expression"] == ["http._id"]
    changed, is_new = await client.resources("Condition").search(_id=condition.id).update(client.resource("Condition", **said))
    assert (changed["id"], is_new) == (condition.id, False)
    await condition.delete()
    with pytest.raises(ResourceNotFound):
        await client.get("Condition", condition.id)


async def test_fhirclient_creates_updates_and_deletes(served: Served) -> None:
    def drive() -> None:
        server = _r4(served)
        organization = Organization({"name": "Radiology"})
        organization.id = organization.create(server)["id"]
        organization.name = "Department of Radiology"
        organization.update(server)
        found = list(Organization.where({"_id": organization.id}).perform_resources_iter(server))
        assert [one.name for one in found] == ["Department of Radiology"]
        organization.delete(server)
        assert list(Organization.where({"_id": organization.id}).perform_resources_iter(server)) == []

    await asyncio.to_thread(drive)


async def test_fhirclient_reads_searches_and_pages(served: Served) -> None:
    def drive() -> None:
        server = _r4(served)
        patients = list(Patient.where({"gender": "female", "_count": "2"}).perform_resources_iter(server))
        assert len({one.id for one in patients}) == PEOPLE
        one = Patient.read(patients[0].id, server)
        assert one.name[0].family.startswith(PLANTED_NAME.partition("^")[0])
        with pytest.raises(FHIRNotFoundException):
            Patient.read("none", server)

    await asyncio.to_thread(drive)


async def test_fhirclient_refuses_a_capability_statement_of_r5_and_works_without(served: Served) -> None:
    """R5 added conditionalPatch, which its models of R4 do not know."""

    def drive() -> None:
        client = FHIRClient(settings={"app_id": "test", "api_base": served.url})
        client.server.session.headers["Authorization"] = served.token
        with pytest.raises(FHIRValidationError, match="conditionalPatch"):
            client.prepare()
        (bundle, *_) = Patient.where({"_summary": "count"}).perform_iter(client.server)
        assert bundle.total == PEOPLE

    await asyncio.to_thread(drive)


def _r4(served: Served) -> FHIRServer:
    server = FHIRServer(None, served.url)
    server.session.headers["Authorization"] = served.token
    return server
