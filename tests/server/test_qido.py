"""QIDO-RS over HTTP: what matches, what comes back, in which order and how much of it."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import asyncpg
import httpx
import pytest
import pytest_asyncio
from pydantic import SecretStr

from domain.principal import device
from domain.series import DicomJson, InstancesStored, StoredInstance, split_headers
from eventlog.envelope import NewEvent, StreamAppend
from eventlog.vault import make_key_encryption_key
from projections.checkpoint import wait_for
from projections.dicom import DicomProjection
from projections.dicom.attributes import PLAIN_ANSWER
from server.app import create_app
from server.auth.tokens import create_token
from server.dicomweb.keys import KEYS, Key
from server.services import Services, open_services
from server.settings import ServerSettings

pytestmark = pytest.mark.asyncio(loop_scope="module")

CT, SEG = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.66.4"


def series(study: str, number: int, instances: int = 1, modality: str = "CT", **elements: Any) -> InstancesStored:
    """A stored series; ``elements`` are given as t<tag>=(vr, value…)."""
    further = {tag.removeprefix("t"): {"vr": vr, "Value": list(values)} for tag, (vr, *values) in elements.items()}
    uid = f"{study}.{number}"
    headers: list[DicomJson] = [
        {
            "00080060": {"vr": "CS", "Value": [modality]},
            "0020000D": {"vr": "UI", "Value": [study]},
            "0020000E": {"vr": "UI", "Value": [uid]},
            "00200011": {"vr": "IS", "Value": [number]},
            "00200013": {"vr": "IS", "Value": [n]},
            "00080018": {"vr": "UI", "Value": [f"{uid}.{n}"]},
            "00280010": {"vr": "US", "Value": [64]},
            **further,
        }
        for n in range(1, instances + 1)
    ]
    common, own = split_headers(headers)
    return InstancesStored(
        study_uid=study,
        series_uid=uid,
        subject_id="8a1f9a52-0000-8000-8000-000000000001",
        modality=modality,
        door="ingest",
        instances=[
            StoredInstance(
                sop_instance_uid=f"{uid}.{n}",
                sop_class_uid=SEG if modality == "SEG" else CT,
                transfer_syntax_uid="1.2.840.10008.1.2.1",
                sha256=f"{n:064x}",
                size=1000,
            )
            for n in range(1, instances + 1)
        ],
        common=common,
        headers=own,
    )


def name(alphabetic: str, ideographic: str = "", phonetic: str = "") -> tuple[str, dict[str, str]]:
    groups = {"Alphabetic": alphabetic, "Ideographic": ideographic, "Phonetic": phonetic}
    return "PN", {group: text for group, text in groups.items() if text}


STUDIES = [
    series("1.1", 1, 3, t00080020=("DA", "20240101"), t00080030=("TM", "101500"), t00100010=name("Müller^Jörg"),
           t00100020=("LO", "A-100"), t00080050=("SH", "ACC1"), t00081030=("LO", "CT CHEST_100%"), t00200010=("SH", "S1"),
           t00100030=("DA", "19500505"), t00080090=name("Who^Doctor"), t00120062=("CS", "NO"),
           t00400275=("SQ", {"00400009": {"vr": "SH", "Value": ["STEP1"]}, "00401001": {"vr": "SH", "Value": ["REQ1"]}})),
    series("1.1", 2, 1, "SEG"),
    series("1.2", 1, 2, "MR", t00080020=("DA", "20240301"), t00080030=("TM", "1630"), t00100010=name("MULLER^ANN"),
           t00100020=("LO", "a-100"), t00080050=("SH", "ACC22"), t00081030=("LO", "MR HEAD"), t00100040=("CS", "F")),
    series("1.3", 1, 1, t00080020=("DA", "20240301"), t00100010=name("Yamada^Tarou", "山田^太郎", "やまだ^たろう"),
           t00100020=("LO", "B_7"), t00081030=("LO", "CT ABDOMEN")),
    series("1.4", 1, 1, "US", t00100020=("LO", "BX7")),
]  # fmt: skip


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def services(embedded_server: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Services]:
    """The server's parts over a database of their own, with the studies above; opened once, since nothing here writes."""
    database = f"qido_{uuid.uuid4().hex[:12]}"
    connection = await asyncpg.connect(embedded_server)
    await connection.execute(f"CREATE DATABASE {database}")
    settings = ServerSettings(
        data_dir=tmp_path_factory.mktemp("qido"),
        database_url=SecretStr(embedded_server.replace("/postgres?", f"/{database}?")),
    )
    make_key_encryption_key(settings)
    async with open_services(settings, dimse=False) as opened:
        for event in STUDIES:
            append = StreamAppend(stream=f"series-{event.series_uid}", events=[NewEvent(event=event)])
            appended = await opened.log.append([append], principal=device("test"))
        await wait_for(opened.pool, DicomProjection(), appended.last)
        yield opened
    await connection.execute(f"DROP DATABASE {database} WITH (FORCE)")
    await connection.close()


