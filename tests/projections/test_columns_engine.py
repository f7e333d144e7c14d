"""Columns answer what a naive loop over the rows answers, whatever happened before, whatever is asked, now and as of any position."""

from __future__ import annotations

import datetime
import random
from itertools import pairwise
from typing import Any

import pytest
from columns_questions import ELEMENTS, FIELDS, THREADS, asked_of, check, check_pages, fill, run
from columns_world import Naive, World
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.condition import All, Followed, Level, Query
from projections.cohort.engine import Asked
from projections.columns import moment, paging, selection
from projections.columns.engine import ColumnsEngine
from projections.columns.follower import gone
from projections.columns.lasting import Tallies
from projections.columns.store import Store


@settings(max_examples=60)
@given(st.integers(0, 10**9))
def test_columns_answer_what_a_naive_loop_answers_at_any_position(seed: int) -> None:
    draw = random.Random(seed)
    world = World(seed)
    store = Store(ELEMENTS)
    at = [0, *sorted(draw.sample(range(1, world.head), 3)), world.head]
    for beyond, upto in pairwise(at):
        fill(store, world, beyond, upto)
        if draw.random() < 0.3:
            store.tables = {level: table.put_in_order(upto) for level, table in store.tables.items()}
            store.publish(upto)

    async def ask() -> None:
        engine = ColumnsEngine(store, THREADS)
        for position in (world.head, world.head, draw.randint(1, world.head)):
            await check(engine, world, draw, position)

    run(ask)


@settings(max_examples=40)
@given(st.integers(0, 10**9))
def test_what_is_asked_again_goes_on_from_what_was_found(seed: int) -> None:
    draw = random.Random(seed)
    world, store = World(seed, events=40), Store(ELEMENTS)
    fill(store, world)
    again = [asked_of(draw, draw.choice(list(FIELDS)), 0) for _ in range(5)]
    went_on: list[bool] = []

    def watched(*arguments: Any) -> Tallies | None:
        found = selection.continued(*arguments)
        went_on.append(found is not None)
        return found

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(selection, "MOST_CHANGED", 100.0)
        patched.setattr(moment, "continued", watched)

        async def ask() -> None:
            engine = ColumnsEngine(store, THREADS)
            for _ in range(5):
                before = world.head
                for asked in again:
                    await check(engine, world, draw, world.head, asked)
                    await check(engine, world, draw, max(1, world.head - draw.randint(1, 4)), asked)
                subjects = world.standing(Level.SUBJECT, world.head)
                if subjects and draw.random() < 0.25:
                    erased = world.erase(draw.choice(subjects)["id"])
                    store.drop(gone(store, sorted(erased)), world.head)
                else:
                    for _ in range(draw.randint(1, 4)):
                        world.step()
                    fill(store, world, before)

        run(ask)
    assert any(went_on)


@settings(max_examples=25)
@given(st.integers(0, 10**9))
def test_orders_that_are_kept_take_in_what_comes_and_changes(seed: int) -> None:
    draw = random.Random(seed)
    world, store = World(seed, events=40), Store(ELEMENTS)
    fill(store, world)
    few, paging.FEW = paging.FEW, 0
    try:

        async def ask() -> None:
            engine = ColumnsEngine(store, THREADS)
            for _ in range(4):
                for level in (Level.SERIES, Level.FINDING, Level.STUDY):
                    for position in (world.head, max(1, world.head - 2)):
                        await check_pages(engine, Naive(world, position), draw, asked_of(draw, level, position))
                before = world.head
                for _ in range(5):
                    world.step()
                fill(store, world, before)

        run(ask)
    finally:
        paging.FEW = few


def test_a_study_is_no_follow_up_of_itself() -> None:
    world, store = World(0, events=0), Store(ELEMENTS)
    world.head = 3
    for number, days in enumerate(([0], [0, 0], [0, 1], [0, 400])):
        subject = world._add(Level.SUBJECT, number, subject_id=f"s{number}", sex="", born=None)["id"]
        for n, day in enumerate(days):
            date = datetime.date(2020, 1, 1) + datetime.timedelta(days=day)
            world._add(Level.STUDY, 10 * number + n, study_uid=f"1.{number}.{n}", subject=subject, study_date=date, age_years=None, elements={})
    fill(store, world)
    engine, every = ColumnsEngine(store, THREADS), All(())

    async def ask() -> None:
        for least, most in ((0, 0), (0, None), (1, None), (-5, 5), (1, 365), (2, 3)):
            asked = Asked(query=Query(level=Level.SUBJECT, where=Followed(baseline=every, follow_up=every, at_least_days=least, at_most_days=most)), position=3)
            found = [id_ async for batch in engine.members(asked, Level.SUBJECT) for id_ in batch]
            assert found == [row["id"] for row in Naive(world, 3).select(asked)], (least, most)

    run(ask)
