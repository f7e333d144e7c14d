"""Identifiers that must not be mixed, and the names derived from them."""

from __future__ import annotations

from typing import NewType
from uuid import UUID, uuid5

Position = NewType("Position", int)
"""A place in the log: 1 is the first event, dense, in commit order."""
StreamName = NewType("StreamName", str)
StudyUID = NewType("StudyUID", str)
SeriesUID = NewType("SeriesUID", str)
SOPInstanceUID = NewType("SOPInstanceUID", str)
SubjectId = NewType("SubjectId", str)
"""A UUID as text that tells nothing of the person; see eventlog.vault for how it is derived."""
Sha256 = NewType("Sha256", str)
"""64 lower-case hexadecimal digits."""

NAMESPACE = UUID("6f1c1f0e-7d0a-5b0e-9a54-0d1d5f3b7a11")
"""Namespace of every UUIDv5 that Anamnesis derives (RFC 9562, 5.5). Never changes: the ids are shared between sites."""


def derived_id(kind: str, *parts: str) -> UUID:
    """The UUIDv5 of a thing from what identifies it: the same at every site and after every rebuild."""
    return uuid5(NAMESPACE, "|".join((kind, *parts)))


def series_stream(series_uid: str) -> StreamName:
    return StreamName(f"series-{series_uid}")


def study_stream(study_uid: str) -> StreamName:
    return StreamName(f"study-{study_uid}")


def subject_stream(subject_id: str) -> StreamName:
    return StreamName(f"subject-{subject_id}")


def record_stream(resource_type: str, resource_id: str) -> StreamName:
    """A Patient's is the subject's: what images and what clients say of a person is one history."""
    return subject_stream(resource_id) if resource_type == "Patient" else StreamName(f"record-{resource_type}-{resource_id}")


INTAKE_STREAM = StreamName("intake")
"""What came to a door and was refused, before it could belong to a series."""