@pytest_asyncio.fixture(loop_scope="module")
async def client(services: Services) -> AsyncIterator[httpx.AsyncClient]:
    _, token = await create_token(services.pool, name="test", scopes=["dicom:read"], lifetime=timedelta(hours=1))
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(create_app(services)),
        base_url="http://pacs.test/dicomweb",
        headers={"Authorization": f"Bearer {token}"},
    ) as client:
        yield client


async def uids(client: httpx.AsyncClient, path: str, tag: str = "0020000D", **parameters: str) -> list[str]:
    response = await client.get(path, params=parameters)
    assert response.status_code in (200, 204), response.text
    return [one[tag]["Value"][0] for one in response.json()] if response.content else []


async def test_studies_come_latest_first_and_those_without_a_date_last(client: httpx.AsyncClient) -> None:
    assert await uids(client, "/studies") == ["1.2", "1.3", "1.1", "1.4"]


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ({"PatientName": "müller*"}, ["1.1"]),
        ({"PatientName": "MÜLLER^JÖRG"}, ["1.1"]),
        ({"PatientName": "Mu\u0308ller*"}, ["1.1"]),
        ({"PatientName": "*ller*"}, ["1.2", "1.1"]),
        ({"PatientName": "m?ller*"}, ["1.2", "1.1"]),
        ({"PatientName": "mull"}, []),
        ({"PatientName": "山田*"}, ["1.3"]),
        ({"PatientName": "*太郎"}, ["1.3"]),
        ({"PatientName": "*太*"}, ["1.3"]),
        ({"PatientName": "やまだ^たろう"}, ["1.3"]),
        ({"PatientName": "yamada*=山田*"}, ["1.3"]),
        ({"PatientName": "yamada*=田*"}, []),
        ({"PatientName": ""}, ["1.2", "1.3", "1.1", "1.4"]),
        ({"PatientName": "*"}, ["1.2", "1.3", "1.1", "1.4"]),
        ({"PatientName": "^"}, ["1.4"]),
        ({"00100020": "*-100*"}, ["1.2", "1.1"]),
        ({"00100020": "A-100"}, ["1.1"]),
        ({"PatientID": "A-*"}, ["1.1"]),
        ({"PatientID": "B_7"}, ["1.3"]),
        ({"PatientID": "*B_7*"}, ["1.3"]),
        ({"PatientID": "B?7"}, ["1.3", "1.4"]),
        ({"PatientID": "B_7\\BX7"}, ["1.3", "1.4"]),
        ({"AccessionNumber": "ACC1"}, ["1.1"]),
        ({"AccessionNumber": "*CC*"}, ["1.2", "1.1"]),
        ({"AccessionNumber": "*CC2*"}, ["1.2"]),
        ({"StudyDescription": "*CHEST_100%*"}, ["1.1"]),
        ({"StudyDescription": "CT *"}, ["1.3", "1.1"]),
        ({"StudyDescription": "CT*EN"}, ["1.3"]),
        ({"StudyID": "*S1"}, ["1.1"]),
        ({"ReferringPhysicianName": "*doctor*"}, ["1.1"]),
        ({"ModalitiesInStudy": "CT,SEG"}, ["1.3", "1.1"]),
        ({"ModalitiesInStudy": "CT\\SEG"}, ["1.3", "1.1"]),
        ({"ModalitiesInStudy": "SEG"}, ["1.1"]),
        ({"ModalitiesInStudy": "?R"}, ["1.2"]),
        ({"ModalitiesInStudy": "PT"}, []),
        ({"SOPClassesInStudy": SEG}, ["1.1"]),
        ({"StudyDate": "20240301"}, ["1.2", "1.3"]),
        ({"StudyDate": "20240102-20240301"}, ["1.2", "1.3"]),
        ({"StudyDate": "-20240101"}, ["1.1"]),
        ({"StudyDate": "20240301-"}, ["1.2", "1.3"]),
        ({"StudyTime": "1015"}, ["1.1"]),
        ({"StudyTime": "10-1630"}, ["1.2", "1.1"]),
        ({"PatientBirthDate": "19500505"}, ["1.1"]),
        ({"PatientSex": "F"}, ["1.2"]),
        ({"StudyInstanceUID": "1.1,1.4"}, ["1.1", "1.4"]),
        ({"StudyInstanceUID": "1.1\\1.4"}, ["1.1", "1.4"]),
        ({"0020000d": "1.4"}, ["1.4"]),
        ({"PatientName": "*ller*", "ModalitiesInStudy": "MR"}, ["1.2"]),
        ({"limit": "2"}, ["1.2", "1.3"]),
        ({"limit": "2", "offset": "1"}, ["1.3", "1.1"]),
        ({"offset": "4"}, []),
        ({"limit": "0"}, []),
    ],
)
async def test_studies_match(client: httpx.AsyncClient, parameters: dict[str, str], expected: list[str]) -> None:
    assert await uids(client, "/studies", **parameters) == expected


