"""WADO-RS over HTTP: bytes as they were sent, headers joined, frames and pictures, and every Accept that viewers send."""

from __future__ import annotations

import asyncio
import email.parser
import email.policy
import io
import socket
import uuid
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import dicomweb_client
import httpx
import numpy as np
import pydicom
import pytest
import pytest_asyncio
import uvicorn
from fastapi import FastAPI
from PIL import Image
from pydantic import SecretStr
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import UID, ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless

from archive.errors import ArchiveError
from archive.header import read_header
from archive.part10 import read_part10
from eventlog.vault import make_key_encryption_key
from projections.checkpoint import wait_for
from projections.dicom import DicomProjection
from server.app import create_app
from server.auth.tokens import create_token
from server.services import Services, open_services
from server.settings import ServerSettings

pytestmark = pytest.mark.asyncio(loop_scope="module")

STUDY, SERIES, REPORTS = "1.2.3", "1.2.3.4", "1.2.3.5"
OHIF_FRAMES = "multipart/related; type=application/octet-stream; transfer-syntax=*"


def ct(number: int, *, frames: int = 1, syntax: UID = ExplicitVRLittleEndian, **elements: Any) -> bytes:
    """A small CT slice as a Part 10 file, each frame filled with values of its own."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    dataset.SOPInstanceUID = f"{SERIES}.{number}"
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = STUDY, SERIES
    dataset.Modality, dataset.SeriesNumber, dataset.InstanceNumber = "CT", 1, number
    dataset.PatientName, dataset.PatientID, dataset.StudyDate = "Doe^Jane", "P1", "20240131"
    dataset.Rows = dataset.Columns = 16
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 1
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1024
    if frames > 1:
        dataset.NumberOfFrames = frames
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    dataset.PixelData = b"".join(pixels(number, frame).tobytes() for frame in range(1, frames + 1))
    dataset["PixelData"].VR = "OW"
    if syntax == RLELossless:
        dataset.compress(RLELossless, generate_instance_uid=False)
    elif syntax != ExplicitVRLittleEndian:
        dataset.file_meta.TransferSyntaxUID = syntax
    return written(dataset)


def pixels(number: int, frame: int) -> np.ndarray[Any, Any]:
    return (np.arange(256, dtype="<i2").reshape(16, 16) + 1000 * number + 100 * frame).astype("<i2")


def report(number: int) -> bytes:
    dataset = pydicom.dcmread(io.BytesIO(ct(number)))
    del dataset.PixelData, dataset.Rows, dataset.Columns
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.88.11"
    dataset.SeriesInstanceUID, dataset.SOPInstanceUID, dataset.Modality = REPORTS, f"{REPORTS}.{number}", "SR"
    dataset.SeriesNumber = 2
    return written(dataset)


def written(dataset: Dataset) -> bytes:
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


def data_set(file: bytes) -> bytes:
    return file[read_part10(io.BytesIO(file)).dataset_offset :]


async def store_files(files: Sequence[bytes], services: Services) -> None:
    """Through spool, intake, log and projection."""
    pending = []
    for file in files:
        meta = read_part10(io.BytesIO(file))
        with services.spool.receive(
            sop_class_uid=meta.sop_class_uid,
            sop_instance_uid=meta.sop_instance_uid,
            transfer_syntax_uid=meta.transfer_syntax_uid,
            door="stow",
        ) as reception:
            reception.write(data_set(file))
            pending.append(services.intake.submit(reception.commit()))
    verdicts = [await asyncio.wrap_future(one) for one in pending]
    refused = [verdict for verdict in verdicts if verdict.outcome != "stored"]
    assert not refused
    await wait_for(services.pool, DicomProjection(), await services.log.head())


FILES = {
    "1": ct(1, WindowCenter=0, WindowWidth=400),
    "2": ct(2, frames=3),
    "3": ct(3, syntax=RLELossless),
    "4": ct(4, frames=2, syntax=RLELossless),
    "5": ct(5, syntax=ImplicitVRLittleEndian),
    "9": report(9),
}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def services(embedded_server: str, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Services]:
    """The server's parts over a database of their own, with the files above, opened once."""
    database = f"wado_{uuid.uuid4().hex[:12]}"
    connection = await asyncpg.connect(embedded_server)
    await connection.execute(f"CREATE DATABASE {database}")
    settings = ServerSettings(
        data_dir=tmp_path_factory.mktemp("wado"),
        database_url=SecretStr(embedded_server.replace("/postgres?", f"/{database}?")),
    )
    make_key_encryption_key(settings)
    async with open_services(settings, dimse=False) as opened:
        await store_files(list(FILES.values()), opened)
        yield opened
    await connection.execute(f"DROP DATABASE {database} WITH (FORCE)")
    await connection.close()


