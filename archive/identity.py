"""Whose bytes are these? By which number a file names its patient, also where it cannot be read to its end."""

from __future__ import annotations

import warnings
from pathlib import Path

import msgspec
import pydicom

from archive.errors import Refused
from archive.header import read_header

_TAGS: list[str | int | tuple[int, int]] = ["SpecificCharacterSet", "PatientID", "IssuerOfPatientID", "StudyInstanceUID"]


class PatientNumber(msgspec.Struct, frozen=True, kw_only=True):
    """What a subject's id is derived from (PS3.3 C.7.1.1); the study stands in where there is no Patient ID."""

    patient_id: str
    issuer: str
    study_uid: str


def patient_number(path: Path) -> PatientNumber | None:
    """None where the bytes do not say. Raises FileNotFoundError."""
    try:
        elements = read_header(path).elements
        return _number(*(_text(elements.get(tag, {}).get("Value")) for tag in ("00100020", "00100021", "0020000D")))
    except Refused:
        return _from_a_fragment(path)


def _from_a_fragment(path: Path) -> PatientNumber | None:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = pydicom.dcmread(path, stop_before_pixels=True, force=True, specific_tags=_TAGS)
            return _number(*(str(found.get(name) or "") for name in ("PatientID", "IssuerOfPatientID", "StudyInstanceUID")))
    except FileNotFoundError:
        raise
    except Exception:  # whatever pydicom raises on broken bytes: they do not say
        return None


def _number(patient_id: str, issuer: str, study_uid: str) -> PatientNumber | None:
    if not patient_id.strip() and not study_uid.strip():
        return None
    return PatientNumber(patient_id=patient_id.strip(), issuer=issuer.strip(), study_uid=study_uid.strip())


def _text(values: object) -> str:
    return str(values[0] or "") if isinstance(values, list) and values else ""
