"""A segmenter without weights: body, lungs, bone, by thresholds and components on a CT volume.

Sides are told in the patient, by the x axis of DICOM's patient coordinate system (to the left), so they are right for every
orientation. It is the embedded default: enough to index a chest, and to prove the way from pixels to FHIR.
"""

from __future__ import annotations

import importlib.metadata
from typing import Any

import numpy as np
import SimpleITK as sitk

from domain.findings import RADLEX as RADLEX_SYSTEM
from domain.findings import SNOMED_CT, Code, Laterality, Structure
from workers.segmenters.protocol import Segmentation
from workers.volume import Volume

BODY, LUNG_LEFT, LUNG_RIGHT, BONE = 1, 2, 3, 4
BODY_HU = -400
LUNG_HU = -400
BONE_HU = 300
SMALLEST_LUNG_ML = 40.0
SMALLEST_BONE_ML = 1.0
TABLE_RADIUS_MM = 4.0
GAS_HU = -950
PADDING_HU = -1100
FUSED_SHARE = 0.9

STRUCTURES = {
    BODY: Structure(label="body", snomed=Code(SNOMED_CT, "38266002", "Entire body as a whole")),
    LUNG_LEFT: Structure(
        label="lung_left",
        snomed=Code(SNOMED_CT, "39607008", "Lung"),
        radlex=Code(RADLEX_SYSTEM, "RID1326", "left lung"),
        laterality=Laterality.LEFT,
    ),
    LUNG_RIGHT: Structure(
        label="lung_right",
        snomed=Code(SNOMED_CT, "39607008", "Lung"),
        radlex=Code(RADLEX_SYSTEM, "RID1302", "right lung"),
        laterality=Laterality.RIGHT,
    ),
    BONE: Structure(label="bone", snomed=Code(SNOMED_CT, "272673000", "Bone")),
}


class BaselineSegmenter:
    name = "baseline"
    version = "1.0.0"

    def problem(self) -> str | None:
        return None

    def segment(self, volume: Volume) -> Segmentation:
        """Labels exclude each other; the body counts what lies inside it too."""
        image = volume.image
        body = _body(image)
        left, right = _lungs(image, body)
        bone = sitk.And(_without_small(sitk.And(image > BONE_HU, body), SMALLEST_BONE_ML), body)
        labels = sitk.Cast(body, sitk.sitkUInt8) * BODY
        for mask, value in ((left, LUNG_LEFT), (right, LUNG_RIGHT), (bone, BONE)):
            labels = sitk.Mask(labels, mask, outsideValue=value, maskingValue=1)
        return Segmentation(
            labels=labels,
            structures=STRUCTURES,
            includes={BODY: frozenset({LUNG_LEFT, LUNG_RIGHT, BONE})},
            software={
                "SimpleITK": importlib.metadata.version("SimpleITK"),
                "numpy": importlib.metadata.version("numpy"),
            },
            task="body-lungs-bone",
        )


def _body(image: Any) -> Any:
    """Everything denser than lung in the largest connected thing, table excluded, and what it encloses in axial planes."""
    dense = image > BODY_HU
    coarse = sitk.Shrink(dense, [4, 4, 1] if min(image.GetSize()[:2]) >= 128 else [1, 1, 1])
    radius = [max(1, round(TABLE_RADIUS_MM / s)) if s < TABLE_RADIUS_MM else 0 for s in coarse.GetSpacing()]
    opened = sitk.BinaryMorphologicalOpening(coarse, radius)
    largest = sitk.RelabelComponent(sitk.ConnectedComponent(opened), sortByObjectSize=True) == 1
    around = sitk.BinaryDilate(largest, [2, 2, 1])
    near = sitk.Resample(around, image, sitk.Transform(), sitk.sitkNearestNeighbor, 0)
    body = sitk.And(dense, near)
    outside = image < PADDING_HU
    if not np.asarray(sitk.GetArrayViewFromImage(outside)).any():
        return _fill_axially(body)
    return sitk.Or(body, _holes_with_padding(image, body, outside))


