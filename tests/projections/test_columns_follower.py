"""Columns keep up with the rows: from nothing, from a snapshot, through erasures, and with new facets."""

from __future__ import annotations

import asyncio
import random
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from cohort_logs import a_log
from cohort_tables import FILLING, prepare, put
from columns_questions import check
from columns_world import Naive, World

from domain import facet
from domain.access import Action
from domain.condition import Level, OneOf, Query
from domain.facet import FACETS_STREAM, Facets
from domain.principal import device
from eventlog.aggregate import execute
from eventlog.log import EventLog
from projections.cohort.engine import Asked, FacetAsked
from projections.cohort.projection import NAME, VERSION
from projections.columns import snapshot
from projections.columns.engine import ColumnsEngine
from projections.columns.errors import NotAColumn, SnapshotRefused
from projections.columns.follower import Follower
from server.audit.recorder import append_accesses, one_access

THREADS = ThreadPoolExecutor(2)
PLANTED = "PLANTEDDESCRIPTION"


@asynccontextmanager
async def following(log: EventLog, folder: Path, **settings: float) -> AsyncIterator[Follower]:
    follower = Follower(log, folder, NAME, VERSION, [FILLING], **settings)  # type: ignore[arg-type]
    running = asyncio.create_task(follower.run())
    try:
        yield follower
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await follower.close()


async def reached(follower: Follower, position: int) -> ColumnsEngine:
    while not (follower.store.is_ready and follower.store.position >= position):
        await asyncio.sleep(0.01)
    return ColumnsEngine(follower.store, THREADS)


async def checked(engine: ColumnsEngine, world: World, draw: random.Random, times: int = 12) -> None:
    for _ in range(times):
        await check(engine, world, draw, draw.choice((world.head, draw.randint(1, world.head))))


async def test_columns_follow_what_begins_and_ends(event_log: EventLog, tmp_path: Path) -> None:
    world, draw = World(1, events=50), random.Random(1)
    await prepare(event_log)
    await put(event_log, world)
    async with following(event_log, tmp_path) as follower:
        for _ in range(5):
            await checked(await reached(follower, world.head), world, draw)
            for _ in range(4):
                world.step()
            await put(event_log, world)


async def test_events_that_do_not_change_the_rows_move_the_position_alone(event_log: EventLog, tmp_path: Path) -> None:
    world, draw = World(1, events=20), random.Random(1)
    await prepare(event_log)
    await put(event_log, world)
    async with following(event_log, tmp_path) as follower:
        await reached(follower, world.head)
        head = await append_accesses(event_log, one_access(device("reader"), Action.READ))
        await event_log.pool.execute("UPDATE public.projection_checkpoint SET position = $1 WHERE name = 'cohort'", head)
        await checked(await reached(follower, head), world, draw)
        world.head = head
        world.step()
        await put(event_log, world)
        await checked(await reached(follower, world.head), world, draw)


async def test_who_stops_does_not_wait_until_all_rows_are_read(event_log: EventLog, tmp_path: Path) -> None:
    world = World(2, events=20)
    await prepare(event_log)
    await put(event_log, world)
    waiting = "SELECT count(*) FROM pg_locks l JOIN pg_database d ON d.oid = l.database WHERE d.datname = current_database() AND NOT l.granted"
    async with event_log.pool.acquire() as holder, holder.transaction():
        await holder.execute(f"LOCK TABLE {NAME}_v{VERSION}.series IN ACCESS EXCLUSIVE MODE")
        async with following(event_log, tmp_path):
            while not await event_log.pool.fetchval(waiting):
                await asyncio.sleep(0.01)
        while await event_log.pool.fetchval(waiting):  # for ever, if the reading went on
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("seed", range(3))
async def test_a_snapshot_and_what_came_since_are_what_a_fresh_start_reads(event_log: EventLog, tmp_path: Path, seed: int) -> None:
    world, draw = World(seed, events=40), random.Random(seed)
    await prepare(event_log)
    await put(event_log, world)
    async with following(event_log, tmp_path / "one") as follower:
        await reached(follower, world.head)
    for _ in range(10):
        world.step()
    await put(event_log, world)
    async with following(event_log, tmp_path / "one") as again, following(event_log, tmp_path / "two") as fresh:
        await checked(await reached(again, world.head), world, draw)
        await checked(await reached(fresh, world.head), world, draw)
        assert again.store.rows == fresh.store.rows


async def test_what_an_erasure_took_is_in_no_array_and_no_file(event_log: EventLog, tmp_path: Path) -> None:
    world, draw = World(3, events=60), random.Random(3)
    planted = next(row for row in world.rows[Level.SERIES] if row["position_to"] is None)
    planted["elements"]["0008103E"] = [PLANTED]
    await prepare(event_log)
    await put(event_log, world)
    async with following(event_log, tmp_path) as follower:
        await reached(follower, world.head)
        await follower.write_snapshot()
        assert holds(tmp_path, PLANTED)

        erased = world.erase(planted["subject"])
        await put(event_log, world, erased)
        engine = await reached(follower, world.head)
        await checked(engine, world, draw)
        while not list(tmp_path.glob("*.columns")):
            await asyncio.sleep(0.01)
        assert not holds(tmp_path, PLANTED)
        dictionary = follower.store.tables[Level.SERIES].columns["0008103E"].dictionary  # type: ignore[union-attr]
        assert PLANTED not in dictionary.values
        assert (PLANTED,) not in dictionary.code_of


