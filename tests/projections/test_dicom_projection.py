"""The DICOM read model: counts, headers joined from pieces, text as it is matched, the same bytes after a rebuild."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.principal import device
from domain.series import DicomJson, InstancesStored, StoredInstance, join_header, split_headers
from eventlog.envelope import NewEvent, StreamAppend
from eventlog.log import EventLog
from projections.dicom import DicomProjection, folding, splicing
from projections.dicom.projection import SCHEMA
from projections.digest import table_digests
from projections.runner import Runner


def header(study: str, series: str, number: int, **further: Any) -> DicomJson:
    return {
        "00080016": {"vr": "UI", "Value": ["1.2.840.10008.5.1.4.1.1.2"]},
        "00080018": {"vr": "UI", "Value": [f"{series}.{number}"]},
        "00080020": {"vr": "DA", "Value": ["20240131"]},
        "00080060": {"vr": "CS", "Value": ["CT"]},
        "00100010": {"vr": "PN", "Value": [{"Alphabetic": "Müller^Änne", "Ideographic": "山田^太郎"}]},
        "0020000D": {"vr": "UI", "Value": [study]},
        "0020000E": {"vr": "UI", "Value": [series]},
        "00200011": {"vr": "IS", "Value": [3]},
        "00200013": {"vr": "IS", "Value": [number]},
        "00280010": {"vr": "US", "Value": [512]},
        **{tag.removeprefix("t"): value for tag, value in further.items()},
    }


def stored(headers: list[DicomJson], modality: str = "CT") -> InstancesStored:
    common, own = split_headers(headers)
    return InstancesStored(
        study_uid=headers[0]["0020000D"]["Value"][0],
        series_uid=headers[0]["0020000E"]["Value"][0],
        subject_id="8a1f9a52-0000-8000-8000-000000000001",
        modality=modality,
        door="ingest",
        instances=[
            StoredInstance(
                sop_instance_uid=h["00080018"]["Value"][0],
                sop_class_uid=h["00080016"]["Value"][0],
                transfer_syntax_uid="1.2.840.10008.1.2.1",
                sha256=f"{n:064x}",
                size=1000,
            )
            for n, h in enumerate(headers)
        ],
        common=common,
        headers=own,
    )


async def append(log: EventLog, *events: InstancesStored) -> None:
    for event in events:
        await log.append(
            [StreamAppend(stream=f"series-{event.series_uid}", events=[NewEvent(event=event)])],
            principal=device("test"),
        )


async def test_counts_and_modalities_follow_what_is_stored(event_log: EventLog) -> None:
    await append(
        event_log,
        stored([header("1", "1.1", n) for n in range(1, 4)]),
        stored([header("1", "1.1", n) for n in range(4, 6)]),
        stored([header("1", "1.2", 1)], modality="SEG"),
        stored([header("2", "2.1", 1)]),
    )
    await Runner(event_log, [DicomProjection()]).catch_up()
    rows = await event_log.pool.fetch(f"SELECT study_uid, series_count, instance_count, modalities FROM {SCHEMA}.study ORDER BY study_uid")
    assert [tuple(row) for row in rows] == [("1", 2, 6, ["CT", "SEG"]), ("2", 1, 1, ["CT"])]
    assert await event_log.pool.fetchval(f"SELECT count(*) FROM {SCHEMA}.instance") == 7


async def test_what_a_row_was_before_each_event_is_kept(event_log: EventLog) -> None:
    described = {"t00081030": {"vr": "LO", "Value": ["CHEST"]}}
    await append(
        event_log,
        stored([header("1", "1.1", 1)]),
        stored([header("1", "1.1", 2, **described)]),
        stored([header("1", "1.2", 1)]),
    )
    await Runner(event_log, [DicomProjection()]).catch_up()
    history = await event_log.pool.fetch(
        f"SELECT position, position_to, study_description, series_count, instance_count FROM {SCHEMA}.study_history ORDER BY position"
    )
    assert [tuple(row) for row in history] == [(1, 2, "", 1, 1), (2, 3, "CHEST", 1, 2)]
    assert await event_log.pool.fetchval(f"SELECT position FROM {SCHEMA}.study") == 3
    history = await event_log.pool.fetch(f"SELECT series_uid, position, position_to, instance_count FROM {SCHEMA}.series_history")
    assert [tuple(row) for row in history] == [("1.1", 1, 2, 1)]


async def test_what_the_first_instance_lacks_a_later_one_fills(event_log: EventLog) -> None:
    described = {"t00081030": {"vr": "LO", "Value": ["CHEST"]}}
    await append(
        event_log,
        stored([header("1", "1.1", 1, t00081030={"vr": "LO"})]),
        stored([header("1", "1.2", 1, **described)]),
        stored([header("1", "1.3", 1, t00081030={"vr": "LO", "Value": ["ABDOMEN"]})]),
    )
    await Runner(event_log, [DicomProjection()]).catch_up()
    assert await event_log.pool.fetchval(f"SELECT study_description FROM {SCHEMA}.study") == "CHEST"


async def test_a_header_is_joined_from_its_pieces_in_order_of_tags(event_log: EventLog) -> None:
    headers = [header("1", "1.1", n, t00200032={"vr": "DS", "Value": [n, 0, 0]}) for n in range(1, 4)]
    await append(event_log, stored(headers))
    await Runner(event_log, [DicomProjection()]).catch_up()
    rows = await event_log.pool.fetch(
        f"SELECT s.pieces, i.own_pieces FROM {SCHEMA}.instance i JOIN {SCHEMA}.shared_header s USING (position) ORDER BY instance_number"
    )
    joined = [msgspec.json.decode(splicing.join(row["pieces"], row["own_pieces"])) for row in rows]
    assert joined == headers
    assert [list(one) for one in joined] == [sorted(one) for one in headers]


async def test_an_erased_subject_leaves_uids_only(event_log: EventLog) -> None:
    event = msgspec.structs.replace(stored([header("1", "1.1", 1)]), common={}, headers=[])
    await append(event_log, event)
    await Runner(event_log, [DicomProjection()]).catch_up()
    row = await event_log.pool.fetchrow(
        f"SELECT s.pieces, i.own_pieces FROM {SCHEMA}.instance i JOIN {SCHEMA}.shared_header s USING (position)"
    )
    assert list(msgspec.json.decode(splicing.join(row["pieces"], row["own_pieces"]))) == [
        "00080016", "00080018", "0020000D", "0020000E",
    ]  # fmt: skip


async def test_hostile_text_does_not_stop_the_projection(event_log: EventLog) -> None:
    nasty = {
        "t00081030": {"vr": "LO", "Value": ["x" * 20_000 + "\0"]},
        "t00100020": {"vr": "LO", "Value": ["a\0b", None]},
        "t00100030": {"vr": "DA", "Value": ["yesterday"]},
        "t00080090": {"vr": "PN", "Value": ["not an object"]},
        "t00200013": {"vr": "IS", "Value": [10**30]},
        "t00200011": {"vr": "IS", "Value": [float("inf")]},
        "t00400275": {"vr": "SQ", "Value": [{}, {"00401001": {"vr": "SH", "Value": ["R\0"]}}]},
    }
    await append(event_log, stored([header("1", "1.1", 1, **nasty)], modality="C\0T"))
    runner = Runner(event_log, [DicomProjection()])
    await runner.catch_up()
    (status,) = await runner.status()
    assert status.problem is None
    assert await event_log.pool.fetchval(f"SELECT count(*) FROM {SCHEMA}.instance") == 1


async def test_a_rebuild_gives_the_same_bytes_whatever_the_batches(event_log: EventLog) -> None:
    chance = random.Random(7)
    events = []
    for n in range(20):
        study = f"1.{chance.randrange(3)}"
        numbers = range(100 * n, 100 * n + chance.randrange(1, 5))
        events.append(stored([header(study, f"{study}.{chance.randrange(2)}", number) for number in numbers]))
    await append(event_log, *events)
    projection = DicomProjection()
    await Runner(event_log, [projection], batch=2).catch_up()
    async with event_log.pool.acquire() as connection:
        before = await table_digests(connection, projection)
        assert await connection.fetchval(f"SELECT count(*) FROM {SCHEMA}.study_history") == 17
        await Runner(event_log, [projection], batch=100).rebuild(projection.name)
        assert await table_digests(connection, projection) == before
        assert set(before) == {"study", "study_history", "series", "series_history", "instance", "shared_header"}


TAG = st.integers(0x00080000, 0x00080010).map(lambda tag: f"{tag:08X}")
HEADER = st.dictionaries(TAG, st.integers(0, 1).map(lambda n: {"vr": "US", "Value": [n]}), min_size=1)


@given(st.lists(HEADER, min_size=1, max_size=4))
def test_splitting_and_joining_loses_nothing(headers: list[DicomJson]) -> None:
    common, own = split_headers(headers)
    shared, pieces = splicing.split(common, own)
    for own_header, own_pieces in zip(own, pieces, strict=True):
        joined = msgspec.json.decode(splicing.join(shared, own_pieces))
        assert list(joined.items()) == list(join_header(common, own_header).items())


@pytest.mark.parametrize(
    ("written", "folded"),
    [
        ("DOE^JOHN^^^", "doe^john"),
        ("Mu\u0308ller^A\u0308nne ", "müller^änne"),
        ("STRASSE^x", "strasse^x"),
        ("Straße^X", "strasse^x"),
        ("Σίσυφος", "σίσυφοσ"),
        ("^^", ""),
    ],
)
def test_names_are_folded(written: str, folded: str) -> None:
    assert folding.folded_name(written) == folded


@pytest.mark.parametrize(
    ("written", "folded"),
    [("20240131", "20240131"), ("2024.01.31", "20240131"), ("20241301", ""), ("", ""), ("2024", "")],
)
def test_dates_are_folded(written: str, folded: str) -> None:
    assert folding.folded_date(written) == folded


def test_times_are_filled_up() -> None:
    assert folding.folded_time("10") == "100000.000000"
    assert folding.folded_time("10", latest=True) == "105959.999999"
    assert folding.folded_time("101112.5") == "101112.500000"
    assert folding.folded_time("24") == ""
