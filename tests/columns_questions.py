"""Questions about a world of cohort rows at random, each checked against the naive loop."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from columns_world import LABELS, Naive, World, after, records

from domain.condition import All, Any, Between, Condition, Contains, Followed, Has, Level, Not, OneOf, Present, Query
from projections.cohort.engine import Asked, FacetAsked, Order
from projections.columns.engine import ColumnsEngine
from projections.columns.layout import LAID
from projections.columns.reading import reader
from projections.columns.store import Changes, Store
from projections.columns.table import Rows

ELEMENTS = {Level.STUDY: ("00081030",), Level.SERIES: ("00080060", "00180050", "00080008", "0008103E")}
FIELDS = {
    Level.SUBJECT: ("sex",),
    Level.STUDY: ("sex", "study_date", "age_years", "StudyDescription"),
    Level.SERIES: ("sex", "study_date", "StudyDescription", "Modality", "SliceThickness", "ImageType", "SeriesDescription", "indexing", "slice_spacing_mm", "instance_count"),
    Level.FINDING: ("sex", "Modality", "label", "laterality", "volume_ml", "whole", "verdict", "age_years"),
    Level.FACT: ("code", "value", "sex"),
    Level.TAG: ("name", "value", "level"),
}  # fmt: skip
THREADS = ThreadPoolExecutor(2)

leaves = {
    Level.SUBJECT: (OneOf("sex", ("F",)), Present("sex"), OneOf("sex", ("F", "M"))),
    Level.STUDY: (Between(field="study_date", at_least="2020-02-01"), Between(field="age_years", less_than=60), Contains("StudyDescription", "abd"), OneOf("sex", ("M",))),
    Level.SERIES: (
        OneOf("Modality", ("CT",)), OneOf("ImageType", ("ORIGINAL",)), Between(field="SliceThickness", at_most=1.5), Between(field="SliceThickness", at_most=1.5, every=True),
        Contains("SeriesDescription", "axial"), Present("SliceThickness"), OneOf("SliceThickness", (1, 5.0)), Between(field="instance_count", more_than=2), OneOf("sex", ("F",)),
        Between(field="slice_spacing_mm", at_least=2), OneOf("Modality", ("none",)), OneOf("ImageType", ("DERIVED", "PRIMARY", "x", "ORIGINAL")),
    ),
    Level.FINDING: (OneOf("label", ("liver",)), OneOf("label", LABELS[:2]), Between(field="volume_ml", more_than=2), OneOf("whole", (True,)), OneOf("verdict", ("accepted",)), OneOf("Modality", ("MR",))),
    Level.FACT: (OneOf("code", ("C22",)), Present("value"), OneOf("sex", ("F",))),
    Level.TAG: (OneOf("name", ("hard",)), OneOf("value", ("portal",))),
}  # fmt: skip
paths = {
    Level.SUBJECT: (Level.STUDY, Level.SERIES, Level.FINDING, Level.FACT, Level.TAG),
    Level.STUDY: (Level.SUBJECT, Level.SERIES, Level.FINDING, Level.FACT, Level.TAG),
    Level.SERIES: (Level.SUBJECT, Level.STUDY, Level.FINDING, Level.FACT, Level.TAG),
    Level.FINDING: (Level.SUBJECT, Level.SERIES, Level.FACT, Level.TAG),
    Level.FACT: (Level.SUBJECT,),
    Level.TAG: (),
}


def some_condition(draw: random.Random, level: Level, depth: int = 3) -> Condition:
    """Of this level, nested."""
    kind = draw.random() if depth else 0.0
    if kind < 0.4:
        return draw.choice(leaves[level])
    if kind < 0.75 or not paths[level]:
        parts = tuple(some_condition(draw, level, depth - 1) for _ in range(draw.randint(0, 3)))
        return draw.choice((All(parts), Any(parts), Not(some_condition(draw, level, depth - 1)), All(parts)))
    if level == Level.SUBJECT and kind < 0.85:
        return Followed(
            baseline=some_condition(draw, Level.STUDY, depth - 1), follow_up=some_condition(draw, Level.STUDY, depth - 1),
            at_least_days=draw.choice((-30, 0, 1, 100)), at_most_days=draw.choice((None, 0, 200)),
        )  # fmt: skip
    other = draw.choice(paths[level])
    return Has(level=other, where=draw.choice((None, some_condition(draw, other, depth - 1))), at_least=draw.choice((1, 1, 2)))


def fill(store: Store, world: World, beyond: int = 0, upto: int | None = None) -> None:
    """As following the tables does: what ended, then what began."""
    upto = world.head if upto is None else upto
    for level, laid in LAID.items():
        links = list(dict.fromkeys(laid.belongs.values()))
        columns = ["id", "position_from", "position_to", *links, *laid.columns, *(["elements"] if laid.has_elements else [])]
        seen = [{**row, "position_to": None if (row["position_to"] or 0) > upto else row["position_to"]} for row in world.rows[level] if row["position_from"] <= upto]
        began = [row for row in seen if row["position_from"] > beyond]
        over = [row for row in seen if row["position_from"] <= beyond and (row["position_to"] or 0) > beyond]
        rows = reader(level, store.tables)(records(level, began, columns)) if began else Rows.none(store.tables[level])
        ends = np.array([(row["id"], row["position_from"], row["position_to"]) for row in over], np.int64).reshape(-1, 3)
        assert store.add(level, Changes((ends[:, 0], ends[:, 1], ends[:, 2]), rows), upto)
    store.settle(upto)


def asked_of(draw: random.Random, level: Level, position: int) -> Asked:
    where = None if draw.random() < 0.2 else some_condition(draw, level)
    ticked = {"Modality": ("CT", "MR"), "ImageType": ("PRIMARY",), "sex": ("F",)} if level == Level.SERIES and draw.random() < 0.5 else {}
    return Asked(query=Query(level=level, where=where), position=position, ticked=ticked)


async def check(engine: ColumnsEngine, world: World, draw: random.Random, position: int, again: Asked | None = None) -> None:
    """Every kind of question, of one level: of what was asked before, or of something else."""
    naive = Naive(world, position)
    level = again.query.level if again is not None else draw.choice(list(FIELDS))
    asked = Asked(query=again.query, position=position, ticked=again.ticked) if again is not None else asked_of(draw, level, position)
    selected = [row["id"] for row in naive.select(asked)]

    assert [id_ async for batch in engine.members(asked, level) for id_ in batch] == selected
    if level != Level.TAG:
        counts = await engine.counts(asked)
        found = (counts.subjects, counts.studies, counts.series, counts.findings, counts.instances, counts.bytes)
        if level != Level.FACT:
            assert found == naive.counts(asked)
    facets = [FacetAsked(field=field, size=draw.choice((2, 20)), subjects=level != Level.TAG and draw.random() < 0.5) for field in FIELDS[level]]
    for facet, answer in zip(facets, await engine.facets(asked, facets), strict=True):
        values, distinct, missing = naive.facet(asked, facet)
        assert [(each.value, each.count, each.subjects) for each in answer.values] == values, facet
        assert (answer.distinct, answer.missing) == (distinct, missing), facet
    await check_pages(engine, naive, draw, asked)


async def check_pages(engine: ColumnsEngine, naive: Naive, draw: random.Random, asked: Asked) -> None:
    order = draw.choice((None, Order(field=draw.choice(FIELDS[asked.query.level]), descending=draw.random() < 0.5)))
    expected, size = naive.order(asked, order), draw.randint(1, 4)
    for backwards in (False, True):
        left, cursor = list(expected), None
        while True:
            page = await engine.page(asked, size, order, cursor, backwards=backwards)
            part = left[-size:] if backwards else left[:size]
            assert list(zip(page.keys, page.ids, strict=True)) == part
            left = left[:-size] if backwards else left[size:]
            assert page.has_more == bool(left)
            if not left:
                break
            cursor = after(part[0] if backwards else part[-1])


def run(work: Callable[[], Awaitable[None]]) -> None:
    asyncio.run(work())  # type: ignore[arg-type]