@pytest_asyncio.fixture(loop_scope="module")
async def token(services: Services) -> str:
    _, token = await create_token(services.pool, name="test", scopes=["dicom:read"], lifetime=timedelta(hours=1))
    return token


@pytest_asyncio.fixture(loop_scope="module")
async def client(services: Services, token: str) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(create_app(services)),
        base_url="http://pacs.test/dicomweb",
        headers={"Authorization": f"Bearer {token}"},
    ) as client:
        yield client


def instance(number: int | str) -> str:
    series = REPORTS if str(number) == "9" else SERIES
    return f"/studies/{STUDY}/series/{series}/instances/{series}.{number}"


def parts(response: httpx.Response) -> list[tuple[str, bytes]]:
    """Content type and body of each part, read by the standard library's own MIME parser."""
    assert response.status_code == 200, response.text
    head = b"Content-Type: " + response.headers["content-type"].encode() + b"\r\n\r\n"
    message = email.parser.BytesParser(policy=email.policy.HTTP).parsebytes(head)
    boundary = message.get_param("boundary")
    assert message.get_content_type() == "multipart/related" and isinstance(boundary, str)
    first, *sections = response.content.split(b"--" + boundary.encode())
    assert first == b"" and sections.pop() == b"--\r\n"
    found = []
    for section in sections:
        head, _, body = section.removeprefix(b"\r\n").partition(b"\r\n\r\n")
        found.append((head.decode().removeprefix("Content-Type: "), body.removesuffix(b"\r\n")))
    return found


@pytest.mark.parametrize(
    "accept",
    [
        None,
        "*/*",
        'multipart/related; type="application/dicom"',
        "multipart/related; type=application/dicom; transfer-syntax=*",
        'multipart/related; type="application/dicom"; transfer-syntax="*"',
        "multipart/related",
        'image/gif, multipart/related;type="application/dicom";q=0.3',
    ],
)
async def test_a_series_comes_back_as_it_was_sent(client: httpx.AsyncClient, accept: str | None) -> None:
    response = await client.get(f"/studies/{STUDY}/series/{SERIES}", headers={"Accept": accept} if accept else {})
    found = parts(response)
    assert [data_set(body) for _, body in found] == [data_set(FILES[n]) for n in "12345"]
    assert found[2][0] == "application/dicom; transfer-syntax=1.2.840.10008.1.2.5"
    assert int(response.headers["content-length"]) == len(response.content)


async def test_a_study_holds_all_its_series(client: httpx.AsyncClient) -> None:
    assert len(parts(await client.get(f"/studies/{STUDY}"))) == 6


async def test_one_instance_comes_by_itself_where_that_is_wanted(client: httpx.AsyncClient) -> None:
    response = await client.get(instance(3), headers={"Accept": "application/dicom; transfer-syntax=*"})
    assert response.headers["content-type"] == "application/dicom; transfer-syntax=1.2.840.10008.1.2.5"
    assert data_set(response.content) == data_set(FILES["3"])
    ((_, body),) = parts(
        await client.get(instance(3), headers={"Accept": 'multipart/related; type="application/dicom"'})
    )
    assert body == response.content


