"""nnU-Net's raw data format, version 2: one data set a modality, since its channels are the same for every case.

(https://github.com/MIC-DKFZ/nnUNet: documentation/dataset_format.md). Cases in the part `test` are in imagesTs, all others in imagesTr;
splits_final.json goes into nnUNet_preprocessed, and is written beside dataset.json.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

from server.datasets.folder import Step
from server.datasets.layouts.json_text import json_text
from server.datasets.plan import Plan, PlannedSeries

FOLDER = "nnunet"
TEST, TRAIN = "test", "train"
ENDING = ".nii.gz"


def case_of(series: PlannedSeries) -> str:
    return series.path.replace("/", "_")


def image_path(plan: Plan, series: PlannedSeries) -> str:
    return f"{_dataset(plan, series.modality)}/images{_end(series)}/{case_of(series)}_0000{ENDING}"


def mask_paths(plan: Plan, series: PlannedSeries) -> list[str]:
    """labelsTs is not read by nnU-Net itself, but by whoever evaluates."""
    if why_not(plan, series, has_mask=True) is not None:
        return []
    return [f"{_dataset(plan, series.modality)}/labels{_end(series)}/{case_of(series)}{ENDING}"]


def why_not(plan: Plan, series: PlannedSeries, has_mask: bool) -> str | None:
    """The reason for which a series is no case; None where it is one."""
    if plan.about.parts and not series.part:
        return "in-no-part"
    if series.part != TEST and not has_mask:
        return "no-mask"
    return None


def write_descriptions(step: Step, plan: Plan, paths: Collection[str], labels: Mapping[str, Mapping[str, int]]) -> None:
    """dataset.json and splits_final.json of each modality, once it is known which cases there are."""
    for modality in _modalities(plan):
        folder = _dataset(plan, modality)
        cases = {case_of(one): one for one in plan.series if one.modality == modality and image_path(plan, one) in paths}
        training = {case: one for case, one in cases.items() if one.part != TEST}
        if not cases:
            continue
        entity, positions = f"dataset:{plan.about.dataset_id}", plan.about.positions
        step.text(f"{folder}/dataset.json", json_text(_description(plan, modality, len(training), labels.get(modality, {}))), entity, positions)
        folds = _folds(training)
        if folds:
            step.text(f"{folder}/splits_final.json", json_text(folds), entity, positions)


def _description(plan: Plan, modality: str, training: int, labels: Mapping[str, int]) -> dict[str, object]:
    about = plan.about
    return {
        "name": about.title,
        "description": about.description,
        "licence": about.license or about.license_text,
        "release": f"{about.dataset_id} version {about.version}",
        "dataset_digest": about.digest,
        "channel_names": {"0": modality},
        "labels": {"background": 0, **labels},
        "numTraining": training,
        "file_ending": ENDING,
        "overwrite_image_reader_writer": "SimpleITKIO",
    }


def _folds(training: Mapping[str, PlannedSeries]) -> list[dict[str, list[str]]]:
    """With a part `train`, each other part is validated on once; without one, each part in turn (folds of a cross-validation)."""
    parts = sorted({one.part for one in training.values()} - {""})
    validated = [part for part in parts if part != TRAIN]
    folds = []
    for part in validated:
        learnt = [case for case, one in training.items() if (one.part == TRAIN if TRAIN in parts else one.part != part)]
        folds.append({"train": sorted(learnt), "val": sorted(case for case, one in training.items() if one.part == part)})
    return [fold for fold in folds if fold["train"]]


def _modalities(plan: Plan) -> list[str]:
    return sorted({one.modality for one in plan.series})


def _dataset(plan: Plan, modality: str) -> str:
    name = "".join(word.capitalize() for word in re.findall(r"[A-Za-z0-9]+", plan.about.title)) or "Dataset"
    number = plan.nnunet_id + _modalities(plan).index(modality)
    return f"{FOLDER}/Dataset{number:03d}_{name[:40]}{modality}"


def _end(series: PlannedSeries) -> str:
    return "Ts" if series.part == TEST else "Tr"
