"""A CT phantom of a torso: a series whose true volumes are known, for demonstrations and tests.

An ellipse of soft tissue in a layer of fat, two lungs of different size, a trachea, a spine, and a table below; HU with noise. The
identity in its headers is plainly invented. Any orientation: the same patient, sliced another way.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian, generate_uid

from archive.part10 import IMPLEMENTATION_CLASS_UID

ORIENTATIONS: dict[str, tuple[tuple[int, int, int], tuple[int, int, int]]] = {
    "axial": ((1, 0, 0), (0, 1, 0)),
    "axial-feet-first": ((1, 0, 0), (0, 1, 0)),
    "axial-flipped": ((-1, 0, 0), (0, 1, 0)),
    "axial-prone": ((-1, 0, 0), (0, -1, 0)),
    "coronal": ((1, 0, 0), (0, 0, -1)),
    "sagittal": ((0, 1, 0), (0, 0, -1)),
}
"""Direction of rows and of columns in the patient (PS3.3, C.7.6.2.1.1: x to the left, y to the back, z to the head)."""

AIR, LUNG, FAT, TISSUE, BONE, TABLE = -1000, -850, -100, 40, 700, -300
NOISE_HU = 12.0


class PhantomTruth(msgspec.Struct, frozen=True, kw_only=True):
    """``volumes_mm3`` by structure label, counted on the voxels as they were drawn."""

    study_uid: str
    series_uid: str
    volumes_mm3: dict[str, float]
    files: list[Path]


def make_phantom(
    folder: Path,
    *,
    slices: int = 64,
    size: int = 512,
    orientation: str = "axial",
    seed: int = 1,
    slice_spacing_mm: float = 4.0,
    field_of_view_mm: float = 400.0,
    study_uid: str | None = None,
    patient_id: str = "PHANTOM-1",
) -> PhantomTruth:
    """Writes one series of ``slices`` files of ``size`` × ``size`` into ``folder``."""
    folder.mkdir(parents=True, exist_ok=True)
    row, column = (np.array(v, dtype=float) for v in ORIENTATIONS[orientation])
    normal = np.cross(row, column) * (-1 if orientation == "axial-feet-first" else 1)
    spacing = field_of_view_mm / size
    centre = (size - 1) / 2 * spacing
    study, series, frame = study_uid or generate_uid(), generate_uid(), generate_uid()
    volumes: dict[str, float] = dict.fromkeys(("body", "lung_left", "lung_right", "bone"), 0.0)
    files: list[Path] = []
    chance = np.random.default_rng(seed)
    offsets = np.arange(size) * spacing - centre
    for n in range(slices):
        position = normal * (n - (slices - 1) / 2) * slice_spacing_mm - row * centre - column * centre
        plane = (
            (normal * (n - (slices - 1) / 2) * slice_spacing_mm)[:, None, None]
            + row[:, None, None] * offsets[None, None, :]
            + column[:, None, None] * offsets[None, :, None]
        )
        hu, masks = _draw(plane, slices * slice_spacing_mm)
        for label, mask in masks.items():
            volumes[label] += float(mask.sum()) * spacing * spacing * slice_spacing_mm
        noisy = np.clip(np.round(hu + chance.normal(0, NOISE_HU, hu.shape)), -1024, 3071).astype(np.int16)
        dataset = _slice(noisy, study, series, frame, n, position, row, column, spacing, slice_spacing_mm, patient_id)
        files.append(folder / f"{n + 1:04d}.dcm")
        dataset.save_as(files[-1], enforce_file_format=True)
    return PhantomTruth(study_uid=study, series_uid=series, volumes_mm3=volumes, files=files)


def _draw(xyz: NDArray[np.float64], height: float) -> tuple[NDArray[np.float64], dict[str, NDArray[np.bool_]]]:
    """HU and masks on a plane of patient coordinates (3, rows, columns) in mm; the body fills the field of view in z."""
    x, y, z = xyz
    hu = np.full(x.shape, float(AIR))
    hu[(np.abs(x) < 180) & (y > 126) & (y < 140)] = TABLE
    outer = (x / 170) ** 2 + (y / 115) ** 2 <= 1
    hu[outer] = FAT
    hu[(x / 155) ** 2 + (y / 100) ** 2 <= 1] = TISSUE
    reach = 0.42 * min(height, 240.0)
    left = ((x - 75) / 50) ** 2 + ((y + 5) / 70) ** 2 + (z / reach) ** 2 <= 1  # the patient's left is +x
    right = ((x + 75) / 58) ** 2 + ((y + 5) / 75) ** 2 + (z / reach) ** 2 <= 1
    hu[left | right] = LUNG
    spine = (x / 18) ** 2 + ((y - 65) / 18) ** 2 <= 1
    hu[spine] = BONE
    return hu, {"body": outer, "lung_left": left & ~spine, "lung_right": right & ~spine, "bone": spine}


def _slice(
    hu: NDArray[np.int16],
    study: str,
    series: str,
    frame: str,
    n: int,
    position: NDArray[np.float64],
    row: NDArray[np.float64],
    column: NDArray[np.float64],
    spacing: float,
    slice_spacing_mm: float,
    patient_id: str,
) -> FileDataset:
    uid = generate_uid()
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = CTImageStorage
    meta.MediaStorageSOPInstanceUID = uid
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.ImplementationClassUID = IMPLEMENTATION_CLASS_UID
    ds = FileDataset("", Dataset(), file_meta=meta, preamble=b"\0" * 128)
    ds.SpecificCharacterSet = "ISO_IR 192"
    ds.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    ds.SOPClassUID, ds.SOPInstanceUID = CTImageStorage, uid
    ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.FrameOfReferenceUID = study, series, frame
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = "20260102"
    ds.StudyTime = ds.SeriesTime = ds.AcquisitionTime = ds.ContentTime = "101500"
    ds.AccessionNumber, ds.Modality, ds.Manufacturer = "PHANTOM", "CT", "Anamnesis"
    ds.ManufacturerModelName = "Phantom"
    ds.ReferringPhysicianName, ds.StudyDescription, ds.SeriesDescription = "", "Phantom of a torso", "Phantom 4 mm"
    ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.PatientSex = "Phantom^Torso", patient_id, "19700101", "O"
    ds.PatientPosition, ds.BodyPartExamined = "HFS", "CHEST"
    ds.StudyID, ds.SeriesNumber, ds.AcquisitionNumber, ds.InstanceNumber = "1", 2, 1, n + 1
    ds.PositionReferenceIndicator = ""
    ds.KVP, ds.SliceThickness, ds.SpacingBetweenSlices = 120, slice_spacing_mm, slice_spacing_mm
    ds.ImagePositionPatient = [round(float(v), 6) for v in position]
    ds.ImageOrientationPatient = [float(v) for v in (*row, *column)]
    ds.PixelSpacing = [spacing, spacing]
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.Rows, ds.Columns = hu.shape
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 16, 15, 1
    ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = 0, 1, "HU"
    ds.WindowCenter, ds.WindowWidth = 40, 400
    ds.PixelData = hu.astype("<i2").tobytes()
    return ds
