"""CT slices to send: 512×512 at 16 bits, 528 KB each, with the header of a scanner's file. Nobody's, and the same every time."""

from __future__ import annotations

from pathlib import Path

import numpy
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

ROWS = COLUMNS = 512


def make_series(folder: Path, name: str, count: int) -> list[Path]:
    """Writes one series of ``count`` slices; gives the files in order. The same name gives the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    random = numpy.random.default_rng(count)
    y, x = numpy.mgrid[-1 : 1 : ROWS * 1j, -1 : 1 : COLUMNS * 1j]
    body = numpy.where((x / 0.8) ** 2 + (y / 0.6) ** 2 < 1, 1064, 24).astype("<i2")
    files = []
    for number in range(1, count + 1):
        pixels = body + random.integers(-20, 20, size=body.shape, dtype="<i2")
        path = folder / f"{number:04d}.dcm"
        _slice(name, number, pixels.astype("<i2").tobytes()).save_as(path, enforce_file_format=True)
        files.append(path)
    return files


def _uid(*parts: object) -> str:
    return str(generate_uid(entropy_srcs=["anamnesis benchmark", *map(str, parts)]))


def _slice(name: str, number: int, pixels: bytes) -> Dataset:
    slice_ = Dataset()
    slice_.file_meta = FileMetaDataset()
    slice_.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    slice_.SpecificCharacterSet = "ISO_IR 100"
    slice_.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    slice_.SOPClassUID = CTImageStorage
    slice_.SOPInstanceUID = _uid(name, number)
    slice_.StudyDate = slice_.SeriesDate = slice_.AcquisitionDate = slice_.ContentDate = "20250102"
    slice_.StudyTime = slice_.SeriesTime = slice_.AcquisitionTime = slice_.ContentTime = "101112.345"
    slice_.AccessionNumber = "B0001"
    slice_.Modality = "CT"
    slice_.Manufacturer = "Anamnesis"
    slice_.ReferringPhysicianName = ""
    slice_.StudyDescription = "Benchmark"
    slice_.SeriesDescription = f"Series {name}"
    slice_.ManufacturerModelName = "Phantom"
    slice_.PatientName = "Benchmark^Phantom"
    slice_.PatientID = "BENCHMARK"
    slice_.PatientBirthDate = "19700101"
    slice_.PatientSex = "O"
    slice_.SliceThickness = "1.25"
    slice_.KVP = "120"
    slice_.DataCollectionDiameter = "500"
    slice_.ReconstructionDiameter = "360"
    slice_.DistanceSourceToDetector = "949.075"
    slice_.DistanceSourceToPatient = "541"
    slice_.GantryDetectorTilt = "0"
    slice_.TableHeight = "158.5"
    slice_.RotationDirection = "CW"
    slice_.ExposureTime = "500"
    slice_.XRayTubeCurrent = "300"
    slice_.Exposure = "150"
    slice_.ConvolutionKernel = "STANDARD"
    slice_.PatientPosition = "HFS"
    slice_.StudyInstanceUID = _uid("study")
    slice_.SeriesInstanceUID = _uid(name)
    slice_.StudyID = "1"
    slice_.SeriesNumber = "2"
    slice_.AcquisitionNumber = "1"
    slice_.InstanceNumber = str(number)
    slice_.ImagePositionPatient = ["-180", "-180", f"{-1.25 * number:.2f}"]
    slice_.ImageOrientationPatient = ["1", "0", "0", "0", "1", "0"]
    slice_.FrameOfReferenceUID = _uid("frame of reference")
    slice_.PositionReferenceIndicator = "XY"
    slice_.SliceLocation = f"{-1.25 * number:.2f}"
    slice_.SamplesPerPixel = 1
    slice_.PhotometricInterpretation = "MONOCHROME2"
    slice_.Rows, slice_.Columns = ROWS, COLUMNS
    slice_.PixelSpacing = ["0.703125", "0.703125"]
    slice_.BitsAllocated, slice_.BitsStored, slice_.HighBit = 16, 16, 15
    slice_.PixelRepresentation = 1
    slice_.WindowCenter, slice_.WindowWidth = "40", "400"
    slice_.RescaleIntercept, slice_.RescaleSlope, slice_.RescaleType = "-1024", "1", "HU"
    slice_.PixelData = pixels
    return slice_
