"""What closes an export: a manifest that says of each file which events it comes from, and the digests as `sha256sum` reads them."""

from __future__ import annotations

import importlib.metadata
import zlib
from collections.abc import Sequence
from typing import Any

import msgspec

from server.datasets.folder import File, Step
from server.datasets.layouts.json_text import json_text
from server.datasets.plan import LeftOut, Plan

PATH, SUMS = "manifest.json", "SHA256SUMS"
_SHAPES_BYTES = ("anamnesis", "matplotlib", "pyarrow", "pydicom", "SimpleITK", "xlsxwriter")


def write_manifest(step: Step, plan: Plan, files: Sequence[File], left_out: Sequence[LeftOut]) -> None:
    """``files``: all others."""
    about = plan.about
    named = sorted({position for one in files for position in one.positions})
    content: dict[str, Any] = {
        "format": "anamnesis-dataset-export",
        "format_version": 1,
        "dataset": {
            "id": about.dataset_id,
            "version": about.version,
            "title": about.title,
            "position": about.position,
            "members_sha256": about.digest,
            "license": about.license or about.license_text,
            "intended_uses": about.intended_uses,
        },
        "layouts": [str(layout) for layout in plan.layouts],
        "made_with": {**{name: importlib.metadata.version(name) for name in _SHAPES_BYTES}, "zlib": zlib.ZLIB_RUNTIME_VERSION},
        "members": [
            {
                "series_uid": one.series_uid,
                "study_uid": one.study_uid,
                "subject_id": one.subject_id,
                "path": one.path,
                "part": one.part,
                "positions": one.positions,
            }
            for one in plan.series
        ],
        "left_out": [msgspec.to_builtins(one) for one in left_out],
        "files": [msgspec.to_builtins(one) for one in files],
        "events": {str(position): {"id": plan.events[str(position)][0], "type": plan.events[str(position)][1]} for position in named},
    }
    step.text(PATH, json_text(content), f"dataset:{about.dataset_id}", about.positions)


def write_sums(step: Step, plan: Plan, files: Sequence[File]) -> None:
    lines = "".join(f"{one.sha256}  {one.path}\n" for one in sorted(files, key=lambda one: one.path))
    step.text(SUMS, lines, f"dataset:{plan.about.dataset_id}", plan.about.positions)