@pytest.mark.parametrize(
    ("path", "parameters", "named"),
    [
        ("/studies", {"PatientNme": "Mueller"}, "PatientNme"),
        ("/studies", {"00100011": "x"}, "00100011"),
        ("/studies", {"Modality": "CT"}, "Modality"),
        ("/studies", {"StudyDate": "yesterday"}, "StudyDate"),
        ("/studies", {"StudyDate": "-"}, "StudyDate"),
        ("/studies", {"StudyInstanceUID": "1.*"}, "StudyInstanceUID"),
        ("/studies", {"limit": "-1"}, "limit"),
        ("/studies", {"fuzzymatching": "perhaps"}, "fuzzymatching"),
        ("/studies", {"includefield": "PatientNme"}, "PatientNme"),
        ("/series", {"SeriesNumber": "one"}, "SeriesNumber"),
        ("/series", {"SOPInstanceUID": "1"}, "SOPInstanceUID"),
    ],
)
async def test_what_cannot_be_matched_is_refused_by_name(
    client: httpx.AsyncClient, path: str, parameters: dict[str, str], named: str
) -> None:
    response = await client.get(path, params=parameters)
    assert response.status_code == 400
    assert response.headers["content-type"] == "application/problem+json"
    assert named in response.json()["detail"]
    assert "Mueller" not in response.text and "yesterday" not in response.text


