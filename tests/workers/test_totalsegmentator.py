"""TotalSegmentator, unmodified, through the real worker, on a model that a test makes: its numbers are an independent count."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest

from archive.phantom import make_phantom
from domain.findings import Laterality
from domain.series import SeriesIndexed
from eventlog.log import EventLog
from workers.segmenters.totalsegmentator import TotalSegmentatorSegmenter
from workers.settings import WorkerSettings

pytestmark = pytest.mark.slow


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
    problem = TotalSegmentatorSegmenter().problem()
    assert problem is not None and "weights" in problem and "totalseg_download_weights -t total_fast" in problem


def hounsfield_units(files: list[Path]) -> Any:
    """The slices' values by pydicom alone."""
    slices = [pydicom.dcmread(file) for file in files]
    return np.stack([s.pixel_array * float(s.RescaleSlope) + float(s.RescaleIntercept) for s in slices])


@pytest.mark.parametrize("orientation", ["axial", "coronal"])
async def test_its_numbers_are_an_independent_count(
    event_log: EventLog, worker_settings: WorkerSettings, store_files, wait_for_events, worker_process, home: Path, tmp_path: Path, orientation: str
) -> None:
    _tiny_weights().write_weights(home, BANDS)
    # 3 mm in every direction, the model's own resolution: nothing is resampled, so the count is exact.
    truth = make_phantom(tmp_path / "ct", slices=40, size=136, orientation=orientation, slice_spacing_mm=3, field_of_view_mm=408)
    await store_files(truth)
    with worker_process(worker_settings.model_copy(update={"segmenter": "totalsegmentator"})):
        (recorded,) = await wait_for_events(event_log, str(truth.series_uid), 1, SeriesIndexed)
    index: SeriesIndexed = recorded.event
    found = {finding.structure.label: finding for finding in index.findings}
    assert found.keys() == BANDS.keys()
    hu = hounsfield_units(truth.files)
    for label, (low, high) in BANDS.items():
        inside = (hu >= low) & (hu < high)
        assert found[label].voxel_count == int(inside.sum())
        assert found[label].volume_mm3 == pytest.approx(int(inside.sum()) * 27.0)
        assert found[label].mean_hu == pytest.approx(float(hu[inside].mean()))
    assert found["lung_upper_lobe_left"].structure.laterality is Laterality.LEFT
    run = index.run
    assert len(run.weights_sha256 or "") == 64 and run.software["TotalSegmentator"] and run.task == "total_fast"
    assert run.software["torch"].startswith("2.") and run.duration_s > 0 and run.resolution_mm == 3.0
