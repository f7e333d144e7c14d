"""Series as volumes, and as NIfTI files: values and places are those that nibabel, SimpleITK and the standard's formula give."""

from __future__ import annotations

import errno
import resource
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray

from archive.errors import GeometryRefused
from archive.header import read_header
from archive.phantom import ORIENTATIONS, make_phantom
from archive.volume import ScalarVolume, read_scalar_volume, write_nifti

LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


def volume_of(files: list[Path]) -> ScalarVolume:
    return read_scalar_volume(files, [read_header(file).elements for file in files])


def images_in(folder: Path) -> list[Path]:
    return [path for path in sorted(folder.glob("*.dcm")) if read_header(path).modality != "SEG"]


def affine_of(files: list[Path]) -> NDArray[np.float64]:
    """PS3.3, C.7.6.2.1.1, equation C.7.6.2.1-1, with the slices' own positions for the third axis; columns, rows, slices to RAS."""
    slices = [pydicom.dcmread(path, stop_before_pixels=True) for path in files]
    row, column = np.array(slices[0].ImageOrientationPatient, float).reshape(2, 3)
    positions = sorted((np.array(one.ImagePositionPatient, float) for one in slices), key=lambda p: float(p @ np.cross(row, column)))
    between_rows, between_columns = map(float, slices[0].PixelSpacing)
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = row * between_columns, column * between_rows
    affine[:3, 2], affine[:3, 3] = (positions[-1] - positions[0]) / (len(positions) - 1), positions[0]
    return LPS_TO_RAS @ affine


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_affine_is_that_of_the_standard_in_every_orientation(tmp_path: Path, orientation: str) -> None:
    files = list(make_phantom(tmp_path, slices=6, size=32, orientation=orientation, slice_spacing_mm=7).files)
    volume = volume_of(files[::-1])
    write_nifti(volume.values, volume.grid, tmp_path / "image.nii.gz")
    image = nibabel.load(tmp_path / "image.nii.gz")
    assert np.allclose(image.affine, affine_of(files), atol=1e-3)
    assert np.allclose(image.get_qform(), image.get_sform(), atol=1e-3)


@pytest.mark.parametrize("name", ["ct/dcmqi_liver3_with_seg_sr", "modalities/mr_tcga_lihc_siemens30"])
def test_values_and_affine_of_real_series(dicom_data: Path, tmp_path: Path, name: str) -> None:
    files = images_in(dicom_data / name)
    volume = volume_of(files)
    write_nifti(volume.values, volume.grid, tmp_path / "image.nii.gz")
    image = nibabel.load(tmp_path / "image.nii.gz")
    assert np.allclose(image.affine, affine_of(files), atol=1e-3)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(dicom_data / name), read_header(files[0]).series_uid))
    assert np.array_equal(np.asarray(image.dataobj).T, sitk.GetArrayFromImage(reader.Execute()))


def test_frames_of_one_instance_are_slices(dicom_data: Path) -> None:
    file = dicom_data / "modalities/mr_enhanced/IM-0001-0170-0001.dcm"
    volume = volume_of([file])
    dataset = pydicom.dcmread(file)
    positions = [np.array(f.PlanePositionSequence[0].ImagePositionPatient, float) for f in dataset.PerFrameFunctionalGroupsSequence]
    at = volume.grid.order.index(2)
    middle = np.array(volume.grid.origin) + at * volume.grid.spacing[2] * volume.grid.normal
    assert np.allclose(middle, positions[2], atol=0.01)
    transformation = dataset.PerFrameFunctionalGroupsSequence[2].PixelValueTransformationSequence[0]
    expected = dataset.pixel_array[2] * float(transformation.RescaleSlope) + float(transformation.RescaleIntercept)
    assert np.allclose(volume.values[at], expected, rtol=1e-6)


def test_same_series_gives_the_same_bytes_whatever_the_order_of_its_files(dicom_data: Path, tmp_path: Path) -> None:
    files = images_in(dicom_data / "ct/dcmqi_liver3_with_seg_sr")
    for nth, some in enumerate((files, files[::-1])):
        volume = volume_of(some)
        write_nifti(volume.values, volume.grid, tmp_path / f"{nth}.nii.gz")
    assert (tmp_path / "0.nii.gz").read_bytes() == (tmp_path / "1.nii.gz").read_bytes()


def refusal(files: list[Path]) -> str:
    with pytest.raises(GeometryRefused) as refused:
        volume_of(files)
    return refused.value.reason


def test_what_is_no_regular_grid_is_refused_by_name(dicom_data: Path, tmp_path: Path) -> None:
    tilted = images_in(dicom_data / "ct/gantry_tilt_siemens4")
    whole = images_in(dicom_data / "ct/totalseg_siemens_body20")
    other = list(make_phantom(tmp_path, slices=4, size=32, orientation="axial").files)
    colours = sorted((dicom_data / "modalities/us").glob("*.dcm"))
    assert refusal(tilted) == "gantry-tilt"
    assert refusal(whole[:5] + whole[7:]) == "missing-slices"
    assert refusal([*whole[:5], whole[4]]) == "duplicate-positions"
    assert refusal([*whole[:3], *other]) == "mixed-geometry"
    assert refusal(whole[:1]) == "too-few-slices"
    assert refusal([file for file in colours if pydicom.dcmread(file).SamplesPerPixel == 3][:1]) == "not-scalar"
    assert refusal([dicom_data / "modalities/mr_enhanced/emri_small.dcm"]) == "no-geometry"


def test_a_full_disk_is_said_and_no_half_file_taken_for_a_whole_one(tmp_path: Path) -> None:
    files = list(make_phantom(tmp_path, slices=6, size=64, orientation="axial").files)
    volume = volume_of(files)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    write_nifti(volume.values, volume.grid, tmp_path / "whole.nii.gz")
    for size in (0, 300, (tmp_path / "whole.nii.gz").stat().st_size - 10):
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
        try:
            with pytest.raises(OSError, match="large") as refused:
                write_nifti(volume.values, volume.grid, tmp_path / f"{size}.nii.gz")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        assert refused.value.errno == errno.EFBIG
