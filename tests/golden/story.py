"""What the golden logs tell: every event type at least once, in an order that could have happened. No real person is in here.

Fields are plain values, so that the code of any release makes its own event of them, leaving out fields that it does not have; types
that it does not know are left out too. Add to it freely; what is in the golden file of a release stays there.
"""

from __future__ import annotations

from typing import Any

from domain.findings import finding_key
from domain.ids import derived_id

KEPT, ERASED = "5f0c2a52-6f6e-5d0e-9a41-000000000001", "5f0c2a52-6f6e-5d0e-9a41-000000000002"
"""Two subjects; the second is erased at the end, and its key is in no golden file."""
NUMBER = "5f0c2a52-6f6e-5d0e-9a41-000000000003"
"""What images under another number of the first one would be."""
STUDY, OTHER_STUDY = "1.2.826.0.1.3680043.8.498.1", "1.2.826.0.1.3680043.8.498.2"
SERIES, OTHER_SERIES = f"{STUDY}.1", f"{OTHER_STUDY}.1"
OF_SERIES = {"study_uid": STUDY, "series_uid": SERIES, "subject_id": KEPT}
OF_OTHER = {"study_uid": OTHER_STUDY, "series_uid": OTHER_SERIES, "subject_id": ERASED}
DIGEST = "ab" * 32
LUNG = finding_key(SERIES, "totalsegmentator", "lung_upper_lobe_left")

DOOR = {"id": "ae:CT1", "kind": "device"}
SEGMENTER = {"id": "device:totalsegmentator", "kind": "device", "on_behalf_of": "token:admin"}
PERSON = {"id": "token:reader", "kind": "person"}
OTHER_PERSON = {"id": "token:admin", "kind": "person"}


def event_id(number: int) -> str:
    """Of the event at this place of the story, from 1."""
    return f"01890000-0000-7000-8000-{number:012d}"


def _instance(series_uid: str, number: int) -> dict[str, Any]:
    return {
        "sop_instance_uid": f"{series_uid}.{number}",
        "sop_class_uid": "1.2.840.10008.5.1.4.1.1.2",
        "transfer_syntax_uid": "1.2.840.10008.1.2.1",
        "sha256": f"{number:064x}",
        "size": 526_000 + number,
        "number_of_frames": 1 + number % 2,
        "has_pixel_data": number % 2 == 0,
    }


def _stored(of_series: dict[str, str], name: str, numbers: range) -> dict[str, Any]:
    common = {
        "00080020": {"vr": "DA", "Value": ["20240131"]},
        "00080060": {"vr": "CS", "Value": ["CT"]},
        "0008103E": {"vr": "LO", "Value": ["Thorax 2.0"]},
        "00100010": {"vr": "PN", "Value": [{"Alphabetic": name}]},
        "00200011": {"vr": "IS", "Value": [3]},
    }
    own = [{"00200013": {"vr": "IS", "Value": [n]}, "00200032": {"vr": "DS", "Value": [-190.5, -190.5, 2.0 * n]}} for n in numbers]
    instances = [_instance(of_series["series_uid"], n) for n in numbers]
    return {**of_series, "modality": "CT", "door": "dimse", "instances": instances, "common": common, "headers": own}


def _finding(label: str, code: str, display: str, **more: Any) -> dict[str, Any]:
    snomed = {"system": "http://snomed.info/sct", "code": code, "display": display}
    return {
        "structure": {"label": label, "snomed": snomed, **more},
        "volume_mm3": 1_203_500.25,
        "voxel_count": 802_333,
        "mean_hu": -812.5,
        "touches_edge": label == "liver",
        "centroid_mm": [60.5, -12.25, 1204.0],
        "bounding_box_mm": [[10.0, -90.5, 1100.0], [130.0, 80.5, 1330.0]],
    }


_FINDINGS = [
    _finding(
        "lung_upper_lobe_left",
        "45653009",
        "Structure of upper lobe of lung",
        radlex={"system": "http://www.radlex.org", "code": "RID1327", "display": "left upper lobe"},
        laterality="left",
    ),
    _finding("liver", "10200004", "Liver structure"),
    _finding(
        "kidney_cyst_right",
        "64033007",
        "Kidney structure",
        laterality="right",
        morphology={"system": "http://snomed.info/sct", "code": "367643001", "display": "Cyst"},
    ),
]
_RUN = {
    "segmenter": "totalsegmentator",
    "segmenter_version": "2.11.0",
    "software": {"nnunetv2": "2.6.2", "torch": "2.8.0"},
    "weights_sha256": "9f" * 32,
    "task": "total",
    "resolution_mm": 1.5,
    "duration_s": 31.5,
}
_JANE = {"patient_id": "MRN-1", "issuer_of_patient_id": "HOSPITAL", "patient_name": "GOLDEN^JANE", "birth_date": "19700102"}
_MARRIED = {**_JANE, "patient_name": "GOLDEN-EXAMPLE^JANE"}
_JOHN = {"patient_id": "MRN-2", "patient_name": "GOLDEN^JOHN"}
_REQUEST = {"series_digest": DIGEST, "segmenter": "totalsegmentator", "reason": "quiet"}
_RECORD = {"resource_type": "Condition", "resource_id": "c1", "subject_id": KEPT}
_MOMENT = "2026-01-01T00:00:00.25Z"

