"""FHIR over HTTP: read, vread, history, search with stable pages, metadata, and an OperationOutcome for every error."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import asyncpg
import httpx
import pytest
import pytest_asyncio
from fhir.resources import get_fhir_model_class
from pydantic import SecretStr

from domain.event import Event
from domain.findings import SNOMED_CT, Code, Finding, Laterality, Structure
from domain.principal import device
from domain.series import IndexingRefused, InstancesStored, SegmenterRun, SeriesIndexed, StoredInstance
from domain.study import StudyRegistered
from domain.subject import Demographics, SubjectRegistered
from eventlog.envelope import NewEvent, StreamAppend
from eventlog.log import EventLog
from eventlog.vault import make_key_encryption_key
from projections.checkpoint import wait_for
from projections.fhir.projection import FhirProjection
from projections.fhir.vocabulary import index_id, selection_id, study_id
from server.app import create_app
from server.auth.tokens import create_token
from server.services import open_services
from server.settings import ServerSettings

pytestmark = pytest.mark.asyncio(loop_scope="module")
FHIR_JSON = "application/fhir+json"
LUNG = Structure(label="lung_left", snomed=Code(SNOMED_CT, "39607008", "Lung structure"), laterality=Laterality.LEFT)
LIVER = Structure(label="liver", snomed=Code(SNOMED_CT, "10200004", "Liver structure"))


def subject(number: int) -> str:
    return f"8a1f9a52-0000-8000-8000-{number:012d}"


def study(number: int, modality: str = "CT", date: str = "20240131") -> list[Event]:
    """A study of one series with one instance, of a subject of its own."""
    uid, series = f"1.2.{number}", f"1.2.{number}.1"
    person = Demographics(patient_id=f"MRN-{number}", patient_name=f"DOE^JANE{number}", birth_date="19700102")
    stored = StoredInstance(
        sop_instance_uid=f"{series}.1",
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        sha256="a" * 64,
        size=10,
    )
    return [
        SubjectRegistered(subject_id=subject(number), sex="F", demographics=person),
        StudyRegistered(study_uid=uid, subject_id=subject(number)),
        InstancesStored(
            study_uid=uid,
            series_uid=series,
            subject_id=subject(number),
            modality=modality,
            door="ingest",
            instances=[stored],
            headers=[{"00080020": {"vr": "DA", "Value": [date]}, "00200013": {"vr": "IS", "Value": [1]}}],
        ),
    ]


def indexed(number: int, *structures: Structure) -> SeriesIndexed:
    return SeriesIndexed(
        study_uid=f"1.2.{number}",
        series_uid=f"1.2.{number}.1",
        subject_id=subject(number),
        series_digest="ab" * 32,
        run=SegmenterRun(segmenter="baseline", segmenter_version="1.0", software={"numpy": "1"}, duration_s=1.0),
        findings=[
            Finding(
                structure=one,
                volume_mm3=10.0,
                voxel_count=10,
                mean_hu=1.5,
                touches_edge=False,
                centroid_mm=(0.0, 0.0, 0.0),
                bounding_box_mm=((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
            )
            for one in structures
        ],
    )


HISTORY: list[Event] = [
    *study(1),
    *study(2, date="20240301"),
    *study(3, modality="MR", date="20230601"),
    indexed(1, LUNG, LIVER),
    indexed(2, LUNG),
    indexed(2),
    IndexingRefused(
        study_uid="1.2.3",
        series_uid="1.2.3.1",
        subject_id=subject(3),
        series_digest="cd" * 32,
        segmenter="baseline",
        reason="not-ct",
        detail="MR",
    ),
]


@dataclasses.dataclass
class Server:
    client: httpx.AsyncClient
    log: EventLog
    names: dict[str, str]
    """Headers of one who may see identities."""
    other: dict[str, str]
    """Headers of one who may not read FHIR."""

    async def append(self, *events: Event) -> None:
        """Returns once the FHIR projection has them."""
        for event in events:
            done = await self.log.append(
                [StreamAppend(stream="series-test", events=[NewEvent(event=event)])], principal=device("test")
            )
        await wait_for(self.log.pool, FhirProjection(), done.last)

    async def get(self, path: str, **parameters: str) -> httpx.Response:
        return await self.client.get(path, params=parameters or None)

    async def found(self, path: str, **parameters: str) -> list[str]:
        """Ids of what a search finds."""
        response = await self.get(path, **parameters)
        assert response.status_code == 200, response.text
        return [one["resource"]["id"] for one in response.json().get("entry", [])]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def server(embedded_server: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Server]:
    """One server for all tests here; the one test that adds to it stands last, and looks for what it added alone."""
    address, _, query = embedded_server.partition("?")
    connection = await asyncpg.connect(embedded_server)
    await connection.execute("CREATE DATABASE fhir_api_test")
    await connection.close()
    url = f"{address.rsplit('/', 1)[0]}/fhir_api_test" + (f"?{query}" if query else "")
    settings = ServerSettings(data_dir=tmp_path_factory.mktemp("fhir"), database_url=SecretStr(url))
    make_key_encryption_key(settings)
    async with open_services(settings, dimse=False) as services:
        app = create_app(services)
        tokens = {}
        for name, scopes in (("plain", ["fhir:read"]), ("names", ["fhir:read", "identities:read"]), ("other", ["dicom:read"])):
            _, token = await create_token(services.pool, name=name, scopes=scopes, lifetime=timedelta(hours=1))
            tokens[name] = {"Authorization": f"Bearer {token}"}
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://fhir.test/fhir", headers=tokens["plain"]) as client:
            made = Server(client, services.log, tokens["names"], tokens["other"])
            await made.append(*HISTORY)
            yield made


def validate(body: dict[str, Any]) -> None:
    get_fhir_model_class(body["resourceType"]).model_validate(body)


def says(response: httpx.Response, status: int) -> dict[str, Any]:
    """The first issue of an OperationOutcome with this status."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == FHIR_JSON
    validate(response.json())
    issue: dict[str, Any] = response.json()["issue"][0]
    return issue


