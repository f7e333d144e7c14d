"""Searches and metadata over DICOMweb: ours against Orthanc 1.12 (SQLite and PostgreSQL index), on the same files.

2,000 studies with 20,000 small CT instances, one series of 300 among them. Both servers answer the same requests over one
kept-alive connection, one after the other; p50 and p95 in ms. The last line is JSON with the ratios (how many times
faster than the faster of Orthanc's two) and the time of ``/metadata`` for 300 instances.

    python benchmarks/qido.py [--studies 2000] [--requests 100] [--only ours,sqlite,postgresql]

Each server is started empty (see ours.py and peers.py), filled by STOW-RS, left to come to rest, measured and stopped.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from urllib.parse import urlsplit

import database
import pydicom
from ours import anamnesis
from peers import Peer, PeerUnavailable, installed, orthanc
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import ExplicitVRLittleEndian
from rich.console import Console
from rich.table import Table

ROOT = "1.2.826.0.1.3680043.10.1337.7"
LONG_SERIES = 300
WARM_UP = 5
BATCH = 100
"""Instances in one STOW-RS request."""
REST_S = 75.0
"""Orthanc calls a series stable 60 s after its last instance, and prepares its metadata then."""

# Tokens of fixed width in one template file, replaced for each instance: 20,000 files take seconds instead of minutes.
STUDY, SERIES, SERIES_NUMBER, NUMBER = "700000", "88", "6543", "9999"
NAME, PATIENT, ACCESSION, DATE, MODALITY = "Zz00000", "PID00000", "ACC00000", "19990909", "XY"


def template() -> bytes:
    """A CT slice of 32 x 32 pixels with the elements that a scanner writes."""
    image = Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.SpecificCharacterSet, image.ImageType = "ISO_IR 100", ["ORIGINAL", "PRIMARY", "AXIAL"]
    image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    image.StudyInstanceUID = f"{ROOT}.{STUDY}"
    image.SeriesInstanceUID = f"{ROOT}.{STUDY}.{SERIES}"
    image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = f"{ROOT}.{STUDY}.{SERIES}.{NUMBER}"
    image.FrameOfReferenceUID = f"{ROOT}.{STUDY}.{SERIES}.1"
    image.StudyDate = image.SeriesDate = image.AcquisitionDate = image.ContentDate = DATE
    image.StudyTime = image.SeriesTime = image.AcquisitionTime = image.ContentTime = "101112.123456"
    image.AccessionNumber, image.Modality, image.Manufacturer = ACCESSION, MODALITY, "Maker of Scanners"
    image.InstitutionName, image.StationName = "General Hospital", "CT01"
    image.ReferringPhysicianName, image.StudyDescription = "Referrer^Rita", "CT CHEST WITH CONTRAST"
    image.SeriesDescription, image.ManufacturerModelName = "AXIAL 1.0 B30f", "Scanner 9000"
    image.PatientName, image.PatientID = f"{NAME}^Jane", PATIENT
    image.PatientBirthDate, image.PatientSex, image.PatientAge, image.PatientWeight = "19500101", "F", "074Y", 70
    image.BodyPartExamined, image.SliceThickness, image.KVP, image.DataCollectionDiameter = "CHEST", 1, 120, 500
    image.DeviceSerialNumber, image.SoftwareVersions, image.ProtocolName = "12345", "v1.2.3", "Chest routine"
    image.ReconstructionDiameter, image.DistanceSourceToDetector, image.DistanceSourceToPatient = 380, 1040, 570
    image.GantryDetectorTilt, image.TableHeight, image.RotationDirection = 0, 150, "CW"
    image.ExposureTime, image.XRayTubeCurrent, image.Exposure, image.FilterType = 500, 200, 100, "FLAT"
    image.GeneratorPower, image.FocalSpots, image.DateOfLastCalibration = 24, 1.2, DATE
    image.ConvolutionKernel, image.PatientPosition, image.StudyID = "B30f", "HFS", "1"
    image.SeriesNumber, image.AcquisitionNumber, image.InstanceNumber = SERIES_NUMBER, 1, NUMBER
    image.ImagePositionPatient, image.ImageOrientationPatient = ["-190.000", "-190.000", f"{NUMBER}.000"], [1, 0, 0, 0, 1, 0]
    image.SliceLocation, image.PositionReferenceIndicator = f"{NUMBER}.000", "SN"
    image.SamplesPerPixel, image.PhotometricInterpretation, image.Rows, image.Columns = 1, "MONOCHROME2", 32, 32
    image.PixelSpacing, image.BitsAllocated, image.BitsStored, image.HighBit = [0.74, 0.74], 16, 12, 11
    image.PixelRepresentation, image.WindowCenter, image.WindowWidth = 0, [40, -600], [400, 1200]
    image.RescaleIntercept, image.RescaleSlope, image.RescaleType = -1024, 1, "HU"
    procedure = Dataset()
    procedure.CodeValue, procedure.CodingSchemeDesignator, procedure.CodeMeaning = "CTCHW", "LOCAL", "CT chest"
    image.ProcedureCodeSequence = Items([procedure])
    request = Dataset()
    request.ScheduledProcedureStepID, request.RequestedProcedureID = "SPS1", "RP1"
    image.RequestAttributesSequence = Items([request])
    image.PixelData = bytes(32 * 32 * 2)
    image["PixelData"].VR = "OW"
    with tempfile.TemporaryFile() as file:
        pydicom.dcmwrite(file, image, enforce_file_format=True)
        file.seek(0)
        return file.read()


def shape(studies: int) -> Iterator[tuple[int, int, int]]:
    """(study, series, instances): ten instances a study on average, one series of 300."""
    long_studies = max(1, round(studies * 0.971)) if studies > 50 else studies
    for study in range(studies):
        if study == 0:
            yield study, 11, LONG_SERIES
        else:
            yield study, 11, 5
            if study < long_studies:
                yield study, 12, 5


def files(studies: int) -> Iterator[bytes]:
    """Every instance as a Part 10 file."""
    blank = template()
    for study, series, instances in shape(studies):
        year, day = divmod(study * 7 % 2000, 360)
        values = {
            f"{ROOT}.{STUDY}.{SERIES}": f"{ROOT}.{100000 + study}.{series}",
            f"{ROOT}.{STUDY}": f"{ROOT}.{100000 + study}",
            SERIES_NUMBER: f"{series:04d}",
            NAME: f"Do{study:05d}",
            PATIENT: f"PID{study:05d}",
            ACCESSION: f"ACC{study:05d}",
            DATE: f"{2018 + year}{day // 30 + 1:02d}{day % 30 % 28 + 1:02d}",
            MODALITY: "MR" if series == 12 and study % 10 == 0 else "CT",
        }
        begun = blank
        for token, value in values.items():
            assert len(token) == len(value)
            begun = begun.replace(token.encode(), value.encode())
        for number in range(1, instances + 1):
            yield begun.replace(NUMBER.encode(), str(1000 + number).encode())


def requests(studies: int) -> dict[str, str]:
    """What is asked, by name."""
    fields = "fuzzymatching=false&includefield=00081030,00080060,00080090,00100030"
    deep = min(1500, max(0, studies - 100))
    middle = studies // 2
    return {
        "list_100": f"/studies?limit=100&offset=0&{fields}",
        "list_100_no_fields": "/studies?limit=100&offset=0",
        "exact": f"/studies?AccessionNumber=ACC{middle:05d}&limit=101&{fields}",
        "prefix": f"/studies?PatientName=Do001*&limit=101&{fields}",
        "fragment": f"/studies?PatientName=*o{middle:05d}*&limit=101&{fields}",
        "modalities": f"/studies?ModalitiesInStudy=MR&limit=101&{fields}",
        "deep_page": f"/studies?limit=100&offset={deep}&{fields}",
        "metadata_5": f"/studies/{ROOT}.{100000 + middle}/series/{ROOT}.{100000 + middle}.11/metadata",
        "metadata_300": f"/studies/{ROOT}.100000/series/{ROOT}.100000.11/metadata",
    }


def connected(root: str) -> http.client.HTTPConnection:
    where = urlsplit(root)
    connection = http.client.HTTPConnection(where.hostname or "127.0.0.1", where.port, timeout=300)
    connection.connect()
    connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def fill(peer: Peer, studies: int) -> float:
    """Stores every file; gives the seconds that it took."""
    begun = time.perf_counter()
    with ThreadPoolExecutor(4) as threads:
        for _ in threads.map(lambda batch: store(peer, batch), batches(files(studies))):
            pass
    return time.perf_counter() - begun


def batches(all_files: Iterable[bytes]) -> Iterator[list[bytes]]:
    remaining = iter(all_files)
    while batch := list(itertools.islice(remaining, BATCH)):
        yield batch


def store(peer: Peer, batch: list[bytes]) -> None:
    parts = (b"--part\r\nContent-Type: application/dicom\r\n\r\n" + file + b"\r\n" for file in batch)
    connection = connected(peer.dicomweb_url)
    connection.request(
        "POST",
        urlsplit(peer.dicomweb_url).path + "/studies",
        body=b"".join(parts) + b"--part--\r\n",
        headers={
            **peer.headers,
            "Content-Type": 'multipart/related; type="application/dicom"; boundary=part',
            "Accept": "application/dicom+json",
        },
    )
    response = connection.getresponse()
    body = response.read()
    connection.close()
    if response.status != 200:
        raise SystemExit(f"{peer.name}: storing answered {response.status}: {body[:300]!r}")


def ask(connection: http.client.HTTPConnection, peer: Peer, path: str) -> tuple[float, bytes]:
    """Milliseconds until the last byte, and the body."""
    begun = time.perf_counter()
    headers = {**peer.headers, "Accept": "application/dicom+json"}
    connection.request("GET", urlsplit(peer.dicomweb_url).path + path, headers=headers)
    response = connection.getresponse()
    body = response.read()
    elapsed_ms = (time.perf_counter() - begun) * 1000
    if response.status != 200:
        raise SystemExit(f"{peer.name}: {path} answered {response.status}: {body[:300]!r}")
    return elapsed_ms, body


def measure(peer: Peer, count: int, studies: int) -> dict[str, dict[str, float]]:
    """p50 and p95 in ms for each request, and how many results came."""
    figures: dict[str, dict[str, float]] = {}
    for name, path in requests(studies).items():
        connection = connected(peer.dicomweb_url)
        _, body = ask(connection, peer, path)
        results = len(json.loads(body))
        for _ in range(WARM_UP):
            ask(connection, peer, path)
        times: list[float] = []
        deadline = time.perf_counter() + 60
        while len(times) < count and (time.perf_counter() < deadline or len(times) < 5):
            times.append(ask(connection, peer, path)[0])
        connection.close()
        times.sort()
        at_95 = times[min(len(times) - 1, round(len(times) * 0.95))]
        figures[name] = {"p50": statistics.median(times), "p95": at_95, "results": results}
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=2000)
    parser.add_argument("--requests", type=int, default=100)
    parser.add_argument("--only", default="ours,sqlite,postgresql", help="contenders, divided by commas")
    arguments = parser.parse_args()
    console = Console(width=140)
    figures: dict[str, dict[str, dict[str, float]]] = {}
    with database.server() as server_url:
        console.print(f"PostgreSQL {database.version(server_url)}, {arguments.studies} studies")
        for name in arguments.only.split(","):
            try:
                figures[name] = contend(name, server_url, arguments.studies, arguments.requests, console)
            except PeerUnavailable as error:
                console.print(f"{name} is left out: {error}")
    console.print(as_table(figures))
    print(json.dumps(ratios(figures)))
    sys.exit(0 if len(figures) == len(arguments.only.split(",")) else 1)


def contend(name: str, server_url: str, studies: int, count: int, console: Console) -> dict[str, dict[str, float]]:
    """One contender from empty to measured. Raises PeerUnavailable."""
    with ExitStack() as stack:
        if name != "ours":
            let_it_know_its_own_name()
        if name == "sqlite":
            peer = stack.enter_context(orthanc("sqlite"))
        else:
            database_url = stack.enter_context(database.fresh_database(server_url))
            started = anamnesis(database_url) if name == "ours" else orthanc("postgresql", database_url)
            peer = stack.enter_context(started)
        console.print(f"{peer.name}: filled in {fill(peer, studies):.0f} s")
        database.checkpoint(server_url)
        if name != "ours":
            time.sleep(REST_S)
        return measure(peer, count, studies)


def let_it_know_its_own_name() -> None:
    """Orthanc asks for this machine's name once for each study that it lists; without /etc/hosts in the chroot, each time by DNS.

    Raises PeerUnavailable.
    """
    (installed() / "etc" / "hosts").write_text(f"127.0.0.1 localhost {socket.gethostname()}\n")


def as_table(figures: dict[str, dict[str, dict[str, float]]]) -> Table:
    table = Table("request", *(f"{name} p50 / p95 ms (results)" for name in figures), title="DICOMweb")
    for request in next(iter(figures.values()), {}):
        cells = (figures[name][request] for name in figures)
        table.add_row(request, *(f"{c['p50']:.1f} / {c['p95']:.1f} ({c['results']})" for c in cells))
    return table


def ratios(figures: dict[str, dict[str, dict[str, float]]]) -> dict[str, float | None]:
    """How many times faster ours is than the faster of Orthanc's two indexes, by p50."""

    def against_orthanc(request: str) -> float | None:
        peers = [figures[name][request]["p50"] for name in figures if name != "ours"]
        return round(min(peers) / figures["ours"][request]["p50"], 2) if peers and "ours" in figures else None

    return {
        "qido_list_vs_orthanc": against_orthanc("list_100"),
        "qido_deep_page_vs_orthanc": against_orthanc("deep_page"),
        "qido_modalities_vs_orthanc": against_orthanc("modalities"),
        "qido_exact_vs_orthanc": against_orthanc("exact"),
        "metadata_300_ms": round(figures["ours"]["metadata_300"]["p50"], 2) if "ours" in figures else None,
    }


if __name__ == "__main__":
    main()
