"""What a server answers with: things of each level, and how a cohort is spread. Values, which know nothing of how they came."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from anamnesis.client.shapes import Word

Value = str | float | bool
Elements = Mapping[str, Sequence[Value]]
"""DICOM elements that were asked for, by keyword, with their distinct values; those that no header has are not there."""


@dataclass(frozen=True, kw_only=True)
class SubjectRecord:
    """A person, by pseudonym. ``sex``: F, M, O or empty. ``id`` is the server's own, the same for as long as its log is."""

    id: str
    subject_id: str
    sex: str
    patient: str


@dataclass(frozen=True, kw_only=True)
class StudyRecord:
    """``study_date`` as YYYY-MM-DD; ``age_years`` is the subject's at the study."""

    id: str
    study_uid: str
    subject_id: str
    study_date: str | None
    age_years: float | None
    description: str | None
    elements: Elements = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class SeriesRecord:
    """Lengths in mm, ``kvp`` in kV, ``bytes`` of the files; ``series_digest`` is over its instances."""

    id: str
    series_uid: str
    study_uid: str
    subject_id: str
    modality: str | None
    body_part: str | None
    description: str | None
    protocol: str | None
    manufacturer: str | None
    model: str | None
    kernel: str | None
    slice_thickness_mm: float | None
    slice_spacing_mm: float | None
    kvp: float | None
    instance_count: int
    frame_count: int
    bytes: int
    series_digest: str
    elements: Elements = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class FindingRecord:
    """One structure in one series, as one segmenter saw it. ``verdict``: accepted, rejected, or unreviewed."""

    id: str
    finding_key: str
    series_uid: str
    study_uid: str
    subject_id: str
    label: str
    structure: str
    laterality: str
    morphology: str
    volume_ml: float
    mean_hu: float
    whole: bool
    verdict: str
    segmenter: str
    segmenter_version: str


@dataclass(frozen=True, kw_only=True)
class Counts:
    """How many of each: of levels above, those that the cohort belongs to. ``bytes`` of the files of its instances."""

    subjects: int
    studies: int
    series: int
    findings: int
    instances: int
    bytes: int


@dataclass(frozen=True, kw_only=True)
class FacetValue:
    """``subjects``: of how many persons, where that was asked for."""

    value: Value
    count: int
    subjects: int | None = None


@dataclass(frozen=True, kw_only=True)
class Facet:
    """The most frequent values; ``distinct``: how many there are in all; ``missing``: how many entities have none."""

    field: str
    values: Sequence[FacetValue]
    distinct: int
    missing: int

    def as_dict(self) -> dict[Value, int]:
        return {one.value: one.count for one in self.values}


@dataclass(frozen=True, kw_only=True)
class Bin:
    """Of [low, high); the last one of a histogram holds its high too."""

    low: Value
    high: Value
    count: int


@dataclass(frozen=True, kw_only=True)
class Histogram:
    """In the field's unit, dates as YYYY-MM-DD; ``missing``: how many entities have no value."""

    field: str
    bins: Sequence[Bin]
    low: Value | None
    high: Value | None
    missing: int


@dataclass(frozen=True, kw_only=True)
class Step:
    what: str
    rows: int
    milliseconds: float


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """What was used to answer (``columns`` in memory, or ``postgresql``), and each condition in order."""

    engine: str
    steps: Sequence[Step]


@dataclass(frozen=True, kw_only=True)
class FieldInfo:
    """A field that can be asked for. ``kind``: code, text, number, date, time, boolean or uid; ``unit``: a UCUM code, or empty.

    ``identifies``: it can tell who a person is, and the scope identities:read is needed.
    """

    name: str
    level: Word
    kind: Word
    unit: str
    description: str
    identifies: bool


Record = SubjectRecord | StudyRecord | SeriesRecord | FindingRecord
RECORDS: Mapping[str, type[Any]] = {"subject": SubjectRecord, "study": StudyRecord, "series": SeriesRecord, "finding": FindingRecord}
