"""The sealer: what it signs, when it refuses, how its keys change."""

from __future__ import annotations

import asyncio
import re
from datetime import UTC, datetime

import asyncpg
import pytest
from tampering import append_studies, as_owner

from eventlog.checkpoint_keys import public_keys, published_keys
from eventlog.errors import NotSealed, SealRefused
from eventlog.log import EventLog
from eventlog.merkle import leaf_hash, root_of
from eventlog.notes import ED25519, open_note, parse_checkpoint, parse_key
from eventlog.sealer import latest, rotate_key, run_sealer, seal


async def test_a_checkpoint_states_the_tree_over_all_events(any_log: EventLog) -> None:
    await append_studies(any_log, 300)
    sealed = await seal(any_log)
    digests = [row["digest"] for row in await any_log.pool.fetch("SELECT digest FROM event ORDER BY position")]
    keys = [parse_key(text) for text in await public_keys(any_log.pool)]
    opened = open_note(sealed.note, keys)
    stated = parse_checkpoint(opened.text)
    assert (stated.origin, stated.size, stated.root) == ("anamnesis/local", 300, root_of(map(leaf_hash, digests)))
    assert opened.bad == 0 and [key.algorithm for key in opened.signed_by] == [1, 4]
    assert opened.signed_at is not None and abs(opened.signed_at - datetime.now(UTC).timestamp()) < 600


async def test_nothing_new_makes_no_new_checkpoint(event_log: EventLog) -> None:
    with pytest.raises(NotSealed):
        await seal(event_log)
    await append_studies(event_log, 3)
    assert await seal(event_log) == await seal(event_log) == await latest(event_log.pool)


async def test_two_sealers_at_once_make_one_tree(event_log: EventLog) -> None:
    await append_studies(event_log, 500)
    sealed = await asyncio.gather(*(seal(event_log) for _ in range(5)))
    assert len({one.note for one in sealed}) == 1


async def test_a_new_key_is_vouched_for_by_the_old_one_which_then_signs_no_more(event_log: EventLog) -> None:
    await append_studies(event_log, 1)
    await seal(event_log)
    old = [parse_key(text) for text in await public_keys(event_log.pool)]
    new = await rotate_key(event_log)
    await append_studies(event_log, 1, 1)
    both = open_note((await seal(event_log)).note, [*old, new])
    assert {key for key in both.signed_by if key.algorithm == ED25519} == {old[0], new} and both.bad == 0
    await append_studies(event_log, 1, 2)
    after = open_note((await seal(event_log)).note, [*old, new])
    assert [key for key in after.signed_by if key.algorithm == ED25519] == [new]
    retired = [one for one in await published_keys(event_log.pool) if one.retired_at is not None]
    assert {one.key for one in retired} == {key.text() for key in old}
    assert await event_log.pool.fetchval("SELECT count(*) FROM checkpoint_key WHERE wrapped IS NOT NULL") == 1


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("UPDATE log_head SET position = 250", "ends at position 250, and 300 events were sealed"),
        ("UPDATE tree_tile SET hashes = overlay(hashes placing '\\xff'::bytea from 5) WHERE level = 0 AND index = 1", "does not give the root"),
        ("DELETE FROM tree_tile WHERE index = 1", "missing or cut"),
        ("DELETE FROM event WHERE position = 305", "gap in the log after position 304"),
        ("UPDATE log_head SET position = 311", "gap in the log after position 310"),
    ],
)
async def test_what_was_changed_behind_it_is_not_signed_over(event_log: EventLog, statement: str, said: str) -> None:
    await append_studies(event_log, 300)
    before = await seal(event_log)
    await append_studies(event_log, 10, 300)
    await as_owner(event_log, statement)
    with pytest.raises(SealRefused, match=re.escape(said)):
        await seal(event_log)
    assert await latest(event_log.pool) == before


async def test_checkpoints_are_refused_to_be_changed(event_log: EventLog) -> None:
    await append_studies(event_log, 1)
    await seal(event_log)
    for statement in ("UPDATE checkpoint SET size = 2", "DELETE FROM checkpoint", "TRUNCATE checkpoint"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await event_log.pool.execute(statement)


async def test_the_background_sealer_seals_what_comes(event_log: EventLog) -> None:
    task = asyncio.create_task(run_sealer(event_log, 0.05))
    try:
        for n in range(3):
            await append_studies(event_log, 5, 5 * n)
            async with asyncio.timeout(30):
                while (sealed := await latest(event_log.pool)) is None or sealed.size < 5 * (n + 1):
                    await asyncio.sleep(0.02)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