def _holes_with_padding(image: Any, body: Any, outside: Any) -> Any:
    """Where the reconstruction circle cuts the chest wall a lung lies open: padding closes it. The air around the patient is then
    enclosed too, and told from lung by its attenuation."""
    filled = _fill_axially(sitk.Or(body, outside))
    holes = sitk.And(filled, sitk.Not(sitk.Or(body, outside)))
    components = sitk.ConnectedComponent(holes)
    values = np.asarray(sitk.GetArrayViewFromImage(components))
    hu = np.asarray(sitk.GetArrayViewFromImage(image))
    count = np.bincount(values.ravel())
    mean = np.bincount(values.ravel(), weights=hu.ravel()) / np.maximum(count, 1)
    inside = mean > GAS_HU
    inside[0] = False
    return _image(inside[values].astype(np.uint8), image)


def _fill_axially(mask: Any) -> Any:
    """Fills holes in the planes that lie most nearly across the patient's length: a lung is a hole there, and open in others."""
    direction = np.array(mask.GetDirection()).reshape(3, 3)
    along = int(np.abs(direction[2]).argmax())
    others = [axis for axis in range(3) if axis != along]
    permuted = sitk.PermuteAxes(mask, [*others, along])
    filled = np.stack(
        [
            sitk.GetArrayFromImage(sitk.BinaryFillhole(permuted[:, :, k], fullyConnected=False))
            for k in range(permuted.GetSize()[2])
        ]
    )
    made = sitk.GetImageFromArray(filled)
    made.CopyInformation(permuted)
    back = sitk.PermuteAxes(made, [[*others, along].index(axis) for axis in range(3)])
    back.CopyInformation(mask)
    return back


def _lungs(image: Any, body: Any) -> tuple[Any, Any]:
    """Air inside the body, without what is small (trachea, oesophagus) or too black for lung (gas); left and right."""
    air = sitk.And(image < LUNG_HU, body)
    components = sitk.RelabelComponent(
        sitk.ConnectedComponent(air), minimumObjectSize=_voxels(image, SMALLEST_LUNG_ML), sortByObjectSize=True
    )
    values = np.asarray(sitk.GetArrayViewFromImage(components)).ravel()
    hu = np.asarray(sitk.GetArrayViewFromImage(image)).ravel()
    highest = int(values.max(initial=0))
    count = np.bincount(values, minlength=highest + 1)
    mean = np.bincount(values, weights=hu, minlength=highest + 1) / np.maximum(count, 1)
    x = _patient_x(image)
    body_array = np.asarray(sitk.GetArrayViewFromImage(body)).astype(bool)
    midline = float(x[body_array].mean()) if body_array.any() else 0.0
    labels = np.asarray(sitk.GetArrayViewFromImage(components))
    left = np.zeros(labels.shape, dtype=np.uint8)
    right = np.zeros(labels.shape, dtype=np.uint8)
    for value in range(1, highest + 1):
        if mean[value] < GAS_HU:
            continue
        where = labels == value
        on_left = where & (x > midline)  # +x is the patient's left (PS3.3, C.7.6.2.1.1)
        share = float(on_left.sum()) / float(where.sum())
        if share > FUSED_SHARE:
            left |= where
        elif share < 1 - FUSED_SHARE:
            right |= where
        else:  # both lungs in one component: they meet in front of the heart or behind it
            left |= on_left
            right |= where & ~on_left
    return _image(left, image), _image(right, image)


def _patient_x(image: Any) -> Any:
    """x of every voxel centre in the patient (mm), as an array that broadcasts over (slices, rows, columns)."""
    direction = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    columns, rows, slices = image.GetSize()
    i, j, k = np.arange(columns), np.arange(rows), np.arange(slices)
    step = direction[0]
    return (
        image.GetOrigin()[0]
        + (k * step[2])[:, None, None].astype(np.float32)
        + (j * step[1])[None, :, None].astype(np.float32)
        + (i * step[0])[None, None, :].astype(np.float32)
    )


def _without_small(mask: Any, smallest_ml: float) -> Any:
    components = sitk.ConnectedComponent(mask)
    return sitk.RelabelComponent(components, minimumObjectSize=_voxels(mask, smallest_ml)) > 0


def _voxels(image: Any, millilitres: float) -> int:
    return max(1, round(millilitres * 1000 / float(np.prod(image.GetSpacing()))))


def _image(array: Any, like: Any) -> Any:
    made = sitk.GetImageFromArray(array)
    made.CopyInformation(like)
    return made
