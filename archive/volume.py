"""A series as one image with rescaled values, in a geometry that was checked (archive.geometry), and as a NIfTI file.

NIfTI counts in RAS, DICOM in LPS: ITK turns both axes when it writes, with a qform and an sform that agree. It also brings its own
zlib, so that the same image is the same compressed file on every machine that has the same version of it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from pydicom.pixels import pixel_array

from archive.elements import first, items
from archive.errors import GeometryRefused
from archive.geometry import Grid, grid_of, planes_of
from domain.series import DicomJson

_NIFTI_HEADER = 352
"""Bytes before the values of a NIfTI-1 file."""
_CHUNK = 64 * 1024
_PIXEL_TRANSFORMATION, _PER_FRAME, _SHARED = "00289145", "52009230", "52009229"


class ScalarVolume(msgspec.Struct, frozen=True, kw_only=True):
    """``values``: array (slices, rows, columns) on the grid, rescaled (PS3.3, C.11.1); int16 where all fit, int32, or float32."""

    grid: Grid
    values: Any


class _Source(msgspec.Struct, frozen=True):
    """Where a slice's pixels are, and what turns them into values."""

    file: int
    frame: int
    slope: float
    intercept: float


def read_scalar_volume(files: Sequence[Path], headers: Sequence[DicomJson]) -> ScalarVolume:
    """``headers[i]`` is that of ``files[i]``. Raises GeometryRefused, also for what is no volume: localizer, not-scalar, undecodable-pixels."""
    grid = grid_of_series(headers)
    sources = [source for file, header in enumerate(headers) for source in _sources(file, header)]
    whole = all(one.slope.is_integer() and one.intercept.is_integer() for one in sources)
    values: NDArray[Any] = np.empty((len(sources), grid.rows, grid.columns), dtype=np.int32 if whole else np.float32)
    places = {index: at for at, index in enumerate(grid.order)}
    decoded: NDArray[Any] | None = None
    for index, source in enumerate(sources):
        if source.frame == 0 or decoded is None:
            decoded = _decoded(files[source.file], grid)
        if source.frame >= len(decoded):
            raise GeometryRefused("undecodable-pixels", "an instance has fewer frames than its header says")
        stored = decoded[source.frame].astype(np.float64)
        values[places[index]] = stored * source.slope + source.intercept
    if whole and values.min() >= np.iinfo(np.int16).min and values.max() <= np.iinfo(np.int16).max:
        values = values.astype(np.int16)
    return ScalarVolume(grid=grid, values=values)


def grid_of_series(headers: Sequence[DicomJson]) -> Grid:
    """From headers alone. Raises GeometryRefused."""
    if any("LOCALIZER" in [str(one).upper() for one in header.get("00080008", {}).get("Value") or []] for header in headers):
        raise GeometryRefused("localizer", "Image Type (0008,0008) says LOCALIZER")
    if any(int(first(header, "00280002") or 1) != 1 for header in headers):
        raise GeometryRefused("not-scalar", "Samples per Pixel (0028,0002) is not 1: these are colours, and no values")
    return grid_of([plane for header in headers for plane in planes_of(header)])


def laid_out(values: NDArray[Any], grid: Grid) -> Any:
    """A SimpleITK image of an array (slices, rows, columns) on a grid."""
    image = sitk.GetImageFromArray(values)
    image.SetSpacing(grid.spacing)
    image.SetOrigin(grid.origin)
    image.SetDirection(grid.direction)
    return image


def write_nifti(values: NDArray[Any], grid: Grid, path: Path) -> None:
    """To a name that ends in .nii.gz. Raises OSError."""
    try:
        sitk.WriteImage(laid_out(values, grid), str(path), useCompression=True)
    except RuntimeError:
        _raise_why(path)
    with path.open("rb") as file:  # ITK may not notice that a disk is full; gzip ends with the size of what is in it (RFC 1952, 2.3.1)
        file.seek(max(0, path.stat().st_size - 4))
        is_whole = int.from_bytes(file.read(4), "little") == (_NIFTI_HEADER + values.nbytes) % 2**32
    if not is_whole:
        _raise_why(path)


def _raise_why(path: Path) -> NoReturn:
    """What ITK does not say: writing a little more meets what it met."""
    with path.open("ab", buffering=0) as file:
        file.write(bytes(_CHUNK))
        os.fsync(file.fileno())
    raise OSError(errno.EIO, "a NIfTI file could not be written")


def _sources(file: int, header: DicomJson) -> list[_Source]:
    frames = items(header, _PER_FRAME)
    if not frames:
        return [_Source(file, 0, *_rescale(header))]
    shared = (items(header, _SHARED) or [{}])[0]
    found = []
    for number, frame in enumerate(frames):
        group = items(frame, _PIXEL_TRANSFORMATION) or items(shared, _PIXEL_TRANSFORMATION) or [header]
        found.append(_Source(file, number, *_rescale(group[0])))
    return found


def _rescale(header: DicomJson) -> tuple[float, float]:
    """Slope and intercept; values stay as they are stored where there are none."""
    slope, intercept = first(header, "00281053"), first(header, "00281052")
    try:
        return float(1 if slope is None else slope), float(0 if intercept is None else intercept)
    except (TypeError, ValueError):
        raise GeometryRefused("no-geometry", "Rescale Slope or Intercept (0028,1053; 0028,1052) is no number") from None


def _decoded(file: Path, grid: Grid) -> NDArray[Any]:
    """Frames of an instance. Raises GeometryRefused."""
    try:
        pixels = np.asarray(pixel_array(file))
    except Exception as error:  # decoders raise whatever they like
        raise GeometryRefused("undecodable-pixels", f"an instance cannot be decoded ({type(error).__name__})") from error
    frames = pixels if pixels.ndim == 3 else pixels[np.newaxis]
    if frames.shape[1:] != (grid.rows, grid.columns):
        raise GeometryRefused("undecodable-pixels", f"a slice has the shape {frames.shape[1:]} instead of {(grid.rows, grid.columns)}")
    return frames
