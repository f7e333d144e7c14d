"""Whatever is changed in the database by hand is found and named: position, stream, what differs."""

from __future__ import annotations

import base64

import pytest
from mixed_log import fill
from tampering import append_studies, as_owner

from eventlog.checking import Checked, Discrepancy, check_log
from eventlog.checkpoint_keys import public_keys
from eventlog.errors import NoteMalformed
from eventlog.log import EventLog
from eventlog.sealer import rotate_key, seal

EVENTS = 900


async def sealed_log(log: EventLog) -> None:
    """Some checkpoints, a change of keys, and events after the last checkpoint."""
    await fill(log, EVENTS // 2)
    await seal(log)
    await rotate_key(log)
    await fill(log, EVENTS // 2, first=10_000)
    await seal(log)
    await append_studies(log, 3, 5_000)


async def test_an_untouched_log_holds(any_log: EventLog) -> None:
    await sealed_log(any_log)
    heard: list[tuple[int, int]] = []
    checked = await check_log(any_log, progress=lambda position, head: heard.append((position, head)))
    assert checked.holds and checked.discrepancies == []
    assert checked.events == await any_log.head() == heard[-1][0] == heard[-1][1]
    assert (checked.sealed, checked.checkpoints, checked.unknown) == (checked.events - 3, 2, 0)


async def test_an_empty_log_holds(event_log: EventLog) -> None:
    assert (await check_log(event_log)).holds


async def found(log: EventLog, statement: str) -> list[Discrepancy]:
    await as_owner(log, statement)
    checked = await check_log(log)
    assert not checked.holds and checked.found == len(checked.discrepancies)
    return checked.discrepancies


@pytest.mark.parametrize(
    "change",
    [
        "data = convert_to(replace(convert_from(data, 'UTF8'), '\"series_uid\":\"1.2', '\"series_uid\":\"1.3'), 'UTF8')",
        "data = substr(data, 1, 10)",
        "principal = '{}'",
        "principal = replace(principal, 'device', 'person')",
        "principal = 'x'",
        "type = 'StudyRegistered'",
        "stream = 'series-9.9'",
        "recorded_at = recorded_at + interval '1 microsecond'",
        "occurred_at = occurred_at - interval '1 day'",
        "correlation_id = gen_random_uuid()",
        "causation_id = gen_random_uuid()",
        "event_id = gen_random_uuid()",
        "origin = 'elsewhere'",
        "schema_version = 9",
    ],
)
async def test_a_changed_column_is_found(event_log: EventLog, change: str) -> None:
    await sealed_log(event_log)
    position = await event_log.pool.fetchval("SELECT max(position) FROM event WHERE type = 'InstancesStored' AND position < 300")
    before = await event_log.pool.fetchval("SELECT stream FROM event WHERE position = $1", position)
    if change.startswith("schema_version"):  # a version that this code does not know: its content cannot be read, and is not guessed
        await as_owner(event_log, f"UPDATE event SET {change} WHERE position = {position}")
        checked = await check_log(event_log)
        assert checked.unknown == 1
        return
    discrepancies = await found(event_log, f"UPDATE event SET {change} WHERE position = {position}")
    first = next(one for one in discrepancies if one.position == position)
    assert "content was changed" in first.what and "as it was sealed" in first.what
    assert first.stream == ("series-9.9" if change.startswith("stream") else before)
    assert {one.position for one in discrepancies if one.stream == before} <= {position, *range(position, EVENTS * 2)}


async def test_one_discrepancy_for_one_changed_event(event_log: EventLog) -> None:
    await sealed_log(event_log)
    (only,) = await found(event_log, "UPDATE event SET origin = 'elsewhere' WHERE position = 77")
    assert only.position == 77


async def test_an_event_that_is_not_sealed_yet_is_checked_too(event_log: EventLog) -> None:
    await sealed_log(event_log)
    head = await event_log.head()
    (only,) = await found(event_log, f"UPDATE event SET origin = 'elsewhere' WHERE position = {head}")
    assert only.position == head and "not sealed yet" in only.what


async def test_a_changed_digest_is_told_from_a_changed_event(event_log: EventLog) -> None:
    await sealed_log(event_log)
    (only,) = await found(event_log, "UPDATE event SET digest = sha256(digest) WHERE position = 5")
    assert only.position == 5 and "the stored digest was changed; the event itself is as it was sealed" in only.what


async def test_an_event_replaced_with_its_digest_is_found(event_log: EventLog) -> None:
    """What an administrator would do who knows how digests are made: two events change places, each with its own digest."""
    await sealed_log(event_log)
    columns = "event_id, stream, version, type, schema_version, occurred_at, recorded_at, principal, correlation_id, causation_id, origin, data"
    swapped = ", ".join(f"{name} = (SELECT {name} FROM spare WHERE spare.position = 201 - event.position)" for name in [*columns.split(", "), "digest"])
    discrepancies = await found(
        event_log,
        "ALTER TABLE event DROP CONSTRAINT event_event_id_key, DROP CONSTRAINT event_stream_version_key;"
        "CREATE TEMP TABLE spare AS SELECT * FROM event WHERE position IN (100, 101);"
        f"UPDATE event SET {swapped} WHERE position IN (100, 101)",
    )
    assert {one.position for one in discrepancies if "replaced by another" in one.what} == {100, 101}


async def test_a_deleted_event_is_missed(event_log: EventLog) -> None:
    await sealed_log(event_log)
    discrepancies = await found(event_log, "DELETE FROM event WHERE position BETWEEN 20 AND 21")
    missing = [one for one in discrepancies if "missing" in one.what]
    assert [one.position for one in missing] == [20, 21]
    assert not any("another root" in one.what for one in discrepancies)  # the tree still tells what was there


async def test_a_log_cut_at_its_end_is_found(event_log: EventLog) -> None:
    await sealed_log(event_log)
    head = await event_log.head() - 10
    discrepancies = await found(event_log, f"DELETE FROM event WHERE position > {head}; UPDATE log_head SET position = {head}")
    assert any(f"the log ends at position {head}: events are missing" in one.what for one in discrepancies)


async def test_streams_whose_versions_are_out_of_order_are_found(event_log: EventLog) -> None:
    """Versions are not in the digest: they follow from the order, and are checked against it."""
    await sealed_log(event_log)
    row = await event_log.pool.fetchrow("SELECT stream, position FROM event WHERE version = 1 AND stream LIKE 'series-%' LIMIT 1")
    discrepancies = await found(event_log, f"UPDATE event SET version = 77 WHERE position = {row['position']}")
    assert (row["position"], row["stream"]) in {(one.position, one.stream) for one in discrepancies}


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("UPDATE tree_tile SET hashes = overlay(hashes placing '\\x00'::bytea from 40) WHERE level = 1 AND index = 0", "at level 1 of the tree"),
        ("DELETE FROM tree_tile WHERE level = 0 AND index = 2", "no leaf for this position"),
        ("UPDATE checkpoint SET note = replace(note, 'anamnesis/local', 'anamnesis/other')", "carries no good signature"),
        ("UPDATE checkpoint SET root = sha256(root)", "another root than the log's tree"),
        ("UPDATE checkpoint SET note = 'x'", "malformed"),
        ("UPDATE checkpoint SET size = size + 1", "stored with another size"),
        ("DELETE FROM checkpoint_key WHERE retired_at IS NOT NULL", "no good signature of a published key"),
    ],
)
async def test_a_changed_tree_or_checkpoint_is_found(event_log: EventLog, statement: str, said: str) -> None:
    await sealed_log(event_log)
    assert any(said in one.what for one in await found(event_log, statement))


