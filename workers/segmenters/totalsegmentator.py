"""TotalSegmentator, unmodified, through its own Python interface; its numbers are ours, counted on the label image.

It is given the volume as a nibabel image in memory and gives a label image back; its own statistics report 0 for whatever comes
near the edge, so they are not used. Its usage statistics are switched off in its config.json before it is first imported.
Weights are looked for where it looks for them (TOTALSEG_HOME_DIR, else ~/.totalsegmentator), and measured by digest.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.metadata
import importlib.util
import json
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from workers.errors import SegmentationFailed, SegmenterNotReady
from workers.segmenters.protocol import Segmentation
from workers.settings import WorkerSettings
from workers.terminology import structures
from workers.volume import Volume

TASK = "total"
PACKAGES = ("TotalSegmentator", "nnunetv2", "dynamic-network-architectures", "torch", "numpy", "nibabel", "SimpleITK")
_LPS_TO_RAS = np.diag([-1.0, -1.0, 1.0, 1.0])


class TotalSegmentatorSegmenter:
    """Task `total`; the settings say whether in its fast form (one model at 3 mm instead of five at 1.5 mm), and where it computes."""

    name = "totalsegmentator"

    def __init__(self) -> None:
        settings = WorkerSettings()
        self._fast = settings.totalsegmentator_fast
        self._device = settings.totalsegmentator_device

    @property
    def version(self) -> str:
        try:
            return importlib.metadata.version("TotalSegmentator")
        except importlib.metadata.PackageNotFoundError:
            return "absent"

    def problem(self) -> str | None:
        """No package, no weights, or a class without a code."""
        if importlib.util.find_spec("totalsegmentator") is None:
            return 'TotalSegmentator is not installed: pip install "anamnesis[segmentation]"'
        missing = [file for file in self._weights() if not file.is_file()]
        if missing:
            model = missing[0].relative_to(_results()).parts[0]
            task = "total_fast" if self._fast else "total"
            return f"the weights {model} are not in {_results()}: run `totalseg_download_weights -t {task}`"
        from totalsegmentator.map_to_binary import class_map

        unknown = sorted(set(class_map[TASK].values()) - set(structures()))
        if unknown:
            return f"TotalSegmentator {self.version} has classes without a code in workers/terminology: {', '.join(unknown[:5])}"
        return None

    def segment(self, volume: Volume) -> Segmentation:
        """Raises SegmenterNotReady, SegmentationFailed."""
        problem = self.problem()
        if problem is not None:
            raise SegmenterNotReady(problem)
        _switch_off_usage_statistics()
        import nibabel
        from totalsegmentator.map_to_binary import class_map
        from totalsegmentator.python_api import totalsegmentator

        given = nibabel.Nifti1Image(np.transpose(volume.hu, (2, 1, 0)), _affine(volume.image))
        try:
            with _one_process():
                labelled = totalsegmentator(
                    given,
                    None,
                    ml=True,
                    fast=self._fast,
                    task=TASK,
                    device=self._device,
                    nr_thr_resamp=1,
                    nr_thr_saving=1,
                    quiet=True,
                )
        except SystemExit as error:  # a missing path makes it leave the process
            raise SegmentationFailed("SystemExit") from error
        table = structures()
        return Segmentation(
            labels=_on_grid(labelled, volume.image),
            structures={value: table[name] for value, name in class_map[TASK].items()},
            software={package: importlib.metadata.version(package) for package in PACKAGES},
            weights_sha256=_digest(tuple((file, file.stat().st_size, file.stat().st_mtime_ns) for file in self._weights())),
            task=f"{TASK}_fast" if self._fast else TASK,
            resolution_mm=self._mode()["resample"],
        )

    def _mode(self) -> dict[str, Any]:
        """What TotalSegmentator's own table says of the task: task_id (one or a list), trainer, resample (mm)."""
        from totalsegmentator.map_tasks_config import TASK_CONFIGS

        mode: dict[str, Any] = TASK_CONFIGS[TASK]["sub_modes"]["fast" if self._fast else "default"]
        return mode

    def _weights(self) -> list[Path]:
        """The files that will be read, in TotalSegmentator's own folder layout."""
        from totalsegmentator.map_tasks_config import TASK_ID_WEIGHTS_CONFIGS

        mode = self._mode()
        ids = mode["task_id"] if isinstance(mode["task_id"], list) else [mode["task_id"]]
        models = [_results() / TASK_ID_WEIGHTS_CONFIGS[i]["foldername"] / f"{mode['trainer']}__nnUNetPlans__3d_fullres" for i in ids]
        return [model / name for model in models for name in ("dataset.json", "plans.json", "fold_0/checkpoint_final.pth")]


