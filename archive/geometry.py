"""Where slices lie in the patient (PS3.3, C.7.6.2), read from headers and checked: one regular grid, or refused by a named reason.

Series readers only warn of a missing slice, and then give wrong geometry. Here positions, orientations and spacings are compared
first, and slices are ordered along their normal. Frames of a multi-frame instance are slices too (PS3.3, C.7.6.16).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from archive.elements import first, items
from archive.errors import GeometryRefused
from domain.series import DicomJson

ORIENTATION_TOLERANCE = 1e-3
SPACING_TOLERANCE_MM = 0.05
SPACING_TOLERANCE = 0.02
TILT_TOLERANCE_MM_PER_SLICE = 0.05

_PER_FRAME, _SHARED = "52009230", "52009229"
_PLANE_POSITION, _PLANE_ORIENTATION, _PIXEL_MEASURES = "00209113", "00209116", "00289110"
_POSITION, _ORIENTATION, _PIXEL_SPACING = "00200032", "00200037", "00280030"


class Plane(msgspec.Struct, frozen=True, kw_only=True):
    """One slice, or one frame. Lengths in mm, in the patient coordinate system (LPS)."""

    rows: int
    columns: int
    position: tuple[float, ...]
    """Centre of the first voxel."""
    orientation: tuple[float, ...]
    """Direction in which a row goes, then that of a column."""
    pixel_spacing: tuple[float, ...]
    """Between rows, then between columns."""


class Grid(msgspec.Struct, frozen=True, kw_only=True):
    """Slices at even distances. ``order[k]`` is the slice that lies at ``k`` along the normal."""

    rows: int
    columns: int
    order: tuple[int, ...]
    origin: tuple[float, float, float]
    spacing: tuple[float, float, float]
    """From column to column, row to row, slice to slice."""
    direction: tuple[float, ...]
    """3 × 3, row by row: its columns are the directions in which columns, rows and slices are counted."""

    @property
    def normal(self) -> NDArray[np.float64]:
        return np.array(self.direction).reshape(3, 3)[:, 2]


def planes_of(header: DicomJson) -> list[Plane]:
    """The slices of one instance, in the order of its frames. Raises GeometryRefused."""
    frames = items(header, _PER_FRAME)
    if not frames:
        return [_plane(header, header, header, header)]
    if len(frames) != int(first(header, "00280008") or 1):
        raise GeometryRefused("no-geometry", "Per-frame Functional Groups (5200,9230) do not describe each frame")
    shared = (items(header, _SHARED) or [{}])[0]
    return [
        _plane(header, *(_group(frame, shared, header, tag) for tag in (_PLANE_POSITION, _PLANE_ORIENTATION, _PIXEL_MEASURES)))
        for frame in frames
    ]


def grid_of(planes: Sequence[Plane]) -> Grid:
    """Raises GeometryRefused: mixed-geometry, mixed-orientations, no-geometry, duplicate-positions, missing-slices, gantry-tilt, too-few-slices."""
    if len(planes) < 2:
        raise GeometryRefused("too-few-slices", "one slice has no distance to another one")
    if len({(one.rows, one.columns, one.pixel_spacing) for one in planes}) > 1:
        raise GeometryRefused("mixed-geometry", "Rows, Columns or Pixel Spacing (0028,0010; 0028,0011; 0028,0030) differ between slices")
    orientation = _orientation(planes)
    normal = np.cross(orientation[:3], orientation[3:])
    positions = np.array([one.position for one in planes])
    along = positions @ normal
    order = np.argsort(along, kind="stable")
    spacing_mm = _slice_spacing(along[order])
    _check_tilt(positions[order], normal)
    between_rows, between_columns = planes[0].pixel_spacing
    if min(between_rows, between_columns) <= 0:
        raise GeometryRefused("no-geometry", "Pixel Spacing (0028,0030) is not positive")
    x, y, z = (float(v) for v in positions[order[0]])
    return Grid(
        rows=planes[0].rows,
        columns=planes[0].columns,
        order=tuple(int(index) for index in order),
        origin=(x, y, z),
        spacing=(between_columns, between_rows, spacing_mm),
        direction=tuple(float(v) for v in np.column_stack([orientation[:3], orientation[3:], normal]).ravel()),
    )


def _plane(header: DicomJson, position: DicomJson, orientation: DicomJson, measures: DicomJson) -> Plane:
    rows, columns = _numbers(header, "00280010", 1), _numbers(header, "00280011", 1)
    return Plane(
        rows=int(rows[0]),
        columns=int(columns[0]),
        position=_numbers(position, _POSITION, 3),
        orientation=_numbers(orientation, _ORIENTATION, 6),
        pixel_spacing=_numbers(measures, _PIXEL_SPACING, 2),
    )


def _group(frame: DicomJson, shared: DicomJson, header: DicomJson, tag: str) -> DicomJson:
    """A functional group: the frame's own, that of all frames, or what the header says outside of groups."""
    return (items(frame, tag) or items(shared, tag) or [header])[0]


