"""A genuine nnU-Net model in TotalSegmentator's own folder layout, with weights set by hand: each class owns a band of HU.

CTNormalization with mean 0 and deviation 100 gives x = HU / 100. For each threshold t the first stage has two units,
relu(HU - t) and relu(HU - t - 1), whose difference is a step of 1 HU; the second stage and its way back are zero, the decoder
hands the skip connection on, and the last layer adds the step into a class's band and takes away the step out of it.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from dynamic_network_architectures.architectures.unet import PlainConvUNet
from torch import nn

DEVIATION = 100.0
HEIGHT = 20.0
TRAINER = "nnUNetTrainer_4000epochs_NoMirroring"


def write_weights(home: Path, bands: dict[str, tuple[int, int]], *, task_id: int = 297, spacing: float = 3.0) -> None:
    """``bands``: class of task `total` → HU from (inclusive) and to (exclusive)."""
    from totalsegmentator.map_tasks_config import TASK_ID_WEIGHTS_CONFIGS
    from totalsegmentator.map_to_binary import class_map

    home.mkdir(parents=True, exist_ok=True)
    (home / "config.json").write_text(json.dumps({"totalseg_id": "test", "send_usage_stats": False, "prediction_counter": 0}))
    classes = class_map["total"]
    dataset = TASK_ID_WEIGHTS_CONFIGS[task_id]["foldername"]
    folder = home / "nnunet" / "results" / dataset / f"{TRAINER}__nnUNetPlans__3d_fullres"
    (folder / "fold_0").mkdir(parents=True)
    thresholds = sorted({float(t) for band in bands.values() for t in band})
    architecture = _architecture(2 * len(thresholds))
    (folder / "plans.json").write_text(json.dumps(_plans(dataset, spacing, architecture)))
    (folder / "dataset.json").write_text(
        json.dumps(
            {
                "channel_names": {"0": "CT"},
                "labels": {"background": 0, **{name: value for value, name in sorted(classes.items())}},
                "numTraining": 0,
                "file_ending": ".nii.gz",
                "name": f"{dataset} (weights set by hand)",
                "overwrite_image_reader_writer": "NibabelIOWithReorient",
            }
        )
    )
    network = _network(architecture, thresholds, bands, {name: value for value, name in classes.items()})
    torch.save(
        {
            "network_weights": network.state_dict(),
            "trainer_name": "nnUNetTrainer",
            "init_args": {"configuration": "3d_fullres"},
            "inference_allowed_mirroring_axes": None,
        },
        folder / "fold_0" / "checkpoint_final.pth",
    )


def _network(
    architecture: dict[str, object], thresholds: list[float], bands: dict[str, tuple[int, int]], values: dict[str, int]
) -> PlainConvUNet:
    made = {**architecture, "conv_op": nn.Conv3d, "nonlin": nn.ReLU}
    network = PlainConvUNet(input_channels=1, num_classes=max(values.values()) + 1, deep_supervision=False, **made)
    at = {threshold: n for n, threshold in enumerate(thresholds)}
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        first = network.encoder.stages[0][0].convs[0].conv
        decoder = network.decoder.stages[0].convs[0].conv
        last = network.decoder.seg_layers[0]
        for threshold, n in at.items():
            for unit, shift in ((2 * n, 0.0), (2 * n + 1, 1.0)):
                first.weight[unit, 0] = DEVIATION
                first.bias[unit] = -(threshold - 1.0) - shift
        units = 2 * len(thresholds)
        for unit in range(units):
            decoder.weight[unit, units + unit] = 1.0
        last.bias[0] = HEIGHT / 2
        for name, band in bands.items():
            for threshold, sign in zip(band, (1.0, -1.0), strict=True):
                n = at[float(threshold)]
                last.weight[values[name], 2 * n] += sign * HEIGHT
                last.weight[values[name], 2 * n + 1] -= sign * HEIGHT
    return network


def _architecture(features: int) -> dict[str, object]:
    return {
        "n_stages": 2,
        "features_per_stage": [features, 1],
        "conv_op": "torch.nn.modules.conv.Conv3d",
        "kernel_sizes": [[1, 1, 1], [1, 1, 1]],
        "strides": [[1, 1, 1], [2, 2, 2]],
        "n_conv_per_stage": [1, 1],
        "n_conv_per_stage_decoder": [1],
        "conv_bias": True,
        "norm_op": None,
        "norm_op_kwargs": None,
        "dropout_op": None,
        "dropout_op_kwargs": None,
        "nonlin": "torch.nn.ReLU",
        "nonlin_kwargs": {"inplace": True},
    }


def _plans(dataset: str, spacing: float, architecture: dict[str, object]) -> dict[str, object]:
    resampling = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
    function = "resample_data_or_seg_to_shape"
    configuration = {
        "data_identifier": "nnUNetPlans_3d_fullres",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": [32, 32, 32],
        "median_image_size_in_voxels": [64.0, 64.0, 64.0],
        "spacing": [spacing] * 3,
        "normalization_schemes": ["CTNormalization"],
        "use_mask_for_norm": [False],
        "resampling_fn_data": function,
        "resampling_fn_data_kwargs": resampling,
        "resampling_fn_seg": function,
        "resampling_fn_seg_kwargs": {**resampling, "is_seg": True, "order": 1},
        "resampling_fn_probabilities": function,
        "resampling_fn_probabilities_kwargs": {**resampling, "order": 1},
        "batch_dice": True,
        "architecture": {
            "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
            "arch_kwargs": architecture,
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
    }
    intensities = {"mean": 0.0, "std": DEVIATION, "percentile_00_5": -1024.0, "percentile_99_5": 3071.0}
    return {
        "dataset_name": dataset,
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": [spacing] * 3,
        "original_median_shape_after_transp": [64, 64, 64],
        "image_reader_writer": "NibabelIOWithReorient",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "configurations": {"3d_fullres": configuration},
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": {**intensities, "min": -1024.0, "max": 3071.0, "median": 0.0}},
    }
