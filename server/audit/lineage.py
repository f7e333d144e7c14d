"""The lineage of one finding, back to the bytes that were received: instances, the request to index them, the segmenter as it
was measured, the reviews and their signatures, the datasets that it went into. And checked: the instances' digests must give the digest that was indexed.
"""

from __future__ import annotations

import msgspec

from domain.event import EVENT_TYPES
from domain.findings import Finding, finding_key
from domain.principal import Principal
from domain.review import FindingReviewed
from domain.series import IndexingRequested, InstancesStored, SegmenterRun, SeriesIndexed, series_digest
from domain.signature import EventSigned
from eventlog.envelope import RecordedEvent, instant
from eventlog.log import EventLog
from projections.ledger.projection import SCHEMA as LEDGER
from projections.ledger.tags import tag
from server.audit.timeline import events_at
from server.errors import NothingKnown

_ABOUT = f"""
    SELECT DISTINCT e.position, e.type FROM {LEDGER}.touched t JOIN {LEDGER}.entry e ON e.position = t.position
    WHERE t.tag = ANY($1::text[]) AND t.position <= $2 AND e.type <> 'AccessesRecorded' ORDER BY e.position
"""

_OF_TYPES = f"""
    SELECT DISTINCT e.position FROM {LEDGER}.touched t JOIN {LEDGER}.entry e ON e.position = t.position
    WHERE t.tag = ANY($1::text[]) AND t.position <= $2 AND e.type = ANY($3::text[]) ORDER BY e.position
"""
DEIDENTIFICATIONS: frozenset[str] = frozenset()
"""Types of events by which files of a series were de-identified. None yet: a type that does it is added here."""