S = tuple[str, str, dict[str, Any], dict[str, Any]]
_LIFE: list[S] = [
    (f"subject-{KEPT}", "SubjectRegistered", DOOR, {"subject_id": KEPT, "sex": "F", "demographics": _JANE}),
    (f"study-{STUDY}", "StudyRegistered", DOOR, {"study_uid": STUDY, "subject_id": KEPT}),
    (f"series-{SERIES}", "InstancesStored", DOOR, _stored(OF_SERIES, "GOLDEN^JANE", range(1, 4))),
    (f"subject-{KEPT}", "SubjectDemographicsChanged", DOOR, {"subject_id": KEPT, "sex": "F", "demographics": _MARRIED}),
    (f"series-{SERIES}", "InstancesStored", DOOR, _stored(OF_SERIES, "GOLDEN-EXAMPLE^JANE", range(4, 6))),
    (
        f"series-{SERIES}",
        "InstanceConflicted",
        DOOR,
        {
            **OF_SERIES,
            "sop_instance_uid": f"{SERIES}.1",
            "kept_sha256": f"{1:064x}",
            "conflicting_sha256": "cd" * 32,
            "conflicting_size": 5,
            "door": "stow",
        },
    ),
    (f"series-{SERIES}", "IndexingRequested", OTHER_PERSON, {**OF_SERIES, **_REQUEST}),
    (f"series-{SERIES}", "SeriesIndexed", SEGMENTER, {**OF_SERIES, "series_digest": DIGEST, "run": _RUN, "findings": _FINDINGS}),
    (
        "intake",
        "FileRefused",
        DOOR,
        {
            "reject_id": "r1",
            "sha256": "ef" * 32,
            "size": 9,
            "reason": "not-dicom",
            "detail": "no preamble",
            "door": "stow",
            "sop_instance_uid": "1.2.3",
        },
    ),
    (f"subject-{ERASED}", "SubjectRegistered", DOOR, {"subject_id": ERASED, "sex": "M", "demographics": _JOHN}),
    (f"study-{OTHER_STUDY}", "StudyRegistered", DOOR, {"study_uid": OTHER_STUDY, "subject_id": ERASED}),
    (
        f"study-{OTHER_STUDY}",
        "StudySubjectDisputed",
        DOOR,
        {"study_uid": OTHER_STUDY, "registered_subject_id": ERASED, "disputed_subject_id": KEPT},
    ),
    (f"series-{OTHER_SERIES}", "InstancesStored", DOOR, _stored(OF_OTHER, "GOLDEN^JOHN", range(1, 3))),
    (f"series-{OTHER_SERIES}", "IndexingRequested", SEGMENTER, {**OF_OTHER, **_REQUEST}),
    (
        f"series-{OTHER_SERIES}",
        "IndexingFailed",
        SEGMENTER,
        {**OF_OTHER, "series_digest": DIGEST, "segmenter": "totalsegmentator", "error": "OutOfMemoryError", "attempts": 3},
    ),
    (
        f"series-{SERIES}",
        "IndexingRefused",
        SEGMENTER,
        {**OF_SERIES, "series_digest": DIGEST, "segmenter": "baseline", "reason": "missing-slices", "detail": "no slice at 1204 mm"},
    ),
    (
        "record-Condition-c1",
        "ClinicalRecordWritten",
        PERSON,
        {**_RECORD, "record_version": 1, "resource": {"resourceType": "Condition", "id": "c1", "note": [{"text": "golden"}]}},
    ),
    ("record-Condition-c1", "ClinicalRecordDeleted", PERSON, {**_RECORD, "record_version": 2}),
]
"""As release 0.1.0 could tell it. Those that follow came later."""
_REVIEWED = len(_LIFE) + 1
_SINCE: list[S] = [
    (
        f"series-{SERIES}",
        "FindingReviewed",
        PERSON,
        {
            **OF_SERIES,
            "finding_key": LUNG,
            "segmenter": "totalsegmentator",
            "label": "lung_upper_lobe_left",
            "series_digest": DIGEST,
            "verdict": "rejected",
            "comment": "this is the golden right one",
        },
    ),
    (
        "signer-token:reader",
        "SignerEnrolled",
        PERSON,
        {
            "principal_id": "token:reader",
            "key_id": "k1",
            "public_key": "AAAA",
            "subject_id": "signer-1",
            "printed_name": "Golden Reader",
        },
    ),
    (
        f"signatures-series-{SERIES}",
        "EventSigned",
        PERSON,
        {
            "signed_event_id": event_id(_REVIEWED),
            "signed_type": "FindingReviewed",
            "signed_digest": "12" * 32,
            "meaning": "review",
            "principal_id": "token:reader",
            "key_id": "k1",
            "signed_at": _MOMENT,
            "signature": "eyJhbGciOiJFZERTQSJ9..AAAA",
            "about": [f"study:{STUDY}", f"series:{SERIES}", f"subject:{KEPT}"],
        },
    ),
    ("signer-token:reader", "SignerRevoked", OTHER_PERSON, {"principal_id": "token:reader", "key_id": "k1"}),
    (
        "access-local",
        "AccessesRecorded",
        {"id": "device:server", "kind": "device"},
        {
            "accesses": [
                {
                    "first_at": _MOMENT,
                    "last_at": "2026-01-01T00:00:09Z",
                    "count": 3,
                    "principal": SEGMENTER,
                    "action": "search",
                    "outcome": "success",
                    "route": "/fhir/{resource_type}",
                    "resource_type": "BodyStructure",
                    "things": [f"Patient/{KEPT}", f"series:{SERIES}"],
                    "parameters": ["patient"],
                    "subjects": [KEPT],
                },
                {
                    "first_at": _MOMENT,
                    "last_at": _MOMENT,
                    "count": 1,
                    "principal": PERSON,
                    "action": "login",
                    "outcome": "refused",
                },
            ],
            "lost": 2,
        },
    ),
    (f"subject-{KEPT}", "LegalHoldPlaced", PERSON, {"subject_id": KEPT, "hold_id": "h1", "reason": "golden court"}),
    (f"subject-{KEPT}", "LegalHoldLifted", PERSON, {"subject_id": KEPT, "hold_id": "h1"}),
    (f"subject-{KEPT}", "ErasureRequested", PERSON, {"subject_id": KEPT, "legal_basis": "gdpr-17-1-a", "requested_by": "token:reader"}),
    (f"subject-{KEPT}", "ErasureWithdrawn", PERSON, {"subject_id": KEPT}),
    (
        f"subject-{ERASED}",
        "ErasureRequested",
        SEGMENTER,
        {"subject_id": ERASED, "legal_basis": "other-law", "requested_by": "token:reader", "on_behalf_of": "person:1"},
    ),
    (
        f"subject-{ERASED}",
        "ErasureConfirmed",
        OTHER_PERSON,
        {"subject_id": ERASED, "legal_basis": "other-law", "requested_by": "token:reader"},
    ),
    (f"subject-{ERASED}", "ErasureStarted", OTHER_PERSON, {"subject_id": ERASED}),
    (f"series-{OTHER_SERIES}", "SeriesErased", OTHER_PERSON, OF_OTHER),
    (f"study-{OTHER_STUDY}", "StudyErased", OTHER_PERSON, {"study_uid": OTHER_STUDY, "subject_id": ERASED}),
    (
        f"subject-{ERASED}",
        "SubjectErased",
        OTHER_PERSON,
        {"subject_id": ERASED, "study_uids": [OTHER_STUDY], "series_uids": [OTHER_SERIES], "files": 2, "bytes": 1_052_003},
    ),
    (
        f"subject-{KEPT}",
        "ClinicalRecordWritten",
        PERSON,
        {
            "resource_type": "Patient",
            "resource_id": KEPT,
            "subject_id": KEPT,
            "record_version": 3,
            "resource": {
                "resourceType": "Patient",
                "identifier": [{"system": "urn:golden:mrn", "value": "G-2"}],
                "name": [{"family": "Golden", "given": ["Jane"]}],
                "gender": "female",
                "birthDate": "1970-02-03",
            },
        },
    ),
    (f"subject-{NUMBER}", "SubjectJoined", PERSON, {"subject_id": NUMBER, "into_subject_id": KEPT}),
    (f"subject-{NUMBER}", "SubjectParted", PERSON, {"subject_id": NUMBER, "from_subject_id": KEPT}),
]
_OF_PROJECT = {"project_id": "liver-2026"}
_PROJECT_KEY = str(derived_id("project-subject", "liver-2026"))
_TAGGED = {**_OF_PROJECT, "level": "series", **OF_SERIES, "name": "quality"}
_OF_DATASET = {"dataset_id": "d1", "subject_id": "dataset-subject-1"}
_CURATION: list[S] = [
    (
        "project-liver-2026",
        "ProjectCreated",
        PERSON,
        {**_OF_PROJECT, "subject_id": _PROJECT_KEY, "title": "Livers of the Golden Hospital"},
    ),
    ("project-liver-2026", "MemberAdmitted", PERSON, {**_OF_PROJECT, "principal_id": "token:reader", "role": "owner"}),
    ("project-liver-2026", "MemberAdmitted", PERSON, {**_OF_PROJECT, "principal_id": "token:admin", "role": "viewer"}),
    ("project-liver-2026", "MemberRemoved", PERSON, {**_OF_PROJECT, "principal_id": "token:admin"}),
    ("tag-1", "TagSet", PERSON, {**_TAGGED, "value": "motion, says Dr Golden"}),
    ("tag-1", "TagRemoved", PERSON, _TAGGED),
    (
        "cohort-c1",
        "CohortSaved",
        PERSON,
        {
            "cohort_id": "c1",
            "subject_id": "cohort-subject-1",
            "principal_id": "token:reader",
            "version": 1,
            "level": "series",
            "query_sha256": DIGEST,
            "query": '{"level":"series"}',
            "title": "Golden livers",
            "description": "as the golden protocol has them",
        },
    ),
    (
        "cohort-c1",
        "CohortRenamed",
        PERSON,
        {"cohort_id": "c1", "subject_id": "cohort-subject-1", "title": "Golden livers, all", "description": "golden"},
    ),
    ("cohort-c1", "CohortShared", PERSON, {"cohort_id": "c1", **_OF_PROJECT}),
    ("cohort-c1", "CohortUnshared", PERSON, {"cohort_id": "c1", **_OF_PROJECT}),
    ("cohort-c1", "CohortDeleted", PERSON, {"cohort_id": "c1"}),
    (
        "dataset-d1",
        "DatasetCreated",
        PERSON,
        {**_OF_DATASET, **_OF_PROJECT, "title": "Livers of the Golden Hospital", "description": "golden"},
    ),
    (
        "dataset-d1",
        "DatasetTermsSet",
        PERSON,
        {
            **_OF_DATASET,
            "license": "CC-BY-4.0",
            "intended_uses": ["research", "education"],
            "license_text": "ask Dr Golden",
            "use_note": "golden segmentation of livers",
            "consent": '{"level":"subject"}',
        },
    ),
    (
        "dataset-d1",
        "DatasetFrozen",
        PERSON,
        {
            **_OF_DATASET,
            "version": 1,
            "at_position": 12,
            "level": "series",
            "query_sha256": DIGEST,
            "cohort_id": "c1",
            "cohort_version": 1,
            "members_sha256": "cd" * 32,
            "members_bytes": 512,
            "subjects_count": 1,
            "studies_count": 1,
            "series_count": 1,
            "instances_count": 2,
            "bytes": 1_052_003,
            "query": '{"level":"series"}',
        },
    ),
    (
        "dataset-d1",
        "DatasetSplit",
        PERSON,
        {
            "dataset_id": "d1",
            "version": 1,
            "seed": "7",
            "parts": [
                {"name": "train", "share": 0.75, "subjects_count": 1},
                {"name": "test", "share": 0.25, "subjects_count": 0},
            ],
            "stratified_by": ["sex"],
            "by_hand": False,
            "kept_count": 0,
            "left_out_count": 0,
            "assignment_sha256": "ef" * 32,
            "assignment_bytes": 64,
        },
    ),
    (
        "export-00c0ffee00c0ffee00c0ffee00c0ffee",
        "DatasetExported",
        PERSON,
        {
            "dataset_id": "d1",
            "export_id": "00c0ffee00c0ffee00c0ffee00c0ffee",
            "version": 1,
            "purpose": "research",
            "layouts": ["bids", "csv"],
            "manifest_sha256": "ab" * 32,
            "files_count": 12,
            "bytes": 1_052_003,
            "subjects_count": 1,
            "left_out_count": 0,
        },
    ),
]
_FACETS: list[S] = [
    ("facets", "FacetAdded", PERSON, {"element": "VariableFlipAngleFlag"}),
    ("facets", "FacetRemoved", PERSON, {"element": "VariableFlipAngleFlag"}),
]
STORY: list[S] = [*_LIFE, *_SINCE, *_CURATION, *_FACETS]
"""Stream, event type, principal and fields."""
