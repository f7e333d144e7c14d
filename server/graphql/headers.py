"""Which DICOM elements have a field of their own, and so which ones the fields of a document need."""

from __future__ import annotations

from collections.abc import Mapping

from domain.condition import Level

SERIES_KEYS = {
    "modality": "00080060",
    "bodyPart": "00180015",
    "description": "0008103E",
    "protocol": "00181030",
    "manufacturer": "00080070",
    "model": "00081090",
    "kernel": "00181210",
    "sliceThicknessMm": "00180050",
    "kvp": "00180060",
}
STUDY_KEYS = {"description": "00081030"}
_KEYS: Mapping[Level, Mapping[str, str]] = {Level.SERIES: SERIES_KEYS, Level.STUDY: STUDY_KEYS}
_ANY = frozenset({"element", "elements"})


def wanted(level: Level, names: frozenset[str] | None) -> frozenset[str] | None:
    """Keys of elements that rows of a level are fetched with; None: all. ``names``: of the fields that are asked for; None where it is not known."""
    if level not in _KEYS:
        return frozenset()
    if names is None or names & _ANY:
        return None
    return frozenset(key for name, key in _KEYS[level].items() if name in names)
