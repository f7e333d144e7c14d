"""Real series in a site, with findings, frozen as a dataset on terms, and split: what exports are tested on."""

from __future__ import annotations

import asyncio
import io
from collections.abc import Iterable, Mapping
from pathlib import Path

import pydicom
from served_site import LIVER, LUNG, Site, slice_of

from archive.header import read_header
from domain.condition import Level, OneOf, Query
from domain.dataset import Purpose, Terms
from domain.principal import device
from domain.project import Role
from domain.series import InstancesStored
from domain.splits import Part
from server.cohorts.freezing import freeze_dataset
from server.cohorts.keeping import admit_member, create_dataset, create_project
from server.cohorts.splitting import SplitWanted, split_dataset

PROJECT = "livers"
CURATOR = device("curator")
TERMS = Terms(license="CC-BY-4.0", intended_uses=(Purpose.RESEARCH,), use_note="not for children")
LIVER_CT = "ct/dcmqi_liver3_with_seg_sr"
TILTED = "ct/gantry_tilt_siemens4"


def files_in(folder: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(folder.glob("*.dcm"))]


def of_another_person(folder: Path, number: int) -> list[bytes]:
    """The same images under other UIDs and another number: references within them still hold."""
    copies = []
    for path in sorted(folder.glob("*.dcm")):
        copy = pydicom.dcmread(path)
        copy.PatientID = f"another-{number}"
        _renumber(copy, number)
        copy.file_meta.MediaStorageSOPInstanceUID = copy.SOPInstanceUID
        copies.append(_bytes(copy))
    return copies


def _renumber(item: pydicom.Dataset, number: int) -> None:
    ours = {"StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "ReferencedSOPInstanceUID"}
    for element in item:
        if element.keyword in ours:
            element.value = f"{element.value[:58]}.9{number}"
        if element.VR == "SQ":
            for one in element.value:
                _renumber(one, number)


def _bytes(copy: pydicom.Dataset) -> bytes:
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, copy, enforce_file_format=True)
    return buffer.getvalue()


async def store_liver_cases(site: Site, data: Path, persons: int = 3) -> None:
    """So many persons with a CT of three slices and a segmentation of it; of the first, a finding too, reviewed by nobody."""
    await site.store(*files_in(data / LIVER_CT))
    for number in range(1, persons):
        await site.store(*of_another_person(data / LIVER_CT, number))
    await site.index(series_uid(data / LIVER_CT), LIVER, LUNG)


async def store_small_cases(site: Site, persons: int = 2) -> None:
    """So many persons with a CT of three slices of 4 × 4 pixels, and findings of the first."""
    geometry = {"ImageOrientationPatient": [1, 0, 0, 0, 1, 0], "PixelSpacing": [1, 1], "RescaleSlope": 1, "RescaleIntercept": -1024}
    for person in range(1, persons + 1):
        slices = [
            slice_of(f"1.2.3.{person}", number, patient_id=f"person-{person}", ImagePositionPatient=[0, 0, 2 * number], **geometry)
            for number in (1, 2, 3)
        ]
        await site.store(*slices)
    await site.index("1.2.3.1.1", LIVER, LUNG)


def series_uid(folder: Path) -> str:
    return read_header(next(iter(sorted(folder.glob("*.dcm"))))).series_uid


async def freeze(site: Site, parts: Mapping[str, str] | None = None, *, members: Iterable[str] = (), terms: Terms = TERMS) -> str:
    """The id of a dataset whose version 1 is all CT and MR of the site. ``parts``: subject → part. ``members``: principals that may see it."""
    services = site.services
    await create_project(services.log, PROJECT, "Livers", CURATOR)
    for member in members:
        await admit_member(services.log, PROJECT, member, Role.VIEWER, CURATOR)
    made = await create_dataset(services.log, PROJECT, "Livers & <others>", "Livers of a few persons.", CURATOR, terms)
    await cohorts_follow(site)
    await freeze_dataset(services, made.id, Query(level=Level.SERIES, where=OneOf("Modality", ("CT", "MR"))), CURATOR)
    if parts:
        wanted = SplitWanted(parts=[Part("train", 0.4), Part("validation", 0.3), Part("test", 0.3)], seed="7", assigned=parts)
        await split_dataset(services, made.id, 1, wanted, CURATOR)
    await site.caught_up()
    return made.id


async def cohorts_follow(site: Site) -> None:
    head = await site.caught_up()
    while await site.services.cohorts.position() < head:
        await asyncio.sleep(0.02)


async def subjects_in(site: Site, modality: str = "") -> list[str]:
    """Who has images (of a modality)."""
    events = [one.event for one in await site.services.log.read(0, 100_000, {InstancesStored})]
    return sorted({one.subject_id for one in events if isinstance(one, InstancesStored) and modality in ("", one.modality)})
