"""What can be asked: things by their ids, pages of what meets a condition, and cohorts."""

from __future__ import annotations

from contextlib import suppress
from functools import lru_cache
from typing import Any

import msgspec
import strawberry

from domain.condition import Query
from projections.cohort.engine import Order
from projections.cohort.errors import FieldUnknown
from projections.cohort.fields import BELONGS_TO, field_named, own_fields
from projections.cohort.fields import Field as KnownField
from projections.cohort.naming import keywords
from server.as_of import AsOf
from server.graphql.cohort import CohortView, ticks
from server.graphql.conditions import ConditionInput, compiled
from server.graphql.connections import Connection
from server.graphql.context import Context
from server.graphql.counts import AsOfInput, Field, OrderInput, TickInput
from server.graphql.cursors import entity_of, opened
from server.graphql.errors import Code, GraphqlError
from server.graphql.levels import Level
from server.graphql.nodes.any import MADE, node_of
from server.graphql.nodes.finding import Finding
from server.graphql.nodes.node import Node
from server.graphql.nodes.series import Series
from server.graphql.nodes.study import Study
from server.graphql.nodes.subject import Subject
from server.graphql.pages import MOST, AskedPages, Slice, named
from server.graphql.scalars import Long

Info = strawberry.Info[Context, None]


@strawberry.type
class CohortQueries:
    @strawberry.field(description="The latest position of the log that can be asked for.")
    async def position(self, info: Info) -> Long:
        return Long(await info.context.position())

    @strawberry.field(description="Persons that meet a condition.")
    async def subjects(
        self,
        info: Info,
        where: ConditionInput | None = None,
        ticked: list[TickInput] | None = None,
        as_of: AsOfInput | None = None,
        order_by: OrderInput | None = None,
        first: int | None = None,
        after: str | None = None,
        last: int | None = None,
        before: str | None = None,
    ) -> Connection[Subject]:
        return await _connection(info.context, Level.SUBJECT, where, ticked, as_of, order_by, Slice.of(first, after, last, before))

    @strawberry.field(description="Studies that meet a condition.")
    async def studies(
        self,
        info: Info,
        where: ConditionInput | None = None,
        ticked: list[TickInput] | None = None,
        as_of: AsOfInput | None = None,
        order_by: OrderInput | None = None,
        first: int | None = None,
        after: str | None = None,
        last: int | None = None,
        before: str | None = None,
    ) -> Connection[Study]:
        return await _connection(info.context, Level.STUDY, where, ticked, as_of, order_by, Slice.of(first, after, last, before))

    @strawberry.field(description="Series that meet a condition.")
    async def series(
        self,
        info: Info,
        where: ConditionInput | None = None,
        ticked: list[TickInput] | None = None,
        as_of: AsOfInput | None = None,
        order_by: OrderInput | None = None,
        first: int | None = None,
        after: str | None = None,
        last: int | None = None,
        before: str | None = None,
    ) -> Connection[Series]:
        return await _connection(info.context, Level.SERIES, where, ticked, as_of, order_by, Slice.of(first, after, last, before))

    @strawberry.field(description="Findings that meet a condition.")
    async def findings(
        self,
        info: Info,
        where: ConditionInput | None = None,
        ticked: list[TickInput] | None = None,
        as_of: AsOfInput | None = None,
        order_by: OrderInput | None = None,
        first: int | None = None,
        after: str | None = None,
        last: int | None = None,
        before: str | None = None,
    ) -> Connection[Finding]:
        return await _connection(info.context, Level.FINDING, where, ticked, as_of, order_by, Slice.of(first, after, last, before))

    @strawberry.field(description="What meets a condition, as a whole: counts, facets, histograms.")
    async def cohort(
        self,
        info: Info,
        level: Level = Level.SERIES,
        where: ConditionInput | None = None,
        ticked: list[TickInput] | None = None,
        as_of: AsOfInput | None = None,
    ) -> CohortView:
        context = info.context
        position = await context.position(_as_of(as_of))
        asked = context.asked(Query(level=level, where=compiled(where, level)), position, ticks(ticked))
        return CohortView(context=context, asked=asked, position=Long(position), level=level)

    @strawberry.field(description="Fields that can be asked for, by a part of their names: ours first, then DICOM elements by keyword.")
    async def fields(self, level: Level = Level.SERIES, like: str = "", first: int = 50) -> list[Field]:
        if not 0 <= first <= MOST:
            raise GraphqlError(Code.BAD_INPUT, f"this is 0 to {MOST}", most=MOST)
        return [Field.of(one) for one in _fields_like(level, like.casefold(), first)]

    @strawberry.field(description="A thing by its global id; null where there is no such thing.")
    async def node(self, info: Info, id: strawberry.ID, as_of: AsOfInput | None = None) -> Node | None:
        position = await info.context.position(_as_of(as_of))
        found = entity_of(id)
        return None if found is None else await node_of(*found, info.context.at(position))

    @strawberry.field(description="A person by pseudonym; null where there is none.")
    async def subject(self, info: Info, subject_id: str, as_of: AsOfInput | None = None) -> Subject | None:
        return await _by_key(info.context, Level.SUBJECT, subject_id, as_of)

    @strawberry.field(description="A study by its UID; null where there is none.")
    async def study(self, info: Info, study_uid: str, as_of: AsOfInput | None = None) -> Study | None:
        return await _by_key(info.context, Level.STUDY, study_uid, as_of)

    @strawberry.field(description="A series by its UID; null where there is none.")
    async def series_by_uid(self, info: Info, series_uid: str, as_of: AsOfInput | None = None) -> Series | None:
        return await _by_key(info.context, Level.SERIES, series_uid, as_of)

    @strawberry.field(description="A finding by its key; null where there is none.")
    async def finding(self, info: Info, finding_key: str, as_of: AsOfInput | None = None) -> Finding | None:
        return await _by_key(info.context, Level.FINDING, finding_key, as_of)


