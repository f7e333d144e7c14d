"""Synthetic patients: some 30 resources each, always the same for the same number, without a name that anybody has."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from domain.clinical_record import ClinicalRecordWritten
from domain.event import Event
from domain.ids import derived_id, record_stream, subject_stream
from domain.subject import Demographics, SubjectRegistered

Json = dict[str, Any]

LOINC, SNOMED = "http://loinc.org", "http://snomed.info/sct"
ORDERS = "urn:oid:2.999.1"
"""System of the identifiers of service requests."""
PATIENTS = "urn:oid:2.999.2"
"""System of the identifiers of patients whom a transaction makes."""
BEGIN = datetime(2020, 1, 1, tzinfo=UTC)
DAYS = 2000
"""Over which what happened is spread."""
ORPHA = "http://www.orpha.net"
SHARE_A_DISEASE = 20
"""So many patients have the same rare disease, however many patients there are."""
COMMON = "38341003"
RESOURCES_EACH = 30
_MEASURES = (
    ("8867-4", "Heart rate", "/min", 60, 40),
    ("8480-6", "Systolic blood pressure", "mm[Hg]", 100, 60),
    ("8462-4", "Diastolic blood pressure", "mm[Hg]", 60, 40),
    ("29463-7", "Body weight", "kg", 50, 60),
    ("8302-2", "Body height", "cm", 150, 50),
    ("2160-0", "Creatinine", "mg/dL", 1, 2),
    ("33914-3", "Glomerular filtration rate", "mL/min", 30, 90),
    ("718-7", "Hemoglobin", "g/dL", 10, 8),
)
_CONDITIONS = (COMMON, "73211009", "195967001", "363346000", "254837009", "13645005", "22298006", "84114007")


def patient_id(number: int) -> str:
    return str(derived_id("benchmark-patient", str(number)))


def resource_id(kind: str, number: int, nth: int) -> str:
    return f"{kind.lower()}-{number}-{nth}"


def day_of(number: int, nth: int) -> datetime:
    """When something of a patient happened: any minute of the day, so that few things happen at the same time."""
    return BEGIN + timedelta(days=(number * 7919 + nth * 173) % DAYS, minutes=(number * 31 + nth * 97) % 1440)


def order_number(number: int, nth: int) -> str:
    return f"R{number:07d}-{nth}"


def clinical_resources(number: int, patient: str) -> Iterator[tuple[str, int, Json]]:
    """Type, which of its type, and content of what is said of a patient: 29 resources. ``patient`` is the reference to it."""
    subject = {"reference": patient}
    for nth in range(3):
        yield "Encounter", nth, {
            "resourceType": "Encounter",
            "status": "completed",
            "class": [{"coding": [_coding("http://terminology.hl7.org/CodeSystem/v3-ActCode", "AMB", "ambulatory")]}],
            "subject": subject,
            "actualPeriod": {"start": _instant(number, nth), "end": _instant(number, nth, minutes=45)},
        }
    for nth in range(4):
        system, code = (ORPHA, rare_disease(number)) if nth == 3 else (SNOMED, _CONDITIONS[(number + nth * 3) % len(_CONDITIONS)])
        yield "Condition", nth, {
            "resourceType": "Condition",
            "clinicalStatus": {"coding": [_coding("http://terminology.hl7.org/CodeSystem/condition-clinical", "active", "Active")]},
            "code": {"coding": [_coding(system, code, f"Condition {code}")]},
            "subject": subject,
            "onsetDateTime": day_of(number, nth).date().isoformat(),
        }
    for nth in range(16):
        yield "Observation", nth, observation(number, nth, subject)
    for nth in range(2):
        yield "ServiceRequest", nth, {
            "resourceType": "ServiceRequest",
            "identifier": [{"system": ORDERS, "value": order_number(number, nth)}],
            "status": "completed",
            "intent": "order",
            "code": {"concept": {"coding": [_coding(SNOMED, "77477000", "Computed tomography")]}},
            "subject": subject,
            "authoredOn": _instant(number, nth),
        }
    for nth in range(2):
        yield "DiagnosticReport", nth, {
            "resourceType": "DiagnosticReport",
            "status": "final",
            "code": {"coding": [_coding(LOINC, "24627-2", "CT Chest")]},
            "subject": subject,
            "effectiveDateTime": _instant(number, nth),
            "issued": _instant(number, nth, minutes=90),
            "conclusion": "No focal consolidation. Heart size normal. Degenerative changes of the thoracic spine.",
        }
    for nth in range(2):
        yield "MedicationRequest", nth, {
            "resourceType": "MedicationRequest",
            "status": "active",
            "intent": "order",
            "medication": {"concept": {"coding": [_coding("http://www.nlm.nih.gov/research/umls/rxnorm", "314076", "Lisinopril 10 MG")]}},
            "subject": subject,
            "authoredOn": _instant(number, nth),
            "dosageInstruction": [{"text": "one tablet each morning", "timing": {"repeat": {"frequency": 1, "period": 1, "periodUnit": "d"}}}],
        }


def observation(number: int, nth: int, subject: Json) -> Json:
    code, display, unit, least, spread = _MEASURES[nth % len(_MEASURES)]
    return {
        "resourceType": "Observation",
        "status": "final",
        "category": [
            {"coding": [_coding("http://terminology.hl7.org/CodeSystem/observation-category", "vital-signs", "Vital Signs")]}
        ],
        "code": {"coding": [_coding(LOINC, code, display)], "text": display},
        "subject": subject,
        "effectiveDateTime": _instant(number, nth),
        "valueQuantity": {
            "value": least + (number * 13 + nth * 7) % spread,
            "unit": unit,
            "system": "http://unitsofmeasure.org",
            "code": unit,
        },
    }


def rare_disease(number: int) -> str:
    return str(100_000 + number // SHARE_A_DISEASE)


def measure_code(nth: int) -> str:
    return _MEASURES[nth % len(_MEASURES)][0]


def events(number: int) -> Iterator[tuple[str, Event]]:
    """Of a patient whose record the log already has, by stream: each stream is new."""
    subject_id = patient_id(number)
    person = Demographics(patient_id=f"MRN{number:07d}", patient_name=f"ROE^R{number}", birth_date=f"{1930 + number % 70}0615")
    yield subject_stream(subject_id), SubjectRegistered(subject_id=subject_id, sex="FM"[number % 2], demographics=person)
    for kind, nth, resource in clinical_resources(number, f"Patient/{subject_id}"):
        its_id = resource_id(kind, number, nth)
        yield (
            record_stream(kind, its_id),
            ClinicalRecordWritten(resource_type=kind, resource_id=its_id, subject_id=subject_id, record_version=1, resource=resource),
        )


def transaction(number: int) -> Json:
    """A patient who is not there yet and everything of that patient, in one Bundle: references are to its own entries."""
    full_url = f"urn:uuid:{derived_id('benchmark-entry', str(number), 'Patient')}"
    entries = [_entry(full_url, {**_patient(number), "resourceType": "Patient"})]
    for kind, nth, resource in clinical_resources(number, full_url):
        entries.append(_entry(f"urn:uuid:{derived_id('benchmark-entry', str(number), kind, str(nth))}", resource))
    return {"resourceType": "Bundle", "type": "transaction", "entry": entries}


def _patient(number: int) -> Json:
    return {
        "identifier": [{"system": PATIENTS, "value": f"MRN{number:07d}"}],
        "name": [{"family": "Roe", "given": [f"R{number}"]}],
        "gender": ("female", "male")[number % 2],
        "birthDate": f"{1930 + number % 70}-06-15",
    }


def _entry(full_url: str, resource: Json) -> Json:
    return {"fullUrl": full_url, "resource": resource, "request": {"method": "POST", "url": resource["resourceType"]}}


def _coding(system: str, code: str, display: str) -> Json:
    return {"system": system, "code": code, "display": display}


def _instant(number: int, nth: int, minutes: int = 0) -> str:
    return (day_of(number, nth) + timedelta(minutes=minutes)).isoformat().replace("+00:00", "Z")
