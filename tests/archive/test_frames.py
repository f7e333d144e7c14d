"""Frames: the stored bytes of one, its decoded values, and its picture; without reading the others."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.uid import ExplicitVRLittleEndian

from archive.errors import FrameOutOfRange, NoPixelData, Undecodable
from archive.frames import frame, native, rendered


def files(dicom_data: Path, *, least_frames: int = 1) -> list[Path]:
    """Real instances with pixels that pydicom decodes."""
    found = []
    for path in sorted((dicom_data / "modalities").rglob("*.dcm")):
        dataset = pydicom.dcmread(path, force=True, stop_before_pixels=True)
        if "Rows" in dataset and int(dataset.get("NumberOfFrames", 1) or 1) >= least_frames:
            found.append(path)
    return found


def test_every_frame_of_real_instances_is_that_of_pydicom(dicom_data: Path) -> None:
    compared = multi_frame = 0
    for path in files(dicom_data):
        try:
            expected = pydicom.dcmread(path, force=True).pixel_array
        except Exception:  # what pydicom cannot decode, nobody expects of us
            continue
        dataset = pydicom.dcmread(path, force=True, stop_before_pixels=True)
        count = int(dataset.get("NumberOfFrames", 1) or 1)
        frames: Any = expected if count > 1 else expected[np.newaxis]
        for number in sorted({1, (count + 1) // 2, count}):
            ours = np.frombuffer(native(path, number).data, frames.dtype.newbyteorder("<")).reshape(frames[number - 1].shape)
            assert np.array_equal(ours, frames[number - 1]), (path.name, number)
            compared += 1
        multi_frame += count > 1
    assert compared > 60 and multi_frame >= 3


def test_frames_of_encapsulated_instances_are_their_fragments(dicom_data: Path) -> None:
    compared = 0
    for path in files(dicom_data):
        dataset = pydicom.dcmread(path, force=True)
        syntax = dataset.file_meta.get("TransferSyntaxUID")
        if syntax is None or not syntax.is_transfer_syntax or not syntax.is_encapsulated or "PixelData" not in dataset:
            continue
        count = int(dataset.get("NumberOfFrames", 1) or 1)
        expected = list(pydicom.encaps.generate_frames(dataset.PixelData, number_of_frames=count))
        for number in sorted({1, count}):
            one = frame(path, number)
            assert one.data == expected[number - 1] and one.transfer_syntax_uid == syntax, path.name
            compared += 1
    assert compared > 8


def one_frame(tmp_path: Path, pixels: Any, **values: Any) -> Path:
    dataset = pydicom.Dataset()
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = "1.2.3"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 16, 16, 15, 1
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
    dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1000
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    dataset.PixelData = pixels.astype("<i2").tobytes()
    dataset["PixelData"].VR = "OW"
    path = tmp_path / "one.dcm"
    pydicom.dcmwrite(path, dataset, enforce_file_format=True)
    return path


def picture(data: bytes) -> Any:
    return np.asarray(Image.open(io.BytesIO(data)))


def test_a_window_is_in_modality_units(tmp_path: Path) -> None:
    """-160 HU is black and 240 HU is white in the window 40, 400; the other photometric interpretation is the inverse."""
    hu = np.array([[-1000, -160], [40, 240]])
    path = one_frame(tmp_path, hu + 1000)
    assert picture(rendered(path, 1, window=(40, 400), media_type="image/png")).tolist() == [[0, 0], [128, 255]]
    path = one_frame(tmp_path, hu + 1000, PhotometricInterpretation="MONOCHROME1")
    assert picture(rendered(path, 1, window=(40, 400), media_type="image/png")).tolist() == [[255, 255], [128, 0]]


def test_a_viewport_keeps_the_shape(tmp_path: Path) -> None:
    path = one_frame(tmp_path, np.arange(64 * 32).reshape(64, 32))
    assert picture(rendered(path, 1, viewport=(16, 16))).shape == (16, 8)


@pytest.mark.parametrize("number", [0, 2])
def test_a_frame_that_is_not_there_is_named(tmp_path: Path, number: int) -> None:
    path = one_frame(tmp_path, np.zeros((2, 2)))
    with pytest.raises(FrameOutOfRange, match=f"1 frames; there is no frame {number}"):
        frame(path, number)


def test_without_pixels_and_with_broken_ones(tmp_path: Path) -> None:
    path = one_frame(tmp_path, np.zeros((4, 4)))
    dataset = pydicom.dcmread(path)
    del dataset.Rows
    dataset.save_as(path)
    with pytest.raises(NoPixelData):
        frame(path, 1)
    broken = one_frame(tmp_path, np.zeros((4, 4)), BitsAllocated=12)
    with pytest.raises(Undecodable):
        native(broken, 1)
