"""Which attributes belong to which level of the study hierarchy, and how their values are read from DICOM JSON (PS3.18 F.2).

The sets follow the modules of PS3.3: Patient, Patient Study, General Study and Clinical Trial for a study; General Series,
Clinical Trial Series and General Equipment for a series. What an answer holds unasked is PS3.18, tables 10.6.3-3 to -5.
"""

from __future__ import annotations

from typing import Any

from domain.series import DicomJson

SPECIFIC_CHARACTER_SET = "00080005"
SOP_CLASS_UID = "00080016"
SOP_INSTANCE_UID = "00080018"
STUDY_DATE = "00080020"
STUDY_TIME = "00080030"
ACCESSION_NUMBER = "00080050"
INSTANCE_AVAILABILITY = "00080056"
MODALITY = "00080060"
MODALITIES_IN_STUDY = "00080061"
SOP_CLASSES_IN_STUDY = "00080062"
REFERRING_PHYSICIAN_NAME = "00080090"
TIMEZONE_OFFSET = "00080201"
STUDY_DESCRIPTION = "00081030"
SERIES_DESCRIPTION = "0008103E"
RETRIEVE_URL = "00081190"
AVAILABLE_TRANSFER_SYNTAX_UID = "00083002"
PATIENT_NAME = "00100010"
PATIENT_ID = "00100020"
ISSUER_OF_PATIENT_ID = "00100021"
PATIENT_BIRTH_DATE = "00100030"
PATIENT_SEX = "00100040"
BODY_PART_EXAMINED = "00180015"
STUDY_INSTANCE_UID = "0020000D"
SERIES_INSTANCE_UID = "0020000E"
STUDY_ID = "00200010"
SERIES_NUMBER = "00200011"
INSTANCE_NUMBER = "00200013"
STUDY_RELATED_SERIES = "00201206"
STUDY_RELATED_INSTANCES = "00201208"
SERIES_RELATED_INSTANCES = "00201209"
NUMBER_OF_FRAMES = "00280008"
PROCEDURE_STEP_DATE = "00400244"
PROCEDURE_STEP_TIME = "00400245"
REQUEST_ATTRIBUTES = "00400275"
SCHEDULED_PROCEDURE_STEP_ID = "00400009"
REQUESTED_PROCEDURE_ID = "00401001"


def _tags(listed: str) -> frozenset[str]:
    return frozenset(listed.split())


STUDY_ATTRIBUTES = _tags(
    "00080005 00080020 00080030 00080050 00080051 00080090 00080096 0008009C 0008009D 00080201 00081030 00081032 00081048"
    " 00081049 00081060 00081062 00081080 00081084 00081110 00081120 00120010 00120020 00120021 00120030 00120031 00120040"
    " 00120042 00120050 00120051 00120062 00120063 00120064 0020000D 00200010 00321032 00321033 00321060 00321064 00380010"
    " 00380060 00380062"
)
"""Beside these, every attribute of group 0010 describes the patient and so the study."""

SERIES_ATTRIBUTES = _tags(
    "00080005 00080021 00080031 00080060 00080064 00080070 00080080 00080081 00080201 00081010 00081040 00081050 00081052"
    " 00081070 00081072 0008103E 0008103F 00081090 00081111 00081250 00120060 00120071 00120072 00180015 00181000 00181020"
    " 00181030 00181050 00181200 00181201 00185100 0020000D 0020000E 00200011 00200052 00200060 00201040 00400244 00400245"
    " 00400250 00400251 00400253 00400254 00400275"
)

STUDY_ANSWER = _tags(
    "00080005 00080020 00080030 00080050 00080090 00080201 00081030 00100010 00100020 00100021 00100030 00100040 0020000D 00200010"
)
SERIES_ANSWER = _tags(
    "00080005 00080021 00080031 00080060 00080201 0008103E 00180015 0020000D 0020000E 00200011 00400244 00400245 00400275"
)
INSTANCE_ANSWER = _tags("00080005 00080016 00080018 00080201 0020000D 0020000E 00200013 00280008 00280010 00280011 00280100")

REQUIRED_IN_STUDY = {
    "00080020": "DA",
    "00080030": "TM",
    "00080050": "SH",
    "00080090": "PN",
    "00100010": "PN",
    "00100020": "LO",
    "00100030": "DA",
    "00100040": "CS",
    "00200010": "SH",
}
"""Answered without a value where the data sets hold none."""

PLAIN_ANSWER = {
    "study": STUDY_ANSWER | {"00080056", "00080061", "00080062", "00081190", "00201206", "00201208"},
    "series": SERIES_ANSWER | {"00080056", "00081190", "00201209"},
    "instance": INSTANCE_ANSWER | {"00080056", "00081190", "00083002"},
}
"""All that the ready-made answer of a level holds: a search that asks for no more is a join of bytes."""


def of_study(header: DicomJson) -> DicomJson:
    """The elements of a header that describe its study and patient."""
    return {tag: element for tag, element in header.items() if tag in STUDY_ATTRIBUTES or tag.startswith("0010")}


def of_series(header: DicomJson) -> DicomJson:
    """The elements of a header that describe its series."""
    return {tag: element for tag, element in header.items() if tag in SERIES_ATTRIBUTES}


def fill(known: DicomJson, further: DicomJson) -> None:
    """Adds to ``known`` what it lacks or has without a value: what the first instances said stands."""
    for tag, element in further.items():
        if not known.get(tag, {}).get("Value"):
            known[tag] = element


def values(header: DicomJson, tag: str) -> list[Any]:
    """All values of an element; empty where there is none."""
    found = header.get(tag)
    value = found.get("Value") if isinstance(found, dict) else None
    return [one for one in value if one is not None] if isinstance(value, list) else []


def text(header: DicomJson, tag: str) -> str:
    """The value as DICOM text, several joined by a backslash as in the data set; empty where there is none."""
    return "\\".join(str(one) for one in values(header, tag) if not isinstance(one, dict))


def integer(header: DicomJson, tag: str) -> int | None:
    """The first value as an integer, where it is one that fits 64 bits."""
    for one in values(header, tag)[:1]:
        try:
            number = int(one)
        except (TypeError, ValueError, OverflowError):
            return None
        return number if -(2**63) <= number < 2**63 else None
    return None


def in_items(header: DicomJson, sequence: str, tag: str) -> list[str]:
    """The values of an element in all items of a sequence, without doubles, sorted."""
    items = [item for item in values(header, sequence) if isinstance(item, dict)]
    return sorted({str(one).replace("\0", " ").strip() for item in items for one in values(item, tag)})


def element(vr: str, *found: Any) -> dict[str, Any]:
    """An element of the DICOM JSON model; without a value when there is none (F.2.5)."""
    return {"Value": list(found), "vr": vr} if found else {"vr": vr}