async def test_an_erasure_while_nobody_followed_is_carried_out_before_anybody_is_answered(event_log: EventLog, tmp_path: Path) -> None:
    world, draw = World(3, events=60), random.Random(3)
    planted = next(row for row in world.rows[Level.SERIES] if row["position_to"] is None)
    planted["elements"]["0008103E"] = [PLANTED]
    await prepare(event_log)
    await put(event_log, world)
    async with following(event_log, tmp_path) as follower:
        await reached(follower, world.head)
    assert holds(tmp_path, PLANTED)
    await put(event_log, world, world.erase(planted["subject"]))
    async with following(event_log, tmp_path) as follower:
        engine = await reached(follower, 1)
        assert follower.store.position == world.head
        await checked(engine, world, draw)
    assert not holds(tmp_path, PLANTED)


async def test_what_the_eraser_forgets_is_not_written_again(event_log: EventLog, tmp_path: Path) -> None:
    world = World(4, events=30)
    await prepare(event_log)
    await put(event_log, world)
    async with following(event_log, tmp_path) as follower:
        await reached(follower, world.head)
        await follower.write_snapshot()
        assert snapshot.forget_before(tmp_path, world.head + 1) == 1
        await follower.write_snapshot()
    assert not list(tmp_path.glob("*.columns"))


async def test_a_snapshot_is_for_its_owner_alone(event_log: EventLog, tmp_path: Path) -> None:
    await prepare(event_log)
    world = World(5)
    await put(event_log, world)
    async with following(event_log, tmp_path / "columns") as follower:
        await reached(follower, world.head)
    [file] = (tmp_path / "columns").glob("*.columns")
    assert file.stat().st_mode & 0o777 == 0o600
    assert (tmp_path / "columns").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("damage", ["byte", "cut", "version", "longer", "empty"])
async def test_a_damaged_snapshot_is_thrown_away(event_log: EventLog, tmp_path: Path, damage: str) -> None:
    world, draw = World(6, events=30), random.Random(6)
    await prepare(event_log)
    await put(event_log, world)
    async with following(event_log, tmp_path) as follower:
        await reached(follower, world.head)
    [file] = tmp_path.glob("*.columns")
    data = bytearray(file.read_bytes())
    match damage:
        case "byte":
            data[len(data) - 60] ^= 1
        case "cut":
            del data[-40:]
        case "version":
            data[18] ^= 1
        case "longer":
            data += b"\0"
        case "empty":
            data.clear()
    file.write_bytes(data)
    with pytest.raises(SnapshotRefused):
        snapshot.read(file)
    async with following(event_log, tmp_path) as follower:
        await checked(await reached(follower, world.head), world, draw)


async def test_a_snapshot_of_another_log_is_thrown_away(event_log: EventLog, embedded_server: str, tmp_path: Path) -> None:

    async with a_log(embedded_server, tmp_path / "other") as other:
        theirs = World(7, events=40)
        await prepare(other)
        await put(other, theirs)
        async with following(other, tmp_path / "columns") as follower:
            await reached(follower, theirs.head)
    world, draw = World(8, events=40), random.Random(8)
    await prepare(event_log)
    await put(event_log, world)
    async with following(event_log, tmp_path / "columns") as follower:
        await checked(await reached(follower, world.head), world, draw)


async def test_readers_see_one_position_while_others_arrive(event_log: EventLog, tmp_path: Path) -> None:
    world = World(9, events=40)
    await prepare(event_log)
    await put(event_log, world)
    asked_for: list[tuple[int, tuple[int, ...], list[tuple[object, int]]]] = []
    done = False
    async with following(event_log, tmp_path) as follower:
        engine = await reached(follower, world.head)

        async def read() -> None:
            while not done:
                asked = Asked(query=Query(level=Level.FINDING, where=OneOf("sex", ("F",))), position=await engine.position())
                counts, [facet] = await asyncio.gather(engine.counts(asked), engine.facets(asked, [FacetAsked(field="label")]))
                asked_for.append((asked.position, (counts.subjects, counts.studies, counts.series, counts.findings), [(v.value, v.count) for v in facet.values]))

        readers = [asyncio.create_task(read()) for _ in range(3)]
        for _ in range(12):
            world.step()
            await put(event_log, world)
            while not any(position == world.head for position, _, _ in asked_for):
                await asyncio.sleep(0.01)
        done = True
        await asyncio.gather(*readers)
    assert len({position for position, _, _ in asked_for}) > 3
    for position, found, values in asked_for:
        naive, asked = Naive(world, position), Asked(query=Query(level=Level.FINDING, where=OneOf("sex", ("F",))), position=position)
        assert found == naive.counts(asked)[:4]
        assert values == [(value, count) for value, count, _ in naive.facet(asked, FacetAsked(field="label"))[0]]