@pytest.mark.parametrize(
    ("path", "tag", "parameters", "expected"),
    [
        ("/studies/1.1/series", "0020000E", {}, ["1.1.1", "1.1.2"]),
        ("/studies/1.1/series", "0020000E", {"Modality": "SEG"}, ["1.1.2"]),
        ("/studies/1.1/series", "0020000E", {"SeriesNumber": "1"}, ["1.1.1"]),
        ("/studies/1.1/series", "0020000E", {"PatientID": "A-100", "Modality": "CT"}, ["1.1.1"]),
        ("/studies/9.9/series", "0020000E", {}, []),
        ("/series", "0020000E", {}, ["1.2.1", "1.3.1", "1.1.1", "1.1.2", "1.4.1"]),
        ("/series", "0020000E", {"RequestAttributesSequence.RequestedProcedureID": "REQ1"}, ["1.1.1"]),
        ("/series", "0020000E", {"00400275.00400009": "STEP*"}, ["1.1.1"]),
        ("/series", "0020000E", {"SeriesInstanceUID": "1.1.2,1.4.1"}, ["1.1.2", "1.4.1"]),
        ("/series", "0020000E", {"PatientID": "A-*", "limit": "1"}, ["1.1.1"]),
        ("/studies/1.1/series/1.1.1/instances", "00080018", {}, ["1.1.1.1", "1.1.1.2", "1.1.1.3"]),
        ("/studies/1.1/series/1.1.1/instances", "00080018", {"InstanceNumber": "2"}, ["1.1.1.2"]),
        ("/studies/1.2/series/1.1.1/instances", "00080018", {}, []),
        ("/studies/1.1/instances", "00080018", {}, ["1.1.1.1", "1.1.1.2", "1.1.1.3", "1.1.2.1"]),
        ("/studies/1.1/instances", "00080018", {"SOPClassUID": SEG}, ["1.1.2.1"]),
        ("/instances", "00080018", {"SOPInstanceUID": "1.2.1.2"}, ["1.2.1.2"]),
        ("/instances", "00080018", {"ModalitiesInStudy": "MR", "offset": "1"}, ["1.2.1.2"]),
    ],
)
async def test_series_and_instances_match(
    client: httpx.AsyncClient, path: str, tag: str, parameters: dict[str, str], expected: list[str]
) -> None:
    assert await uids(client, path, tag, **parameters) == expected


async def test_a_study_answers_with_what_the_standard_requires(client: httpx.AsyncClient) -> None:
    response = await client.get("/studies", params={"StudyInstanceUID": "1.1"})
    assert response.headers["content-type"] == "application/dicom+json"
    (study,) = response.json()
    assert list(study) == sorted(study)
    assert study["00081190"]["Value"] == ["http://pacs.test/dicomweb/studies/1.1"]
    assert study["00080061"]["Value"] == ["CT", "SEG"]
    assert study["00201206"]["Value"] == [2] and study["00201208"]["Value"] == [4]
    assert study["00080056"] == {"vr": "CS", "Value": ["ONLINE"]}
    assert study["00100040"] == {"vr": "CS"}
    assert "00120062" not in study


async def test_the_viewers_list_asks_for_fields_that_are_ready(client: httpx.AsyncClient) -> None:
    response = await client.get(
        "/studies?limit=101&offset=0&fuzzymatching=false&includefield=00081030,00080060,00080090,00100030"
        "&PatientName=*ller*&00100020=*100*&ModalitiesInStudy=CT,SEG&StudyDate=20230101-20241231"
    )
    (study,) = response.json()
    assert study["00081030"]["Value"] == ["CT CHEST_100%"]
    assert study["00080090"]["Value"] == [{"Alphabetic": "Who^Doctor"}]
    assert study["00100030"]["Value"] == ["19500505"]
    assert "warning" not in response.headers


async def test_the_viewers_series_list_asks_for_fields_that_are_ready(client: httpx.AsyncClient) -> None:
    response = await client.get("/studies/1.1/series?includefield=00080021,00080031,0008103E,00200011")
    first, second = response.json()
    assert first["00200011"]["Value"] == [1] and first["00080060"]["Value"] == ["CT"]
    assert second["00201209"]["Value"] == [1]
    assert first["00081190"]["Value"] == ["http://pacs.test/dicomweb/studies/1.1/series/1.1.1"]


async def test_what_can_be_matched_is_answered() -> None:
    for key in KEYS:
        assert key.tag.split(".")[0] in PLAIN_ANSWER[key.level.name.lower()], key.keyword