def _home() -> Path:
    return Path(os.environ.get("TOTALSEG_HOME_DIR") or Path.home() / ".totalsegmentator")


def _results() -> Path:
    return Path(os.environ.get("TOTALSEG_WEIGHTS_PATH") or _home() / "nnunet" / "results")


@contextlib.contextmanager
def _one_process() -> Iterator[None]:
    """nnU-Net predicts on its own sequential path: its parallel one starts two processes that import torch for each series (4 s
    instead of 12 s for 30 slices, the same labels), and they would outlive this one when it is killed."""
    from totalsegmentator.config import setup_nnunet

    setup_nnunet()  # nnU-Net reads the folder of its models from the environment when it is imported
    import totalsegmentator.nnunet as run

    parallel = run.nnUNetPredictor

    class SequentialPredictor(run.nnUNetPredictor):  # type: ignore[misc, unused-ignore]
        def predict_from_files(  # the signature is nnU-Net's
            self,
            list_of_lists_or_source_folder: Any,
            output_folder_or_list_of_truncated_output_files: Any,
            save_probabilities: bool = False,
            overwrite: bool = True,
            num_processes_preprocessing: int = 1,
            num_processes_segmentation_export: int = 1,
            folder_with_segs_from_prev_stage: str | None = None,
            num_parts: int = 1,
            part_id: int = 0,
        ) -> Any:
            return self.predict_from_files_sequential(
                list_of_lists_or_source_folder,
                output_folder_or_list_of_truncated_output_files,
                save_probabilities,
                overwrite,
                folder_with_segs_from_prev_stage,
            )

    run.nnUNetPredictor = SequentialPredictor
    try:
        yield
    finally:
        run.nnUNetPredictor = parallel


@cache
def _digest(files: tuple[tuple[Path, int, int], ...]) -> str:
    """SHA-256 over names and bytes of these files; size and time of change (ns) are there to measure anew what was replaced."""
    digest = hashlib.sha256()
    for file, _, _ in files:
        digest.update(f"{file.parent.name}/{file.name}\n".encode())
        with file.open("rb") as opened:
            while chunk := opened.read(1 << 20):
                digest.update(chunk)
    return digest.hexdigest()


def _switch_off_usage_statistics() -> None:
    home = _home()
    home.mkdir(parents=True, exist_ok=True)
    config = home / "config.json"
    known: dict[str, Any] = {}
    with contextlib.suppress(FileNotFoundError, ValueError):  # TotalSegmentator rewrites it at every run, and may be interrupted
        known = json.loads(config.read_text())
    wanted = {"totalseg_id": "anamnesis", "prediction_counter": 0, **known, "send_usage_stats": False, "statistics_disclaimer_shown": True}
    if known != wanted:
        new = config.with_suffix(f".{os.getpid()}")
        new.write_text(json.dumps(wanted))
        new.replace(config)


def _affine(image: Any) -> Any:
    """Voxel index to RAS millimetres, as NIfTI has it; DICOM and SimpleITK count in LPS."""
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    return _LPS_TO_RAS @ affine


def _on_grid(labelled: Any, like: Any) -> Any:
    """The label image on the volume's own grid: it may come back with axes permuted or reversed."""
    to_lps = _LPS_TO_RAS @ labelled.affine
    spacing = np.linalg.norm(to_lps[:3, :3], axis=0)
    made = sitk.GetImageFromArray(np.ascontiguousarray(np.transpose(np.asarray(labelled.dataobj), (2, 1, 0))).astype(np.uint8))
    made.SetSpacing(tuple(float(v) for v in spacing))
    made.SetOrigin(tuple(float(v) for v in to_lps[:3, 3]))
    made.SetDirection(tuple(float(v) for v in (to_lps[:3, :3] / spacing).ravel()))
    return sitk.Resample(made, like, sitk.Transform(), sitk.sitkNearestNeighbor, 0)
