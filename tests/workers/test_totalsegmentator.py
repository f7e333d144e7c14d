"""TotalSegmentator, unmodified, on a model that a test makes: its numbers equal an independent count of the voxels."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from archive.header import read_header
from archive.phantom import make_phantom
from domain.findings import Laterality
from workers.segmenters.protocol import index, load
from workers.segmenters.totalsegmentator import TotalSegmentatorSegmenter
from workers.volume import read_volume


def _tiny_weights():  # type: ignore[no-untyped-def]
    spec = importlib.util.spec_from_file_location("tiny_weights", Path(__file__).with_name("tiny_weights.py"))
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["tiny_weights"] = module
    spec.loader.exec_module(module)
    return module


BANDS = {"lung_upper_lobe_left": (-900, -800), "liver": (0, 80), "vertebrae_L1": (600, 800)}


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    home = tmp_path / "totalsegmentator"
    monkeypatch.setenv("TOTALSEG_HOME_DIR", str(home))
    monkeypatch.delenv("TOTALSEG_WEIGHTS_PATH", raising=False)
    return home


def test_missing_weights_are_a_state_and_not_a_crash(home: Path) -> None:
    assert "no weights" in (TotalSegmentatorSegmenter().problem() or "")


@pytest.mark.parametrize("orientation", ["axial", "coronal"])
def test_its_numbers_are_an_independent_count(home: Path, tmp_path: Path, orientation: str) -> None:
    _tiny_weights().write_weights(home, BANDS)
    # 3 mm in every direction, the model's own resolution: nothing is resampled, so the count is exact.
    truth = make_phantom(tmp_path / "ct", slices=40, size=136, orientation=orientation, slice_spacing_mm=3, field_of_view_mm=408)
    volume = read_volume(truth.files, [read_header(f).elements for f in truth.files])
    segmenter = load("totalsegmentator")
    assert segmenter.problem() is None
    findings, run = index(volume, segmenter)
    found = {finding.structure.label: finding for finding in findings}
    assert found.keys() == BANDS.keys()
    voxel_mm3 = float(np.prod(volume.image.GetSpacing()))
    for label, (low, high) in BANDS.items():
        inside = (volume.hu >= low) & (volume.hu < high)
        assert found[label].voxel_count == int(inside.sum())
        assert found[label].volume_mm3 == pytest.approx(found[label].voxel_count * voxel_mm3)
        assert found[label].mean_hu == pytest.approx(float(volume.hu[inside].mean()))
    assert found["lung_upper_lobe_left"].structure.laterality is Laterality.LEFT
    assert len(run.weights_sha256 or "") == 64 and run.software["TotalSegmentator"] and run.task == "total_fast"
