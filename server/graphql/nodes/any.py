"""A node of any level, made of its row."""

from __future__ import annotations

from collections.abc import Mapping

from domain.condition import Level
from server.graphql.nodes.fact import fact
from server.graphql.nodes.finding import finding
from server.graphql.nodes.instance import instance
from server.graphql.nodes.node import Node
from server.graphql.nodes.series import series
from server.graphql.nodes.study import study
from server.graphql.nodes.subject import subject
from server.graphql.nodes.tag import tag
from server.graphql.pages import Made
from server.graphql.reading import Reading

MADE: Mapping[Level, Made] = {
    Level.SUBJECT: subject,
    Level.STUDY: study,
    Level.SERIES: series,
    Level.INSTANCE: instance,
    Level.FINDING: finding,
    Level.FACT: fact,
    Level.TAG: tag,
}


async def node_of(level: Level, id: int, reading: Reading) -> Node | None:
    """None where there was no such thing."""
    row = await reading.row(level, id)
    if row is None:
        return None
    if level is Level.INSTANCE:
        await reading.row(Level.SERIES, row["series"])  # says whose it is, which is recorded
    node: Node = MADE[level](row, reading)
    return node
