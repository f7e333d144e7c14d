"""The row of a study: what its instances say of it, its modalities and counts, and the answer made ready."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import asyncpg
import msgspec

from domain.series import DicomJson, InstancesStored
from projections.dicom import attributes as a
from projections.dicom import folding, splicing

_ENCODE = msgspec.json.Encoder(order="sorted").encode


class StudyRow(msgspec.Struct, kw_only=True):
    """A study as folded so far. ``position`` is that of the last event that changed it."""

    study_uid: str
    subject_id: str
    position: int
    attributes: DicomJson
    modalities: set[str]
    sop_classes: set[str]
    series_count: int
    instance_count: int

    def add(self, stored: InstancesStored, header: DicomJson, position: int, *, first_of_series: bool) -> None:
        """Folds an event in. ``header`` is the whole header of its first instance."""
        a.fill(self.attributes, a.of_study(header))
        self.position = position
        self.series_count += first_of_series
        self.instance_count += len(stored.instances)
        self.sop_classes.update(one.sop_class_uid for one in stored.instances)
        if modality := folding.folded_text(stored.modality):
            self.modalities.add(modality)

    def answer(self) -> DicomJson:
        """What a search for studies returns unasked (PS3.18, table 10.6.3-3), less the Retrieve URL."""
        found = {tag: e for tag, e in self.attributes.items() if tag in a.STUDY_ANSWER}
        for tag, vr in a.REQUIRED_IN_STUDY.items():
            found.setdefault(tag, a.element(vr))
        found[a.STUDY_INSTANCE_UID] = a.element("UI", self.study_uid)
        found[a.INSTANCE_AVAILABILITY] = a.element("CS", "ONLINE")
        found[a.MODALITIES_IN_STUDY] = a.element("CS", *sorted(self.modalities))
        found[a.SOP_CLASSES_IN_STUDY] = a.element("UI", *sorted(self.sop_classes))
        found[a.STUDY_RELATED_SERIES] = a.element("IS", self.series_count)
        found[a.STUDY_RELATED_INSTANCES] = a.element("IS", self.instance_count)
        return found


def new_study(stored: InstancesStored) -> StudyRow:
    return StudyRow(
        study_uid=stored.study_uid,
        subject_id=stored.subject_id,
        position=0,
        attributes={},
        modalities=set(),
        sop_classes=set(),
        series_count=0,
        instance_count=0,
    )


async def load_studies(uids: Sequence[str], connection: asyncpg.Connection) -> dict[str, StudyRow]:
    """The rows that exist of these studies."""
    rows = await connection.fetch(
        "SELECT study_uid, subject_id, position, attributes, modalities, sop_classes, series_count, instance_count"
        " FROM study WHERE study_uid = ANY($1)",
        uids,
    )
    return {
        row["study_uid"]: StudyRow(
            study_uid=row["study_uid"],
            subject_id=row["subject_id"],
            position=row["position"],
            attributes=msgspec.json.decode(row["attributes"]),
            modalities=set(row["modalities"]),
            sop_classes=set(row["sop_classes"]),
            series_count=row["series_count"],
            instance_count=row["instance_count"],
        )
        for row in rows
    }


_SAVE = """
INSERT INTO study VALUES (
    $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21, $22, $23, $24, $25, $26)
ON CONFLICT (study_uid) DO UPDATE SET
    position = excluded.position, study_date = excluded.study_date, study_time = excluded.study_time,
    patient_name = excluded.patient_name, patient_name_ideographic = excluded.patient_name_ideographic,
    patient_name_phonetic = excluded.patient_name_phonetic, patient_id = excluded.patient_id,
    issuer_of_patient_id = excluded.issuer_of_patient_id, patient_birth_date = excluded.patient_birth_date,
    patient_sex = excluded.patient_sex, accession_number = excluded.accession_number, study_id = excluded.study_id,
    study_description = excluded.study_description, referring_physician = excluded.referring_physician,
    referring_physician_ideographic = excluded.referring_physician_ideographic,
    referring_physician_phonetic = excluded.referring_physician_phonetic, modalities = excluded.modalities,
    sop_classes = excluded.sop_classes, grams = excluded.grams, series_count = excluded.series_count,
    instance_count = excluded.instance_count, attributes = excluded.attributes, answer_before = excluded.answer_before,
    answer_beyond = excluded.answer_beyond
"""


async def save_studies(studies: Iterable[StudyRow], connection: asyncpg.Connection) -> None:
    await connection.executemany(_SAVE, [_values(study) for study in studies])


def past_study(study: StudyRow, position: int) -> tuple[Any, ...]:
    """The row of study_history: as the study stood before the event at this position changed it."""
    return *_values(study), position


def _values(study: StudyRow) -> tuple[Any, ...]:
    known = study.attributes
    name = folding.name_groups(known.get(a.PATIENT_NAME))
    referring = folding.name_groups(known.get(a.REFERRING_PHYSICIAN_NAME))
    patient_id = folding.folded_text(a.text(known, a.PATIENT_ID))
    accession_number = folding.folded_text(a.text(known, a.ACCESSION_NUMBER))
    study_id = folding.folded_text(a.text(known, a.STUDY_ID))
    description = folding.folded_text(a.text(known, a.STUDY_DESCRIPTION))
    grams = {
        *folding.grams("PatientName", name),
        *folding.grams("ReferringPhysicianName", referring),
        *folding.grams("PatientID", [patient_id]),
        *folding.grams("AccessionNumber", [accession_number]),
        *folding.grams("StudyID", [study_id]),
        *folding.grams("StudyDescription", [description]),
    }
    return (
        study.study_uid,
        study.subject_id,
        study.position,
        folding.folded_date(a.text(known, a.STUDY_DATE)),
        folding.folded_time(a.text(known, a.STUDY_TIME)),
        *name,
        patient_id,
        folding.folded_text(a.text(known, a.ISSUER_OF_PATIENT_ID)),
        folding.folded_date(a.text(known, a.PATIENT_BIRTH_DATE)),
        folding.folded_text(a.text(known, a.PATIENT_SEX)),
        accession_number,
        study_id,
        description,
        *referring,
        sorted(study.modalities),
        sorted(study.sop_classes),
        sorted(grams),
        study.series_count,
        study.instance_count,
        _ENCODE(known),
        *splicing.halves(study.answer(), a.RETRIEVE_URL),
    )
