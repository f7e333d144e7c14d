"""The baseline segmenter on phantoms: exact volumes, and the right side in every orientation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import given, settings
from hypothesis import strategies as st

from archive.header import read_header
from archive.phantom import ORIENTATIONS, make_phantom
from domain.findings import Laterality
from workers.errors import NotIndexable
from workers.segmenters.baseline import BaselineSegmenter
from workers.segmenters.protocol import index, load
from workers.segmenters.statistics import label_statistics
from workers.volume import Volume, read_volume


def volume_of(files: list[Path]) -> Volume:
    return read_volume(files, [read_header(file).elements for file in files])


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_volumes_and_sides_are_right_in_every_orientation(tmp_path: Path, orientation: str) -> None:
    truth = make_phantom(tmp_path, slices=48, size=96, orientation=orientation, slice_spacing_mm=7)
    findings, run = index(volume_of(truth.files), BaselineSegmenter())
    found = {finding.structure.label: finding for finding in findings}
    assert found.keys() == truth.volumes_mm3.keys()
    for label, volume in truth.volumes_mm3.items():
        assert found[label].volume_mm3 == pytest.approx(volume, rel=0.02)
    assert found["lung_left"].structure.laterality is Laterality.LEFT and found["lung_left"].centroid_mm[0] > 60
    assert found["lung_right"].structure.laterality is Laterality.RIGHT and found["lung_right"].centroid_mm[0] < -60
    assert found["lung_left"].mean_hu == pytest.approx(-850, abs=3)
    assert found["bone"].mean_hu == pytest.approx(700, abs=3)
    assert found["body"].touches_edge and not found["lung_left"].touches_edge
    assert run.segmenter == "baseline" and "SimpleITK" in run.software and run.duration_s > 0


def test_a_real_chest_has_two_lungs_on_their_sides(dicom_data: Path) -> None:
    files = sorted((dicom_data / "ct/rider_pilot_ge_chest60").glob("*.dcm"))
    findings, _ = index(volume_of(files), load("baseline"))
    found = {finding.structure.label: finding for finding in findings}
    assert {"body", "lung_left", "lung_right", "bone"} <= found.keys()
    assert found["lung_left"].centroid_mm[0] > found["lung_right"].centroid_mm[0]
    # The field of view cuts the right chest wall, so that this lung lies open to the edge of the picture in most slices.
    assert found["lung_right"].volume_mm3 > 250_000 and found["lung_right"].touches_edge


@pytest.mark.parametrize(
    ("folder", "reason"),
    [
        ("ct/gantry_tilt_siemens4", "gantry-tilt"),
        ("modalities/mr_tcga_lihc_siemens30", "not-ct"),
        ("modalities/transfer_syntaxes_ct1", "duplicate-positions"),
    ],
)
def test_what_cannot_be_indexed_is_refused_by_name(dicom_data: Path, folder: str, reason: str) -> None:
    by_series: dict[str, list[Path]] = {}
    for file in sorted((dicom_data / folder).iterdir()):
        by_series.setdefault(read_header(file).series_uid, []).append(file)
    with pytest.raises(NotIndexable) as caught:
        volume_of(next(iter(by_series.values())))
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda files: files[:20] + files[21:], "missing-slices"),
        (lambda files: [*files, files[3]], "duplicate-positions"),
        (lambda files: files[:3], "too-few-slices"),
    ],
)
def test_gaps_doubles_and_stubs_are_refused(tmp_path: Path, change, reason: str) -> None:  # type: ignore[no-untyped-def]
    truth = make_phantom(tmp_path, slices=40, size=32)
    with pytest.raises(NotIndexable) as caught:
        volume_of(change(truth.files))
    assert caught.value.reason == reason


def test_slices_in_any_order_are_the_same_volume(tmp_path: Path) -> None:
    truth = make_phantom(tmp_path, slices=12, size=32)
    one, other = volume_of(truth.files), volume_of(list(reversed(truth.files)))
    assert np.array_equal(one.hu, other.hu) and one.image.GetOrigin() == other.image.GetOrigin()


@settings(max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(1, 5))
def test_statistics_are_those_of_a_naive_count(seed: int, highest: int) -> None:
    chance = np.random.default_rng(seed)
    shape = tuple(chance.integers(1, 7, 3))
    values = chance.integers(0, highest + 1, shape).astype(np.uint8)
    hu = chance.integers(-1024, 3000, shape).astype(np.int16)
    rotation, _ = np.linalg.qr(chance.normal(size=(3, 3)))
    labels, image = sitk.GetImageFromArray(values), sitk.GetImageFromArray(hu)
    for one in (labels, image):
        one.SetSpacing((0.7, 0.9, 2.5))
        one.SetOrigin((10.0, -20.0, 30.0))
        one.SetDirection(tuple(rotation.ravel()))
    found = label_statistics(labels, Volume(image))
    assert found.keys() == set(np.unique(values)) - {0}
    for value, statistics in found.items():
        where = np.argwhere(values == value)
        points = np.array([labels.TransformIndexToPhysicalPoint([int(i) for i in w[::-1]]) for w in where])
        assert statistics.voxel_count == len(where)
        assert statistics.volume_mm3 == pytest.approx(len(where) * 0.7 * 0.9 * 2.5)
        assert statistics.mean_hu == pytest.approx(float(hu[values == value].mean()))
        assert statistics.centroid_mm == pytest.approx(tuple(points.mean(axis=0)), abs=1e-3)
        edge = ((where == 0) | (where == np.array(shape) - 1)).any()
        assert statistics.touches_edge == bool(edge)
