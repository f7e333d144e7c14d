"""A tag, on a thing of any level or on a project."""

from __future__ import annotations

import strawberry

from domain.condition import Level
from server.graphql.nodes.node import Node, common
from server.graphql.reading import Reading
from server.graphql.rows import Row


@strawberry.type(description="A tag, on a thing of any level or on a project.")
class Tag(Node):
    on: str = strawberry.field(description="What it is on: subject, study, series, instance, finding or project.")
    project: str = strawberry.field(description="The project that it counts in; empty: everywhere.")
    name: str = strawberry.field(description="What is said.")
    value: str = strawberry.field(description="What it says; empty for a tag that is just there.")

    @strawberry.field(description="What it is on; null for a project.")
    async def target(self) -> Node | None:
        from server.graphql.nodes.any import node_of

        level, target = self.row["level"], self.row["target"]
        return await node_of(Level(level), target, self.reading) if level in set(Level) else None


def tag(row: Row, reading: Reading) -> Tag:
    return Tag(**common(Level.TAG, row, reading), on=row["level"], project=row["project"], name=row["name"], value=row["value"])
