"""Frames of an instance: as stored, decoded, and rendered for the eye (PS3.5, 8 and A.4; PS3.3, C.11.2 for the window).

Nothing here reads a whole multi-frame file for one frame: native frames are sliced, encapsulated ones found by the extended or
the basic offset table, or by walking the fragments.
"""

from __future__ import annotations

import io
import struct
from pathlib import Path

import msgspec
import numpy as np
import pydicom
from numpy.typing import NDArray
from PIL import Image
from pydicom.dataset import FileDataset
from pydicom.encaps import get_frame
from pydicom.pixels import apply_modality_lut, apply_voi_lut, pixel_array
from pydicom.uid import UID

from archive.errors import FrameOutOfRange, NoPixelData, Undecodable
from archive.part10 import EXPLICIT_VR_LITTLE_ENDIAN

_MEDIA_TYPES = {
    "1.2.840.10008.1.2.4.50": "image/jpeg",
    "1.2.840.10008.1.2.4.51": "image/jpeg",
    "1.2.840.10008.1.2.4.57": "image/jpeg",
    "1.2.840.10008.1.2.4.70": "image/jpeg",
    "1.2.840.10008.1.2.4.80": "image/jls",
    "1.2.840.10008.1.2.4.81": "image/jls",
    "1.2.840.10008.1.2.4.90": "image/jp2",
    "1.2.840.10008.1.2.4.91": "image/jp2",
    "1.2.840.10008.1.2.4.92": "image/jpx",
    "1.2.840.10008.1.2.4.93": "image/jpx",
    "1.2.840.10008.1.2.4.201": "image/jphc",
    "1.2.840.10008.1.2.4.202": "image/jphc",
    "1.2.840.10008.1.2.4.203": "image/jphc",
    "1.2.840.10008.1.2.5": "image/dicom-rle",
}
"""Media type of a frame in a transfer syntax (PS3.18, table 8.7.3-2); anything else is application/octet-stream."""


class Frame(msgspec.Struct, frozen=True, kw_only=True):
    """One frame's bytes in the transfer syntax in which they are."""

    data: bytes
    transfer_syntax_uid: str
    media_type: str


def frame(path: Path, number: int) -> Frame:
    """Frame ``number`` (from 1) as it is stored. Raises NoPixelData, FrameOutOfRange, Undecodable."""
    with path.open("rb") as file:
        dataset = _open(file)
        syntax = str(dataset.file_meta.TransferSyntaxUID)
        count = _frame_count(dataset, number)
        if not UID(syntax).is_transfer_syntax:
            raise Undecodable(f"{syntax} is no transfer syntax")
        if not UID(syntax).is_encapsulated:
            if syntax in ("1.2.840.10008.1.2", EXPLICIT_VR_LITTLE_ENDIAN):
                return _octets(_native_slice(file, dataset, number))
            return native(path, number)
        try:
            tables = _extended_offsets(dataset)
            _seek_pixels(file)
            file.seek(12 if not UID(syntax).is_implicit_VR else 8, io.SEEK_CUR)
            data = get_frame(file, number - 1, number_of_frames=count, extended_offsets=tables)
        except (ValueError, struct.error, EOFError) as error:
            raise Undecodable(f"frame {number} cannot be found in the encapsulated pixel data: {type(error).__name__}") from error
        return Frame(data=data, transfer_syntax_uid=syntax, media_type=_MEDIA_TYPES.get(syntax, "application/octet-stream"))


def native(path: Path, number: int) -> Frame:
    """Frame ``number`` (from 1) decoded: explicit VR little endian, colour by pixel. Raises as ``frame`` does."""
    pixels = _decoded(path, number)
    if pixels.dtype.byteorder == ">":
        pixels = pixels.astype(pixels.dtype.newbyteorder("<"))
    return _octets(np.ascontiguousarray(pixels).tobytes())


def rendered(
    path: Path,
    number: int,
    *,
    window: tuple[float, float] | None = None,
    viewport: tuple[int, int] | None = None,
    media_type: str = "image/jpeg",
    quality: int = 90,
) -> bytes:
    """Frame ``number`` (from 1) as JPEG or PNG: modality and VOI transformations, MONOCHROME1 inverted.

    ``window`` is (centre, width) in modality units and replaces the data set's own; ``viewport`` is the largest (width,
    height) in pixels. Raises as ``frame`` does.
    """
    image = Image.fromarray(_presentable(path, number, window))
    if viewport is not None:
        image.thumbnail(viewport)
    buffer = io.BytesIO()
    image.save(buffer, "PNG" if media_type == "image/png" else "JPEG", quality=quality)
    return buffer.getvalue()