@pytest.mark.parametrize(
    ("path", "accept"),
    [
        (instance(3), "application/dicom; transfer-syntax=1.2.840.10008.1.2.1"),
        (instance(3), "image/jpeg"),
        (f"/studies/{STUDY}", "application/dicom"),
        (f"/studies/{STUDY}", 'multipart/related; type="application/dicom+xml"'),
        (f"/studies/{STUDY}/metadata", 'multipart/related; type="application/dicom+xml"'),
        (f"{instance(1)}/frames/1", 'multipart/related; type="image/jpeg"'),
        (f"{instance(3)}/frames/1", 'multipart/related; type="image/jls"; transfer-syntax=*'),
        (f"{instance(1)}/rendered", "image/gif"),
        (f"{instance(9)}/rendered", "image/png"),
    ],
)
async def test_what_cannot_be_given_is_not_acceptable(client: httpx.AsyncClient, path: str, accept: str) -> None:
    response = await client.get(path, headers={"Accept": accept})
    assert response.status_code == 406
    assert response.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/studies/9.9", 404),
        ("/studies/9.9/metadata", 404),
        (f"/studies/{STUDY}/series/9.9", 404),
        (f"/studies/9.9/series/{SERIES}", 404),
        (f"/studies/{STUDY}/series/9.9/metadata", 404),
        (f"/studies/{STUDY}/series/{SERIES}/instances/9.9", 404),
        (f"/studies/{STUDY}/series/{SERIES}/instances/9.9/metadata", 404),
        ("/studies/%00", 404),
        (f"{instance(2)}/frames/4", 404),
        (f"{instance(9)}/frames/1", 404),
        (f"{instance(2)}/frames/0", 400),
        (f"{instance(2)}/frames/1,x", 400),
        (f"{instance(2)}/rendered?window=1", 400),
        (f"{instance(2)}/rendered?window=1,0", 400),
        (f"{instance(2)}/rendered?viewport=0,5", 400),
        (f"{instance(2)}/rendered?quality=101", 400),
        (f"{instance(2)}/frames/1,2/rendered", 400),
    ],
)
async def test_errors_say_what_is_wrong(client: httpx.AsyncClient, path: str, status: int) -> None:
    response = await client.get(path)
    assert response.status_code == status
    assert response.json()["status"] == status and response.json()["detail"]


async def test_metadata_are_the_headers_without_pixels(client: httpx.AsyncClient) -> None:
    response = await client.get(
        f"/studies/{STUDY}/series/{SERIES}/metadata", headers={"Accept": "application/dicom+json"}
    )
    headers = response.json()
    assert [header["00200013"]["Value"] for header in headers] == [[1], [2], [3], [4], [5]]
    for header, number in zip(headers, "12345", strict=True):
        original = pydicom.dcmread(io.BytesIO(FILES[number]), stop_before_pixels=True)
        assert Dataset.from_json(header) == original
        assert list(header) == sorted(header)
    assert (await client.get(f"{instance(2)}/metadata")).json() == [headers[1]]
    assert len((await client.get(f"/studies/{STUDY}/metadata")).json()) == 6


