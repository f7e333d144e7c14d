"""Decisions of a series: given events, when a command, then events."""

from __future__ import annotations

from functools import reduce

import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.errors import (
    FindingsDisagree,
    IndexingIsObsolete,
    IndexingNotRequested,
    InstanceOfOtherStudy,
    SeriesIsEmpty,
)
from domain.event import Event
from domain.findings import SNOMED_CT, Code, Finding, Structure
from domain.series import (
    MAX_INSTANCES_PER_EVENT,
    DicomJson,
    IndexingFailed,
    IndexingRefused,
    IndexingRequested,
    InstanceConflicted,
    InstancesStored,
    Received,
    RequestIndexing,
    SegmenterRun,
    Series,
    SeriesIndexed,
    StoredInstance,
    StoreInstances,
    evolve,
    join_header,
    record_indexing,
    request_indexing,
    series_digest,
    split_headers,
    store_instances,
)

STUDY, SERIES, SUBJECT = "1.2.3", "1.2.3.4", "s"


def received(uid: str, content: str = "", header: DicomJson | None = None) -> Received:
    instance = StoredInstance(
        sop_instance_uid=uid,
        sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
        transfer_syntax_uid="1.2.840.10008.1.2.1",
        sha256=series_digest({uid: content}),
        size=1,
    )
    return Received(instance=instance, header=header or {"00080018": {"vr": "UI", "Value": [uid]}})


def store(*instances: Received, study: str = STUDY) -> StoreInstances:
    return StoreInstances(
        study_uid=study, series_uid=SERIES, subject_id=SUBJECT, modality="CT", door="ingest", received=instances
    )


def given_events(*events: Event) -> Series:
    return reduce(evolve, events, Series())


def after(*commands: StoreInstances) -> Series:
    state = Series()
    for command in commands:
        state = reduce(evolve, store_instances(state, command), state)
    return state


def indexed(digest: str, *labels: str) -> SeriesIndexed:
    findings = [
        Finding(
            structure=Structure(label=label, snomed=Code(SNOMED_CT, "1", label)),
            volume_mm3=1.0,
            voxel_count=1,
            mean_hu=0.0,
            touches_edge=False,
            centroid_mm=(0, 0, 0),
            bounding_box_mm=((0, 0, 0), (0, 0, 0)),
        )
        for label in labels
    ]
    run = SegmenterRun(segmenter="baseline", segmenter_version="1", software={}, duration_s=1.0)
    return SeriesIndexed(
        study_uid=STUDY, series_uid=SERIES, subject_id=SUBJECT, series_digest=digest, run=run, findings=findings
    )


REQUEST = RequestIndexing(series_uid=SERIES, segmenter="baseline", reason="quiet")


def test_same_instance_twice_is_stored_once() -> None:
    state = after(store(received("1")))
    assert store_instances(state, store(received("1"))) == []
    (event,) = store_instances(Series(), store(received("1"), received("1")))
    assert isinstance(event, InstancesStored) and len(event.instances) == 1


def test_same_uid_with_other_bytes_is_a_conflict_named_once() -> None:
    state = after(store(received("1", "a")))
    (event,) = store_instances(state, store(received("1", "b"), received("1", "b")))
    assert isinstance(event, InstanceConflicted)
    assert event.kept_sha256 == received("1", "a").instance.sha256
    assert store_instances(evolve(state, event), store(received("1", "b"))) == []


def test_two_versions_in_one_command_keep_the_first() -> None:
    stored, conflict = store_instances(Series(), store(received("1", "a"), received("1", "b")))
    assert isinstance(stored, InstancesStored) and isinstance(conflict, InstanceConflicted)
    assert stored.instances[0].sha256 == conflict.kept_sha256


def test_instances_of_another_study_are_refused() -> None:
    with pytest.raises(InstanceOfOtherStudy, match=r"1\.2\.3"):
        store_instances(after(store(received("1"))), store(received("2"), study="9.9"))


def test_a_batch_holds_at_most_a_hundred_instances() -> None:
    events = store_instances(Series(), store(*(received(str(n)) for n in range(250))))
    assert [len(e.instances) for e in events if isinstance(e, InstancesStored)] == [MAX_INSTANCES_PER_EVENT, 100, 50]