class Step(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An event of the lineage. ``digest`` is its leaf in the log's Merkle tree, in hexadecimal."""

    position: int
    event_id: str
    type: str
    recorded_at: str
    principal: Principal
    digest: str
    caused_by: str | None = None


class ReceivedInstance(msgspec.Struct, frozen=True, kw_only=True):
    """``sha256`` is the digest of the Part 10 file in the archive; ``position`` that of the event by which it came."""

    sop_instance_uid: str
    sha256: str
    size: int
    door: str
    principal: Principal
    position: int


class Signature(msgspec.Struct, frozen=True, kw_only=True):
    step: Step
    principal: str
    key_id: str
    meaning: str
    signed_digest: str


class Review(msgspec.Struct, frozen=True, kw_only=True):
    step: Step
    verdict: str
    of_this_index: bool
    """The review is of the index that this lineage is of, and not of one before it."""
    signatures: list[Signature]


class Lineage(msgspec.Struct, frozen=True, kw_only=True):
    """``computed_digest`` is made anew from the instances that were there at the request; ``verified`` says whether it agrees."""

    finding: str
    as_of: int
    study_uid: str
    series_uid: str
    subject_id: str
    seen: Finding
    instances: list[ReceivedInstance]
    receipts: list[Step]
    deidentifications: list[Step]
    """Of the series' files, before they were indexed; empty: none is recorded."""
    request: Step | None
    indexing: Step
    run: SegmenterRun
    series_digest: str
    computed_digest: str
    verified: bool
    reviews: list[Review]
    datasets: list[Step]
    """Events by which the finding, or its series, went into datasets; empty: none is recorded."""
    other_events: list[Step]
    """What else touched this finding: earlier indexes that held it, and whatever comes to be said of findings."""


async def lineage(log: EventLog, finding: str, *, as_of: int) -> Lineage:
    """Of the latest index up to ``as_of`` that holds the finding with this key. Raises NothingKnown."""
    rows = await log.pool.fetch(_ABOUT, [tag("finding", finding)], as_of)
    about = await events_at(log, [row["position"] for row in rows])
    indexes = [one for one in about if isinstance(one.event, SeriesIndexed)]
    if not indexes:
        raise NothingKnown("no index holds a finding with this key: it is the id of its BodyStructure")
    index = indexes[-1]
    event = index.event
    assert isinstance(event, SeriesIndexed)
    before = [one for one in await log.read_stream(index.stream) if one.version < index.version]
    request = _request(before, event)
    until = request.version if request is not None else index.version
    stored = [one for one in before if one.version < until and isinstance(one.event, InstancesStored)]
    instances = [received for one in stored for received in _instances(one)]
    computed = series_digest({one.sop_instance_uid: one.sha256 for one in instances})
    reviews = [one for one in about if isinstance(one.event, FindingReviewed)]
    tags = [tag("finding", finding), tag("series", event.series_uid)]
    cleaned = await _of_types(log, tags, index.position, DEIDENTIFICATIONS)
    datasets = await _of_types(log, tags, as_of, dataset_types())
    told = {index.position, *(one.position for one in (*reviews, *cleaned, *datasets))}
    return Lineage(
        finding=finding,
        as_of=as_of,
        study_uid=event.study_uid,
        series_uid=event.series_uid,
        subject_id=event.subject_id,
        seen=next(one for one in event.findings if finding_key(event.series_uid, event.run.segmenter, one.structure.label) == finding),
        instances=instances,
        receipts=[_step(one) for one in stored],
        deidentifications=[_step(one) for one in cleaned],
        request=_step(request) if request is not None else None,
        indexing=_step(index),
        run=event.run,
        series_digest=event.series_digest,
        computed_digest=computed,
        verified=computed == event.series_digest,
        reviews=[await _review(log, one, index, as_of) for one in reviews],
        datasets=[_step(one) for one in datasets],
        other_events=[_step(one) for one in about if one.position not in told],
    )


def dataset_types() -> frozenset[str]:
    """Types of events that are about a dataset."""
    return frozenset(name for name, kind in EVENT_TYPES.items() if any(field.endswith("dataset_id") for field in kind.__struct_fields__))


async def _of_types(log: EventLog, tags: list[str], until: int, types: frozenset[str]) -> list[RecordedEvent]:
    if not types:
        return []
    rows = await log.pool.fetch(_OF_TYPES, tags, until, sorted(types))
    return await events_at(log, [row["position"] for row in rows])


def _request(before: list[RecordedEvent], event: SeriesIndexed) -> RecordedEvent | None:
    """The latest request for just this index."""
    asked = [
        one
        for one in before
        if isinstance(one.event, IndexingRequested)
        and (one.event.segmenter, one.event.series_digest) == (event.run.segmenter, event.series_digest)
    ]
    return asked[-1] if asked else None


def _instances(recorded: RecordedEvent) -> list[ReceivedInstance]:
    event = recorded.event
    assert isinstance(event, InstancesStored)
    return [
        ReceivedInstance(
            sop_instance_uid=one.sop_instance_uid,
            sha256=one.sha256,
            size=one.size,
            door=event.door,
            principal=recorded.principal,
            position=recorded.position,
        )
        for one in event.instances
    ]


async def _review(log: EventLog, recorded: RecordedEvent, index: RecordedEvent, as_of: int) -> Review:
    event = recorded.event
    assert isinstance(event, FindingReviewed)
    rows = await log.pool.fetch(_ABOUT, [tag("event", str(recorded.event_id))], as_of)
    said = await events_at(log, [row["position"] for row in rows])
    return Review(
        step=_step(recorded),
        verdict=event.verdict.value,
        of_this_index=recorded.position > index.position,
        signatures=[_signature(one, one.event) for one in said if isinstance(one.event, EventSigned)],
    )


def _signature(recorded: RecordedEvent, event: EventSigned) -> Signature:
    return Signature(
        step=_step(recorded),
        principal=event.principal_id,
        key_id=event.key_id,
        meaning=event.meaning.value,
        signed_digest=event.signed_digest,
    )


def _step(recorded: RecordedEvent) -> Step:
    return Step(
        position=recorded.position,
        event_id=str(recorded.event_id),
        type=recorded.type,
        recorded_at=instant(recorded.recorded_at),
        principal=recorded.principal,
        digest=recorded.digest.hex(),
        caused_by=str(recorded.causation_id) if recorded.causation_id else None,
    )
