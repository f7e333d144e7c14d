"""A segmenter without weights: body, lungs, bone, by thresholds and components on a CT volume.

Sides are told in the patient, by the x axis of DICOM's patient coordinate system (to the left), so they are right for every
orientation. It is the embedded default: enough to index a chest, and to prove the way from pixels to FHIR.
"""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable
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
MOST = 0.5

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
    closed = _fill_axially(sitk.And(dense, near))
    return sitk.Or(closed, _cut_open(image, closed))


def _cut_open(image: Any, body: Any) -> Any:
    """Lung that lies open where the field of view cuts the chest wall: air no blacker than lung, most of whose border is body."""
    air = sitk.And(sitk.And(image < LUNG_HU, image > PADDING_HU), sitk.Not(body))
    components = _by_axial_plane(air, _Numbered())
    values = sitk.GetArrayFromImage(components)
    border = values * (sitk.GetArrayFromImage(_by_axial_plane(air, _edge)) > 0)
    at_body = border * sitk.GetArrayFromImage(_by_axial_plane(body, _grown))
    highest = int(values.max(initial=0))
    count, borders, at_bodies = (np.bincount(v.ravel(), minlength=highest + 1) for v in (values, border, at_body))
    hu = np.asarray(sitk.GetArrayViewFromImage(image))
    mean = np.bincount(values.ravel(), weights=hu.ravel(), minlength=highest + 1) / np.maximum(count, 1)
    lung = (mean > GAS_HU) & (at_bodies > MOST * borders)
    lung[0] = False
    return _image(lung[values].astype(np.uint8), image)


def _edge(plane: Any) -> Any:
    return sitk.GetArrayFromImage(sitk.And(plane, sitk.Not(sitk.BinaryErode(plane, [1, 1], sitk.sitkCross, 0, 1, False))))


def _grown(plane: Any) -> Any:
    return sitk.GetArrayFromImage(sitk.BinaryDilate(plane, [1, 1], sitk.sitkCross))


class _Numbered:
    """Connected components of planes, numbered through all of them."""

    def __init__(self) -> None:
        self._highest = 0

    def __call__(self, plane: Any) -> Any:
        labels = sitk.GetArrayFromImage(sitk.ConnectedComponent(plane)).astype(np.int32)
        labels[labels > 0] += self._highest
        self._highest = int(labels.max(initial=self._highest))
        return labels


def _fill_axially(mask: Any) -> Any:
    """Fills holes in axial planes: a lung is a hole there, and open in others."""
    return _by_axial_plane(mask, lambda plane: sitk.GetArrayFromImage(sitk.BinaryFillhole(plane, fullyConnected=False)))


def _by_axial_plane(mask: Any, work: Callable[[Any], Any]) -> Any:
    """What ``work`` makes of each of the planes that lie most nearly across the patient's length, put together again."""
    direction = np.array(mask.GetDirection()).reshape(3, 3)
    along = int(np.abs(direction[2]).argmax())
    others = [axis for axis in range(3) if axis != along]
    permuted = sitk.PermuteAxes(mask, [*others, along])
    made = sitk.GetImageFromArray(np.stack([work(permuted[:, :, k]) for k in range(permuted.GetSize()[2])]))
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
