"""DICOM segmentations (PS3.3, A.51 and C.8.20) laid over the series that they are of: one label a structure, on the series' own grid.

Structures are named by their coded type and its modifiers (PS3.3, C.8.20.4.2), since labels are free text and differ from maker to
maker; only where one segmentation names two segments alike, the label tells them apart.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from pydicom.pixels import pixel_array

from archive.elements import first, items
from archive.errors import GeometryRefused, MaskRefused
from archive.geometry import ORIENTATION_TOLERANCE, Grid, Plane, planes_of
from domain.series import DicomJson

IN_PLANE_TOLERANCE = 0.05
"""Of a pixel: further off, a mask would be resampled, which nobody asked for."""
BETWEEN_SLICES_TOLERANCE = 0.1
"""Of the distance between slices."""
PRESENT = 0.5
"""From here on a fraction counts (FRACTIONAL segmentations)."""

_SEGMENTS, _TYPE, _MODIFIERS = "00620002", "0062000F", "00620011"
_REFERENCED_SERIES, _SERIES_UID, _PER_FRAME, _SHARED = "00081115", "0020000E", "52009230", "52009229"
_IDENTIFICATION, _REFERENCED_SEGMENT = "0062000A", "0062000B"


class Segment(msgspec.Struct, frozen=True, kw_only=True):
    """``name``: of letters, digits and underscores, as ``kidney_left``. ``code``: scheme and value, with those of its modifiers."""

    number: int
    name: str
    label: str
    code: str


class Segmentation(msgspec.Struct, frozen=True, kw_only=True):
    """One instance, to be laid over a series."""

    file: Path
    header: DicomJson


def series_segmented(header: DicomJson) -> set[str]:
    """UIDs of the series that a segmentation is of."""
    return {str(uid) for item in items(header, _REFERENCED_SERIES) if (uid := first(item, _SERIES_UID))}


def segments_of(header: DicomJson) -> list[Segment]:
    """What a segmentation shows, by the numbers of its segments."""
    found = []
    for item in items(header, _SEGMENTS):
        label = str(first(item, "00620005") or "")
        concepts = items(item, _TYPE)[:1] + [m for t in items(item, _TYPE)[:1] for m in items(t, _MODIFIERS)]
        meaning = "_".join(str(first(one, "00080104") or "") for one in concepts)
        code = " ".join(f"{first(one, '00080102')}:{first(one, '00080100')}" for one in concepts)
        found.append(Segment(number=int(first(item, "00620004") or 0), name=slug(meaning) or slug(label) or "segment", label=label, code=code))
    seen = Counter(one.name for one in found)
    return [
        one if seen[one.name] == 1 else msgspec.structs.replace(one, name=f"{one.name}_{slug(one.label) or one.number}") for one in found
    ]


def slug(text: str) -> str:
    """Lower-case letters, digits and single underscores."""
    return re.sub(r"[^a-z0-9]+", "_", text.lower()).strip("_")


def label_map(grid: Grid, segmentations: Sequence[Segmentation], labels: Mapping[str, int]) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """An array (slices, rows, columns) of ``labels[name]``, 0 elsewhere. Of two segmentations that show the same structure, the later one stands.

    Raises MaskRefused: mask-geometry, overlapping-segments, undecodable-mask.
    """
    shape = (len(grid.order), grid.rows, grid.columns)
    result = np.zeros(shape, dtype=np.uint8 if max(labels.values(), default=0) < 256 else np.uint16)
    standing = {segment.name: at for at, one in enumerate(segmentations) for segment in segments_of(one.header)}
    for at, one in enumerate(segmentations):
        for name, mask in _masks(grid, one).items():
            if standing[name] != at:
                continue
            if (over := result[mask]).any():
                raise MaskRefused("overlapping-segments", f"{int((over > 0).sum())} voxels of {name} are of another structure too")
            result[mask] = labels[name]
    return result


def _masks(grid: Grid, segmentation: Segmentation) -> dict[str, NDArray[np.bool_]]:
    header, names = segmentation.header, {one.number: one.name for one in segments_of(segmentation.header)}
    try:
        planes = planes_of(header)
    except GeometryRefused as error:
        raise MaskRefused("mask-geometry", error.detail) from None
    kind = str(first(header, "00620001") or "BINARY").upper()
    frames = _decoded(segmentation.file, len(planes))
    of_frame = _segment_numbers(header, len(planes)) if kind != "LABELMAP" else [0] * len(planes)
    limit = PRESENT * float(first(header, "0062000E") or 1) if kind == "FRACTIONAL" else PRESENT
    masks: dict[str, NDArray[np.bool_]] = {}
    for plane, frame, number in zip(planes, frames, of_frame, strict=True):
        at = _place(grid, plane)
        shown = {number: frame >= limit} if kind != "LABELMAP" else {int(n): frame == n for n in np.unique(frame) if n in names}
        for one, pixels in shown.items():
            if one not in names:
                raise MaskRefused("mask-geometry", f"a frame is of segment {one}, which is not described")
            whole = masks.setdefault(names[one], np.zeros((len(grid.order), grid.rows, grid.columns), dtype=np.bool_))
            whole[at] |= pixels
    return masks


def _decoded(file: Path, count: int) -> NDArray[Any]:
    try:
        pixels = np.asarray(pixel_array(file))
    except Exception as error:  # decoders raise whatever they like
        raise MaskRefused("undecodable-mask", f"the segmentation cannot be decoded ({type(error).__name__})") from error
    frames = pixels if pixels.ndim == 3 else pixels[np.newaxis]
    if len(frames) != count:
        raise MaskRefused("undecodable-mask", f"{len(frames)} frames of {count} were decoded")
    return frames


def _place(grid: Grid, plane: Plane) -> int:
    """Which slice of the series a frame lies on. Raises MaskRefused."""
    direction = np.array(grid.direction).reshape(3, 3)
    if (plane.rows, plane.columns) != (grid.rows, grid.columns):
        raise MaskRefused("mask-geometry", f"a frame has {plane.rows} × {plane.columns} pixels, the series {grid.rows} × {grid.columns}")
    orientation = np.concatenate([direction[:, 0], direction[:, 1]])
    between_columns, between_rows, between_slices = grid.spacing
    if np.abs(np.array(plane.orientation) - orientation).max() > ORIENTATION_TOLERANCE:
        raise MaskRefused("mask-geometry", "a frame is turned against the series")
    spacings = np.array(plane.pixel_spacing) / (between_rows, between_columns)
    if (np.abs(spacings - 1) * (grid.rows, grid.columns)).max() > IN_PLANE_TOLERANCE * 10:
        raise MaskRefused("mask-geometry", "a frame's pixels have another size than those of the series")
    index = (np.array(plane.position) - grid.origin) @ direction / (between_columns, between_rows, between_slices)
    nearest = round(float(index[2]))
    if np.abs(index[:2]).max() > IN_PLANE_TOLERANCE or abs(index[2] - nearest) > BETWEEN_SLICES_TOLERANCE or not 0 <= nearest < len(grid.order):
        raise MaskRefused("mask-geometry", "a frame lies beside the slices of the series")
    return nearest


def _segment_numbers(header: DicomJson, count: int) -> list[int]:
    shared = (items(header, _SHARED) or [{}])[0]
    frames = items(header, _PER_FRAME) or [{}] * count
    found = []
    for frame in frames:
        group = (items(frame, _IDENTIFICATION) or items(shared, _IDENTIFICATION) or [{}])[0]
        found.append(int(first(group, _REFERENCED_SEGMENT) or 0))
    return found
