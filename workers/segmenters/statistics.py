"""What is measured of each label: one pass over the voxels for all labels, whatever their number."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import msgspec
import numpy as np
import SimpleITK as sitk

from workers.volume import Volume

Point = tuple[float, float, float]


class LabelStatistics(msgspec.Struct, frozen=True, kw_only=True):
    """Lengths in mm, in the patient coordinate system (LPS)."""

    voxel_count: int
    volume_mm3: float
    mean_hu: float
    centroid_mm: Point
    bounding_box_mm: tuple[Point, Point]
    touches_edge: bool


def label_statistics(
    labels: Any, volume: Volume, includes: Mapping[int, frozenset[int]] = MappingProxyType({})
) -> dict[int, LabelStatistics]:
    """Label value → statistics, for every value but 0. ``labels`` lies on the volume's grid.

    A value that ``includes`` others is measured together with them.
    """
    values = np.asarray(sitk.GetArrayViewFromImage(labels))
    hu = volume.hu
    assert values.shape == hu.shape, "the label image must lie on the volume's grid"
    highest = int(values.max(initial=0))
    count = np.zeros(highest + 1, dtype=np.int64)
    total_hu = np.zeros(highest + 1)
    sums = np.zeros((3, highest + 1))
    low = np.full((3, highest + 1), np.iinfo(np.int64).max)
    high = np.full((3, highest + 1), -1)
    columns = np.broadcast_to(np.arange(values.shape[2], dtype=float), values.shape[1:])
    rows = np.broadcast_to(np.arange(values.shape[1], dtype=float)[:, None], values.shape[1:])
    for k, plane in enumerate(values):
        flat = plane.ravel()
        here = np.bincount(flat, minlength=highest + 1)
        count += here
        total_hu += np.bincount(flat, weights=hu[k].ravel(), minlength=highest + 1)
        sums[0] += np.bincount(flat, weights=columns.ravel(), minlength=highest + 1)
        sums[1] += np.bincount(flat, weights=rows.ravel(), minlength=highest + 1)
        sums[2] += k * here
        for value in np.flatnonzero(here):
            if value:
                _extend(low, high, int(value), plane == value, k)
    spacing, origin = np.array(labels.GetSpacing()), np.array(labels.GetOrigin())
    to_patient = np.array(labels.GetDirection()).reshape(3, 3) * spacing
    voxel_mm3 = float(abs(np.linalg.det(to_patient)))
    last = np.array(labels.GetSize()) - 1
    found: dict[int, LabelStatistics] = {}
    for label in (int(v) for v in np.flatnonzero(count) if v):
        together = [label, *(v for v in includes.get(label, ()) if v <= highest and count[v])]
        voxels = int(count[together].sum())
        first, furthest = low[:, together].min(axis=1), high[:, together].max(axis=1)
        corners = np.array([[(first, furthest)[(c >> axis) & 1][axis] for axis in range(3)] for c in range(8)])
        in_patient = corners @ to_patient.T + origin
        centre = to_patient @ (sums[:, together].sum(axis=1) / voxels) + origin
        found[label] = LabelStatistics(
            voxel_count=voxels,
            volume_mm3=voxels * voxel_mm3,
            mean_hu=float(total_hu[together].sum() / voxels),
            centroid_mm=_point(centre),
            bounding_box_mm=(_point(in_patient.min(axis=0)), _point(in_patient.max(axis=0))),
            touches_edge=bool((first == 0).any() or (furthest == last).any()),
        )
    return found


def _extend(low: Any, high: Any, value: int, mask: Any, k: int) -> None:
    for axis, along in ((0, mask.any(axis=0)), (1, mask.any(axis=1))):
        where = np.flatnonzero(along)
        low[axis, value] = min(low[axis, value], where[0])
        high[axis, value] = max(high[axis, value], where[-1])
    low[2, value] = min(low[2, value], k)
    high[2, value] = max(high[2, value], k)


def _point(vector: Any) -> Point:
    x, y, z = (round(float(v), 4) for v in vector)
    return (x, y, z)
