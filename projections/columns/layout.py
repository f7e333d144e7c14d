"""Which columns each level has: all own fields that are no identifiers, and the elements that people count by."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from domain.condition import Level

TEXT, NUMBER, INTEGER, DATE, FLAG = "text", "number", "integer", "date", "flag"


class Laid(msgspec.Struct, frozen=True, kw_only=True):
    """A level's own columns (name → how it is kept), and to which entities its rows belong (level → column with their ids)."""

    columns: dict[str, str]
    belongs: dict[Level, str] = {}
    has_elements: bool = False
    grouped: Sequence[str] = ()
    """Columns whose rows are found by value without looking at the others."""


LAID: dict[Level, Laid] = {
    Level.SUBJECT: Laid(columns={"sex": TEXT}),
    Level.STUDY: Laid(columns={"study_date": DATE, "age_years": NUMBER}, belongs={Level.SUBJECT: "subject"}, has_elements=True),
    Level.SERIES: Laid(
        columns={"instance_count": INTEGER, "frame_count": INTEGER, "bytes": INTEGER, "slice_spacing_mm": NUMBER, "indexing": TEXT},
        belongs={Level.STUDY: "study", Level.SUBJECT: "subject"},
        has_elements=True,
    ),
    Level.FINDING: Laid(
        columns={
            "segmenter": TEXT, "segmenter_version": TEXT, "label": TEXT, "structure": TEXT, "laterality": TEXT, "morphology": TEXT,
            "volume_ml": NUMBER, "mean_hu": NUMBER, "whole": FLAG, "verdict": TEXT,
        },
        belongs={Level.SERIES: "series", Level.STUDY: "study", Level.SUBJECT: "subject"},
        grouped=("label", "structure"),
    ),
    Level.FACT: Laid(
        columns={"resource_type": TEXT, "system": TEXT, "code": TEXT, "status": TEXT, "value": NUMBER, "unit": TEXT, "value_code": TEXT, "date": DATE},
        belongs={Level.SUBJECT: "subject"},
        grouped=("code",),
    ),
    Level.TAG: Laid(
        columns={"level": TEXT, "project": TEXT, "name": TEXT, "value": TEXT},
        belongs={Level.SUBJECT: "target", Level.STUDY: "target", Level.SERIES: "target", Level.FINDING: "target"},
        grouped=("name",),
    ),
}  # fmt: skip
"""In the order in which rows are read: what others belong to comes first."""

DEFAULT_ELEMENTS: dict[Level, tuple[str, ...]] = {
    Level.STUDY: (
        "StudyDate", "StudyDescription", "ModalitiesInStudy", "ReferringPhysicianName", "PatientSex", "PatientAge", "EthnicGroup",
        "PatientSpeciesDescription", "ClinicalTrialProtocolID", "ClinicalTrialSponsorName", "PatientIdentityRemoved",
    ),
    Level.SERIES: (
        "Modality", "Manufacturer", "ManufacturerModelName", "BodyPartExamined", "SliceThickness", "KVP", "ConvolutionKernel",
        "ContrastBolusAgent", "SeriesDescription", "ProtocolName", "InstitutionName", "SOPClassUID", "ImageType", "Laterality",
        "PatientPosition", "ScanOptions", "ExposureTime", "XRayTubeCurrent", "SpacingBetweenSlices", "PixelSpacing", "Rows", "Columns",
        "MagneticFieldStrength", "RepetitionTime", "EchoTime", "FlipAngle", "ScanningSequence", "SequenceVariant", "SequenceName",
        "MRAcquisitionType", "Radiopharmaceutical", "StationName", "SoftwareVersions", "DeviceSerialNumber", "PhotometricInterpretation",
        "BurnedInAnnotation", "LossyImageCompression", "SeriesNumber", "AcquisitionDate", "SeriesDate", "ViewPosition", "SpiralPitchFactor",
    ),
}  # fmt: skip
"""Columns from the start, by keyword (PS3.6); every other element becomes one when somebody asks for it (domain.facet)."""
