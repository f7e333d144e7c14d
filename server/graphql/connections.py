"""Relay connections: pages of what was asked for, with cursors that hold a position, so that pages are stable while others write."""

from __future__ import annotations

from typing import Generic, TypeVar

import strawberry

from server.graphql.counts import Counts
from server.graphql.cursors import seal
from server.graphql.pages import Pages
from server.graphql.scalars import Long

T = TypeVar("T")


@strawberry.type(description="Where a page ends, and whether there is more.")
class PageInfo:
    has_next_page: bool = strawberry.field(description="More comes after it.")
    has_previous_page: bool = strawberry.field(description="Something came before it.")
    start_cursor: str | None = strawberry.field(description="Of its first edge; null of an empty page.")
    end_cursor: str | None = strawberry.field(description="Of its last edge; null of an empty page.")


@strawberry.type(description="One of a page, and its place.")
class Edge(Generic[T]):
    node: T = strawberry.field(description="What is there.")
    cursor: str = strawberry.field(description="Its place, for `after` and `before`: opaque, and good after a restart.")


@strawberry.type(description="A page of what was asked for, in order, as of one position.")
class Connection(Generic[T]):
    pages: strawberry.Private[Pages]
    position: Long = strawberry.field(description="The position in the log that the page is as of: the one of the first page, on all that follow by cursor.")

    @strawberry.field(description="The page, with cursors.")
    async def edges(self) -> list[Edge[T]]:
        page, vault = await self.pages.page(), self.pages.vault
        if not self.pages.asks_for("cursor"):
            return [Edge(cursor="", node=node) for node in page.nodes]
        return [Edge(cursor=seal(vault, place), node=node) for place, node in zip(page.places, page.nodes, strict=True)]

    @strawberry.field(description="The page, without cursors.")
    async def nodes(self) -> list[T]:
        return (await self.pages.page()).nodes

    @strawberry.field(description="Where the page ends.")
    async def page_info(self) -> PageInfo:
        page = await self.pages.page()
        ends = [seal(self.pages.vault, page.places[end]) for end in (0, -1)] if page.places else [None, None]
        return PageInfo(has_next_page=page.has_next, has_previous_page=page.has_previous, start_cursor=ends[0], end_cursor=ends[1])

    @strawberry.field(description="How many there are on all pages.")
    async def total_count(self) -> int:
        return await self.pages.total()

    @strawberry.field(description="How many of each are in what was asked for, on all pages.")
    async def counts(self) -> Counts:
        return Counts.of(await self.pages.counts())
