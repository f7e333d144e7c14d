"""A site with cohorts to ask for: some persons, studies and series, with findings, reviews and clinical records, all by its doors."""

from __future__ import annotations

from typing import Any

import msgspec
from served_site import LIVER, LUNG, Site, indexed, slice_of

from domain import series
from domain.findings import Structure, finding_key
from domain.ids import series_stream
from domain.principal import device
from domain.series import RequestIndexing, Series
from eventlog.aggregate import execute, load

ROOT = "1.2.826.0.1.3680043.8.498.77"
SNOMED, DIABETES, HYPERTENSION = "http://snomed.info/sct", "44054006", "38341003"
HEADERS: dict[str, list[dict[str, Any]]] = {
    # Anna, F, born 1960: a baseline and a follow-up half a year later.
    f"{ROOT}.1": [
        {"SeriesDescription": "Abdomen portal-venous 1.0", "SliceThickness": "1.0", "ManufacturerModelName": "Force"},
        {"SeriesDescription": "Abdomen nativ", "SliceThickness": "5.0", "ManufacturerModelName": "Force"},
    ],
    f"{ROOT}.2": [{"SeriesDescription": "Abdomen portal-venous 1.5", "SliceThickness": "1.5", "ManufacturerModelName": "Flash", "StudyDate": "20240730"}],
    # Bert, M, born 1950.
    f"{ROOT}.3": [{"SeriesDescription": "Thorax Lunge", "SliceThickness": "1.5", "ManufacturerModelName": "Flash"}],
    # Clara, F, born 1990; and Dora, F, born 1955, with two series.
    f"{ROOT}.4": [{"SeriesDescription": "Abdomen portal-venous 1.0", "SliceThickness": "1.0", "ManufacturerModelName": "Force"}],
    f"{ROOT}.5": [
        {"SeriesDescription": "Abdomen portal-venous 1.25", "SliceThickness": "1.25", "ManufacturerModelName": "Revolution"},
        {"SeriesDescription": "Abdomen arteriell", "SliceThickness": "1.25", "ManufacturerModelName": "Revolution"},
    ],
}
PERSONS = {
    f"{ROOT}.1": ("Sample^Anna", "MRN-A", "19600501", "F"),
    f"{ROOT}.2": ("Sample^Anna", "MRN-A", "19600501", "F"),
    f"{ROOT}.3": ("Sample^Bert", "MRN-B", "19500101", "M"),
    f"{ROOT}.4": ("Sample^Clara", "MRN-C", "19900615", "F"),
    f"{ROOT}.5": ("Sample^Dora", "MRN-D", "19551224", "F"),
}
FOUND: dict[str, list[tuple[Structure, float, bool]]] = {
    f"{ROOT}.1.1": [(LIVER, 1450.0, True), (LUNG, 900.0, False)],
    f"{ROOT}.2.1": [(LIVER, 1300.0, True)],
    f"{ROOT}.3.1": [(LUNG, 2100.0, True)],
    f"{ROOT}.4.1": [(LIVER, 1500.0, True)],
    f"{ROOT}.5.1": [(LIVER, 1250.0, True)],
    f"{ROOT}.5.2": [(LIVER, 1100.0, False)],
}
"""Structure, volume in mL, whether it is whole."""
ACCEPTED = (f"{ROOT}.1.1", f"{ROOT}.4.1", f"{ROOT}.5.1")


async def filled(site: Site) -> None:
    """All of it. Each series has two slices."""
    await site.store(*(file for study in HEADERS for file in files(study)))
    for series_uid, found in FOUND.items():
        await index(site, series_uid, found)
    await site.caught_up()
    for series_uid in ACCEPTED:
        await review(site, series_uid, "liver", "accepted")
    await condition(site, f"{ROOT}.1", DIABETES)
    await condition(site, f"{ROOT}.4", DIABETES)
    await condition(site, f"{ROOT}.5", HYPERTENSION)
    await site.caught_up()


def files(study: str) -> list[bytes]:
    name, patient_id, born, sex = PERSONS[study]
    person = {"name": name, "patient_id": patient_id, "PatientBirthDate": born, "PatientSex": sex, "Manufacturer": "ACME"}
    return [
        slice_of(study, number, series_number=of, **person, **headers)
        for of, headers in enumerate(HEADERS[study], 1)
        for number in (1, 2)
    ]


async def index(site: Site, series_uid: str, found: list[tuple[Structure, float, bool]]) -> None:
    """As the worker does. Volumes in mL."""
    log, stream, worker = site.services.log, series_stream(series_uid), device("worker")
    asked = RequestIndexing(series_uid=series_uid, segmenter="baseline", reason="quiet")
    await execute(log, stream, Series(), series.evolve, lambda state: series.request_indexing(state, asked), principal=worker)
    state, _ = await load(log, stream, Series(), series.evolve)
    result = indexed(state, series_uid, *(structure for structure, _, _ in found))
    findings = [
        msgspec.structs.replace(one, volume_mm3=volume * 1000.0, touches_edge=not whole)
        for one, (_, volume, whole) in zip(result.findings, found, strict=True)
    ]
    result = msgspec.structs.replace(result, findings=findings)
    await execute(log, stream, Series(), series.evolve, lambda state: series.record_indexing(state, result), principal=worker)


async def review(site: Site, series_uid: str, label: str, verdict: str) -> None:
    wanted = {"finding": finding_key(series_uid, "baseline", label), "verdict": verdict, "comment": "seen"}
    answer = await site.client.post("/reviews", json=wanted, headers=await site.headers("reviews:write"))
    assert answer.status_code == 201, answer.text


async def subject_of(site: Site, study_uid: str) -> str:
    """The pseudonym of whose study it is."""
    found = await site.get("/fhir/ImagingStudy", "fhir:read", identifier=f"urn:dicom:uid|urn:oid:{study_uid}")
    return str(found.json()["entry"][0]["resource"]["subject"]["reference"]).removeprefix("Patient/")


async def condition(site: Site, study_uid: str, code: str) -> None:
    """Of whose study it is, from 2020 on."""
    resource = {
        "resourceType": "Condition",
        "clinicalStatus": {"coding": [{"system": "http://terminology.hl7.org/CodeSystem/condition-clinical", "code": "active"}]},
        "code": {"coding": [{"system": SNOMED, "code": code}]},
        "subject": {"reference": f"Patient/{await subject_of(site, study_uid)}"},
        "onsetDateTime": "2020-01-01",
    }
    answer = await site.client.post("/fhir/Condition", json=resource, headers=await site.headers("fhir:write"))
    assert answer.status_code == 201, answer.text
