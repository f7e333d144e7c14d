"""Instances that were stored: the rows of their study and series, as all headers so far say, and their own."""

from __future__ import annotations

from typing import Any

from domain.series import DicomJson, InstancesStored, StoredInstance, series_digest
from projections.cohort.ages import age_at_study, study_date
from projections.cohort.batch import Batch, Slices
from projections.cohort.clinical import subject_row
from projections.cohort.elements import Elements, read, texts
from projections.cohort.rows import Row
from projections.cohort.spacing import IMAGE_ORIENTATION, IMAGE_POSITION, orientation_of, slice_mm, slice_spacing_mm
from projections.cohort.tables import ORDINALS
from projections.cohort.terms import term

_STUDY, _SERIES, _FIRST_INSTANCE = 1, 2, 3
"""Numbers of entities within the event."""


def store(event: InstancesStored, position: int, batch: Batch) -> None:
    subject = subject_row(event.subject_id, position, batch)
    of_study = batch.elements_of_study.setdefault(event.study_uid, Elements())
    of_series = batch.elements_of_series.setdefault(event.series_uid, Elements())
    changed = False
    for header in (event.common, *event.headers):
        for element, values in read(header, event.common):
            if element.of_study:
                changed |= of_study.add(element, values)
            else:
                of_series.add(element, values)
    study = batch.studies.standing.get(event.study_uid)
    if study is None or changed:
        study = _put_study(event, position, batch, of_study, subject.id)
    _put_series(event, position, batch, of_series, study, subject.id)


def _put_study(event: InstancesStored, position: int, batch: Batch, elements: Elements, subject: int) -> Row:
    before = batch.studies.standing.get(event.study_uid)
    subject = before.values["subject"] if before is not None else subject
    kept = elements.kept()
    values: dict[str, Any] = {
        "study_uid": event.study_uid,
        "subject": subject,
        "study_date": study_date(elements),
        "age_years": age_at_study(batch.born.get(subject), elements),
        "elements": kept,
        "terms": _terms(kept, batch),
    }
    batch.studies_of.setdefault(subject, set()).add(event.study_uid)
    return batch.studies.put(event.study_uid, values, position, _STUDY)


def _put_series(event: InstancesStored, position: int, batch: Batch, elements: Elements, study: Row, subject: int) -> None:
    before = batch.series.standing.get(event.series_uid)
    known = before.values if before is not None else None
    slices = batch.slices.setdefault(event.series_uid, Slices())
    series = before.id if before is not None else position * ORDINALS + _SERIES
    headers = event.headers if len(event.headers) == len(event.instances) else [{} for _ in event.instances]
    orientation: list[float] = known["orientation"] if known is not None else []
    frames, size = (known["frame_count"], known["bytes"]) if known is not None else (0, 0)
    for number, (one, own) in enumerate(zip(event.instances, headers, strict=True), _FIRST_INSTANCE):
        where = _where(event.common, own)
        orientation = orientation or orientation_of(where)
        place = slice_mm(where, one.number_of_frames, orientation)
        slices.sha256[one.sop_instance_uid] = one.sha256
        slices.places.append(place)
        frames, size = frames + one.number_of_frames, size + one.size
        batch.instances.put((series, one.sop_instance_uid), _instance(one, series, place), position, number)
    kept = elements.kept()
    values = {
        "series_uid": event.series_uid,
        "study": known["study"] if known is not None else study.id,
        "subject": known["subject"] if known is not None else subject,
        "instance_count": len(slices.sha256),
        "frame_count": frames,
        "bytes": size,
        "series_digest": series_digest(slices.sha256),
        "slice_spacing_mm": slice_spacing_mm(slices.places),
        "indexing": known["indexing"] if known is not None else "none",
        "elements": kept,
        "terms": _terms(kept, batch),
        "orientation": orientation,
    }
    batch.series.put(event.series_uid, values, position, _SERIES)


def _instance(one: StoredInstance, series: int, place: float | None) -> dict[str, Any]:
    return {
        "sop_instance_uid": one.sop_instance_uid,
        "series": series,
        "sop_class_uid": one.sop_class_uid,
        "transfer_syntax_uid": one.transfer_syntax_uid,
        "sha256": one.sha256,
        "bytes": one.size,
        "frame_count": one.number_of_frames,
        "slice_mm": place,
    }


def _where(common: DicomJson, own: DicomJson) -> DicomJson:
    return {tag: header[tag] for tag in (IMAGE_POSITION, IMAGE_ORIENTATION) for header in (common, own) if tag in header}


def _terms(kept: dict[str, list[Any]], batch: Batch) -> list[int]:
    found: set[int] = set()
    for key, values in texts(kept):
        batch.dictionary.add(key, values)
        found.update(term(key, value) for value in values)
    return sorted(found)
