"""The life of a series: instances stored, indexing requested, indexed (or refused, or failed).

The DICOM headers travel in ``InstancesStored``, sealed as a whole: any of their elements may identify a person.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import msgspec

from domain.errors import (
    FindingsDisagree,
    IndexingIsObsolete,
    IndexingNotRequested,
    InstanceOfOtherStudy,
    SeriesIsEmpty,
)
from domain.event import Event, Identifying, event
from domain.findings import Finding
from domain.ids import derived_id

DicomJson = dict[str, Any]
"""A data set in the DICOM JSON model (PS3.18 F.2): tag as eight hexadecimal digits → {"vr": …, "Value": […]}."""

MAX_INSTANCES_PER_EVENT = 100
MAX_HEADER_BYTES_PER_EVENT = 1024 * 1024


class StoredInstance(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One instance as the archive keeps it. ``sha256`` is the digest of the stored Part 10 file, and its name there."""

    sop_instance_uid: str
    sop_class_uid: str
    transfer_syntax_uid: str
    sha256: str
    size: int
    number_of_frames: int = 1
    has_pixel_data: bool = True


@event
class InstancesStored(Event, frozen=True, kw_only=True):
    """Instances of one series are safe in the archive. At most 100 instances or 1 MiB of headers an event.

    ``common`` holds the elements that every instance of *this event* shares; ``headers[i]`` those in which
    ``instances[i]`` differs. Together they are the whole data set without bulk data.
    """

    study_uid: str
    series_uid: str
    subject_id: str
    modality: str
    door: str
    """ingest, dimse or stow."""
    instances: list[StoredInstance]
    common: Identifying[DicomJson] = {}
    headers: Identifying[list[DicomJson]] = []


@event
class InstanceConflicted(Event, frozen=True, kw_only=True):
    """The same SOP Instance UID came with other bytes: kept apart under its own digest, never served in place of the first.

    Version 2 says whose images these are; of an event of version 1 that is known from its series alone.
    """

    SCHEMA_VERSION = 2

    study_uid: str
    series_uid: str
    sop_instance_uid: str
    kept_sha256: str
    conflicting_sha256: str
    conflicting_size: int
    door: str
    subject_id: str = ""


@event
class IndexingRequested(Event, frozen=True, kw_only=True):
    """A series is complete (quiet for the set time, or somebody asked): it is to be indexed by ``segmenter``.

    ``series_digest`` names exactly the instances to be indexed; later instances lead to another request.
    """

    study_uid: str
    series_uid: str
    subject_id: str
    series_digest: str
    segmenter: str
    reason: str
    """quiet, requested."""


