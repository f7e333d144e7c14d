"""One CT series as one image in Hounsfield units, with a geometry that was checked and not assumed (archive.geometry)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from pydicom.pixels import pixel_array

from archive.elements import first
from archive.errors import GeometryRefused
from archive.geometry import grid_of, planes_of
from archive.volume import laid_out
from domain.series import DicomJson
from workers.errors import NotIndexable

MIN_SLICES = 4
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
    try:
        grid = grid_of([plane for header in headers for plane in planes_of(header)])
    except GeometryRefused as error:
        raise NotIndexable(error.reason, error.detail) from error
    hu = np.empty((len(files), grid.rows, grid.columns), dtype=np.int16)
    for at, index in enumerate(grid.order):
        hu[at] = _slice_hu(files[index], headers[index], (grid.rows, grid.columns))
    if hu.min() > LEAST_AIR_HU:
        raise NotIndexable("not-hu", f"the smallest value is {int(hu.min())}: there is no air, so these are no Hounsfield units")
    return Volume(laid_out(hu, grid))


def _check_kind(headers: Sequence[DicomJson]) -> None:
    modalities = {str(first(h, "00080060") or "").strip().upper() for h in headers}
    if modalities != {"CT"}:
        raise NotIndexable("not-ct", f"Modality (0008,0060) is {', '.join(sorted(modalities)) or 'absent'}")
    if any("LOCALIZER" in [str(v).upper() for v in h.get("00080008", {}).get("Value", [])] for h in headers):
        raise NotIndexable("localizer", "Image Type (0008,0008) says LOCALIZER")
    if any(int(first(h, "00280008") or 1) > 1 for h in headers):
        raise NotIndexable("mixed-geometry", "multi-frame instances are not indexed yet")
    if any("00280010" not in h or "00280011" not in h for h in headers):
        raise NotIndexable("undecodable-pixels", "Rows (0028,0010) or Columns (0028,0011) are absent")
    if len(headers) < MIN_SLICES:
        raise NotIndexable("too-few-slices", f"{len(headers)} slices; at least {MIN_SLICES} are needed")


def _slice_hu(file: Path, header: DicomJson, shape: tuple[int, int]) -> NDArray[np.int16]:
    if "00281053" not in header or "00281052" not in header:
        raise NotIndexable("not-hu", "Rescale Slope or Intercept (0028,1053; 0028,1052) is absent")
    kind = str(first(header, "00281054") or "HU").strip().upper()
    if kind not in ("HU", ""):
        raise NotIndexable("not-hu", f"Rescale Type (0028,1054) is {kind}")
    try:
        stored = np.asarray(pixel_array(file))
    except Exception as error:  # decoders raise whatever they like
        raise NotIndexable("undecodable-pixels", f"a slice cannot be decoded ({type(error).__name__})") from error
    if stored.shape != shape:
        raise NotIndexable("undecodable-pixels", f"a slice has the shape {stored.shape} instead of {shape}")
    slope, intercept = float(first(header, "00281053")), float(first(header, "00281052"))
    return np.clip(np.round(stored * slope + intercept), -32768, 32767).astype(np.int16)
