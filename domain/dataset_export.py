"""A dataset has left: who took which version of it, for what, and exactly which files."""

from __future__ import annotations

from domain.dataset import Purpose
from domain.event import Event, event
from domain.ids import StreamName


@event
class DatasetExported(Event, frozen=True, kw_only=True):
    """An export is whole, and can be fetched by who asked for it. ``manifest_sha256`` is of its manifest, which lists every file by digest.

    ``subjects_count`` persons are in it; ``left_out_count`` series were not written in every layout that was asked for, or in none.
    Those whose data they are is said by the accesses that were recorded before (AccessesRecorded, action export).
    """

    dataset_id: str
    export_id: str
    version: int
    purpose: Purpose
    layouts: tuple[str, ...]
    manifest_sha256: str
    files_count: int
    bytes: int
    subjects_count: int
    left_out_count: int


def export_stream(export_id: str) -> StreamName:
    return StreamName(f"export-{export_id}")
