"""What a segmenter is, how one is found, and how its label image becomes findings."""

from __future__ import annotations

import importlib.metadata
import time
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Protocol

import msgspec

from domain.findings import Finding, Structure
from domain.series import SegmenterRun
from workers.errors import SegmenterUnknown
from workers.segmenters.statistics import label_statistics
from workers.volume import Volume

GROUP = "anamnesis.segmenters"


class Segmentation(msgspec.Struct, frozen=True, kw_only=True):
    """``labels``: an unsigned image on the volume's own grid; ``structures``: label value → structure.

    ``includes``: label value → other values that belong to the same structure too (the body holds the lungs).
    """

    labels: Any
    structures: Mapping[int, Structure]
    software: dict[str, str]
    includes: Mapping[int, frozenset[int]] = MappingProxyType({})
    weights_sha256: str | None = None
    task: str | None = None
    resolution_mm: float | None = None


class Segmenter(Protocol):
    @property
    def name(self) -> str: ...

    @property
    def version(self) -> str: ...

    def problem(self) -> str | None:
        """Why it cannot run here (no weights, no package), or None."""

    def segment(self, volume: Volume) -> Segmentation:
        """Raises NotIndexable, SegmenterNotReady."""


def names() -> list[str]:
    """The segmenters that are installed."""
    return sorted(entry_point.name for entry_point in importlib.metadata.entry_points(group=GROUP))


def load(name: str) -> Segmenter:
    """Raises SegmenterUnknown."""
    for entry_point in importlib.metadata.entry_points(group=GROUP, name=name):
        made: Segmenter = entry_point.load()()
        return made
    raise SegmenterUnknown(f"there is no segmenter {name}: {', '.join(names())} are installed")


def index(volume: Volume, segmenter: Segmenter) -> tuple[list[Finding], SegmenterRun]:
    """Segments and measures; what has no voxel is no finding."""
    began = time.monotonic()
    segmentation = segmenter.segment(volume)
    findings = [
        Finding(
            structure=structure,
            volume_mm3=found.volume_mm3,
            voxel_count=found.voxel_count,
            mean_hu=found.mean_hu,
            touches_edge=found.touches_edge,
            centroid_mm=found.centroid_mm,
            bounding_box_mm=found.bounding_box_mm,
        )
        for value, found in sorted(label_statistics(segmentation.labels, volume, segmentation.includes).items())
        if (structure := segmentation.structures.get(value)) is not None
    ]
    run = SegmenterRun(
        segmenter=segmenter.name,
        segmenter_version=segmenter.version,
        software=segmentation.software,
        weights_sha256=segmentation.weights_sha256,
        task=segmentation.task,
        resolution_mm=segmentation.resolution_mm,
        duration_s=round(time.monotonic() - began, 3),
    )
    return findings, run
