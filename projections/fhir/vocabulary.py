"""Code systems and codes of the FHIR mapping, each with where it comes from."""

from __future__ import annotations

import re
from datetime import date
from functools import lru_cache
from typing import Any
from uuid import UUID

from domain.findings import Code, Laterality
from domain.ids import derived_id

Json = dict[str, Any]

DCM = "http://dicom.nema.org/resources/ontology/DCM"
SCT = "http://snomed.info/sct"
UCUM = "http://unitsofmeasure.org"
LIFECYCLE = "http://terminology.hl7.org/CodeSystem/iso-21089-lifecycle"
OBSERVATION_VALUE = "http://terminology.hl7.org/CodeSystem/v3-ObservationValue"
SIGNATURE_TYPE = "urn:iso-astm:E1762-95:2013"
DICOM_UID = "urn:dicom:uid"

GUIDE = "urn:anamnesis:fhir"
"""Before the type and id of each definition of the implementation guide (ig/): its canonical URL."""

SUBJECT_SYSTEM = "urn:anamnesis:subject"
FINDING_SYSTEM = "urn:anamnesis:finding"
SERIES_INDEX_SYSTEM = "urn:anamnesis:series-index"
SEGMENTER_SYSTEM = "urn:anamnesis:segmenter"
PRINCIPAL_SYSTEM = "urn:anamnesis:principal"
POSITION_SYSTEM = "urn:anamnesis:log:position"
EVENT_SYSTEM = "urn:anamnesis:log:event"
REJECT_SYSTEM = "urn:anamnesis:reject"
LOG_ENTRY_EXTENSION = f"{GUIDE}:StructureDefinition:log-entry"
DIFFERS_EXTENSION = f"{GUIDE}:StructureDefinition:differs-in-images"
COMPONENT_SYSTEM = f"{GUIDE}:CodeSystem:finding-component"
INDEXING_SYSTEM = f"{GUIDE}:CodeSystem:indexing-outcome"

PSEUDONYMISED = {"system": OBSERVATION_VALUE, "code": "PSEUDED", "display": "pseudonymized"}
AI_ASSERTED = {"system": OBSERVATION_VALUE, "code": "AIAST", "display": "Artificial Intelligence asserted"}

LEFT = {"system": SCT, "code": "7771000", "display": "Left"}
RIGHT = {"system": SCT, "code": "24028007", "display": "Right"}
GENDERS = {"M": "male", "F": "female", "O": "other"}

_remembered = lru_cache(maxsize=4096)
"""For ids that many resources of one event refer to: deriving them was a tenth of a rebuild."""
_FHIR_ID = re.compile(r"[A-Za-z0-9\-.]{1,64}")


def concept(*codings: Json, text: str | None = None) -> Json:
    made: Json = {"coding": list(codings)}
    if text is not None:
        made["text"] = text
    return made


def coding(code: Code) -> Json:
    return {"system": code.system, "code": code.code, "display": code.display}


def side(laterality: Laterality) -> Json:
    return concept(LEFT if laterality is Laterality.LEFT else RIGHT)


def reference(resource_type: str, resource_id: str | UUID, version: int | None = None) -> Json:
    history = f"/_history/{version}" if version is not None else ""
    return {"reference": f"{resource_type}/{resource_id}{history}", "type": resource_type}


def fhir_uid(uid: str) -> str:
    """A UID as FHIR's `id` type takes it; one that is too long or malformed is stood in for by a UID derived from it."""
    return uid if _FHIR_ID.fullmatch(uid) else f"2.25.{derived_id('malformed-uid', uid).int}"


@_remembered
def study_id(study_uid: str) -> str:
    return str(derived_id("study", study_uid))


@_remembered
def selection_id(series_uid: str) -> str:
    return str(derived_id("series", series_uid))


@_remembered
def index_id(series_uid: str) -> str:
    return str(derived_id("series-index", series_uid))


@_remembered
def observation_id(finding_key: str) -> str:
    return str(derived_id("finding-observation", finding_key))


def fhir_date(dicom_date: str) -> str | None:
    """YYYYMMDD (PS3.5, 6.2) as YYYY-MM-DD; None where it is no date."""
    digits = dicom_date.strip().replace(".", "")
    try:
        return date(int(digits[:4]), int(digits[4:6]), int(digits[6:8])).isoformat() if len(digits) == 8 else None
    except ValueError:
        return None


def first_value(elements: Json, tag: str) -> Any:
    """First value of an element of a DICOM JSON data set; None where there is none."""
    values = elements.get(tag, {}).get("Value")
    return values[0] if values else None