async def rewritten(log: EventLog) -> Checked:
    """The whole tree and all checkpoints are made anew over a changed event, by somebody who has the signing keys."""
    await as_owner(
        log, "UPDATE event SET digest = sha256(digest) WHERE position = 5; DELETE FROM tree_tile; DELETE FROM checkpoint"
    )
    await seal(log)
    return await check_log(log)


async def test_a_history_rewritten_by_the_site_itself_does_not_agree_with_a_checkpoint_kept_elsewhere(event_log: EventLog) -> None:
    await sealed_log(event_log)
    kept: str = await event_log.pool.fetchval("SELECT note FROM checkpoint ORDER BY size LIMIT 1")
    assert (await check_log(event_log, kept=[kept])).holds
    await rewritten(event_log)
    discrepancies = (await check_log(event_log, kept=[kept])).discrepancies
    assert any("kept elsewhere and this log do not agree" in one.what for one in discrepancies)


async def test_a_kept_checkpoint_with_a_forged_signature_is_found(event_log: EventLog) -> None:
    await sealed_log(event_log)
    kept: str = await event_log.pool.fetchval("SELECT note FROM checkpoint ORDER BY size LIMIT 1")
    head, _, signature = kept.partition("\u2014 anamnesis/local ")
    raw = bytearray(base64.b64decode(signature.splitlines()[0]))
    raw[20] ^= 1
    forged = f"{head}\u2014 anamnesis/local {base64.b64encode(raw).decode()}\n"
    assert any("no good signature" in one.what for one in (await check_log(event_log, kept=[forged])).discrepancies)


async def test_a_key_that_nobody_vouches_for_is_found(event_log: EventLog) -> None:
    """Somebody with the database puts in a key of their own, and signs on with that alone."""
    await sealed_log(event_log)
    known = [text for text in await public_keys(event_log.pool) if "/time+" not in text][-1]
    assert (await check_log(event_log, known_key=known)).holds
    await as_owner(event_log, "UPDATE checkpoint_key SET wrapped = NULL, retired_at = now()")
    await seal(event_log)
    discrepancies = (await check_log(event_log)).discrepancies
    assert any("for which no earlier checkpoint vouches" in one.what for one in discrepancies)


async def test_a_key_that_is_known_from_elsewhere_must_have_signed(event_log: EventLog) -> None:
    await sealed_log(event_log)
    keys = [text for text in await public_keys(event_log.pool) if "/time+" not in text]
    for key in keys:
        assert (await check_log(event_log, known_key=key)).holds
    other = "anamnesis/other+4f26b5ce+AQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eHyAh"
    with pytest.raises(NoteMalformed):
        await check_log(event_log, known_key=other)
    with pytest.raises(NoteMalformed):
        await check_log(event_log, kept=["no checkpoint"])
