"""STOW-RS over HTTP: what is stored, what is answered, and what a broken body does."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dicomweb_client
import httpx
import pydicom
import pytest
import pytest_asyncio
from fastapi import FastAPI
from hypothesis import given
from hypothesis import strategies as st
from pydicom.data import get_testdata_file
from pydicom.uid import generate_uid

from archive.part10 import read_part10
from archive.rejects import Rejects
from archive.spool import Spool, SpooledInstance
from archive.store import Store
from domain.principal import PrincipalKind
from domain.series import InstancesStored
from eventlog.log import EventLog
from server.auth.principals import Verifiers
from server.auth.tokens import TokenVerifier, create_token
from server.dicomweb import stow
from server.dicomweb.body import Arrived, PartsParser
from server.dicomweb.errors import RequestInvalid
from server.errors import ScopeMissing, TokenInvalid
from server.intake import Intake
from server.verdict import Verdict

CT = Path(str(get_testdata_file("CT_small.dcm")))
BOUNDARY = "a-boundary"
HEADERS = {"Content-Type": f'multipart/related; type="application/dicom"; boundary={BOUNDARY}', "Accept": "application/dicom+json"}


class House:
    def __init__(self, log: EventLog, folder: Path) -> None:
        self.log = log
        self.spool, self.store, self.rejects = Spool(folder / "spool"), Store(str(folder / "archive")), Rejects(folder / "rejects")
        self.intake = Intake(log, self.store, self.spool, self.rejects, linger_s=0.02)
        self.app = FastAPI()
        self.app.include_router(stow.router, prefix="/dicomweb")
        self.app.state.services = SimpleNamespace(
            settings=SimpleNamespace(public_url="https://archive.example"),
            log=log,
            pool=log.pool,
            store=self.store,
            spool=self.spool,
            rejects=self.rejects,
            intake=self.intake,
            verifiers=Verifiers(tokens=TokenVerifier(log.pool)),
        )
        self.client: httpx.AsyncClient

    async def post(self, body: Any, path: str = "/studies", **headers: str) -> httpx.Response:
        # No projection runs here: nothing to wait for.
        return await self.client.post(path, content=body, headers={**HEADERS, "Prefer": "respond-async", **headers})


@pytest_asyncio.fixture
async def house(event_log: EventLog, tmp_path: Path) -> AsyncIterator[House]:
    house = House(event_log, tmp_path)
    _, token = await _token(event_log, "dicom:write")
    transport = httpx.ASGITransport(house.app)
    async with httpx.AsyncClient(
        transport=transport, base_url="http://test/dicomweb", headers={"Authorization": f"Bearer {token}"}
    ) as house.client:
        yield house
    await house.intake.close()


async def _token(log: EventLog, scope: str) -> tuple[str, str]:
    return await create_token(
        log.pool, name="test", scopes=[scope], lifetime=timedelta(hours=1), kind=PrincipalKind.PERSON, on_behalf_of=None
    )


def instance(**elements: Any) -> bytes:
    dataset = pydicom.dcmread(CT)
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    return buffer.getvalue()


def body(*parts: bytes, boundary: str = BOUNDARY) -> bytes:
    pieces = [f"--{boundary}\r\nContent-Type: application/dicom\r\n\r\n".encode() + part + b"\r\n" for part in parts]
    return b"".join(pieces) + f"--{boundary}--\r\n".encode()


def uid(data: bytes) -> str:
    return str(pydicom.dcmread(io.BytesIO(data)).SOPInstanceUID)


async def test_stored_instances_are_referenced_with_their_url_and_are_in_the_log(house: House) -> None:
    parts = [instance() for _ in range(3)]
    answer = await house.post(body(*parts))
    assert answer.status_code == 200 and answer.headers["content-type"] == "application/dicom+json"
    items = answer.json()["00081199"]["Value"]
    assert [item["00081155"]["Value"] for item in items] == [[uid(part)] for part in parts], "in the order of the parts"
    dataset = pydicom.dcmread(CT)
    study = f"https://archive.example/dicomweb/studies/{dataset.StudyInstanceUID}"
    assert answer.json()["00081190"]["Value"] == [study]
    assert items[0]["00081190"]["Value"] == [f"{study}/series/{dataset.SeriesInstanceUID}/instances/{uid(parts[0])}"]
    recorded = await house.log.read(0, types=[InstancesStored])
    kept = [i for e in recorded if isinstance(e.event, InstancesStored) for i in e.event.instances]
    assert {i.sop_instance_uid for i in kept} == {uid(part) for part in parts}
    assert recorded[0].principal.id.startswith("token:") and recorded[0].principal.kind is PrincipalKind.PERSON
    assert house.spool.depth() == 0


async def test_the_data_set_is_kept_byte_for_byte(house: House) -> None:
    part = instance()
    await house.post(body(part))
    (event,) = [e.event for e in await house.log.read(0, types=[InstancesStored])]
    assert isinstance(event, InstancesStored)
    assert _data_set(house.store.open(event.instances[0].sha256).read()) == _data_set(part)


async def test_the_same_again_is_success_and_one_dicom_file_alone_is_taken_too(house: House) -> None:
    part = instance()
    assert (await house.post(body(part))).status_code == 200
    again = await house.post(part, **{"Content-Type": "application/dicom"})
    assert again.status_code == 200 and len(again.json()["00081199"]["Value"]) == 1
    assert len(await house.log.read(0, types=[InstancesStored])) == 1


async def test_each_failure_has_its_reason_beside_what_was_stored(house: House) -> None:
    good = instance()
    other_bytes = instance(SOPInstanceUID=uid(good), ImageComments="other bytes")
    nameless = instance(StudyInstanceUID=None)
    answer = await house.post(body(good, other_bytes, nameless, b"no DICOM", good[:-3000]))
    assert answer.status_code == 202
    result = answer.json()
    assert [item["00081155"]["Value"] for item in result["00081199"]["Value"]] == [[uid(good)]]
    failed = {(i["00081155"]["Value"][0], i["00081197"]["Value"][0]) for i in result["00081198"]["Value"]}
    assert (uid(good), 0x0111) in failed and (uid(nameless), 0xC000) in failed
    assert [i["00081197"]["Value"] for i in result["0008119A"]["Value"]] == [[0xC000]], "no UIDs to name it by"
    assert sorted(r.reason for r in house.rejects.listing()) == ["missing-uid", "not-dicom", "truncated"]
    assert house.spool.depth() == 0


async def test_nothing_stored_is_409_and_the_bytes_are_kept(house: House) -> None:
    answer = await house.post(body(b"<html>", b""))
    assert answer.status_code == 409 and len(answer.json()["0008119A"]["Value"]) == 2
    assert b"<html>" in {house.rejects.path(r.reject_id).read_bytes() for r in house.rejects.listing()}


async def test_an_instance_of_another_study_is_refused(house: House) -> None:
    good, other = instance(), instance(StudyInstanceUID="1.2.3.4", SeriesInstanceUID="1.2.3.4.5")
    study = pydicom.dcmread(CT).StudyInstanceUID
    answer = await house.post(body(good, other), f"/studies/{study}")
    assert answer.status_code == 202
    (failed,) = answer.json()["00081198"]["Value"]
    assert (failed["00081155"]["Value"], failed["00081197"]["Value"]) == ([uid(other)], [0xA901])
    assert house.spool.depth() == 0


@pytest.mark.parametrize(
    ("content_type", "status"),
    [
        ("application/json", 415),
        ("", 415),
        ("multipart/form-data; boundary=x", 415),
        ('multipart/related; type="application/dicom+json"; boundary=x', 415),
        ('multipart/related; type="application/dicom"', 400),
        (f"multipart/related; boundary={'x' * 5000}", 400),
    ],
)
async def test_other_content_types_are_refused(house: House, content_type: str, status: int) -> None:
    assert (await house.post(body(instance()), **{"Content-Type": content_type})).status_code == status


async def test_only_xml_accepted_is_406_before_anything_is_stored(house: House) -> None:
    assert (await house.post(body(instance()), Accept="application/dicom+xml")).status_code == 406
    assert await house.log.head() == 0


@pytest.mark.parametrize("broken", [b"", b"--other\r\n\r\nx", body()[:-6], b"no boundary at all"])
async def test_a_body_that_is_no_multipart_is_400(house: House, broken: bytes) -> None:
    assert (await house.post(broken)).status_code == 400
    assert house.spool.depth() == 0


async def test_whole_parts_of_a_body_that_ends_early_are_not_lost(house: House) -> None:
    first, second = instance(), instance()
    whole = body(first, second)
    assert (await house.post(whole[: -len(second) // 2])).status_code == 400
    await house.intake.close()
    (event,) = [e.event for e in await house.log.read(0, types=[InstancesStored])]
    assert isinstance(event, InstancesStored) and [i.sop_instance_uid for i in event.instances] == [uid(first)]
    assert list(house.spool.folder.iterdir()) == [], "the half of the second is gone"


async def test_without_the_scope_nothing_is_taken(house: House) -> None:
    for token, error in ((await _token(house.log, "dicom:read"))[1], ScopeMissing), ("anm_wrong", TokenInvalid):
        with pytest.raises(error):  # the application makes these 403 and 401
            await house.post(body(instance()), Authorization=f"Bearer {token}")
    assert await house.log.head() == 0


async def test_dicomweb_client_stores(house: House) -> None:
    """An independent client's request, byte for byte, through its own session."""
    sent: list[tuple[dict[str, str], bytes]] = []

    class Recorder(dicomweb_client.DICOMwebClient):
        def _http_post(self, url: str, data: bytes, headers: dict[str, str]) -> Any:  # type: ignore[override]
            sent.append((headers, b"".join(data) if not isinstance(data, bytes) else data))
            return SimpleNamespace(status_code=200, text="", content=b"{}", json=dict)

    dataset = pydicom.dcmread(io.BytesIO(instance()))
    try:
        Recorder("http://test/dicomweb").store_instances([dataset])
    except Exception:  # what it makes of the stand-in's answer does not matter
        assert sent
    headers, data = sent[0]
    answer = await house.post(data, **{"Content-Type": headers["Content-Type"], "Accept": headers.get("Accept", "*/*")})
    assert answer.status_code == 200, answer.text