async def test_a_resource_is_read_with_its_version(server: Server) -> None:
    response = await server.get(f"/ImagingStudy/{study_id('1.2.1')}")
    assert response.status_code == 200
    assert response.headers["content-type"] == FHIR_JSON
    assert response.headers["etag"] == f'W/"{response.json()["meta"]["versionId"]}"'
    assert "last-modified" in response.headers
    validate(response.json())


async def test_what_the_client_holds_already_is_not_sent_again(server: Server) -> None:
    path = f"/ImagingStudy/{study_id('1.2.1')}"
    etag = (await server.get(path)).headers["etag"]
    again = await server.client.get(path, headers={"If-None-Match": etag})
    assert (again.status_code, again.content) == (304, b"")
    assert (await server.client.get(path, headers={"If-None-Match": 'W/"77"'})).status_code == 200


async def test_every_version_can_be_read_and_history_lists_them_newest_first(server: Server) -> None:
    path = f"/BodyStructure/{index_id('1.2.2.1')}"
    bundle = (await server.get(f"{path}/_history")).json()
    validate(bundle)
    versions = [one["resource"]["meta"]["versionId"] for one in bundle["entry"]]
    assert versions == ["2", "1"]
    for version in versions:
        read = (await server.get(f"{path}/_history/{version}")).json()
        validate(read)
        assert read["meta"]["versionId"] == version


async def test_everything_that_any_search_returns_is_valid_r5(server: Server) -> None:
    for resource_type in ("Patient", "ImagingStudy", "ImagingSelection", "BodyStructure", "Observation", "Device", "Provenance"):
        bundle = (await server.get(f"/{resource_type}")).json()
        validate(bundle)
        assert bundle["total"] == len(bundle["entry"]) > 0
        for entry in bundle["entry"]:
            validate(entry["resource"])


async def test_metadata_is_a_valid_capability_statement(server: Server) -> None:
    statement = (await server.get("/metadata")).json()
    validate(statement)
    assert statement["fhirVersion"] == "5.0.0"
    assert {one["type"] for one in statement["rest"][0]["resource"]} >= {"ImagingStudy", "BodyStructure", "Provenance"}


