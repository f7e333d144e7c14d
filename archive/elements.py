"""What an element of a header in DICOM JSON (PS3.18, F.2) holds."""

from __future__ import annotations

from typing import Any

from domain.series import DicomJson


def first(header: DicomJson, tag: str) -> Any:
    """The first value; None where there is none."""
    values = header.get(tag, {}).get("Value")
    return values[0] if values else None


def items(header: DicomJson, tag: str) -> list[DicomJson]:
    """The items of a sequence that have content."""
    return [one for one in header.get(tag, {}).get("Value") or [] if isinstance(one, dict)]
