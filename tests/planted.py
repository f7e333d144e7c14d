"""A person whose name, numbers and staff are planted in many places of DICOM files, and a search for what is left of them."""

from __future__ import annotations

import base64
import copy
import os
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import asyncpg
import msgspec
import pydicom
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from archive.phantom import make_phantom

SR = "1.2.840.10008.5.1.4.1.1.88.11"
ENCODINGS = ("utf-8", "latin-1", "shift_jis", "iso2022_jp", "euc_jp", "gb18030")
LEAST_BASE64 = 8
"""Shorter pieces of base64 are found in any random bytes."""

MARKED = (
    "PatientBirthName", "PatientMotherBirthName", "OtherPatientIDs", "PatientAddress", "PatientTelephoneNumbers", "MilitaryRank",
    "EthnicGroup", "Occupation", "AdditionalPatientHistory", "PatientComments", "PatientReligiousPreference", "MedicalRecordLocator",
    "InsurancePlanIdentification", "ResponsiblePerson", "ResponsibleOrganization", "CountryOfResidence", "RegionOfResidence",
    "InstitutionAddress", "InstitutionalDepartmentName", "ReferringPhysicianAddress", "ReferringPhysicianTelephoneNumbers",
    "PhysiciansOfRecord", "PerformingPhysicianName", "NameOfPhysiciansReadingStudy", "OperatorsName", "RequestingPhysician",
    "RequestingService", "RequestedProcedureDescription", "AdmittingDiagnosesDescription", "SeriesDescription", "ProtocolName",
    "StudyID", "ImageComments", "StudyComments", "DerivationDescription", "DeviceSerialNumber", "ManufacturerModelName", "PlateID",
    "DetectorID", "CassetteID", "AdmissionID", "CurrentPatientLocation", "VisitComments", "PerformedProcedureStepDescription",
    "CommentsOnThePerformedProcedureStep", "ContentCreatorName", "FillerOrderNumberImagingServiceRequest",
    "PlacerOrderNumberImagingServiceRequest", "SoftwareVersions", "AcquisitionDeviceProcessingDescription", "TimezoneOffsetFromUTC",
)  # fmt: skip
"""Elements that a site may write a person, a member of its staff or a device into; in each of them stands the person's mark."""


class Person(msgspec.Struct, frozen=True, kw_only=True):
    family: str
    given: str
    ideographic: str
    number: str
    issuer: str
    birth_date: str
    accession_number: str
    referring: str
    station: str
    institution: str
    description: str
    secret: str
    hold: str
    mark: str
    """Stands in every other element that may name somebody. No longer than an AE title takes."""

    def needles(self) -> set[bytes]:
        """Everything by which somebody could tell who this is: the parts of each name by themselves, so in whatever order they stand."""
        texts = {text for name, text in msgspec.structs.asdict(self).items() if name != "issuer"}
        texts -= {self.description, self.referring, self.ideographic, self.institution}
        texts |= {self.description.split()[0], self.institution.split()[-1], *self.referring.split("^"), *self.ideographic.split("^")}
        texts.add(f"{self.birth_date[:4]}-{self.birth_date[4:6]}-{self.birth_date[6:]}")
        return {encoded for text in texts for encoded in _encodings(text)}


A = Person(
    family="Zwetschgenbaumer", given="Quirinalda", ideographic="翠川^蜩吾郎", number="MRNQX-77120431", issuer="QUARZHEIM",
    birth_date="19230704", accession_number="ACCQX551277", referring="Oberwasserlechner^Kunigunde", station="STATIONQXZ1",
    institution="Klinikum Quarzheimfurt", description="Dorfmusikantenbrust nach Sturz", secret="geheimzettelqxz",
    hold="Akteneinsichtqxz", mark="QXZJWPKVYHBT",
)  # fmt: skip
B = Person(
    family="Hagebuttensteiner", given="Wunibaldine", ideographic="碧海^鴎一郎", number="MRNWB-66230542", issuer="QUARZHEIM",
    birth_date="19341105", accession_number="ACCWB662388", referring="Unterwaldschreiner^Ottokarine", station="STATIONWBY2",
    institution="Spital Wolkenbergen", description="Blaskapellenlunge nach Regen", secret="geheimzettelwby",
    hold="Klageschriftwby", mark="WBYKQJVPXHGZ",
)  # fmt: skip