class SegmenterRun(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What made an index, as measured where it ran."""

    segmenter: str
    segmenter_version: str
    software: dict[str, str]
    """Package → version, of each package that took part."""
    weights_sha256: str | None = None
    task: str | None = None
    resolution_mm: float | None = None
    duration_s: float


@event
class SeriesIndexed(Event, frozen=True, kw_only=True):
    """A segmenter saw these findings in the instances that ``series_digest`` names."""

    study_uid: str
    series_uid: str
    subject_id: str
    series_digest: str
    run: SegmenterRun
    findings: list[Finding]


@event
class IndexingRefused(Event, frozen=True, kw_only=True):
    """The series cannot be indexed, for a reason that lies in the series. ``reason`` is a code, ``detail`` says where.

    Version 2 seals ``detail``, which may quote a header.
    """

    SCHEMA_VERSION = 2

    study_uid: str
    series_uid: str
    subject_id: str
    series_digest: str
    segmenter: str
    reason: str
    """not-ct, too-few-slices, missing-slices, duplicate-positions, mixed-orientations, mixed-geometry, gantry-tilt, localizer,
    no-geometry, not-hu, undecodable-pixels."""
    detail: Identifying[str] = ""


@event
class IndexingFailed(Event, frozen=True, kw_only=True):
    """The machine failed, not the series: tried ``attempts`` times. A new request tries again."""

    study_uid: str
    series_uid: str
    subject_id: str
    series_digest: str
    segmenter: str
    error: str
    attempts: int


@event
class SeriesErased(Event, frozen=True, kw_only=True):
    """This series went with its erased subject. What it holds of others follows again in the same append."""

    study_uid: str
    series_uid: str
    subject_id: str


class IndexingStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Where one segmenter stands with a series: ``outcome`` is requested, indexed, refused or failed."""

    series_digest: str
    outcome: str


_NOTHING: Mapping[str, Any] = MappingProxyType({})


class Series(msgspec.Struct, frozen=True, kw_only=True):
    """The state of a series, folded from its stream. ``instances``: SOP Instance UID → digest of the stored file."""

    study_uid: str | None = None
    subject_id: str | None = None
    modality: str | None = None
    instances: Mapping[str, str] = _NOTHING
    conflicts: frozenset[tuple[str, str]] = frozenset()
    indexing: Mapping[str, IndexingStatus] = _NOTHING

    @property
    def digest(self) -> str:
        return series_digest(self.instances)


def series_digest(instances: Mapping[str, str]) -> str:
    """SHA-256 over the sorted pairs of SOP Instance UID and file digest: names exactly what was indexed."""
    lines = "".join(f"{uid} {sha256}\n" for uid, sha256 in sorted(instances.items()))
    return hashlib.sha256(lines.encode("ascii")).hexdigest()


def evolve(state: Series, happened: Event) -> Series:
    match happened:
        case InstancesStored():
            added = {i.sop_instance_uid: i.sha256 for i in happened.instances}
            return msgspec.structs.replace(
                state,
                study_uid=happened.study_uid,
                subject_id=state.subject_id or happened.subject_id,
                modality=state.modality or happened.modality,
                instances={**state.instances, **added},
            )
        case InstanceConflicted():
            pair = (happened.sop_instance_uid, happened.conflicting_sha256)
            return msgspec.structs.replace(state, conflicts=state.conflicts | {pair})
        case IndexingRequested():
            return _with_outcome(state, happened.segmenter, happened.series_digest, "requested")
        case SeriesIndexed():
            return _with_outcome(state, happened.run.segmenter, happened.series_digest, "indexed")
        case IndexingRefused():
            return _with_outcome(state, happened.segmenter, happened.series_digest, "refused")
        case IndexingFailed():
            return _with_outcome(state, happened.segmenter, happened.series_digest, "failed")
        case SeriesErased():
            return Series()
    return state


def _with_outcome(state: Series, segmenter: str, digest: str, outcome: str) -> Series:
    status = IndexingStatus(series_digest=digest, outcome=outcome)
    return msgspec.structs.replace(state, indexing={**state.indexing, segmenter: status})


class Received(msgspec.Struct, frozen=True, kw_only=True):
    """One instance that arrived, safe in the archive under its digest, with its header."""

    instance: StoredInstance
    header: DicomJson


class StoreInstances(msgspec.Struct, frozen=True, kw_only=True):
    study_uid: str
    series_uid: str
    subject_id: str
    modality: str
    door: str
    received: Sequence[Received]


def store_instances(state: Series, command: StoreInstances) -> list[Event]:
    """New instances are stored; the same bytes again are nothing new; other bytes under a known UID are a conflict.

    Raises InstanceOfOtherStudy when the series is known under another Study Instance UID.
    """
    if state.study_uid is not None and state.study_uid != command.study_uid:
        raise InstanceOfOtherStudy(
            f"series {command.series_uid} belongs to study {state.study_uid}, but instances name study {command.study_uid}"
        )
    known = dict(state.instances)
    new: list[Received] = []
    added: set[str] = set()
    conflicts: list[Event] = []
    seen_conflicts = set(state.conflicts)
    for one in command.received:
        uid, sha256 = one.instance.sop_instance_uid, one.instance.sha256
        kept = known.setdefault(uid, sha256)
        if kept != sha256:
            if (uid, sha256) not in seen_conflicts:
                seen_conflicts.add((uid, sha256))
                conflicts.append(
                    InstanceConflicted(
                        study_uid=command.study_uid,
                        series_uid=command.series_uid,
                        sop_instance_uid=uid,
                        kept_sha256=kept,
                        conflicting_sha256=sha256,
                        conflicting_size=one.instance.size,
                        door=command.door,
                        subject_id=command.subject_id,
                    )
                )
        elif uid not in state.instances and uid not in added:
            added.add(uid)
            new.append(one)
    stored: list[Event] = []
    for batch in _batches(new):
        common, headers = split_headers([one.header for one in batch])
        stored.append(
            InstancesStored(
                study_uid=command.study_uid,
                series_uid=command.series_uid,
                subject_id=command.subject_id,
                modality=command.modality,
                door=command.door,
                instances=[one.instance for one in batch],
                common=common,
                headers=headers,
            )
        )
    return stored + conflicts


def split_headers(headers: Sequence[DicomJson]) -> tuple[DicomJson, list[DicomJson]]:
    """The elements equal in all headers, once, and for each header what remains. Joining them gives each header back."""
    if not headers:
        return {}, []
    first, *rest = headers
    if not rest:
        return {}, [first]
    missing = object()
    common = {tag: value for tag, value in first.items() if all(h.get(tag, missing) == value for h in rest)}
    return common, [{tag: value for tag, value in h.items() if tag not in common} for h in headers]


def join_header(common: DicomJson, own: DicomJson) -> DicomJson:
    """The whole header of one instance, tags in ascending order (PS3.18 F.2)."""
    return dict(sorted({**common, **own}.items()))


def _batches(received: Sequence[Received]) -> list[list[Received]]:
    batches: list[list[Received]] = []
    size = 0
    for one in received:
        header_size = len(msgspec.json.encode(one.header))
        full = batches and (len(batches[-1]) == MAX_INSTANCES_PER_EVENT or size + header_size > MAX_HEADER_BYTES_PER_EVENT)
        if full or not batches:
            batches.append([])
            size = 0
        batches[-1].append(one)
        size += header_size
    return batches


class RequestIndexing(msgspec.Struct, frozen=True, kw_only=True):
    series_uid: str
    segmenter: str
    reason: str


def request_indexing(state: Series, command: RequestIndexing) -> list[Event]:
    """Requests an index of the instances stored now. Once requested, indexed or refused for exactly these: nothing new.

    A failed one is requested again only when somebody asks (``reason`` "requested").
    """
    if not state.instances or state.study_uid is None or state.subject_id is None:
        raise SeriesIsEmpty(f"series {command.series_uid} has no stored instance")
    status = state.indexing.get(command.segmenter)
    settled = status is not None and (status.outcome != "failed" or command.reason != "requested")
    if settled and status is not None and status.series_digest == state.digest:
        return []
    return [
        IndexingRequested(
            study_uid=state.study_uid,
            series_uid=command.series_uid,
            subject_id=state.subject_id,
            series_digest=state.digest,
            segmenter=command.segmenter,
            reason=command.reason,
        )
    ]


IndexingResult = SeriesIndexed | IndexingRefused | IndexingFailed


def record_indexing(state: Series, result: IndexingResult) -> list[Event]:
    """Accepts a result for the standing request, once; the same result again is nothing new.

    Raises IndexingNotRequested, IndexingIsObsolete (instances came since) or FindingsDisagree.
    """
    segmenter = result.run.segmenter if isinstance(result, SeriesIndexed) else result.segmenter
    status = state.indexing.get(segmenter)
    if status is None:
        raise IndexingNotRequested(f"nobody requested {segmenter} for series {result.series_uid}")
    if status.series_digest != result.series_digest:
        raise IndexingIsObsolete(
            f"the result is of digest {result.series_digest[:12]}, the standing request of {status.series_digest[:12]}"
        )
    if status.outcome != "requested":
        return []
    if isinstance(result, SeriesIndexed):
        labels = [f.structure.label for f in result.findings]
        if len(labels) != len(set(labels)):
            raise FindingsDisagree(f"an index of series {result.series_uid} names a structure twice")
    return [result]


def indexing_key(digest: str, segmenter: str, segmenter_version: str) -> str:
    """What makes a result unique: the same instances, segmenter and version give one result (a UUID as text)."""
    return str(derived_id("indexing", digest, segmenter, segmenter_version))
