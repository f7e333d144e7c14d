"""An index as BodyStructures (one a finding, one for the series), Observations and the Device that made them."""

from __future__ import annotations

from domain.findings import Finding, finding_key
from domain.ids import derived_id
from domain.review import FindingReviewed, Verdict
from domain.series import SegmenterRun, SeriesIndexed
from eventlog.envelope import RecordedEvent, instant
from projections.fhir.vocabulary import (
    AI_ASSERTED,
    COMPONENT_SYSTEM,
    DCM,
    FINDING_SYSTEM,
    SCT,
    SEGMENTER_SYSTEM,
    SERIES_INDEX_SYSTEM,
    UCUM,
    Json,
    coding,
    concept,
    index_id,
    observation_id,
    reference,
    selection_id,
    side,
    study_id,
)

GROUP = {"system": DCM, "code": "125007", "display": "Measurement Group"}
VOLUME = {"system": SCT, "code": "118565006", "display": "Volume"}
MEAN_ATTENUATION = {"system": DCM, "code": "112181", "display": "Mean Attenuation Coefficient"}
TOUCHES_EDGE = {"system": COMPONENT_SYSTEM, "code": "touches-edge", "display": "Touches the edge of the field of view"}
VOXEL_COUNT = {"system": COMPONENT_SYSTEM, "code": "voxel-count", "display": "Number of voxels"}
NOTHING_STANDS: Json = {"structure": {"text": "no structure was found"}}
ALGORITHM = {"system": DCM, "code": "123110", "display": "Artificial Intelligence"}


def device(run: SegmenterRun) -> Json:
    """The algorithm as measured where it ran: another version or other weights are another Device."""
    properties = [("task", run.task), ("weights-sha256", run.weights_sha256)]
    if run.resolution_mm is not None:
        properties.append(("resolution-mm", f"{run.resolution_mm:g}"))
    made: Json = {
        "resourceType": "Device",
        "id": device_id(run),
        "identifier": [{"system": SEGMENTER_SYSTEM, "value": run.segmenter}],
        "displayName": f"{run.segmenter} {run.segmenter_version}",
        "type": [concept(ALGORITHM)],
        "version": [
            {"type": {"text": package}, "value": version}
            for package, version in sorted({run.segmenter: run.segmenter_version, **run.software}.items())
        ],
    }
    stated = [{"type": {"text": name}, "valueString": value} for name, value in properties if value is not None]
    if stated:
        made["property"] = stated
    return made


def device_id(run: SegmenterRun) -> str:
    software = ",".join(f"{name}={version}" for name, version in sorted(run.software.items()))
    resolution = "" if run.resolution_mm is None else f"{run.resolution_mm:g}"
    parts = (run.segmenter, run.segmenter_version, run.weights_sha256 or "", run.task or "", resolution, software)
    return str(derived_id("device", *parts))


def finding_structure(event: SeriesIndexed, finding: Finding) -> Json:
    morphology = finding.structure.morphology
    key = finding_key(event.series_uid, event.run.segmenter, finding.structure.label)
    return {
        "resourceType": "BodyStructure",
        "id": key,
        "meta": {"security": [AI_ASSERTED]},
        "identifier": [{"system": FINDING_SYSTEM, "value": key}],
        "active": True,
        **({} if morphology is None else {"morphology": concept(coding(morphology))}),
        "includedStructure": [_structure(finding)],
        "description": finding.structure.label,
        "patient": reference("Patient", event.subject_id),
    }