ONE, TWO, THREE = study_id("1.2.1"), study_id("1.2.2"), study_id("1.2.3")


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"_id": ONE}, {ONE}),
        ({"_id": f"{ONE},{TWO}"}, {ONE, TWO}),
        ({"identifier": "urn:oid:1.2.1"}, {ONE}),
        ({"identifier": "urn:dicom:uid|urn:oid:1.2.1"}, {ONE}),
        ({"identifier": "urn:other|urn:oid:1.2.1"}, set()),
        ({"identifier": "|urn:oid:1.2.1"}, set()),
        ({"patient": subject(2)}, {TWO}),
        ({"patient": f"Patient/{subject(2)}"}, {TWO}),
        ({"patient": f"http://fhir.test/fhir/Patient/{subject(2)}"}, {TWO}),
        ({"modality": "CT"}, {ONE, TWO}),
        ({"modality": "CT,MR"}, {ONE, TWO, THREE}),
        ({"modality": "http://dicom.nema.org/resources/ontology/DCM|MR"}, {THREE}),
        ({"started": "2024"}, {ONE, TWO}),
        ({"started": "2024-01"}, {ONE}),
        ({"started": "2024-01-31"}, {ONE}),
        ({"started": "gt2024-01-31"}, {TWO}),
        ({"started": "ge2024-01-31"}, {ONE, TWO}),
        ({"started": "lt2024"}, {THREE}),
        ({"started": "le2024-01"}, {ONE, THREE}),
        ({"started": "ne2024-01-31"}, {TWO, THREE}),
        ({"started": "sa2024-01"}, {TWO}),
        ({"started": "eb2024-01"}, {THREE}),
        ({"modality": "CT", "started": "2024-03"}, {TWO}),
        ({"status": "available"}, {ONE, TWO, THREE}),
        ({"status": "registered"}, set()),
        ({"_lastUpdated": "gt2020-01-01"}, {ONE, TWO, THREE}),
        ({"_lastUpdated": "lt2020-01-01"}, set()),
        ({"body-structure.included_structure": "39607008"}, {ONE}),
        ({"body-structure.included_structure": f"{SNOMED_CT}|10200004"}, {ONE}),
    ],
)
async def test_studies_are_found(server: Server, parameters: dict[str, str], expected: set[str]) -> None:
    assert set(await server.found("/ImagingStudy", **parameters)) == expected


async def test_structures_are_found_by_code_and_patient(server: Server) -> None:
    assert index_id("1.2.1.1") in await server.found("/BodyStructure", included_structure=f"{SNOMED_CT}|39607008")
    assert len(await server.found("/BodyStructure", included_structure="10200004", patient=subject(1))) == 2
    assert await server.found("/BodyStructure", included_structure="10200004", patient=subject(2)) == []


async def test_provenance_is_found_by_its_target(server: Server) -> None:
    assert len(await server.found("/Provenance", target=f"ImagingStudy/{ONE}")) == 3  # registered, stored, indexed
    assert len(await server.found("/Provenance", target=f"ImagingSelection/{selection_id('1.2.1.1')}")) == 1


async def test_a_refusal_is_found_by_its_reason(server: Server) -> None:
    (found,) = (await server.get("/Provenance", activity="not-ct")).json()["entry"]
    assert found["resource"]["target"][0]["reference"] == f"ImagingSelection/{selection_id('1.2.3.1')}"


async def test_a_search_by_post_is_the_same(server: Server) -> None:
    response = await server.client.post("/ImagingStudy/_search", data={"modality": "MR"})
    assert [one["resource"]["id"] for one in response.json()["entry"]] == [THREE]


async def test_a_forged_page_link_is_refused(server: Server) -> None:
    assert says(await server.get("/ImagingStudy", _page="AAAA"), 400)["expression"] == ["http._page"]


async def test_the_self_link_says_what_was_used(server: Server) -> None:
    response = await server.client.get("/ImagingStudy?modality=MR&nonsense=1", headers={"Prefer": "handling=lenient"})
    (self_link,) = [one["url"] for one in response.json()["link"] if one["relation"] == "self"]
    assert "modality=MR" in self_link and "nonsense" not in self_link


