"""Segmentation: where it stands with a series, its findings, and what readers say of them."""

from __future__ import annotations

from typing import Any

from domain.findings import Finding, finding_key
from domain.review import FindingReviewed
from domain.series import IndexingFailed, IndexingRefused, IndexingRequested, SeriesIndexed
from projections.cohort.batch import Batch
from projections.cohort.rows import Row
from projections.cohort.tables import ORDINALS

MM3_PER_ML = 1000
UNREVIEWED = "unreviewed"
_OUTCOMES = {IndexingRequested: "requested", IndexingRefused: "refused", IndexingFailed: "failed"}
_TEXTS = ("label", "structure", "laterality", "morphology", "segmenter", "segmenter_version", "verdict")


def note(event: IndexingRequested | IndexingRefused | IndexingFailed, position: int, batch: Batch) -> None:
    _stands(event.series_uid, _OUTCOMES[type(event)], position, batch)


def index(event: SeriesIndexed, position: int, batch: Batch) -> None:
    """A new index of a segmenter takes the place of the one before: what is seen again is the same finding, and not yet reviewed."""
    series = _stands(event.series_uid, "indexed", position, batch)
    if series is None:
        return
    known = batch.findings_of.setdefault(series.id, set())
    seen = {finding_key(event.series_uid, event.run.segmenter, one.structure.label): one for one in event.findings[: ORDINALS]}
    for key in sorted(known - set(seen)):
        if batch.findings.standing[series.id, key].values["segmenter"] == event.run.segmenter:
            batch.findings.end((series.id, key), position)
            known.remove(key)
    for number, (key, finding) in enumerate(seen.items()):
        values = _values(key, finding, event, series)
        batch.findings.put((series.id, key), values, position, number)
        known.add(key)
        for name in _TEXTS:
            batch.dictionary.add(f"finding.{name}", [values[name]])


def review(event: FindingReviewed, position: int, batch: Batch) -> None:
    series = batch.series.standing.get(event.series_uid)
    finding = batch.findings.standing.get((series.id, event.finding_key)) if series is not None else None
    if series is not None and finding is not None:
        batch.findings.put((series.id, event.finding_key), {**finding.values, "verdict": str(event.verdict)}, position, 0)
        batch.dictionary.add("finding.verdict", [str(event.verdict)])


def _stands(series_uid: str, outcome: str, position: int, batch: Batch) -> Row | None:
    series = batch.series.standing.get(series_uid)
    if series is None:
        return None
    batch.dictionary.add("series.indexing", [outcome])
    return batch.series.put(series_uid, {**series.values, "indexing": outcome}, position, 0)


def _values(key: str, finding: Finding, event: SeriesIndexed, series: Row) -> dict[str, Any]:
    structure = finding.structure
    return {
        "finding_key": key,
        "series": series.id,
        "study": series.values["study"],
        "subject": series.values["subject"],
        "segmenter": event.run.segmenter,
        "segmenter_version": event.run.segmenter_version,
        "label": structure.label,
        "structure": structure.snomed.code,
        "laterality": str(structure.laterality or ""),
        "morphology": structure.morphology.code if structure.morphology is not None else "",
        "volume_ml": finding.volume_mm3 / MM3_PER_ML,
        "mean_hu": finding.mean_hu,
        "whole": not finding.touches_edge,
        "verdict": UNREVIEWED,
    }
