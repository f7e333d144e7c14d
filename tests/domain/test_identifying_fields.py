"""Every field of every event type is either sealed or cannot name a person, for a reason that is written here.

Whoever adds a field finds this test red, and has to say which of the two it is: what is in the clear stays for ever.
"""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

import msgspec
import pytest

import domain
from domain.event import EVENT_TYPES, identifying_fields

for module in pkgutil.iter_modules(domain.__path__):
    importlib.import_module(f"domain.{module.name}")

OURS = {name: type_ for name, type_ in EVENT_TYPES.items() if type_.__module__.startswith("domain.")}

PSEUDONYM = "a keyed hash of the Patient ID, or derived from another pseudonym"
UID = "a UID: pseudonymous, made by a machine, and what everything is found by"
DIGEST = "a SHA-256, or a number made from one"
CODE = "a code of a closed list, or of ours"
COUNT = "a number"
MACHINE = "the name or version of software or of a structure in its vocabulary"
PRINCIPAL = "a principal by its id, which accounts for an act (GDPR 30, 21 CFR 11.10 (e)) and is no patient's"
INSTANT = "when it happened"
OUR_WORDS = "our own words, which quote nothing of a header"
CHOSEN = "a code that a curator chooses, of a pattern that free text does not meet"
RANDOM = "a random UUID"
PUBLIC = "a public key, or a signature over digests"

FIELDS = {
    "study_uid": UID, "series_uid": UID, "sop_instance_uid": UID, "study_uids": UID, "series_uids": UID,
    "sop_class_uid": UID, "transfer_syntax_uid": UID,
    "subject_id": PSEUDONYM, "registered_subject_id": PSEUDONYM, "disputed_subject_id": PSEUDONYM, "subjects": PSEUDONYM,
    "into_subject_id": PSEUDONYM, "from_subject_id": PSEUDONYM,
    "finding_key": PSEUDONYM, "signed_event_id": PSEUDONYM, "hold_id": PSEUDONYM, "reject_id": DIGEST, "things": UID, "about": UID,
    "sha256": DIGEST, "kept_sha256": DIGEST, "conflicting_sha256": DIGEST, "series_digest": DIGEST, "signed_digest": DIGEST,
    "weights_sha256": DIGEST,
    "sex": CODE, "modality": CODE, "door": CODE, "reason": CODE, "verdict": CODE, "meaning": CODE, "legal_basis": CODE,
    "action": CODE, "outcome": CODE, "signed_type": CODE, "resource_type": CODE, "kind": CODE, "laterality": CODE,
    "files": COUNT, "bytes": COUNT, "size": COUNT, "conflicting_size": COUNT, "attempts": COUNT, "lost": COUNT, "count": COUNT,
    "number_of_frames": COUNT, "has_pixel_data": COUNT, "record_version": COUNT, "duration_s": COUNT, "resolution_mm": COUNT,
    "volume_mm3": COUNT, "voxel_count": COUNT, "mean_hu": COUNT, "touches_edge": COUNT, "centroid_mm": COUNT, "bounding_box_mm": COUNT,
    "segmenter": MACHINE, "segmenter_version": MACHINE, "software": MACHINE, "task": MACHINE, "label": MACHINE,
    "system": MACHINE, "code": MACHINE, "display": MACHINE, "route": MACHINE, "parameters": MACHINE,
    "error": MACHINE, "element": MACHINE,
    "id": PRINCIPAL, "on_behalf_of": PRINCIPAL, "requested_by": PRINCIPAL, "principal_id": PRINCIPAL,
    "first_at": INSTANT, "last_at": INSTANT, "signed_at": INSTANT,
    "detail": OUR_WORDS,
    "key_id": PUBLIC, "public_key": PUBLIC, "signature": PUBLIC,
    "project_id": CHOSEN, "name": CHOSEN, "seed": CHOSEN, "license": CHOSEN,
    "level": CODE, "role": CODE, "intended_uses": CODE, "purpose": CODE, "layouts": CODE,
    "cohort_id": RANDOM, "dataset_id": RANDOM, "export_id": RANDOM,
    "manifest_sha256": DIGEST, "query_sha256": DIGEST, "members_sha256": DIGEST, "assignment_sha256": DIGEST,
    "version": COUNT, "cohort_version": COUNT, "at_position": COUNT, "members_bytes": COUNT, "assignment_bytes": COUNT,
    "subjects_count": COUNT, "studies_count": COUNT, "series_count": COUNT, "instances_count": COUNT, "kept_count": COUNT,
    "left_out_count": COUNT, "files_count": COUNT, "share": COUNT, "by_hand": COUNT,
    "stratified_by": "names of fields, which are ours or DICOM's",
    "resource_id": "the logical id of a FHIR resource, which may not identify (R5 resource.html#id)",
}  # fmt: skip
"""Name of a field, wherever it stands in an event → why it may stay in the clear."""

SEALED = {
    "ClinicalRecordWritten": {"resource"},
    "CohortRenamed": {"description", "title"},
    "CohortSaved": {"description", "query", "title"},
    "DatasetCreated": {"description", "title"},
    "DatasetFrozen": {"query"},
    "DatasetTermsSet": {"consent", "license_text", "use_note"},
    "FindingReviewed": {"comment"},
    "IndexingRefused": {"detail"},
    "InstancesStored": {"common", "headers"},
    "LegalHoldPlaced": {"reason"},
    "SignerEnrolled": {"printed_name"},
    "ProjectCreated": {"title"},
    "SubjectDemographicsChanged": {"demographics"},
    "SubjectRegistered": {"demographics"},
    "TagSet": {"value"},
}


def in_the_clear(type_: type, sealed: frozenset[str] = frozenset()) -> set[str]:
    """Names of the fields that hold a value of their own, here and in what is nested."""
    found: set[str] = set()
    for field in msgspec.structs.fields(type_):
        if field.name not in sealed:
            nested = list(structs_in(msgspec.inspect.type_info(field.type)))
            found.update(*(in_the_clear(one) for one in nested)) if nested else found.add(field.name)
    return found


def structs_in(info: msgspec.inspect.Type) -> Any:
    if isinstance(info, msgspec.inspect.StructType):
        yield info.cls
    for name in ("item_type", "value_type"):
        if hasattr(info, name):
            yield from structs_in(getattr(info, name))
    for name in ("item_types", "types"):
        for one in getattr(info, name, ()):
            yield from structs_in(one)


@pytest.mark.parametrize("name", sorted(OURS))
def test_no_field_of_an_event_is_in_the_clear_without_a_reason(name: str) -> None:
    assert in_the_clear(OURS[name], identifying_fields(OURS[name])) <= FIELDS.keys()


def test_what_may_name_a_person_is_sealed() -> None:
    assert {name: set(identifying_fields(type_)) for name, type_ in OURS.items() if identifying_fields(type_)} == SEALED


def test_no_reason_is_left_over() -> None:
    used = set().union(*(in_the_clear(type_, identifying_fields(type_)) for type_ in OURS.values()))
    assert FIELDS.keys() - used == set()


def test_sex_is_one_of_its_defined_terms_or_nothing() -> None:
    from domain.subject import Demographics, Subject, SubjectRegistered, observe_subject

    said = [observe_subject(Subject(), "s", text, Demographics())[0] for text in ("F", " m ", "Quirinalda", "")]
    assert [event.sex for event in said if isinstance(event, SubjectRegistered)] == ["F", "M", "", ""]