def make_study(folder: Path, person: Person, *, slices: int = 6, size: int = 48, seed: int = 1) -> list[Path]:
    """A CT series that a segmenter indexes, and a structured report, all of this person."""
    truth = make_phantom(folder, slices=slices, size=size, seed=seed, slice_spacing_mm=20)
    for path in truth.files:
        dataset = pydicom.dcmread(path)
        plant(dataset, person)
        dataset.save_as(path)
    report = _report(pydicom.dcmread(truth.files[0]), person)
    report.save_as(folder / "report.dcm", enforce_file_format=True)
    return [*truth.files, folder / "report.dcm"]


def zipped(file: Path, person: Person) -> Path:
    """The file in an archive, both of which are named for the person."""
    target = file.with_name(f"{person.family}.zip")
    with zipfile.ZipFile(target, "w") as archive:
        archive.write(file, f"{person.family}_{person.given}/{person.number}.dcm")
    return target


def plant(dataset: Dataset, person: Person) -> None:
    dataset.preamble = person.mark.encode("ascii").ljust(128, b"\0")
    dataset.file_meta.SourceApplicationEntityTitle = person.mark
    for keyword in MARKED:
        setattr(dataset, keyword, person.mark)
    other, ordered = Dataset(), Dataset()
    other.PatientID, other.IssuerOfPatientID = f"{person.mark}-2", person.mark
    ordered.RequestedProcedureID, ordered.AccessionNumber = person.mark, person.accession_number
    ordered.ScheduledProcedureStepDescription, ordered.PatientName = person.mark, f"{person.given} {person.family}"
    dataset.OtherPatientIDsSequence, dataset.RequestAttributesSequence = [other], [ordered]
    dataset.SpecificCharacterSet = "ISO_IR 192"
    dataset.PatientName = f"{person.family}^{person.given}={person.ideographic}"
    dataset.OtherPatientNames = f"{person.family.upper()}^{person.given}"
    dataset.PatientID, dataset.IssuerOfPatientID = person.number, person.issuer
    dataset.PatientBirthDate, dataset.AccessionNumber = person.birth_date, person.accession_number
    dataset.ReferringPhysicianName, dataset.StationName = person.referring, person.station
    dataset.InstitutionName, dataset.StudyDescription = person.institution, person.description
    block = dataset.private_block(0x0099, "QUARZ", create=True)
    block.add_new(0x01, "LO", person.secret)


def other_bytes(source: Path, target: Path) -> Path:
    """The same instance with another pixel: a conflict."""
    dataset = pydicom.dcmread(source)
    pixels = bytearray(dataset.PixelData)
    pixels[0] ^= 1
    dataset.PixelData = bytes(pixels)
    dataset.save_as(target)
    return target


def truncated(source: Path, target: Path) -> Path:
    """Its header is whole, its pixels are not: refused, and it says whose it is."""
    target.write_bytes(source.read_bytes()[:-1000])
    return target


def nameless(source: Path, person: Person, target: Path) -> Path:
    """A name stands where the SOP Instance UID belongs, and another one in Patient's Sex: refused."""
    dataset = pydicom.dcmread(source)
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"{person.family}^{person.mark}"
    dataset.PatientSex = person.mark
    dataset.save_as(target)
    return target


def garbage(person: Person, target: Path) -> Path:
    """No DICOM at all, with the person's name as some system writes it: refused, and it does not say whose it is."""
    name = f"{person.family}^{person.given}"
    target.write_bytes(b"\x7fGARBAGE" * 40 + name.encode("utf-16-le") + b"\0" * 64 + person.number.encode("ascii") + os.urandom(99))
    return target


