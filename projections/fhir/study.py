"""A study as ImagingStudy, and each of its series as an ImagingSelection (the handle that FHIR has no other way to give)."""

from __future__ import annotations

from typing import Any

from domain.series import InstancesStored, StoredInstance, join_header
from domain.study import StudyRegistered
from eventlog.envelope import RecordedEvent, instant
from projections.fhir.vocabulary import (
    DCM,
    DICOM_UID,
    Json,
    concept,
    fhir_date,
    fhir_uid,
    first_value,
    index_id,
    reference,
    selection_id,
    study_id,
)

SERIES_CODE = {"system": DCM, "code": "121232", "display": "Source series for segmentation"}
SOP_CLASS_SYSTEM = "urn:ietf:rfc:3986"


def registered_study(event: StudyRegistered) -> Json:
    return {
        "resourceType": "ImagingStudy",
        "id": study_id(event.study_uid),
        "identifier": [{"system": DICOM_UID, "value": f"urn:oid:{event.study_uid}"}],
        "status": "registered",
        "subject": reference("Patient", event.subject_id),
        "numberOfSeries": 0,
        "numberOfInstances": 0,
    }


def study_with_instances(before: Json | None, event: InstancesStored) -> Json:
    """The study once these instances are in it."""
    study = dict(before or registered_study(StudyRegistered(study_uid=event.study_uid, subject_id=event.subject_id)))
    header = join_header(event.common, event.headers[0] if event.headers else {})
    study["status"] = "available"
    started = fhir_date(str(first_value(header, "00080020") or ""))
    if started is not None and "started" not in study:
        study["started"] = started
    all_series = [dict(one) for one in study.get("series", [])]
    uid = fhir_uid(event.series_uid)
    series = next((one for one in all_series if one["uid"] == uid), None)
    if series is None:
        series = _new_series(uid, event, header)
        all_series.append(series)
    known = list(series.get("instance", []))
    known += [_instance(stored, {**event.common, **own}) for stored, own in zip(event.instances, event.headers or [{}] * len(event.instances), strict=True)]
    series["instance"] = known
    series["numberOfInstances"] = len(known)
    study["series"] = sorted(all_series, key=lambda one: (one.get("number", 0), one["uid"]))
    modalities = sorted({one["modality"]["coding"][0]["code"] for one in study["series"]})
    study["modality"] = [concept({"system": DCM, "code": code}) for code in modalities]
    study["numberOfSeries"] = len(study["series"])
    study["numberOfInstances"] = sum(one["numberOfInstances"] for one in study["series"])
    return study


def study_with_index(before: Json, series_uid: str) -> Json:
    """The study whose series points at its index of findings."""
    study = dict(before)
    study["series"] = [
        {**one, "bodySite": {"reference": reference("BodyStructure", index_id(series_uid))}} if one["uid"] == fhir_uid(series_uid) else one
        for one in before.get("series", [])
    ]
    return study


def series_selection(event: InstancesStored, recorded: RecordedEvent, before: Json | None) -> Json:
    """The handle of a series; it does not change as instances come."""
    if before is not None:
        return dict(before)
    header = join_header(event.common, event.headers[0] if event.headers else {})
    selection: Json = {
        "resourceType": "ImagingSelection",
        "id": selection_id(event.series_uid),
        "identifier": [{"system": DICOM_UID, "value": f"urn:oid:{event.series_uid}"}],
        "status": "available",
        "subject": reference("Patient", event.subject_id),
        "issued": instant(recorded.recorded_at),
        "code": concept(SERIES_CODE),
        "derivedFrom": [reference("ImagingStudy", study_id(event.study_uid))],
        "studyUid": fhir_uid(event.study_uid),
        "seriesUid": fhir_uid(event.series_uid),
    }
    number = _whole(first_value(header, "00200011"))
    if number is not None:
        selection["seriesNumber"] = number
    return selection


def _new_series(uid: str, event: InstancesStored, header: Json) -> Json:
    series: Json = {"uid": uid, "modality": concept({"system": DCM, "code": " ".join(event.modality.replace("\0", " ").split()) or "OT"})}
    number = _whole(first_value(header, "00200011"))
    if number is not None:
        series["number"] = number
    description = str(first_value(header, "0008103E") or "").strip()
    if description:
        series["description"] = description
    started = fhir_date(str(first_value(header, "00080021") or ""))
    if started is not None:
        series["started"] = started
    return series


def _instance(stored: StoredInstance, own: Json) -> Json:
    instance: Json = {
        "uid": fhir_uid(stored.sop_instance_uid),
        "sopClass": {"system": SOP_CLASS_SYSTEM, "code": f"urn:oid:{stored.sop_class_uid}"},
    }
    number = _whole(first_value(own, "00200013"))
    if number is not None:
        instance["number"] = number
    return instance


def _whole(value: Any) -> int | None:
    """A value of VR IS as FHIR's unsignedInt; None where it is none."""
    try:
        number = int(value)
    except (TypeError, ValueError):
        return None
    return number if 0 <= number < 2**31 else None