tags = st.sampled_from([f"{n:08X}" for n in range(0x00080000, 0x0008000A)])
headers = st.lists(st.dictionaries(tags, st.fixed_dictionaries({"vr": st.just("LO"), "Value": st.lists(st.integers(0, 2))})))


@given(headers)
def test_split_headers_join_to_what_they_were(given_headers: list[DicomJson]) -> None:
    common, own = split_headers(given_headers)
    assert [join_header(common, one) for one in own] == [dict(sorted(h.items())) for h in given_headers]
    assert all(not (common.keys() & one.keys()) for one in own)


commands = st.lists(
    st.lists(st.tuples(st.integers(0, 5), st.sampled_from("ab")), max_size=8).map(
        lambda pairs: store(*(received(str(uid), content) for uid, content in pairs))
    ),
    max_size=6,
)


@given(commands)
def test_every_uid_keeps_its_first_bytes_whatever_comes(history: list[StoreInstances]) -> None:
    first: dict[str, str] = {}
    others: set[tuple[str, str]] = set()
    for command in history:
        for one in command.received:
            uid, sha256 = one.instance.sop_instance_uid, one.instance.sha256
            if first.setdefault(uid, sha256) != sha256:
                others.add((uid, sha256))
    state = after(*history)
    assert dict(state.instances) == first and state.conflicts == others


@given(commands)
def test_a_command_sent_again_is_nothing_new(history: list[StoreInstances]) -> None:
    state = after(*history)
    assert all(store_instances(state, command) == [] for command in history)


@given(st.dictionaries(st.text("0123456789.", min_size=1), st.text("abcdef", min_size=1)))
def test_the_series_digest_does_not_depend_on_order(instances: dict[str, str]) -> None:
    assert series_digest(instances) == series_digest(dict(reversed(list(instances.items()))))


def test_an_empty_series_cannot_be_indexed() -> None:
    with pytest.raises(SeriesIsEmpty):
        request_indexing(Series(), REQUEST)


def test_indexing_is_requested_once_for_the_same_instances() -> None:
    state = after(store(received("1")))
    (request,) = request_indexing(state, REQUEST)
    assert isinstance(request, IndexingRequested) and request.series_digest == state.digest
    requested = evolve(state, request)
    assert request_indexing(requested, REQUEST) == []
    more = reduce(evolve, store_instances(requested, store(received("2"))), requested)
    assert len(request_indexing(more, REQUEST)) == 1


def test_a_failed_indexing_is_requested_again_only_by_somebody() -> None:
    state = after(store(received("1")))
    (request,) = request_indexing(state, REQUEST)
    failed = IndexingFailed(
        study_uid=STUDY, series_uid=SERIES, subject_id=SUBJECT, series_digest=state.digest, segmenter="baseline", error="E", attempts=3
    )
    state = reduce(evolve, [request, failed], state)
    assert request_indexing(state, REQUEST) == []
    asked = RequestIndexing(series_uid=SERIES, segmenter="baseline", reason="requested")
    assert len(request_indexing(state, asked)) == 1


def test_a_result_is_recorded_once_and_only_for_the_standing_request() -> None:
    state = after(store(received("1")))
    result = indexed(state.digest, "liver")
    with pytest.raises(IndexingNotRequested):
        record_indexing(state, result)
    requested = reduce(evolve, request_indexing(state, REQUEST), state)
    assert record_indexing(requested, result) == [result]
    assert record_indexing(evolve(requested, result), result) == []
    with pytest.raises(IndexingIsObsolete):
        record_indexing(requested, indexed("0" * 64))
    with pytest.raises(FindingsDisagree):
        record_indexing(requested, indexed(state.digest, "liver", "liver"))


def test_a_refusal_settles_the_request() -> None:
    state = after(store(received("1")))
    requested = reduce(evolve, request_indexing(state, REQUEST), state)
    refused = IndexingRefused(
        study_uid=STUDY, series_uid=SERIES, subject_id=SUBJECT, series_digest=state.digest, segmenter="baseline",
        reason="too-few-slices", detail="1 slice",
    )  # fmt: skip
    settled = evolve(requested, refused)
    assert request_indexing(settled, REQUEST) == [] and record_indexing(settled, refused) == []
