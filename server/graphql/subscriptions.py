"""What comes by itself: what enters and leaves a cohort, as events make it so."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated

import msgspec
import numpy
import strawberry
from numpy.typing import NDArray

from domain.condition import Query
from projections.cohort.engine import Asked
from server.graphql.conditions import ConditionInput, compiled
from server.graphql.context import Context
from server.graphql.curation.saved import saved_cohort
from server.graphql.errors import Code, GraphqlError
from server.graphql.levels import Level
from server.graphql.nodes.any import MADE
from server.graphql.nodes.node import Node
from server.graphql.scalars import Long

LOOK_EVERY_S = 0.25
LOOK_SHARE = 10.0
"""Of the time, looking takes at most one part in so many: a cohort of millions is looked at less often."""
MOST_SHOWN = 1000
Ids = NDArray[numpy.int64]
Info = strawberry.Info[Context, None]


@strawberry.type(description="What entered and left a cohort between two positions.")
class Matches:
    since: Long = strawberry.field(description="The position that it was compared with.")
    position: Long = strawberry.field(description="The position that it is as of now: to go on after a broken connection, give it as `since`.")
    total_count: int = strawberry.field(description="How many are in it now.")
    entered: list[Node] = strawberry.field(description="Those that were not in it before: the first 1000.")
    entered_count: int = strawberry.field(description="How many entered.")
    left_count: int = strawberry.field(description="How many left.")


@strawberry.type
class CohortSubscriptions:
    @strawberry.subscription(
        description="New matches of a question, or of a saved cohort, as events arrive: something is sent whenever something entered or left."
        " Without `since`, from now on; with it, first what changed since that position."
    )
    async def cohort_matches(
        self,
        info: Info,
        level: Level = Level.SERIES,
        where: ConditionInput | None = None,
        since: Long | None = None,
        cohort_id: Annotated[str | None, strawberry.argument(description="A saved cohort, in place of level and where: its question as it is now.")] = None,
    ) -> AsyncIterator[Matches]:
        context = info.context
        if cohort_id is None:
            query = Query(level=level, where=compiled(where, level))
        elif where is not None:
            raise GraphqlError(Code.BAD_INPUT, "a question is given by level and where, or by a saved cohort, and not by both")
        else:
            query = await _saved(context, cohort_id)
        async for matches in follow(context, query, since, cohort_id):
            yield matches


async def follow(context: Context, query: Query, since: int | None, cohort_id: str | None = None) -> AsyncIterator[Matches]:
    """Without end. Raises what questions raise, and what it is to be refused for, as soon as it would be: a token, a cohort shared no more."""
    asked = context.asked(query, await context.reached(since if since is not None else await context.engine.position()))
    known = await _members(context, asked)
    clock = asyncio.get_running_loop().time
    took_s = 0.0
    while True:
        latest = await context.engine.position()
        if latest == asked.position:
            await asyncio.sleep(max(LOOK_EVERY_S, took_s * LOOK_SHARE))
            continue
        began = clock()
        before, asked = asked, msgspec.structs.replace(asked, position=latest)
        now = await _members(context, asked)
        took_s = clock() - began
        entered, left = numpy.setdiff1d(now, known, assume_unique=True), numpy.setdiff1d(known, now, assume_unique=True)
        known = now
        if entered.size or left.size:
            await context.still_good()
            if cohort_id is not None:
                await _saved(context, cohort_id)
            yield await _matches(context, before, asked, len(now), entered, len(left))
        context.forget(latest)


async def _saved(context: Context, cohort_id: str) -> Query:
    """Raises GraphqlError."""
    found = await saved_cohort(context, cohort_id)
    if found is None:
        raise GraphqlError(Code.REFUSED, "there is no saved cohort of this id that you may see")
    return found.question()


async def _matches(context: Context, before: Asked, asked: Asked, total: int, entered: Ids, left: int) -> Matches:
    reading = context.at(asked.position)
    level = asked.query.level
    rows = await reading.many(level, [int(id) for id in entered[:MOST_SHOWN]])
    if level is Level.INSTANCE:  # their series say whose they are, which is recorded
        await asyncio.gather(*(reading.row(Level.SERIES, row["series"]) for row in rows if row is not None))
    return Matches(
        since=Long(before.position),
        position=Long(asked.position),
        total_count=total,
        entered=[MADE[level](row, reading) for row in rows if row is not None],
        entered_count=len(entered),
        left_count=left,
    )


async def _members(context: Context, asked: Asked) -> Ids:
    """Ascending."""
    batches = [numpy.asarray(batch, dtype=numpy.int64) async for batch in context.engine.members(asked, asked.query.level)]
    return numpy.concatenate(batches) if batches else numpy.empty(0, dtype=numpy.int64)
