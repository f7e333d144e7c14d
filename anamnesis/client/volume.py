"""DICOM files as one SimpleITK image in the patient coordinate system, with a geometry that was checked and not assumed.

SimpleITK's own series reader only warns of a missing slice and then gives wrong geometry. Here positions, orientations and spacings are
compared first (PS3.3, C.7.6.2), slices are ordered along their normal, and what makes no volume is refused by name. Multi-frame
instances (enhanced CT and MR) are read by their functional groups (PS3.3, C.7.6.16).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from anamnesis.client.errors import GeometryRefused
from anamnesis.client.packages import pydicom, simple_itk

ORIENTATION_TOLERANCE = 1e-3
SPACING_TOLERANCE_MM = 0.05
SPACING_TOLERANCE = 0.02
TILT_TOLERANCE_MM_PER_SLICE = 0.05
_LEAST, _MOST = -(2**15), 2**15 - 1


@dataclass(frozen=True)
class _Frame:
    """``orientation``: row and column, unit vectors; ``position``: centre of the first pixel in mm; ``spacing``: between rows, between columns.

    ``number``: which one of a multi-frame file it is, from 0.
    """

    file: Path
    number: int | None
    position: NDArray[np.float64]
    orientation: NDArray[np.float64]
    spacing: NDArray[np.float64]
    size: tuple[int, int]
    thickness_mm: float
    slope: float
    intercept: float


def read_volume(files: Iterable[Path], *, rescale: bool = True) -> Any:
    """An image of SimpleITK: int16 where the values are whole and fit, else int32 or float. ``rescale``: in the units that the headers say (HU).

    Axes are column, row, slice; directions are LPS; spacing and origin in mm. Raises GeometryRefused.
    """
    frames = [frame for file in files for frame in _frames(file, rescale=rescale)]
    if not frames:
        raise GeometryRefused("there are no frames with pixels", code="no-pixels")
    for what in ("orientation", "spacing"):
        all_of = np.array([getattr(frame, what) for frame in frames])
        if np.abs(all_of - all_of[0]).max() > ORIENTATION_TOLERANCE:
            raise GeometryRefused(f"the {what} differs between slices: this is no one volume", code=f"mixed-{what}")
    if len({frame.size for frame in frames}) > 1:
        raise GeometryRefused("slices have different numbers of rows or columns", code="mixed-size")
    row, column = frames[0].orientation[:3], frames[0].orientation[3:]
    normal = np.cross(row, column)
    frames.sort(key=lambda frame: float(frame.position @ normal))
    spacing_mm = _slice_spacing([frame.position for frame in frames], normal) if len(frames) > 1 else frames[0].thickness_mm
    image = simple_itk().GetImageFromArray(_stacked(frames))
    image.SetSpacing((float(frames[0].spacing[1]), float(frames[0].spacing[0]), spacing_mm))
    image.SetOrigin([float(v) for v in frames[0].position])
    image.SetDirection([float(v) for v in np.column_stack([row, column, normal]).ravel()])
    return image


def write_nifti(image: Any, path: Path) -> Path:
    """As NIfTI-1 with the affine in both sform and qform (RAS, mm); ``.nii.gz`` is compressed."""
    simple_itk().WriteImage(image, str(path), useCompression=str(path).endswith(".gz"))
    return path


def _stacked(frames: Sequence[_Frame]) -> NDArray[Any]:
    """Slice by slice, so that the volume is in memory once."""
    are_whole = all(frame.slope.is_integer() and frame.intercept.is_integer() for frame in frames)
    volume = np.empty((len(frames), *frames[0].size), dtype=np.int32 if are_whole else np.float32)
    decoded = lru_cache(maxsize=1)(_pixels)
    for at, frame in enumerate(frames):
        pixels = decoded(frame.file)
        if frame.number is not None and pixels.ndim == 3:
            pixels = pixels[frame.number]
        if pixels.shape != frame.size:
            raise GeometryRefused(f"a frame has the shape {pixels.shape} instead of {frame.size}", code="undecodable-pixels")
        if are_whole and (pixels.dtype.kind == "f" or pixels.dtype.itemsize > 2):
            volume, are_whole = volume.astype(np.float64), False
        volume[at] = pixels * frame.slope + frame.intercept if (frame.slope, frame.intercept) != (1.0, 0.0) else pixels
    if are_whole and volume.min() >= _LEAST and volume.max() <= _MOST:
        return volume.astype(np.int16)
    return volume


def _pixels(file: Path) -> NDArray[Any]:
    try:
        return np.asarray(pydicom().dcmread(file).pixel_array)
    except Exception as error:  # decoders raise whatever they like
        raise GeometryRefused(f"pixels cannot be decoded ({type(error).__name__})", code="undecodable-pixels") from error


def _slice_spacing(positions: Sequence[NDArray[np.float64]], normal: NDArray[np.float64]) -> float:
    """Of slices in order, from their positions, in mm."""
    gaps = np.diff([float(position @ normal) for position in positions])
    typical = float(np.median(gaps))
    if float(gaps.min()) < 1e-3:
        raise GeometryRefused(f"{int((gaps < 1e-3).sum())} slices lie where another one lies", code="duplicate-positions")
    if np.abs(gaps - typical).max() > max(SPACING_TOLERANCE_MM, SPACING_TOLERANCE * typical):
        worst = int(np.abs(gaps - typical).argmax())
        where = f"{gaps[worst]:.2f} mm between slices {worst + 1} and {worst + 2}, {typical:.2f} mm elsewhere"
        raise GeometryRefused(f"slices are missing: {where}", code="missing-slices")
    step = (positions[-1] - positions[0]) / (len(positions) - 1)
    shift = float(np.linalg.norm(step - normal * float(step @ normal)))
    if shift > TILT_TOLERANCE_MM_PER_SLICE:
        raise GeometryRefused(f"slices shift by {shift:.2f} mm each: the gantry was tilted, and an image has right angles", code="gantry-tilt")
    return float((positions[-1] - positions[0]) @ normal) / (len(positions) - 1)


def _frames(file: Path, *, rescale: bool) -> list[_Frame]:
    dataset = pydicom().dcmread(file, stop_before_pixels=True)
    if "Rows" not in dataset or "Columns" not in dataset:
        raise GeometryRefused("an instance has no pixels: it is a report, a plan, or structures", code="no-pixels")
    if int(dataset.get("SamplesPerPixel", 1)) != 1:
        raise GeometryRefused("pixels are in colour", code="colour")
    groups = dataset.get("PerFrameFunctionalGroupsSequence")
    if groups is None:
        if int(dataset.get("NumberOfFrames") or 1) > 1:
            raise GeometryRefused("a multi-frame instance says nothing of where its frames lie", code="no-geometry")
        return [_frame(file, None, [dataset], rescale=rescale)]
    shared = list(dataset.get("SharedFunctionalGroupsSequence") or [])
    return [_frame(file, number, [group, *shared, dataset], rescale=rescale) for number, group in enumerate(groups)]


_MACROS = {
    "ImagePositionPatient": "PlanePositionSequence",
    "ImageOrientationPatient": "PlaneOrientationSequence",
    "PixelSpacing": "PixelMeasuresSequence",
    "SliceThickness": "PixelMeasuresSequence",
    "SpacingBetweenSlices": "PixelMeasuresSequence",
    "RescaleSlope": "PixelValueTransformationSequence",
    "RescaleIntercept": "PixelValueTransformationSequence",
}


def _frame(file: Path, number: int | None, places: Sequence[Any], *, rescale: bool) -> _Frame:
    orientation = _numbers(places, "ImageOrientationPatient", 6)
    row, column = orientation[:3], orientation[3:]
    lengths = np.linalg.norm(row), np.linalg.norm(column)
    if max(abs(length - 1) for length in lengths) > 1e-2 or abs(float(row @ column)) > 1e-2:
        raise GeometryRefused("Image Orientation (Patient) (0020,0037) is not two unit vectors at right angles", code="no-geometry")
    spacing = _numbers(places, "PixelSpacing", 2)
    if spacing.min() <= 0:
        raise GeometryRefused("Pixel Spacing (0028,0030) is not positive", code="no-geometry")
    thickness = _first(places, "SpacingBetweenSlices") or _first(places, "SliceThickness") or 1.0
    slope, intercept = _first(places, "RescaleSlope"), _first(places, "RescaleIntercept")
    return _Frame(
        file=file,
        number=number,
        size=(int(places[-1].Rows), int(places[-1].Columns)),
        position=_numbers(places, "ImagePositionPatient", 3),
        orientation=np.concatenate([row / lengths[0], column / lengths[1]]),
        spacing=spacing,
        thickness_mm=abs(float(thickness)),
        slope=1.0 if slope is None or not rescale else float(slope),
        intercept=0.0 if intercept is None or not rescale else float(intercept),
    )


def _first(places: Sequence[Any], keyword: str) -> Any:
    """Of a frame's own group, of what all frames share, or of the data set itself."""
    for place in places:
        macro = place.get(_MACROS[keyword])
        value = (macro[0] if macro else place).get(keyword)
        if value not in (None, ""):
            return value
    return None


def _numbers(places: Sequence[Any], keyword: str, count: int) -> NDArray[np.float64]:
    value = _first(places, keyword)
    try:
        numbers = np.array([float(v) for v in value], dtype=np.float64)
    except (TypeError, ValueError):
        numbers = np.array([])
    if numbers.shape != (count,) or not np.isfinite(numbers).all():
        raise GeometryRefused(f"{keyword} is not there, or is not {count} numbers", code="no-geometry")
    return numbers