def _presentable(path: Path, number: int, window: tuple[float, float] | None) -> NDArray[np.uint8]:
    pixels = _decoded(path, number)
    with path.open("rb") as file:
        dataset = _open(file)
    if int(dataset.get("SamplesPerPixel", 1)) > 1:
        shift = max(0, int(dataset.BitsStored) - 8)
        return np.right_shift(pixels.astype(np.int64), shift).astype(np.uint8)
    try:
        values = np.asarray(apply_modality_lut(pixels, dataset), dtype=np.float64)
        if window is None and ("WindowCenter" in dataset or "VOILUTSequence" in dataset):
            values = np.asarray(apply_voi_lut(np.asarray(apply_modality_lut(pixels, dataset)), dataset), dtype=np.float64)
            low, high = float(values.min()), float(values.max())
            if "WindowCenter" in dataset and "VOILUTSequence" not in dataset:
                low, high = _full_range(dataset, low, high)
        elif window is not None:
            low, high = window[0] - window[1] / 2, window[0] + window[1] / 2
        else:
            low, high = float(values.min()), float(values.max())
    except Exception as error:  # a broken look-up table or window: whatever pydicom raises
        raise Undecodable(f"frame {number} cannot be windowed: {type(error).__name__}") from error
    scaled = np.clip((values - low) / max(high - low, 1e-9), 0, 1) * 255
    if str(dataset.get("PhotometricInterpretation", "")) == "MONOCHROME1":
        scaled = 255 - scaled
    return np.round(scaled).astype(np.uint8)


def _full_range(dataset: FileDataset, low: float, high: float) -> tuple[float, float]:
    """apply_voi_lut spreads a window over the range of the stored values (PS3.3, C.11.2.1.2)."""
    bits, signed = int(dataset.get("BitsStored", 16)), int(dataset.get("PixelRepresentation", 0))
    slope, intercept = float(dataset.get("RescaleSlope", 1) or 1), float(dataset.get("RescaleIntercept", 0) or 0)
    smallest, largest = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)
    ends = sorted((smallest * slope + intercept, largest * slope + intercept))
    return min(ends[0], low), max(ends[1], high)


def _decoded(path: Path, number: int) -> NDArray[np.generic]:
    with path.open("rb") as file:
        _frame_count(_open(file), number)
    try:
        return np.asarray(pixel_array(path, index=number - 1))
    except Exception as error:  # decoders raise whatever they like
        raise Undecodable(f"frame {number} cannot be decoded: {type(error).__name__}") from error


def _open(file: io.BufferedReader) -> FileDataset:
    return pydicom.dcmread(file, stop_before_pixels=True, force=True)


def _frame_count(dataset: FileDataset, number: int) -> int:
    if "Rows" not in dataset or "Columns" not in dataset:
        raise NoPixelData("the instance has no pixel data")
    try:
        count = max(1, int(dataset.get("NumberOfFrames", 1) or 1))
    except (TypeError, ValueError):
        count = 1
    if not 1 <= number <= count:
        raise FrameOutOfRange(f"the instance has {count} frames; there is no frame {number}")
    return count


def _native_slice(file: io.BufferedReader, dataset: FileDataset, number: int) -> bytes:
    bits = int(dataset.Rows) * int(dataset.Columns) * int(dataset.get("SamplesPerPixel", 1)) * int(dataset.BitsAllocated)
    if str(dataset.get("PhotometricInterpretation", "")) == "YBR_FULL_422":
        bits = bits * 2 // 3
    _seek_pixels(file)
    head = file.read(8)
    if head[4:6].isalpha():
        file.seek(4, io.SEEK_CUR)
    start = (number - 1) * bits
    file.seek(start // 8, io.SEEK_CUR)
    data = file.read((start % 8 + bits + 7) // 8)
    if bits % 8 == 0:
        return data
    unpacked = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")[start % 8 : start % 8 + bits]
    return np.packbits(unpacked, bitorder="little").tobytes()


def _seek_pixels(file: io.BufferedReader) -> None:
    """After stop_before_pixels, pydicom leaves the file at the pixel data element; over any float variant it is the same."""
    at = file.tell()
    head = file.read(4)
    file.seek(at)
    if len(head) < 4 or struct.unpack("<H", head[:2])[0] != 0x7FE0:
        raise NoPixelData("the instance has no pixel data")


def _extended_offsets(dataset: FileDataset) -> tuple[bytes, bytes] | None:
    if "ExtendedOffsetTable" in dataset and "ExtendedOffsetTableLengths" in dataset:
        return dataset.ExtendedOffsetTable, dataset.ExtendedOffsetTableLengths
    return None


def _octets(data: bytes) -> Frame:
    return Frame(data=data, transfer_syntax_uid=EXPLICIT_VR_LITTLE_ENDIAN, media_type="application/octet-stream")
