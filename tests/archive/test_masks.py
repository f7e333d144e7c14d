"""DICOM segmentations laid over their series: voxel for voxel those of the reference, or refused by name."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from archive.errors import MaskRefused
from archive.geometry import Grid
from archive.header import read_header
from archive.masks import Segmentation, label_map, segments_of, series_segmented
from archive.volume import grid_of_series

ORGANS = {"spleen": 1, "liver": 5, "stomach": 6, "aorta": 52}
"""As the reference segmentation numbers them."""


def grid_in(folder: Path) -> Grid:
    return grid_of_series([one.elements for path in sorted(folder.glob("*.dcm")) if (one := read_header(path)).modality != "SEG"])


def segmentation(path: Path) -> Segmentation:
    return Segmentation(file=path, header=read_header(path).elements)


def refusal(grid: Grid, *files: Path) -> str:
    with pytest.raises(MaskRefused) as refused:
        label_map(grid, [segmentation(file) for file in files], {one.name: one.number for file in files for one in segments_of(read_header(file).elements)})
    return refused.value.reason


def test_masks_are_those_of_the_reference_segmentation(dicom_data: Path) -> None:
    truth = dicom_data / "seg_truth/totalsegmentator"
    folder = dicom_data / "ct/totalseg_siemens_body20"
    grid, mask = grid_in(folder), segmentation(truth / "example_seg_dicom_4organs.seg.dcm")
    assert series_segmented(mask.header) == {read_header(next(folder.glob("*.dcm"))).series_uid}
    found = label_map(grid, [mask], ORGANS)
    reference = sitk.GetArrayFromImage(sitk.DICOMOrient(sitk.ReadImage(str(truth / "example_seg_dicom.nii.gz")), "LPS"))
    assert np.array_equal(found, np.where(np.isin(reference, list(ORGANS.values())), reference, 0))
    with (truth / "organ_volumes_real_dicom_body20.csv").open() as file:
        volumes = {row["name"]: float(row["volume_mm3"]) for row in csv.DictReader(file)}
    voxel_mm3 = float(np.prod(grid.spacing))
    for name, label in ORGANS.items():
        assert (found == label).sum() * voxel_mm3 == pytest.approx(volumes[name], rel=1e-4)


def test_structures_are_named_by_their_code_and_alike_ones_by_their_label_too(dicom_data: Path) -> None:
    (liver,) = segments_of(read_header(dicom_data / "ct/dcmqi_liver3_with_seg_sr/liver.dcm").elements)
    assert (liver.name, liver.code) == ("liver", "SRT:T-62000")
    header = read_header(dicom_data / "modalities/seg/seg_image_ct_binary_overlap.dcm").elements
    bone, spine = header["00620002"]["Value"]
    assert [one.name for one in segments_of(header)] == ["bone", "spine"]
    spine["0062000F"] = bone["0062000F"]
    assert [one.name for one in segments_of(header)] == ["bone_first_segment", "bone_second_segment"]


def test_of_two_masks_of_one_structure_the_later_one_stands(dicom_data: Path, tmp_path: Path) -> None:
    folder = dicom_data / "ct/dcmqi_liver3_with_seg_sr"
    empty = pydicom.dcmread(folder / "liver.dcm")
    empty.PixelData = bytes(len(empty.PixelData))
    empty.save_as(tmp_path / "empty.dcm")
    grid, both = grid_in(folder), [segmentation(folder / "liver.dcm"), segmentation(tmp_path / "empty.dcm")]
    assert not label_map(grid, both, {"liver": 1}).any()
    assert label_map(grid, both[::-1], {"liver": 1}).any()


def test_masks_that_do_not_fit_are_refused_by_name(dicom_data: Path, tmp_path: Path) -> None:
    liver = dicom_data / "ct/dcmqi_liver3_with_seg_sr"
    body = dicom_data / "ct/totalseg_siemens_body20"
    grid = grid_in(liver)
    assert refusal(grid_in(body), liver / "liver.dcm") == "mask-geometry"
    assert refusal(grid, dicom_data / "modalities/seg/seg_image_ct_binary.dcm") == "mask-geometry"
    assert refusal(grid, dicom_data / "modalities/seg/liver_rle.dcm") == "undecodable-mask"
    other = pydicom.dcmread(liver / "liver.dcm")
    other.SegmentSequence[0].SegmentedPropertyTypeCodeSequence[0].CodeMeaning = "Spleen"
    other.save_as(tmp_path / "spleen.dcm")
    assert refusal(grid, liver / "liver.dcm", tmp_path / "spleen.dcm") == "overlapping-segments"
