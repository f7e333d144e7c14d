"""What all things have: a global id, their place in the log, the events that made them, tags, and what belongs to them."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated, Any

import strawberry

from domain.condition import Level
from server.graphql.conditions import ConditionInput, compiled
from server.graphql.connections import Connection
from server.graphql.cursors import global_id
from server.graphql.pages import FIRST, ChildPages, Slice
from server.graphql.reading import Belonging, Reading
from server.graphql.rows import KEYS, Row
from server.graphql.scalars import Long

if TYPE_CHECKING:
    from server.graphql.nodes.tag import Tag

CHILDREN = "What belongs to it, in the order in which it came."
ORDINALS = 4096
"""See projections.cohort.tables: an entity's id is a position times this, and a number."""


@strawberry.type(description="An event of the log that made a thing what it is.")
class Made:
    position: Long = strawberry.field(description="Its place in the log.")
    type: str = strawberry.field(description="SeriesIndexed, FindingReviewed, …")
    recorded_at: datetime.datetime = strawberry.field(description="When it was recorded.")


@strawberry.interface(description="Whatever has a global id.")
class Node:
    row: strawberry.Private[Row]
    reading: strawberry.Private[Reading]
    level: strawberry.Private[Level]
    id: strawberry.ID = strawberry.field(description="Opaque, and the same for as long as the log is.")
    first: Long = strawberry.field(description="Position of the event that it came with.")
    since: Long = strawberry.field(description="Position from which it is as it is here.")

    @strawberry.field(description="The events that made it what it is, up to the position that was asked for.")
    async def events(self) -> list[Made]:
        made = await self.reading.made(self.level, self.row["id"])
        return [Made(position=one["position"], type=one["type"], recorded_at=one["recorded_at"]) for one in made]


@strawberry.interface(description="What can be tagged.")
class Tagged(Node):
    @strawberry.field(description="Tags on it, by project and name.")
    async def tags(self) -> list[Annotated[Tag, strawberry.lazy("server.graphql.nodes.tag")]]:
        from server.graphql.nodes.tag import tag

        return [tag(row, self.reading) for row in await self.reading.tags(self.level, self.row["id"])]


def common(level: Level, row: Row, reading: Reading) -> dict[str, Any]:
    """What every node is made with."""
    id = row["id"]
    first = id // ORDINALS
    return {"row": row, "reading": reading, "level": level, "id": global_id(level, id), "first": first, "since": row["position_from"]}


def belonging(
    node: Node, level: Level, made: Callable[[Row, Reading], Any], where: ConditionInput | None, first: int | None, after: str | None
) -> Connection[Any]:
    """What of a level belongs to a node, and meets a condition. Raises what questions raise."""
    condition = compiled(where, level)
    wanted = Belonging(node.level, node.row["id"], node.row[KEYS[node.level]], level, condition)
    if condition is not None:
        node.reading.context.asked(node.reading.query_of(wanted), node.reading.position)
    pages = ChildPages(node.reading, wanted, Slice.of(FIRST if first is None else first, after, None, None), made)
    return Connection(pages=pages, position=Long(node.reading.position))