def found_in_files(root: Path, needles: set[bytes]) -> dict[bytes, list[str]]:
    """Needle → files below the folder that hold it, whatever the case of its letters."""
    found: dict[bytes, list[str]] = {}
    for folder, _, names in os.walk(root):
        for name in names:
            path = Path(folder) / name
            try:
                content = path.read_bytes().lower() if path.is_file() else b""
            except FileNotFoundError:
                continue
            for needle in needles:
                if needle.lower() in content:
                    found.setdefault(needle, []).append(str(path.relative_to(root)))
    return found


async def found_in_database(url: str, needles: set[bytes]) -> dict[bytes, list[str]]:
    """Needle → tables of every schema, catalogues too, whose rows hold it (decompressed, as COPY gives them)."""
    found: dict[bytes, list[str]] = {}
    connection = await asyncpg.connect(url)
    try:
        tables = await connection.fetch("SELECT schemaname, tablename FROM pg_tables WHERE schemaname <> 'information_schema' ORDER BY 1, 2")
        assert len(tables) > 20
        for schema, table in tables:
            content = bytearray()

            async def take(chunk: bytes, into: bytearray = content) -> None:
                into.extend(chunk)

            binary = "binary" if schema != "pg_catalog" else "text"  # some types of the catalogues have no binary form
            await connection.copy_from_query(f'SELECT * FROM "{schema}"."{table}"', output=take, format=binary)
            lowered = bytes(content).lower()
            for needle in needles:
                if needle.lower() in lowered:
                    found.setdefault(needle, []).append(f"{schema}.{table}")
    finally:
        await connection.close()
    return found


def found_in_dump(url: str, pg_dump: str, needles: set[bytes]) -> list[bytes]:
    """Needles that the output of pg_dump holds: all that a dump of the database would carry away."""
    done = subprocess.run([pg_dump, "--dbname", url], capture_output=True, check=True)
    content = done.stdout.lower()
    assert content.count(b"copy ") > 20
    return [needle for needle in needles if needle.lower() in content]


def _encodings(text: str) -> Iterator[bytes]:
    """In character sets, in base64 wherever it begins, in hexadecimal, in a URL and in JSON."""
    for encoding in ENCODINGS:
        try:
            yield text.encode(encoding)
        except UnicodeEncodeError:
            continue
    yield text.encode("utf-16-be")[0 if ord(text[0]) > 0xFF else 1 :]  # without the first zero: in UTF-16 of either order
    utf8 = text.encode("utf-8")
    yield utf8.hex().encode("ascii")
    yield text.encode("utf-16-le").hex().encode("ascii")
    if not text.isascii():
        yield text.encode("utf-16-le")
        yield quote(text).encode("ascii")
        yield text.encode("unicode_escape")
    for shift in range(3):
        encoded = base64.b64encode(b"\0" * shift + utf8)
        piece = encoded[-(-shift * 8 // 6) : (shift + len(utf8)) * 8 // 6]
        if len(piece) >= LEAST_BASE64:
            yield piece


def _report(image: Dataset, person: Person) -> FileDataset:
    """A structured report whose text names the person."""
    uid = generate_uid()
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID, meta.TransferSyntaxUID = SR, uid, ExplicitVRLittleEndian
    report = FileDataset("", Dataset(), file_meta=meta, preamble=b"\0" * 128)
    report.SOPClassUID, report.SOPInstanceUID, report.Modality = SR, uid, "SR"
    report.StudyInstanceUID, report.SeriesInstanceUID = image.StudyInstanceUID, generate_uid()
    report.StudyDate, report.StudyTime, report.PatientSex = image.StudyDate, image.StudyTime, person.mark
    plant(report, person)
    report.Modality = f"SR {person.mark} {person.given}"
    item = Dataset()
    item.RelationshipType, item.ValueType = "CONTAINS", "TEXT"
    item.TextValue = f"{person.given} {person.family} klagt. " + copy.copy(person.secret)
    report.ValueType, report.ContentSequence = "CONTAINER", [item]
    return report
