"""The DICOM projection: instances stored become rows of studies, series and instances whose answers are ready to be sent.

Of a study or series, the first value that any event's first instance holds stands; later ones only fill what was empty.
Every event that changes a row moves the one before into its history, so that a search can be answered as of any position.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import asyncpg

from domain.event import Event
from domain.series import DicomJson, InstancesStored, StoredInstance, join_header
from domain.subject import SubjectErased
from eventlog.envelope import RecordedEvent
from projections.dicom import attributes as a
from projections.dicom import erasure, splicing
from projections.dicom.series import load_series, new_series, past_series, save_series
from projections.dicom.study import load_studies, new_study, past_study, save_studies
from projections.dicom.tables import INSTANCE_COLUMNS, STATEMENTS
from projections.parts import cut_at_erasures

NAME, VERSION = "dicom", 2
SCHEMA = f"{NAME}_v{VERSION}"


class DicomProjection:
    """QIDO-RS, WADO-RS metadata, and where each instance lies in the archive."""

    name: str = NAME
    version: int = VERSION
    handles: frozenset[type[Event]] = frozenset({InstancesStored, SubjectErased})
    statements: Sequence[str] = STATEMENTS

    async def apply(self, batch: Sequence[RecordedEvent], connection: asyncpg.Connection) -> None:
        for part, erased in cut_at_erasures(batch):
            await self._write(part, connection)
            if erased is not None and isinstance(erased.event, SubjectErased):
                await erasure.purge(erased.event, connection)

    async def _write(self, batch: Sequence[RecordedEvent], connection: asyncpg.Connection) -> None:
        """Few statements for the whole batch; the rows of its studies and series are read and written once."""
        stored = [(r.position, r.event) for r in batch if isinstance(r.event, InstancesStored)]
        if not stored:
            return
        studies = await load_studies(sorted({event.study_uid for _, event in stored}), connection)
        series = await load_series(sorted({event.series_uid for _, event in stored}), connection)
        shared_headers: list[tuple[int, str, list[bytes]]] = []
        instances: list[tuple[Any, ...]] = []
        study_history: list[tuple[Any, ...]] = []
        series_history: list[tuple[Any, ...]] = []
        for position, event in stored:
            headers = _own_headers(event)
            pieces, own = splicing.split(event.common, headers)
            shared_headers.append((position, event.series_uid, pieces))
            instances.extend(_instance_row(event, position, *each) for each in zip(event.instances, headers, own, strict=True))
            first_header = join_header(event.common, headers[0]) if headers else event.common
            if event.study_uid in studies:
                study_history.append(past_study(studies[event.study_uid], position))
            else:
                studies[event.study_uid] = new_study(event)
            is_new = event.series_uid not in series
            if is_new:
                series[event.series_uid] = new_series(event)
            else:
                series_history.append(past_series(series[event.series_uid], position))
            studies[event.study_uid].add(event, first_header, position, first_of_series=is_new)
            series[event.series_uid].add(event, first_header, position)
        await save_studies(studies.values(), connection)
        await save_series(series.values(), connection)
        await connection.copy_records_to_table("shared_header", records=shared_headers, columns=("position", "series_uid", "pieces"))
        await connection.copy_records_to_table("instance", records=instances, columns=INSTANCE_COLUMNS)
        await connection.copy_records_to_table("study_history", records=study_history)
        await connection.copy_records_to_table("series_history", records=series_history)


def _own_headers(event: InstancesStored) -> list[DicomJson]:
    """Each instance's own elements; where the headers went with an erased subject's key, what the event still knows."""
    if len(event.headers) == len(event.instances):
        return event.headers
    return [
        {
            a.SOP_CLASS_UID: a.element("UI", one.sop_class_uid),
            a.SOP_INSTANCE_UID: a.element("UI", one.sop_instance_uid),
            a.STUDY_INSTANCE_UID: a.element("UI", event.study_uid),
            a.SERIES_INSTANCE_UID: a.element("UI", event.series_uid),
        }
        for one in event.instances
    ]


def _instance_row(event: InstancesStored, position: int, one: StoredInstance, header: DicomJson, own: list[bytes]) -> tuple[Any, ...]:
    answer = {tag: header[tag] if tag in header else event.common[tag] for tag in a.INSTANCE_ANSWER if tag in header or tag in event.common}
    answer[a.SOP_CLASS_UID] = a.element("UI", one.sop_class_uid)
    answer[a.SOP_INSTANCE_UID] = a.element("UI", one.sop_instance_uid)
    answer[a.STUDY_INSTANCE_UID] = a.element("UI", event.study_uid)
    answer[a.SERIES_INSTANCE_UID] = a.element("UI", event.series_uid)
    answer.setdefault(a.INSTANCE_NUMBER, a.element("IS"))
    answer[a.INSTANCE_AVAILABILITY] = a.element("CS", "ONLINE")
    answer[a.AVAILABLE_TRANSFER_SYNTAX_UID] = a.element("UI", one.transfer_syntax_uid)
    return (
        one.sop_instance_uid,
        event.series_uid,
        event.study_uid,
        position,
        a.integer(answer, a.INSTANCE_NUMBER),
        one.sop_class_uid,
        one.transfer_syntax_uid,
        one.sha256,
        one.size,
        one.number_of_frames,
        one.has_pixel_data,
        own,
        *splicing.halves(answer, a.RETRIEVE_URL),
    )