@given(parts=st.lists(st.binary(max_size=300), min_size=1, max_size=4), cuts=st.lists(st.integers(1, 40), min_size=1))
def test_parts_come_out_as_they_went_in_however_they_are_cut(
    tmp_path_factory: pytest.TempPathFactory, parts: list[bytes], cuts: list[int]
) -> None:
    parts = [part.replace(BOUNDARY.encode(), b"") for part in parts]
    spool = Spool(tmp_path_factory.mktemp("spool"))
    arrived: list[bytes] = []

    def read(one: Arrived) -> None:
        data = one.path.read_bytes()
        arrived.append(_data_set(data) if isinstance(one, SpooledInstance) else data)
        one.path.unlink()

    parser = PartsParser(BOUNDARY, spool, "tester", read)
    for piece in _cut(body(*parts), cuts):
        parser.write(piece)
    parser.finish()
    assert [part in (kept, part) and part.endswith(kept) for part, kept in zip(parts, arrived, strict=True)] == [True] * len(parts)


@given(st.binary(max_size=400), st.lists(st.integers(1, 50), min_size=1))
def test_any_body_is_parsed_or_refused_by_name_and_leaves_nothing(
    tmp_path_factory: pytest.TempPathFactory, noise: bytes, cuts: list[int]
) -> None:
    spool = Spool(tmp_path_factory.mktemp("spool"))
    parser = PartsParser(BOUNDARY, spool, "tester", lambda one: one.path.unlink())
    try:
        for piece in _cut(f"--{BOUNDARY}\r\n".encode() + noise, cuts):
            parser.write(piece)
        parser.finish()
    except RequestInvalid:
        parser.abort()
    assert list(spool.folder.iterdir()) == []


def test_statuses_follow_what_was_stored() -> None:
    good = Verdict(outcome="stored", study_uid="1.2", series_uid="1.3", sop_instance_uid="1.4", sop_class_uid="1.5")
    bad = Verdict(outcome="refused", reason="truncated", sop_instance_uid="1.6", sop_class_uid="1.5")
    assert [stow.respond(v, "x")[0] for v in ([good], [good, bad], [bad])] == [200, 202, 409]


def _cut(data: bytes, cuts: list[int]) -> Iterator[bytes]:
    at = n = 0
    while at < len(data):
        step = cuts[n % len(cuts)]
        yield data[at : at + step]
        at, n = at + step, n + 1


def _data_set(data: bytes) -> bytes:
    return data[read_part10(io.BytesIO(data)).dataset_offset :]
