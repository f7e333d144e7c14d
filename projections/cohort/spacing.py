"""How far apart the slices of a series lie: by their positions along the normal (PS3.3, C.7.6.2.1.1), whatever the header says of thickness."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from domain.series import DicomJson
from projections.dicom.attributes import values

IMAGE_POSITION, IMAGE_ORIENTATION = "00200032", "00200037"
ORIENTATION_TOLERANCE = 1e-3
UNIT_TOLERANCE = 1e-2
SAME_PLACE_MM = 1e-3
"""Slices nearer than this lie in one place: phases of a heart, echoes."""
SPACING_TOLERANCE_MM = 0.05
SPACING_TOLERANCE = 0.02
"""Of the median gap; the same bounds as those within which a series is segmented."""


def orientation_of(header: DicomJson) -> list[float]:
    """Six direction cosines; empty where they are not two unit vectors at right angles."""
    found = _numbers(header, IMAGE_ORIENTATION, 6)
    row, column = found[:3], found[3:]
    if not found or abs(math.hypot(*row) - 1) > UNIT_TOLERANCE or abs(math.hypot(*column) - 1) > UNIT_TOLERANCE:
        return []
    return found if abs(_dot(row, column)) <= UNIT_TOLERANCE else []


def slice_mm(header: DicomJson, frames: int, orientation: Sequence[float]) -> float | None:
    """Where an image lies along the normal of this orientation; None for one of another, of several frames, or without a place."""
    own, position = orientation_of(header), _numbers(header, IMAGE_POSITION, 3)
    if frames > 1 or not own or not position or not orientation:
        return None
    if max(abs(a - b) for a, b in zip(own, orientation, strict=True)) > ORIENTATION_TOLERANCE:
        return None
    return round(_dot(position, _normal(orientation)), 6)


def slice_spacing_mm(places: Sequence[float | None]) -> float | None:
    """The one distance of neighbouring slices, rounded to the micrometre; None where they differ, or a place is not known."""
    known = sorted(place for place in places if place is not None)
    if len(known) < len(places) or not known:
        return None
    apart = [known[0]]
    for place in known[1:]:
        if place - apart[-1] >= SAME_PLACE_MM:
            apart.append(place)
    gaps = sorted(beyond - before for before, beyond in pairwise(apart))
    if not gaps:
        return None
    middle = len(gaps) // 2
    typical = gaps[middle] if len(gaps) % 2 else (gaps[middle - 1] + gaps[middle]) / 2
    tolerance = max(SPACING_TOLERANCE_MM, SPACING_TOLERANCE * typical)
    if gaps[-1] - typical > tolerance or typical - gaps[0] > tolerance:
        return None
    return round((apart[-1] - apart[0]) / len(gaps), 3)


def _numbers(header: DicomJson, tag: str, count: int) -> list[float]:
    found: list[float] = []
    for value in values(header, tag):
        try:
            number = float(value)
        except (TypeError, ValueError):
            return []
        if not math.isfinite(number):
            return []
        found.append(number)
    return found if len(found) == count else []


def _normal(orientation: Sequence[float]) -> list[float]:
    a, b, c, d, e, f = orientation
    normal = [b * f - c * e, c * d - a * f, a * e - b * d]
    length = math.hypot(*normal)
    return [one / length for one in normal]


def _dot(a: Sequence[Any], b: Sequence[Any]) -> float:
    return float(sum(x * y for x, y in zip(a, b, strict=True)))