async def test_any_element_becomes_a_facet_while_others_arrive(event_log: EventLog, tmp_path: Path) -> None:
    world = World(10, events=60)
    for row in world.rows[Level.SERIES]:
        row["elements"]["00181315"] = [random.Random(row["id"]).choice(("N", "Y"))]  # Variable Flip Angle Flag
    await prepare(event_log)
    await put(event_log, world)
    asked = FacetAsked(field="VariableFlipAngleFlag")
    async with following(event_log, tmp_path) as follower:
        engine = await reached(follower, world.head)
        with pytest.raises(NotAColumn, match="VariableFlipAngleFlag"):
            await engine.facets(Asked(query=Query(level=Level.SERIES), position=world.head), [asked])
        await say(event_log, lambda state: facet.add_facet(state, "VariableFlipAngleFlag"))
        world.head += 1
        await put(event_log, world)
        while not follower.store.tables[Level.SERIES].columns.get("00181315"):
            world.step()
            await put(event_log, world)
        await reached(follower, world.head)
        for position in (world.head, world.head - 10):
            whole = Asked(query=Query(level=Level.SERIES), position=position)
            [found] = await engine.facets(whole, [asked])
            values, distinct, missing = Naive(world, position).facet(whole, asked)
            assert ([(v.value, v.count) for v in found.values], found.distinct, found.missing) == ([each[:2] for each in values], distinct, missing)
    async with following(event_log, tmp_path) as follower:  # from the snapshot
        await reached(follower, world.head)
        assert "00181315" in follower.store.tables[Level.SERIES].columns
        await say(event_log, lambda state: facet.remove_facet(state, "VariableFlipAngleFlag"))
        world.head += 1
        await put(event_log, world)
        await reached(follower, world.head)
        while "00181315" in follower.store.tables[Level.SERIES].columns:
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("label", ["a\\b", "tab\there", "line\nbreak", '"quoted", with commas', "\\N", "back\\\\slashes\\t", "ünïcode ✓", "\r", "N"])
async def test_text_is_read_as_it_is(event_log: EventLog, tmp_path: Path, label: str) -> None:
    world = World(12, events=60)
    for row in world.rows[Level.FINDING][::2]:
        row["label"] = label
    await prepare(event_log)
    await put(event_log, world)
    async with following(event_log, tmp_path) as follower:
        engine = await reached(follower, world.head)
        for position in (world.head, world.head // 2):
            whole, facet = Asked(query=Query(level=Level.FINDING), position=position), FacetAsked(field="label", subjects=True)
            [found] = await engine.facets(whole, [facet])
            assert [(v.value, v.count, v.subjects) for v in found.values] == Naive(world, position).facet(whole, facet)[0]


async def test_columns_that_would_be_too_large_are_given_up(event_log: EventLog, tmp_path: Path) -> None:
    world = World(11, events=40)
    await prepare(event_log)
    await put(event_log, world)
    async with following(event_log, tmp_path, most_bytes=1000) as follower:
        while follower.progress.state != "stopped":
            await asyncio.sleep(0.01)
        assert "MiB" in follower.progress.problem
        assert not follower.store.is_ready


def test_a_kill_while_a_snapshot_is_written_leaves_one_that_can_be_read(tmp_path: Path) -> None:
    draw = random.Random(0)
    for _ in range(3):
        writing = subprocess.Popen([sys.executable, "-c", _WRITES, str(tmp_path)], stdout=subprocess.PIPE)
        assert writing.stdout is not None
        writing.stdout.readline()
        time.sleep(draw.uniform(0, 0.05))
        writing.kill()
        writing.wait()
        writing.stdout.close()
        path = snapshot.newest(tmp_path)
        assert path is not None
        description, store = snapshot.read(path)
        assert store.position == description.position == int(path.stem)
        assert not list(tmp_path.glob("*.part"))


_WRITES = """
import sys
from pathlib import Path
import numpy as np
from domain.condition import Level
from projections.columns import snapshot
from projections.columns.store import NO_ENDS, Changes, Store
from projections.columns.table import Rows
store = Store({})
n = 200_000
rows = Rows(range(4096, 4096 + n), [1] * n, [None] * n)
rows.columns = {"sex": [("F",)] * n}
store.add(Level.SUBJECT, Changes(NO_ENDS, rows), 1)
position = max([int(path.stem) for path in Path(sys.argv[1]).glob("*.columns")], default=0)
while True:
    position += 1
    store.publish(position)
    snapshot.write(Path(sys.argv[1]), snapshot.capture(store, "cohort_v1", "", ""))
    print(position, flush=True)
"""


def holds(folder: Path, text: str) -> bool:
    return any(text.encode() in path.read_bytes() for path in folder.iterdir() if path.is_file())


async def say(log: EventLog, decide: object) -> None:
    await execute(log, FACETS_STREAM, Facets(), facet.evolve, decide, principal=device("test"))  # type: ignore[arg-type]
