"""A whole server in this process over a database of its own, with tokens by scope and a history to look at."""

from __future__ import annotations

import asyncio
import io
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import httpx
import pydicom
from databases import Ready, drop_database, fresh_database
from pydantic import SecretStr
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

from domain import series
from domain.findings import SNOMED_CT, Code, Finding, Laterality, Structure
from domain.ids import series_stream
from domain.principal import Principal, device
from domain.series import RequestIndexing, SegmenterRun, Series, SeriesIndexed
from eventlog.aggregate import execute, load
from eventlog.vault import make_key_encryption_key
from projections.catalogue import projections
from projections.checkpoint import wait_for
from server.app import create_app
from server.auth.tokens import create_token
from server.services import Services, open_services
from server.settings import ServerSettings

LUNG = Structure(label="lung_left", snomed=Code(SNOMED_CT, "39607008", "Lung structure"), laterality=Laterality.LEFT)
LIVER = Structure(label="liver", snomed=Code(SNOMED_CT, "10200004", "Liver structure"))
PLANTED_NAME, PLANTED_MRN = "Plantedname^Jane", "PLANTEDMRN77"


@dataclass
class Site:
    services: Services
    client: httpx.AsyncClient
    tokens: dict[tuple[frozenset[str], str | None], dict[str, str]] = field(default_factory=dict)

    async def headers(self, *scopes: str, patient: str | None = None) -> dict[str, str]:
        """The headers of one who has these scopes, about this Patient: the same token each time."""
        wanted = frozenset(scopes), patient
        if wanted not in self.tokens:
            _, token = await create_token(
                self.services.pool, name="-".join(scopes), scopes=scopes, lifetime=timedelta(hours=1), patient=patient
            )
            self.tokens[wanted] = {"Authorization": f"Bearer {token}"}
        return self.tokens[wanted]

    async def principal(self, *scopes: str) -> Principal:
        """Who acts with that token."""
        token = (await self.headers(*scopes))["Authorization"].removeprefix("Bearer ")
        return (await self.services.verifiers.verify(token)).principal

    async def get(self, path: str, *scopes: str, **parameters: str) -> httpx.Response:
        return await self.client.get(path, headers=await self.headers(*scopes), params=parameters or None)

    async def caught_up(self) -> int:
        """The position of the head, once every projection and the columns have it and every access is in the log."""
        if self.services.recorder is not None:
            await self.services.recorder.flush()
        head = await self.services.log.head()
        for projection in projections():
            await wait_for(self.services.pool, projection, head)
        while await self.services.cohorts.position() < head:
            await asyncio.sleep(0.005)
        return head

    async def store(self, *files: bytes) -> None:
        """By STOW-RS."""
        boundary = uuid.uuid4().hex
        parts = [b"--%s\r\nContent-Type: application/dicom\r\n\r\n%s\r\n" % (boundary.encode(), file) for file in files]
        content_type = f'multipart/related; type="application/dicom"; boundary={boundary}'
        headers = {**await self.headers("dicom:write"), "Content-Type": content_type}
        body = b"".join(parts) + b"--%s--\r\n" % boundary.encode()
        answer = await self.client.post("/dicomweb/studies", content=body, headers=headers)
        assert answer.status_code == 200, answer.text
        await self.caught_up()

    async def index(self, series_uid: str, *structures: Structure) -> None:
        """As the worker does: requested, then indexed, the one caused by the other."""
        log, stream, worker = self.services.log, series_stream(series_uid), device("worker")
        asked = RequestIndexing(series_uid=series_uid, segmenter="baseline", reason="quiet")
        await execute(log, stream, Series(), series.evolve, lambda state: series.request_indexing(state, asked), principal=worker)
        requested = (await log.read_stream(stream))[-1]
        state, _ = await load(log, stream, Series(), series.evolve)
        result = indexed(state, series_uid, *structures)
        await execute(
            log,
            stream,
            Series(),
            series.evolve,
            lambda state: series.record_indexing(state, result),
            principal=worker,
            correlation_id=requested.correlation_id,
            causation_id=requested.event_id,
        )
        await self.caught_up()


def indexed(state: Series, series_uid: str, *structures: Structure) -> SeriesIndexed:
    assert state.study_uid is not None and state.subject_id is not None
    return SeriesIndexed(
        study_uid=state.study_uid,
        series_uid=series_uid,
        subject_id=state.subject_id,
        series_digest=state.digest,
        run=SegmenterRun(
            segmenter="baseline", segmenter_version="1.0", software={"numpy": "2.0"}, weights_sha256="ef" * 32, duration_s=1.5
        ),
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


def slice_of(study: str, number: int, *, series_number: int = 1, name: str = PLANTED_NAME, patient_id: str = PLANTED_MRN, **more: Any) -> bytes:
    """A small CT slice as a Part 10 file."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = study, f"{study}.{series_number}"
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"{study}.{series_number}.{number}"
    dataset.Modality, dataset.SeriesNumber, dataset.InstanceNumber = "CT", series_number, number
    dataset.PatientName, dataset.PatientID, dataset.StudyDate, dataset.PatientSex = name, patient_id, "20240131", "F"
    dataset.Rows = dataset.Columns = 4
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 1
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.PixelData = bytes([number % 256, 0] * 16)
    dataset["PixelData"].VR = "OW"
    for keyword, value in more.items():
        setattr(dataset, keyword, value)
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, dataset, enforce_file_format=True)
    return buffer.getvalue()


async def erase(site: Site, subject_id: str) -> None:
    """Asked for by one person, confirmed by another, carried out by the server."""
    one, other = await site.headers("subjects:erase"), await site.headers("subjects:erase", "metrics:read")
    asked = await site.client.post(f"/subjects/{subject_id}/erasure", json={"legal_basis": "gdpr-17-1-b"}, headers=one)
    assert asked.status_code < 300, asked.text
    confirmed = await site.client.post(f"/subjects/{subject_id}/erasure/confirmation", headers=other)
    assert confirmed.status_code == 202, confirmed.text
    while "purged_at" not in (await site.client.get(f"/subjects/{subject_id}/erasure", headers=one)).json():
        await asyncio.sleep(0.1)


@asynccontextmanager
async def served_site(server_url: str, folder: Path, *, dimse: bool = False, projecting: bool = False, **more: Any) -> AsyncIterator[Site]:
    """``server_url`` is that of a maintenance database."""
    url = await fresh_database(server_url, Ready.SERVED)
    settings = ServerSettings(data_dir=folder, database_url=SecretStr(url), **more)
    make_key_encryption_key(settings)
    try:
        async with open_services(settings, dimse=dimse, projecting=projecting) as services:
            transport = httpx.ASGITransport(create_app(services))
            async with httpx.AsyncClient(transport=transport, base_url="http://site.test") as client:
                yield Site(services, client)
    finally:
        await drop_database(server_url, url)
