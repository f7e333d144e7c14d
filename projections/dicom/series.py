"""The row of a series: what its instances say of it, its count, and the answer made ready."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import asyncpg
import msgspec

from domain.series import DicomJson, InstancesStored
from projections.dicom import attributes as a
from projections.dicom import folding, splicing

_ENCODE = msgspec.json.Encoder(order="sorted").encode


class SeriesRow(msgspec.Struct, kw_only=True):
    """A series as folded so far. ``position`` is that of the last event that changed it."""

    series_uid: str
    study_uid: str
    position: int
    modality: str
    attributes: DicomJson
    instance_count: int

    def add(self, stored: InstancesStored, header: DicomJson, position: int) -> None:
        """Folds an event in. ``header`` is the whole header of its first instance."""
        a.fill(self.attributes, a.of_series(header))
        self.position = position
        self.modality = self.modality or folding.folded_text(stored.modality)
        self.instance_count += len(stored.instances)

    def answer(self) -> DicomJson:
        """What a search for series returns unasked (PS3.18, table 10.6.3-4), less the Retrieve URL."""
        found = {tag: e for tag, e in self.attributes.items() if tag in a.SERIES_ANSWER}
        found[a.STUDY_INSTANCE_UID] = a.element("UI", self.study_uid)
        found[a.SERIES_INSTANCE_UID] = a.element("UI", self.series_uid)
        found[a.MODALITY] = a.element("CS", *([self.modality] if self.modality else []))
        found.setdefault(a.SERIES_NUMBER, a.element("IS"))
        found[a.INSTANCE_AVAILABILITY] = a.element("CS", "ONLINE")
        found[a.SERIES_RELATED_INSTANCES] = a.element("IS", self.instance_count)
        return found


def new_series(stored: InstancesStored) -> SeriesRow:
    return SeriesRow(
        series_uid=stored.series_uid,
        study_uid=stored.study_uid,
        position=0,
        modality="",
        attributes={},
        instance_count=0,
    )


async def load_series(uids: Sequence[str], connection: asyncpg.Connection) -> dict[str, SeriesRow]:
    """The rows that exist of these series."""
    rows = await connection.fetch(
        "SELECT series_uid, study_uid, position, modality, attributes, instance_count FROM series WHERE series_uid = ANY($1)",
        uids,
    )
    return {
        row["series_uid"]: SeriesRow(
            series_uid=row["series_uid"],
            study_uid=row["study_uid"],
            position=row["position"],
            modality=row["modality"],
            attributes=msgspec.json.decode(row["attributes"]),
            instance_count=row["instance_count"],
        )
        for row in rows
    }


_SAVE = """
INSERT INTO series VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)
ON CONFLICT (series_uid) DO UPDATE SET
    position = excluded.position, series_number = excluded.series_number, modality = excluded.modality,
    series_date = excluded.series_date, series_time = excluded.series_time,
    series_description = excluded.series_description, body_part = excluded.body_part,
    procedure_step_date = excluded.procedure_step_date, procedure_step_time = excluded.procedure_step_time,
    scheduled_step_ids = excluded.scheduled_step_ids, requested_procedure_ids = excluded.requested_procedure_ids,
    instance_count = excluded.instance_count, attributes = excluded.attributes, answer_before = excluded.answer_before,
    answer_beyond = excluded.answer_beyond
"""


async def save_series(series: Iterable[SeriesRow], connection: asyncpg.Connection) -> None:
    await connection.executemany(_SAVE, [_values(one) for one in series])


def past_series(series: SeriesRow, position: int) -> tuple[Any, ...]:
    """The row of series_history: as the series stood before the event at this position changed it."""
    return *_values(series), position


def _values(series: SeriesRow) -> tuple[Any, ...]:
    known = series.attributes
    return (
        series.series_uid,
        series.study_uid,
        series.position,
        a.integer(known, a.SERIES_NUMBER),
        series.modality,
        folding.folded_date(a.text(known, "00080021")),
        folding.folded_time(a.text(known, "00080031")),
        folding.folded_text(a.text(known, a.SERIES_DESCRIPTION)),
        folding.folded_text(a.text(known, a.BODY_PART_EXAMINED)),
        folding.folded_date(a.text(known, a.PROCEDURE_STEP_DATE)),
        folding.folded_time(a.text(known, a.PROCEDURE_STEP_TIME)),
        a.in_items(known, a.REQUEST_ATTRIBUTES, a.SCHEDULED_PROCEDURE_STEP_ID),
        a.in_items(known, a.REQUEST_ATTRIBUTES, a.REQUESTED_PROCEDURE_ID),
        series.instance_count,
        _ENCODE(known),
        *splicing.halves(series.answer(), a.RETRIEVE_URL),
    )