async def test_what_did_not_change_is_not_sent_again(client: httpx.AsyncClient) -> None:
    for path in (
        f"/studies/{STUDY}",
        instance(1),
        f"/studies/{STUDY}/metadata",
        f"{instance(1)}/metadata",
        f"{instance(1)}/frames/1",
        f"{instance(1)}/rendered",
    ):
        first = await client.get(path)
        again = await client.get(path, headers={"If-None-Match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        assert (await client.get(path, headers={"If-None-Match": '"other"'})).status_code == 200


@pytest.mark.parametrize(
    ("number", "frames", "accept", "part_type", "decoded"),
    [
        (1, "1", OHIF_FRAMES, "application/octet-stream; transfer-syntax=1.2.840.10008.1.2.1", True),
        (1, "1", 'multipart/related; type="*/*"', "application/octet-stream; transfer-syntax=1.2.840.10008.1.2.1", True),
        (5, "1", "*/*", "application/octet-stream; transfer-syntax=1.2.840.10008.1.2.1", True),
        (2, "3,1", OHIF_FRAMES, "application/octet-stream; transfer-syntax=1.2.840.10008.1.2.1", True),
        (3, "1", OHIF_FRAMES, "application/octet-stream; transfer-syntax=1.2.840.10008.1.2.5", False),
        (3, "1", 'multipart/related; type="*/*"; transfer-syntax=*', "image/dicom-rle; transfer-syntax=1.2.840.10008.1.2.5", False),
        (3, "1", "multipart/related; type=image/dicom-rle", "image/dicom-rle; transfer-syntax=1.2.840.10008.1.2.5", False),
        (3, "1", 'multipart/related; type="image/*"', "image/dicom-rle; transfer-syntax=1.2.840.10008.1.2.5", False),
        (3, "1", "multipart/related; type=application/octet-stream", "application/octet-stream; transfer-syntax=1.2.840.10008.1.2.1", True),
        (4, "2,1", 'multipart/related; type="application/octet-stream"; transfer-syntax=1.2.840.10008.1.2.1', "application/octet-stream; transfer-syntax=1.2.840.10008.1.2.1", True),
        (4, "2", 'multipart/related; type="image/jpeg", multipart/related; type="application/octet-stream"', "application/octet-stream; transfer-syntax=1.2.840.10008.1.2.1", True),
    ],
)  # fmt: skip
async def test_frames(
    client: httpx.AsyncClient, number: int, frames: str, accept: str, part_type: str, decoded: bool
) -> None:
    found = parts(await client.get(f"{instance(number)}/frames/{frames}", headers={"Accept": accept}))
    assert [content_type for content_type, _ in found] == [part_type] * len(frames.split(","))
    for (_, body), frame in zip(found, map(int, frames.split(",")), strict=True):
        expected = pixels(number, frame).tobytes()
        assert (body == expected) is decoded
        if not decoded:
            assert pydicom.pixels.decoders.rle._rle_decode_frame(body, 16, 16, 1, 16, ">") == bytearray(expected)


async def test_one_frame_comes_by_itself_where_that_is_wanted(client: httpx.AsyncClient) -> None:
    response = await client.get(f"{instance(3)}/frames/1", headers={"Accept": "application/octet-stream"})
    assert response.content == pixels(3, 1).tobytes()


async def test_pictures_are_windowed_and_scaled(client: httpx.AsyncClient) -> None:
    response = await client.get(f"{instance(2)}/frames/1/rendered?window=1140,80", headers={"Accept": "image/png"})
    picture = np.asarray(Image.open(io.BytesIO(response.content)))
    expected = np.clip((pixels(2, 1).astype(float) - 1024 - 1100) / 80, 0, 1) * 255
    assert np.abs(picture - expected).max() <= 2
    small = await client.get(f"{instance(2)}/rendered?viewport=8,4")
    assert small.headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(small.content)).size == (4, 4)


@pytest.mark.parametrize(
    "path",
    [f"/studies/{STUDY}/thumbnail", f"/studies/{STUDY}/series/{SERIES}/thumbnail", f"{instance(2)}/thumbnail"],
)
async def test_thumbnails(client: httpx.AsyncClient, path: str) -> None:
    response = await client.get(path)
    assert Image.open(io.BytesIO(response.content)).format == "JPEG"


async def test_metadata_beyond_one_page_are_whole(client: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = await client.get(f"/studies/{STUDY}/metadata")
    monkeypatch.setattr("server.dicomweb.metadata.STREAMED_BEYOND", 2)
    assert (await client.get(f"/studies/{STUDY}/metadata")).content == whole.content


async def test_real_files_come_back_as_they_were_sent(
    services: Services, client: httpx.AsyncClient, dicom_data: Path
) -> None:
    """A file of each real modality and of each transfer syntax: data set bytes, header, and the first frame."""
    folders = sorted(path for path in (dicom_data / "modalities").iterdir() if path.is_dir())
    paths = [path for folder in folders for path in sorted(folder.rglob("*.dcm"))[:2]]
    files: dict[str, bytes] = {}
    for path in paths + sorted((dicom_data / "modalities" / "transfer_syntaxes_ct1").glob("*.dcm")):
        try:
            files.setdefault(read_header(path).sop_instance_uid, path.read_bytes())
        except ArchiveError:
            continue  # what the intake refuses is another test's subject
    assert len(files) > 15
    await store_files(list(files.values()), services)
    found = {one["00080018"]["Value"][0]: one for one in (await client.get("/instances?includefield=all")).json()}
    for uid, file in files.items():
        url = found[uid]["00081190"]["Value"][0]
        ((_, body),) = parts(await client.get(url))
        assert data_set(body) == data_set(file)
        (header,) = (await client.get(f"{url}/metadata")).json()
        assert header["00080018"]["Value"] == [uid] and header.items() <= found[uid].items()
        if "7FE00010" in pydicom.dcmread(io.BytesIO(file), force=True):
            assert len(parts(await client.get(f"{url}/frames/1", headers={"Accept": OHIF_FRAMES}))) == 1


class Served:
    """The application behind a real uvicorn on a port of its own."""

    def __init__(self, app: FastAPI) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.socket.getsockname()[1]}/dicomweb"
        self.server = uvicorn.Server(uvicorn.Config(app, log_level="warning", lifespan="off"))

    async def __aenter__(self) -> Served:
        self.task = asyncio.create_task(self.server.serve([self.socket]))
        return self

    async def __aexit__(self, *_: object) -> None:
        self.server.should_exit = True
        await self.task


async def test_dicomweb_client_reads_what_is_stored(services: Services, client: httpx.AsyncClient, token: str) -> None:
    """A third party's client, over TCP."""

    def read(url: str) -> None:
        peer = dicomweb_client.DICOMwebClient(url, headers={"Authorization": f"Bearer {token}"})
        (study,) = peer.search_for_studies(
            search_filters={"PatientID": "P1"}, fields=["PatientAge"], fuzzymatching=True
        )
        assert study["00201208"]["Value"] == [6]
        assert peer.search_for_studies(search_filters={"PatientID": "P2"}) == []
        assert len(peer.search_for_series(STUDY)) == 2
        assert len(peer.search_for_instances(STUDY, SERIES)) == 5
        assert len(peer.search_for_instances(STUDY, limit=2, get_remaining=True)) == 6
        assert len(peer.retrieve_series_metadata(STUDY, SERIES)) == 5
        assert [one.InstanceNumber for one in peer.retrieve_series(STUDY, SERIES)] == [1, 2, 3, 4, 5]
        assert [one.InstanceNumber for one in peer.iter_study(STUDY)] == [1, 2, 3, 4, 5, 9]
        one = peer.retrieve_instance(STUDY, SERIES, f"{SERIES}.2")
        assert (one.pixel_array[2] == pixels(2, 3)).all()
        frames = peer.retrieve_instance_frames(STUDY, SERIES, f"{SERIES}.2", [1, 3])
        assert frames == [pixels(2, 1).tobytes(), pixels(2, 3).tobytes()]
        picture = peer.retrieve_instance_rendered(STUDY, SERIES, f"{SERIES}.2", media_types=("image/png",))
        assert picture.startswith(b"\x89PNG")

    async with Served(create_app(services)) as served:
        await asyncio.to_thread(read, served.url)
