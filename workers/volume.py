"""One CT series as one image in Hounsfield units, with a geometry that was checked and not assumed.

SimpleITK's series reader only warns of a missing slice and then gives wrong geometry; here positions, orientations and spacings are
compared first (PS3.3, C.7.6.2), slices are ordered along their normal, and what does not fit is refused by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from pydicom.pixels import pixel_array

from domain.series import DicomJson
from workers.errors import NotIndexable

MIN_SLICES = 4
ORIENTATION_TOLERANCE = 1e-3
SPACING_TOLERANCE_MM = 0.05
SPACING_TOLERANCE = 0.02
TILT_TOLERANCE_MM_PER_SLICE = 0.05
LEAST_AIR_HU = -500


class Volume(msgspec.Struct, frozen=True):
    """``image``: int16 HU, axes column, row, slice, in the patient coordinate system (LPS, mm)."""

    image: Any

    @property
    def hu(self) -> NDArray[np.int16]:
        """Array (slices, rows, columns)."""
        return np.asarray(sitk.GetArrayViewFromImage(self.image))


def read_volume(files: Sequence[Path], headers: Sequence[DicomJson]) -> Volume:
    """Reads a series. ``headers[i]`` is the DICOM JSON header of ``files[i]``. Raises NotIndexable."""
    _check_kind(headers)
    rows, columns = _same(headers, ("00280010", "00280011", "00280030"), "mixed-geometry")
    orientation = _orientation(headers)
    normal = np.cross(orientation[:3], orientation[3:])
    positions = np.array([_numbers(h, "00200032", 3, "no-geometry") for h in headers])
    along = positions @ normal
    order = np.argsort(along, kind="stable")
    spacing_mm = _slice_spacing(along[order])
    _check_tilt(positions[order], orientation, normal)
    pixel_spacing = _numbers(headers[0], "00280030", 2, "no-geometry")
    if min(pixel_spacing) <= 0:
        raise NotIndexable("no-geometry", "Pixel Spacing (0028,0030) is not positive")
    hu = np.empty((len(files), rows, columns), dtype=np.int16)
    for at, index in enumerate(order):
        hu[at] = _slice_hu(files[index], headers[index], (rows, columns))
    if hu.min() > LEAST_AIR_HU:
        raise NotIndexable("not-hu", f"the smallest value is {int(hu.min())}: there is no air, so these are no Hounsfield units")
    image = sitk.GetImageFromArray(hu)
    image.SetSpacing((pixel_spacing[1], pixel_spacing[0], spacing_mm))
    image.SetOrigin(tuple(float(v) for v in positions[order[0]]))
    direction = np.column_stack([orientation[:3], orientation[3:], normal])
    image.SetDirection(tuple(float(v) for v in direction.ravel()))
    return Volume(image)


def _check_kind(headers: Sequence[DicomJson]) -> None:
    modalities = {str(_first(h, "00080060") or "").strip().upper() for h in headers}
    if modalities != {"CT"}:
        raise NotIndexable("not-ct", f"Modality (0008,0060) is {', '.join(sorted(modalities)) or 'absent'}")
    if any("LOCALIZER" in [str(v).upper() for v in h.get("00080008", {}).get("Value", [])] for h in headers):
        raise NotIndexable("localizer", "Image Type (0008,0008) says LOCALIZER")
    if any(int(_first(h, "00280008") or 1) > 1 for h in headers):
        raise NotIndexable("mixed-geometry", "multi-frame instances are not indexed yet")
    if any("00280010" not in h or "00280011" not in h for h in headers):
        raise NotIndexable("undecodable-pixels", "Rows (0028,0010) or Columns (0028,0011) are absent")
    if len(headers) < MIN_SLICES:
        raise NotIndexable("too-few-slices", f"{len(headers)} slices; at least {MIN_SLICES} are needed")


def _same(headers: Sequence[DicomJson], tags: Sequence[str], reason: str) -> tuple[int, int]:
    for tag in tags:
        seen = {tuple(h.get(tag, {}).get("Value", [])) for h in headers}
        if len(seen) > 1:
            raise NotIndexable(reason, f"({tag[:4]},{tag[4:]}) has {len(seen)} different values")
    return int(_first(headers[0], "00280010")), int(_first(headers[0], "00280011"))


def _orientation(headers: Sequence[DicomJson]) -> NDArray[np.float64]:
    all_of = np.array([_numbers(h, "00200037", 6, "no-geometry") for h in headers])
    if np.abs(all_of - all_of[0]).max() > ORIENTATION_TOLERANCE:
        raise NotIndexable("mixed-orientations", "Image Orientation (Patient) (0020,0037) differs between slices")
    row, column = all_of[0][:3], all_of[0][3:]
    unit = abs(np.linalg.norm(row) - 1) < 1e-2 and abs(np.linalg.norm(column) - 1) < 1e-2
    if not unit or abs(float(row @ column)) > 1e-2:
        raise NotIndexable("no-geometry", "Image Orientation (Patient) (0020,0037) is not two unit vectors at right angles")
    return np.concatenate([row / np.linalg.norm(row), column / np.linalg.norm(column)])


def _slice_spacing(along: NDArray[np.float64]) -> float:
    """Distance of neighbouring slices in mm, from their positions."""
    gaps = np.diff(along)
    typical = float(np.median(gaps))
    tolerance = max(SPACING_TOLERANCE_MM, SPACING_TOLERANCE * typical)
    if float(gaps.min()) < 1e-3:
        raise NotIndexable("duplicate-positions", f"{int((gaps < 1e-3).sum())} slices lie where another one lies")
    if np.abs(gaps - typical).max() > tolerance:
        worst = int(np.abs(gaps - typical).argmax())
        raise NotIndexable("missing-slices", f"{gaps[worst]:.2f} mm between slices {worst + 1} and {worst + 2}, {typical:.2f} mm elsewhere")
    return float(along[-1] - along[0]) / (len(along) - 1)


def _check_tilt(positions: NDArray[np.float64], orientation: NDArray[np.float64], normal: NDArray[np.float64]) -> None:
    """The gantry was tilted when slices shift within their plane: told by positions, whatever (0018,1120) says."""
    step = (positions[-1] - positions[0]) / (len(positions) - 1)
    shift = step - normal * float(step @ normal)
    if float(np.linalg.norm(shift)) > TILT_TOLERANCE_MM_PER_SLICE:
        degrees = float(np.degrees(np.arctan2(np.linalg.norm(shift), abs(step @ normal))))
        raise NotIndexable("gantry-tilt", f"slices shift by {np.linalg.norm(shift):.2f} mm each: a tilt of {degrees:.1f} degrees")


def _slice_hu(file: Path, header: DicomJson, shape: tuple[int, int]) -> NDArray[np.int16]:
    if "00281053" not in header or "00281052" not in header:
        raise NotIndexable("not-hu", "Rescale Slope or Intercept (0028,1053; 0028,1052) is absent")
    kind = str(_first(header, "00281054") or "HU").strip().upper()
    if kind not in ("HU", ""):
        raise NotIndexable("not-hu", f"Rescale Type (0028,1054) is {kind}")
    try:
        stored = np.asarray(pixel_array(file))
    except Exception as error:  # decoders raise whatever they like
        raise NotIndexable("undecodable-pixels", f"a slice cannot be decoded ({type(error).__name__})") from error
    if stored.shape != shape:
        raise NotIndexable("undecodable-pixels", f"a slice has the shape {stored.shape} instead of {shape}")
    slope, intercept = float(_first(header, "00281053")), float(_first(header, "00281052"))
    return np.clip(np.round(stored * slope + intercept), -32768, 32767).astype(np.int16)


def _first(header: DicomJson, tag: str) -> Any:
    values = header.get(tag, {}).get("Value")
    return values[0] if values else None


def _numbers(header: DicomJson, tag: str, count: int, reason: str) -> list[float]:
    values = header.get(tag, {}).get("Value", [])
    try:
        numbers = [float(v) for v in values]
    except (TypeError, ValueError):
        numbers = []
    if len(numbers) != count or not np.isfinite(numbers).all():
        raise NotIndexable(reason, f"({tag[:4]},{tag[4:]}) does not hold {count} numbers")
    return numbers
