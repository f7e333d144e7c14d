"""What the log says of a member, as rows of tables: elements of its headers by name, and its findings with their verdicts."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from domain.condition import Level
from domain.findings import Finding, finding_key
from domain.review import FindingReviewed
from domain.series import DicomJson, InstancesStored, SeriesIndexed, join_header
from eventlog.envelope import RecordedEvent
from projections.cohort.elements import Elements, read
from projections.cohort.errors import FieldUnknown
from projections.cohort.fields import OWN, Field, field_named
from projections.cohort.spacing import orientation_of, slice_mm, slice_spacing_mm
from server.datasets.errors import ExportRefused
from server.datasets.plan import Scalar

ALWAYS = ("subject_id", "study_uid", "series_uid", "path", "part")
"""What tells rows apart, and where the files are."""
USUAL = (
    "modality", "site", "sex", "age_years", "Manufacturer", "ManufacturerModelName", "BodyPartExamined", "SliceThickness", "slice_spacing_mm",
    "PixelSpacing", "Rows", "Columns", "KVP", "ConvolutionKernel", "MagneticFieldStrength", "EchoTime", "RepetitionTime", "FlipAngle",
    "instance_count", "frame_count", "bytes", "series_digest",
)  # fmt: skip
"""The columns of a table of series for which nobody asked for others."""
FINDING_COLUMNS = (*ALWAYS, *(name for name in OWN[Level.FINDING]))
_OURS = {"modality", "site", "scanner"}
"""Beside the fields that can be asked of cohorts. ``site`` is where the images came in."""
_NOT_KEPT = {"indexing"}

SIDECAR = (
    "Modality", "Manufacturer", "ManufacturerModelName", "SoftwareVersions", "MagneticFieldStrength", "EchoTime",
    "RepetitionTime", "InversionTime", "FlipAngle", "SliceThickness", "KVP", "ConvolutionKernel", "ContrastBolusAgent", "BodyPartExamined",
    "ImageType", "RescaleType", "Units",
)  # fmt: skip
_RENAMED = {"ManufacturerModelName": "ManufacturersModelName"}
_SECONDS = {"EchoTime", "RepetitionTime", "InversionTime"}
"""In seconds in BIDS, in milliseconds in DICOM."""


def columns_of(asked: Sequence[str]) -> tuple[list[str], set[str]]:
    """Columns of the table of series, and which of them identify persons. Raises ExportRefused."""
    columns, identify = list(ALWAYS), set()
    for name in asked or USUAL:
        if name in _OURS or name in ALWAYS:
            found: str = name
        else:
            field = _field(name)
            found = field.name
            if field.identifies:
                identify.add(found)
        if found not in columns:
            columns.append(found)
    return columns, identify


def keys_of(columns: Iterable[str]) -> dict[str, str]:
    """Names of elements → keys under which their values are kept."""
    found = {}
    for name in columns:
        if name not in _OURS and name not in ALWAYS:
            field = _field(name)
            if field.is_element:
                found[field.name] = field.key
    return found


class Headers:
    """What the headers of a series say, folded from its events."""

    def __init__(self, keys: Collection[str]) -> None:
        self._keys = frozenset(keys)
        self.elements = Elements()
        self._places: list[float | None] = []
        self._orientation: Sequence[float] | None = None
        self.first: DicomJson = {}
        self.numbers: dict[str, int] = {}
        """SOP Instance UID → Instance Number (0020,0013)."""
        self.frames = 0

    def add(self, event: InstancesStored) -> None:
        for at, instance in enumerate(event.instances):
            own = event.headers[at] if at < len(event.headers) else {}
            header = join_header(event.common, own)
            self.first = self.first or header
            for element, values in read(header):
                if element.key in self._keys:
                    self.elements.add(element, values)
            number = _integer(header, "00200013")
            if number is not None:
                self.numbers[instance.sop_instance_uid] = number
            if self._orientation is None:
                self._orientation = orientation_of(header)
            self._places.append(slice_mm(header, instance.number_of_frames, self._orientation))
            self.frames += instance.number_of_frames

    @property
    def slice_spacing_mm(self) -> float | None:
        return slice_spacing_mm(self._places)

    def values(self, key: str) -> list[Any]:
        return self.elements.kept().get(key, [])

    def text(self, tag: str) -> str:
        """Of the first instance."""
        found = self.first.get(tag, {}).get("Value") or [""]
        return str(found[0] or "")

    @property
    def series_number(self) -> int | None:
        return _integer(self.first, "00200011")


def cell(values: Sequence[Any]) -> Scalar:
    """One value as it is; several as text, with a backslash between them as in DICOM."""
    if len(values) == 1:
        return values[0]
    return "\\".join(str(one) for one in values) if values else None


def sidecar_of(headers: Headers) -> dict[str, Any]:
    """As BIDS names them (metadata of MR), with DICOM's keywords for the rest; no dates, and nothing that identifies a person."""
    found: dict[str, Any] = {}
    for keyword, key in keys_of(SIDECAR).items():
        values = headers.values(key)
        if keyword in _SECONDS:
            values = [float(one) / 1000 for one in values]
        if values:
            found[_RENAMED.get(keyword, keyword)] = values if len(values) > 1 or keyword == "ImageType" else values[0]
    return found


def findings_of(series_uid: str, events: Sequence[RecordedEvent]) -> list[tuple[dict[str, Scalar], list[int]]]:
    """The standing findings of a series, by their keys, each with the positions of the events that it comes from."""
    standing: dict[str, tuple[dict[str, Scalar], list[int]]] = {}
    for recorded in events:
        match recorded.event:
            case SeriesIndexed() as indexed:
                run = indexed.run
                standing = {key: one for key, one in standing.items() if one[0]["segmenter"] != run.segmenter}
                for finding in indexed.findings:
                    key = finding_key(series_uid, run.segmenter, finding.structure.label)
                    standing[key] = ({"finding_key": key, "segmenter": run.segmenter, "segmenter_version": run.segmenter_version, **_row(finding)}, [recorded.position])
            case FindingReviewed() as reviewed if reviewed.finding_key in standing:
                row, positions = standing[reviewed.finding_key]
                standing[reviewed.finding_key] = ({**row, "verdict": str(reviewed.verdict)}, [*positions, recorded.position])
    return [standing[key] for key in sorted(standing)]


def _row(finding: Finding) -> Mapping[str, Scalar]:
    structure = finding.structure
    return {
        "label": structure.label,
        "structure": structure.snomed.code,
        "laterality": str(structure.laterality) if structure.laterality else None,
        "morphology": structure.morphology.code if structure.morphology else None,
        "volume_ml": finding.volume_mm3 / 1000,
        "mean_hu": finding.mean_hu,
        "whole": not finding.touches_edge,
        "verdict": "unreviewed",
    }


def _field(name: str) -> Field:
    try:
        field = field_named(name, Level.SERIES)
    except FieldUnknown as error:
        raise ExportRefused(str(error)) from None
    if field.name in _NOT_KEPT:
        raise ExportRefused(f"{name} is how things stand, and no part of a dataset")
    return field


def _integer(header: DicomJson, tag: str) -> int | None:
    found = (header.get(tag, {}).get("Value") or [None])[0]
    try:
        return int(found)
    except (TypeError, ValueError):
        return None