@pytest.mark.parametrize("key", [key for key in KEYS if key.has_grams], ids=lambda key: key.keyword)
async def test_fragments_are_found_in_every_attribute_that_promises_it(client: httpx.AsyncClient, key: Key) -> None:
    """The index of grams holds what the search looks up in it."""
    for study in (await client.get("/studies")).json():
        for value in study.get(key.tag, {}).get("Value", []):
            text = value["Alphabetic"] if isinstance(value, dict) else value
            found = await uids(client, "/studies", **{key.keyword: f"*{text[-3:]}*"})
            assert study["0020000D"]["Value"][0] in found


async def test_includefield_adds_attributes(client: httpx.AsyncClient) -> None:
    (study,) = (await client.get("/studies?StudyInstanceUID=1.1&includefield=PatientIdentityRemoved")).json()
    assert study["00120062"]["Value"] == ["NO"]
    (study,) = (await client.get("/studies?StudyInstanceUID=1.1&includefield=all")).json()
    assert study["00120062"]["Value"] == ["NO"] and list(study) == sorted(study)
    one, *_ = (
        await client.get("/studies/1.1/series/1.1.1/instances?includefield=00080060&includefield=PatientID")
    ).json()
    assert one["00080060"]["Value"] == ["CT"] and one["00100020"]["Value"] == ["A-100"]
    one, *_ = (await client.get("/studies/1.1/series/1.1.1/instances?includefield=all")).json()
    assert one["00081030"]["Value"] == ["CT CHEST_100%"]
    assert one["00081190"]["Value"] == ["http://pacs.test/dicomweb/studies/1.1/series/1.1.1/instances/1.1.1.1"]


async def test_levels_that_the_path_does_not_fix_are_answered_too(client: httpx.AsyncClient) -> None:
    first, *_ = (await client.get("/series?PatientID=A-100")).json()
    assert first["00100020"]["Value"] == ["A-100"] and first["00201209"]["Value"] == [3]
    first, *_ = (await client.get("/studies/1.1/instances")).json()
    assert first["00080060"]["Value"] == ["CT"] and "00100020" not in first
    first, *_ = (await client.get("/instances?StudyInstanceUID=1.1")).json()
    assert first["00080060"]["Value"] == ["CT"] and first["00100020"]["Value"] == ["A-100"]


async def test_nothing_found_is_no_content(client: httpx.AsyncClient) -> None:
    response = await client.get("/studies?PatientID=nobody")
    assert (response.status_code, response.content) == (204, b"")


async def test_more_results_and_unsupported_matching_are_warned_of(client: httpx.AsyncClient) -> None:
    response = await client.get("/studies?limit=1&offset=1&fuzzymatching=true")
    assert "There are 2 additional results" in response.headers["warning"]
    assert "fuzzymatching parameter is not supported" in response.headers["warning"]


async def test_only_json_is_given(client: httpx.AsyncClient) -> None:
    xml = 'multipart/related; type="application/dicom+xml"'
    assert (await client.get("/studies", headers={"Accept": xml})).status_code == 406
    both = await client.get("/studies", headers={"Accept": f"{xml}, application/json;q=0.5"})
    assert both.headers["content-type"] == "application/json"


async def test_an_unknown_caller_is_refused(client: httpx.AsyncClient) -> None:
    del client.headers["authorization"]
    assert (await client.get("/studies")).status_code == 401


async def test_another_scope_does_not_reach_the_images(client: httpx.AsyncClient, services: Services) -> None:
    _, token = await create_token(services.pool, name="test", scopes=["fhir:read"], lifetime=timedelta(hours=1))
    response = await client.get("/studies", headers={"Authorization": f"Bearer {token}"})
    assert response.status_code == 403


async def test_a_rebuild_changes_no_answer(client: httpx.AsyncClient, services: Services) -> None:
    """The tables change their places under statements that are prepared already."""
    paths = ("/studies", "/studies?includefield=all", "/studies/1.1/series", "/instances", "/studies/1.1/metadata")
    before = [(await client.get(path)).content for path in paths]
    await services.runner.rebuild("dicom")
    assert [(await client.get(path)).content for path in paths] == before