def series_index(event: SeriesIndexed, before: Json | None) -> Json:
    """Every finding that stands in this series, by whichever segmenter; each names its own BodyStructure in its element id."""
    ours = f"{event.run.segmenter}."
    others = [one for one in (before or {}).get("includedStructure", []) if "id" in one and not one["id"].startswith(ours)]
    mine = [{"id": f"{ours}{finding.structure.label}", **_structure(finding)} for finding in event.findings]
    standing = sorted(others + mine, key=lambda one: one["id"])
    index: Json = {
        "resourceType": "BodyStructure",
        "id": index_id(event.series_uid),
        "meta": {"security": [AI_ASSERTED]},
        "identifier": [{"system": SERIES_INDEX_SYSTEM, "value": event.series_uid}],
        "active": True,
        "description": "Findings of the series",
        "patient": reference("Patient", event.subject_id),
    }
    # includedStructure is 1..*: a series in which nothing was found says just that.
    index["includedStructure"] = standing or [NOTHING_STANDS]
    if not standing:
        index["active"] = False
    return index


def reviewed_structure(structure: Json, verdict: Verdict) -> Json:
    """A finding after its review: one that was rejected is not active."""
    return {**structure, "active": verdict is Verdict.ACCEPTED}


def reviewed_observation(observation: Json, verdict: Verdict) -> Json:
    """What was measured of a finding after its review: final, or entered in error; corrected when it stands again."""
    if verdict is Verdict.REJECTED:
        status = "entered-in-error"
    else:
        status = "final" if observation["status"] in ("preliminary", "final") else "corrected"
    return {**observation, "status": status}


def index_after_review(index: Json, structure: Json, event: FindingReviewed) -> Json:
    """The series' index without a finding that fell, or with one that stands (again)."""
    element_id = f"{event.segmenter}.{event.label}"
    standing = [one for one in index["includedStructure"] if one.get("id") not in (None, element_id)]
    if event.verdict is Verdict.ACCEPTED:
        standing.append({"id": element_id, **structure["includedStructure"][0]})
    standing.sort(key=lambda one: one["id"])
    return {**index, "active": bool(standing), "includedStructure": standing or [NOTHING_STANDS]}


def labels_in_index(index: Json | None, segmenter: str) -> list[str]:
    """Which findings of this segmenter an index holds."""
    ids = [one.get("id", "") for one in (index or {}).get("includedStructure", [])]
    return [one.removeprefix(f"{segmenter}.") for one in ids if one.startswith(f"{segmenter}.")]


def finding_observation(event: SeriesIndexed, finding: Finding, recorded: RecordedEvent, made_by: str) -> Json:
    """``made_by``: the Device's id."""
    key = finding_key(event.series_uid, event.run.segmenter, finding.structure.label)
    return {
        "resourceType": "Observation",
        "id": observation_id(key),
        "meta": {"security": [AI_ASSERTED]},
        "identifier": [{"system": FINDING_SYSTEM, "value": key}],
        "partOf": [reference("ImagingStudy", study_id(event.study_uid))],
        "status": "preliminary",
        "code": concept(GROUP),
        "subject": reference("Patient", event.subject_id),
        "focus": [reference("ImagingSelection", selection_id(event.series_uid))],
        "effectiveDateTime": instant(recorded.occurred_at),
        "device": reference("Device", made_by),
        "bodyStructure": reference("BodyStructure", key),
        "component": [
            {"code": concept(VOLUME), "valueQuantity": _quantity(finding.volume_mm3, "mm3")},
            {"code": concept(MEAN_ATTENUATION), "valueQuantity": _quantity(finding.mean_hu, "[hnsf'U]", "HU")},
            {"code": concept(TOUCHES_EDGE), "valueBoolean": finding.touches_edge},
            {"code": concept(VOXEL_COUNT), "valueQuantity": _quantity(finding.voxel_count, "1")},
        ],
    }


def _structure(finding: Finding) -> Json:
    codings = [coding(finding.structure.snomed)]
    if finding.structure.radlex is not None:
        codings.append(coding(finding.structure.radlex))
    made: Json = {"structure": concept(*codings, text=finding.structure.label)}
    if finding.structure.laterality is not None:
        made["laterality"] = side(finding.structure.laterality)
    return made


def _quantity(value: float, code: str, unit: str | None = None) -> Json:
    return {"value": value, "unit": unit or code, "system": UCUM, "code": code}