async def test_an_unknown_parameter_is_an_error_that_lists_what_there_is(server: Server) -> None:
    issue = says(await server.get("/ImagingStudy", nonsense="1"), 400)
    assert issue["expression"] == ["http.nonsense"]
    assert "nonsense" in issue["diagnostics"] and "modality" in issue["diagnostics"]


async def test_an_unknown_parameter_is_left_out_where_the_client_prefers_that(server: Server) -> None:
    response = await server.client.get("/ImagingStudy?nonsense=1&modality=MR", headers={"Prefer": "handling=lenient"})
    bundle = response.json()
    validate(bundle)
    assert [one["search"]["mode"] for one in bundle["entry"]] == ["match", "outcome"]


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/Patient/none", 404),
        ("/Patient/none/_history", 404),
        ("/Patient/none/_history/1", 404),
        (f"/ImagingStudy/{ONE}/_history/99", 404),
        (f"/ImagingStudy/{ONE}/_history/²", 404),
        ("/Conditions", 404),
        ("/Condition/1", 404),
        ("/a/b/c/d", 404),
        ("/Patient/a%00b", 404),
        ("/ImagingStudy?started=yesterday", 400),
        ("/ImagingStudy?started=2024-13", 400),
        ("/ImagingStudy?_count=x", 400),
        ("/ImagingStudy?_count=²", 400),
        ("/ImagingStudy?modality=", 400),
        ("/ImagingStudy?modality=%00", 400),
        ("/Provenance?target=1", 400),
        ("/Patient?_format=xml", 406),
    ],
)
async def test_every_error_is_an_operation_outcome(server: Server, path: str, status: int) -> None:
    says(await server.client.get(path), status)


async def test_what_is_not_served_is_refused_by_name(server: Server) -> None:
    response = await server.client.put("/Patient/1/_history", json={})
    says(response, 405)
    assert "GET" in response.headers["allow"]
    says(await server.client.get("/Patient", headers={"Accept": "application/fhir+xml"}), 406)


async def test_without_a_token_or_the_scope_nothing_is_read(server: Server) -> None:
    says(await server.client.get("/Patient", headers={"Authorization": ""}), 401)
    says(await server.client.get("/metadata", headers={"Authorization": "Bearer nonsense"}), 401)
    says(await server.client.get("/Patient", headers=server.other), 403)


async def test_names_are_for_those_who_may_see_them(server: Server) -> None:
    path = f"/Patient/{subject(1)}"
    plain = (await server.get(path)).text
    assert not [word for word in ("DOE", "JANE", "MRN-1", "1970") if word in plain.replace(subject(1), "")]
    named = (await server.client.get(path, headers=server.names)).json()
    validate(named)
    assert named["name"][0]["family"] == "DOE"
    assert named["birthDate"] == "1970-01-02"
    assert named["identifier"][1]["value"] == "MRN-1"


async def test_head_answers_as_get_does(server: Server) -> None:
    path = f"/ImagingStudy/{ONE}"
    head = await server.client.head(path)
    assert head.status_code == 200
    assert head.headers["etag"] == (await server.get(path)).headers["etag"]


async def test_pages_are_a_snapshot_and_their_links_tell_nothing(server: Server) -> None:
    first = (await server.get("/ImagingStudy", modality="CT,MR", _count="2", _total="accurate")).json()
    assert first["total"] == 3 and len(first["entry"]) == 2
    await server.append(*study(4, "XA"), *study(5, "CT", "19990101"))
    (following,) = [one["url"] for one in first["link"] if one["relation"] == "next"]
    assert "modality" not in following and "CT,MR" not in following and "CT%2CMR" not in following
    second = (await server.client.get(following)).json()
    assert second["total"] == 3
    ids = [one["resource"]["id"] for page in (first, second) for one in page["entry"]]
    assert sorted(ids) == sorted([ONE, TWO, THREE])
    assert not [one for one in second["link"] if one["relation"] == "next"]
    assert len(await server.found("/ImagingStudy")) == 5