def _numbers(header: DicomJson, tag: str, count: int) -> tuple[float, ...]:
    values: list[Any] = header.get(tag, {}).get("Value") or []
    try:
        numbers = [float(v) for v in values]
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise GeometryRefused("no-geometry", f"({tag[:4]},{tag[4:]}) does not hold {count} numbers")
    return tuple(numbers)


def _orientation(planes: Sequence[Plane]) -> NDArray[np.float64]:
    all_of = np.array([one.orientation for one in planes])
    if np.abs(all_of - all_of[0]).max() > ORIENTATION_TOLERANCE:
        raise GeometryRefused("mixed-orientations", "Image Orientation (Patient) (0020,0037) differs between slices")
    row, column = all_of[0][:3], all_of[0][3:]
    unit = abs(np.linalg.norm(row) - 1) < 1e-2 and abs(np.linalg.norm(column) - 1) < 1e-2
    if not unit or abs(float(row @ column)) > 1e-2:
        raise GeometryRefused("no-geometry", "Image Orientation (Patient) (0020,0037) is not two unit vectors at right angles")
    return np.concatenate([row / np.linalg.norm(row), column / np.linalg.norm(column)])


def _slice_spacing(along: NDArray[np.float64]) -> float:
    """Distance of neighbouring slices in mm, from their positions."""
    gaps = np.diff(along)
    typical = float(np.median(gaps))
    tolerance = max(SPACING_TOLERANCE_MM, SPACING_TOLERANCE * typical)
    if float(gaps.min()) < 1e-3:
        raise GeometryRefused("duplicate-positions", f"{int((gaps < 1e-3).sum())} slices lie where another one lies")
    if np.abs(gaps - typical).max() > tolerance:
        worst = int(np.abs(gaps - typical).argmax())
        said = f"{gaps[worst]:.2f} mm between slices {worst + 1} and {worst + 2}, {typical:.2f} mm elsewhere"
        raise GeometryRefused("missing-slices", said)
    return float(along[-1] - along[0]) / (len(along) - 1)


def _check_tilt(positions: NDArray[np.float64], normal: NDArray[np.float64]) -> None:
    """The gantry was tilted when slices shift within their plane: told by positions, whatever (0018,1120) says."""
    step = (positions[-1] - positions[0]) / (len(positions) - 1)
    shift = step - normal * float(step @ normal)
    if float(np.linalg.norm(shift)) > TILT_TOLERANCE_MM_PER_SLICE:
        degrees = float(np.degrees(np.arctan2(np.linalg.norm(shift), abs(step @ normal))))
        raise GeometryRefused("gantry-tilt", f"slices shift by {np.linalg.norm(shift):.2f} mm each: a tilt of {degrees:.1f} degrees")