async def _connection(
    context: Context,
    level: Level,
    where: ConditionInput | None,
    ticked: list[TickInput] | None,
    as_of: AsOfInput | None,
    order_by: OrderInput | None,
    slice: Slice,
) -> Connection[Any]:
    order = None if order_by is None else Order(field=order_by.field, descending=order_by.descending)
    others = [] if order is None else [(order.field, "orderBy.field")]
    asked = context.asked(Query(level=level, where=compiled(where, level)), 0, ticks(ticked), others)
    place = None if slice.place is None else opened(context.services.log.vault, slice.place, named(asked, order))
    wanted = _as_of(as_of)
    if place is None:
        position = await context.position(wanted)
    else:  # pages that follow are of the first one's position
        position = await context.reached(place.position)
        if wanted is not None and await context.position(wanted) != position:
            raise GraphqlError(Code.CURSOR_INVALID, f"this cursor is of position {position}: leave `asOf` out", position=position)
    asked = msgspec.structs.replace(asked, position=position)
    pages = AskedPages(context.at(position), asked, order, slice, MADE[level], place)
    return Connection(pages=pages, position=Long(position))


async def _by_key(context: Context, level: Level, key: str, as_of: AsOfInput | None) -> Any:
    reading = context.at(await context.position(_as_of(as_of)))
    row = await reading.by_key(level, key)
    return None if row is None else MADE[level](row, reading)


def _as_of(given: AsOfInput | None) -> AsOf | None:
    """Raises AsOfInvalid."""
    if given is None:
        return None
    if given.position is not strawberry.UNSET and given.position is not None:
        if given.position < 0:
            raise GraphqlError(Code.POSITION_UNKNOWN, "positions begin at 0")
        return AsOf(at_position=given.position)
    assert given.instant is not None
    return AsOf.parse(given.instant)


def _fields_like(level: Level, like: str, most: int) -> list[KnownField]:
    found = [one for one in own_fields(level) if like in one.name.casefold()]
    if Level.STUDY in (level, *BELONGS_TO[level]):
        for name in _keywords():
            if len(found) >= most:
                break
            if like in name.casefold():
                with suppress(FieldUnknown):  # of series, and this is a study's
                    found.append(field_named(name, level))
    return found[:most]


_keywords = lru_cache(maxsize=1)(keywords)
