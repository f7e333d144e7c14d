"""The attributes that a search can match (PS3.18, tables 10.6.1-5), each with its tag, keyword, level and column."""

from __future__ import annotations

from enum import IntEnum

import msgspec

from projections.dicom import attributes as a


class Level(IntEnum):
    """A level of the study hierarchy; a search on one level also takes the keys of those above."""

    STUDY = 1
    SERIES = 2
    INSTANCE = 3

    @property
    def plural(self) -> str:
        return ("studies", "series", "instances")[self - 1]


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """``kind`` says how the value is matched (see matching); ``columns`` what it is compared with.

    ``has_grams``: fragments of the text are indexed in study.grams (see projections.dicom.study).
    """

    tag: str
    keyword: str
    level: Level
    kind: str
    columns: tuple[str, ...]
    has_grams: bool = False


_WITH_GRAMS = frozenset({"PatientName", "ReferringPhysicianName", "PatientID", "AccessionNumber", "StudyID", "StudyDescription"})


def _key(tag: str, keyword: str, level: Level, kind: str, *columns: str) -> Key:
    return Key(tag=tag, keyword=keyword, level=level, kind=kind, columns=columns, has_grams=keyword in _WITH_GRAMS)


_ITEM = f"{a.REQUEST_ATTRIBUTES}."
KEYS = (
    _key(a.STUDY_DATE, "StudyDate", Level.STUDY, "date", "s.study_date"),
    _key(a.STUDY_TIME, "StudyTime", Level.STUDY, "time", "s.study_time"),
    _key(a.ACCESSION_NUMBER, "AccessionNumber", Level.STUDY, "text", "s.accession_number"),
    _key(a.MODALITIES_IN_STUDY, "ModalitiesInStudy", Level.STUDY, "codes", "s.modalities"),
    _key(a.SOP_CLASSES_IN_STUDY, "SOPClassesInStudy", Level.STUDY, "uids", "s.sop_classes"),
    _key(
        a.REFERRING_PHYSICIAN_NAME,
        "ReferringPhysicianName",
        Level.STUDY,
        "name",
        "s.referring_physician",
        "s.referring_physician_ideographic",
        "s.referring_physician_phonetic",
    ),
    _key(
        a.PATIENT_NAME,
        "PatientName",
        Level.STUDY,
        "name",
        "s.patient_name",
        "s.patient_name_ideographic",
        "s.patient_name_phonetic",
    ),
    _key(a.PATIENT_ID, "PatientID", Level.STUDY, "text", "s.patient_id"),
    _key(a.ISSUER_OF_PATIENT_ID, "IssuerOfPatientID", Level.STUDY, "text", "s.issuer_of_patient_id"),
    _key(a.PATIENT_BIRTH_DATE, "PatientBirthDate", Level.STUDY, "date", "s.patient_birth_date"),
    _key(a.PATIENT_SEX, "PatientSex", Level.STUDY, "code", "s.patient_sex"),
    _key(a.STUDY_INSTANCE_UID, "StudyInstanceUID", Level.STUDY, "uid", "s.study_uid"),
    _key(a.STUDY_ID, "StudyID", Level.STUDY, "text", "s.study_id"),
    _key(a.STUDY_DESCRIPTION, "StudyDescription", Level.STUDY, "text", "s.study_description"),
    _key(a.MODALITY, "Modality", Level.SERIES, "code", "e.modality"),
    _key(a.SERIES_INSTANCE_UID, "SeriesInstanceUID", Level.SERIES, "uid", "e.series_uid"),
    _key(a.SERIES_NUMBER, "SeriesNumber", Level.SERIES, "integer", "e.series_number"),
    _key("00080021", "SeriesDate", Level.SERIES, "date", "e.series_date"),
    _key("00080031", "SeriesTime", Level.SERIES, "time", "e.series_time"),
    _key(a.SERIES_DESCRIPTION, "SeriesDescription", Level.SERIES, "text", "e.series_description"),
    _key(a.BODY_PART_EXAMINED, "BodyPartExamined", Level.SERIES, "code", "e.body_part"),
    _key(a.PROCEDURE_STEP_DATE, "PerformedProcedureStepStartDate", Level.SERIES, "date", "e.procedure_step_date"),
    _key(a.PROCEDURE_STEP_TIME, "PerformedProcedureStepStartTime", Level.SERIES, "time", "e.procedure_step_time"),
    _key(
        _ITEM + a.SCHEDULED_PROCEDURE_STEP_ID,
        "RequestAttributesSequence.ScheduledProcedureStepID",
        Level.SERIES,
        "texts",
        "e.scheduled_step_ids",
    ),
    _key(
        _ITEM + a.REQUESTED_PROCEDURE_ID,
        "RequestAttributesSequence.RequestedProcedureID",
        Level.SERIES,
        "texts",
        "e.requested_procedure_ids",
    ),
    _key(a.SOP_CLASS_UID, "SOPClassUID", Level.INSTANCE, "uid", "i.sop_class_uid"),
    _key(a.SOP_INSTANCE_UID, "SOPInstanceUID", Level.INSTANCE, "uid", "i.sop_instance_uid"),
    _key(a.INSTANCE_NUMBER, "InstanceNumber", Level.INSTANCE, "integer", "i.instance_number"),
)

_BY_NAME = {name: key for key in KEYS for name in (key.tag, key.keyword)}


def find_key(name: str) -> Key | None:
    """The key of this keyword or tag (of either case); None when there is none."""
    return _BY_NAME.get(name) or _BY_NAME.get(name.upper())
