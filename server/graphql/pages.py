"""Pages of entities: of a question, by an engine, and of what belongs to an entity, by what a request gathers."""

from __future__ import annotations

import asyncio
import hashlib
from bisect import bisect_left, bisect_right
from collections.abc import Callable
from typing import Any, Protocol

import msgspec

from domain.condition import Level
from eventlog.vault import Vault
from projections.cohort.engine import After, Asked, Counts, Order
from server.graphql.cursors import Place, opened
from server.graphql.errors import Code, GraphqlError
from server.graphql.reading import Belonging, Reading
from server.graphql.rows import Row

FIRST = 20
"""What a page holds where nobody says how much."""
MOST = 1000
Made = Callable[[Row, Reading], Any]
"""What makes a node of a row."""


class Slice(msgspec.Struct, frozen=True):
    """Which page: ``size`` after a place, or before one (``backwards``)."""

    size: int = FIRST
    place: str | None = None
    backwards: bool = False

    @classmethod
    def of(cls, first: int | None, after: str | None, last: int | None, before: str | None) -> Slice:
        """Raises GraphqlError for what makes no page."""
        if first is not None and last is not None:
            raise GraphqlError(Code.BAD_INPUT, "a page is the first so many or the last so many: give `first` or `last`")
        if (after is not None and (last is not None or before is not None)) or (before is not None and first is not None):
            raise GraphqlError(Code.BAD_INPUT, "`first` goes with `after`, and `last` with `before`")
        backwards = last is not None or before is not None
        size = last if last is not None else first if first is not None else FIRST
        if not 0 <= size <= MOST:
            raise GraphqlError(Code.BAD_INPUT, f"a page has 0 to {MOST} entries", most=MOST)
        return cls(size, before if backwards else after, backwards)


class Page(msgspec.Struct, frozen=True):
    places: list[Place]
    nodes: list[Any]
    has_next: bool
    has_previous: bool


class Pages(Protocol):
    """What a connection shows; each is looked up when it is asked for, and once."""

    @property
    def vault(self) -> Vault: ...

    def asks_for(self, name: str) -> bool:
        """Whether a field of this name is asked for, anywhere in the document."""

    async def page(self) -> Page: ...

    async def total(self) -> int: ...

    async def counts(self) -> Counts: ...


class Once:
    """What several fields of one connection wait for."""

    def __init__(self) -> None:
        self._made: dict[str, asyncio.Future[Any]] = {}

    async def __call__(self, name: str, make: Callable[[], Any]) -> Any:
        if name not in self._made:
            self._made[name] = asyncio.ensure_future(make())
        return await self._made[name]


class AskedPages:
    """Of a question, in an order."""

    def __init__(self, reading: Reading, asked: Asked, order: Order | None, slice: Slice, made: Made, place: Place | None) -> None:
        self._reading, self._asked, self._order, self._slice, self._made, self._place = reading, asked, order, slice, made, place
        self._once = Once()

    @property
    def vault(self) -> Vault:
        return self._reading.context.services.log.vault

    def asks_for(self, name: str) -> bool:
        return self._reading.asks_for(name)

    async def page(self) -> Page:
        page: Page = await self._once("page", self._load)
        return page

    async def total(self) -> int:
        return total_of(await self.counts(), self._asked.query.level)

    async def counts(self) -> Counts:
        counts: Counts = await self._once("counts", lambda: self._reading.context.engine.counts(self._asked))
        return counts

    async def _load(self) -> Page:
        question = named(self._asked, self._order)
        beyond = None if self._place is None else After(self._place.key, self._place.id)
        size, level, position = self._slice.size, self._asked.query.level, self._asked.position
        found = await self._reading.context.engine.page(self._asked, size, self._order, beyond, backwards=self._slice.backwards)
        rows = await self._reading.many(level, found.ids)
        await self._reading.what_they_belong_to(level, rows)
        places, nodes = [], []
        for id, key, row in zip(found.ids, found.keys, rows, strict=True):
            if row is not None:  # erased since
                places.append(Place(question, position, key, id))
                nodes.append(self._made(row, self._reading))
        more, came_before = found.has_more, beyond is not None
        return Page(places, nodes, *((came_before, more) if self._slice.backwards else (more, came_before)))


class ChildPages:
    """Of what belongs to an entity, as it came."""

    def __init__(self, reading: Reading, wanted: Belonging, slice: Slice, made: Made) -> None:
        self._reading, self._wanted, self._slice, self._made = reading, wanted, slice, made
        self._once = Once()

    @property
    def vault(self) -> Vault:
        return self._reading.context.services.log.vault

    def asks_for(self, name: str) -> bool:
        return self._reading.asks_for(name)

    async def page(self) -> Page:
        page: Page = await self._once("page", self._load)
        return page

    async def total(self) -> int:
        return len(await self._reading.belonging(self._wanted))

    async def counts(self) -> Counts:
        asked = Asked(query=self._reading.query_of(self._wanted), position=self._reading.position)
        counts: Counts = await self._once("counts", lambda: self._reading.context.engine.counts(asked))
        return counts

    async def _load(self) -> Page:
        position = self._reading.position
        question = named(Asked(query=self._reading.query_of(self._wanted), position=position), None)
        ids = await self._reading.belonging(self._wanted)
        begin, end = 0, len(ids)
        if self._slice.place is not None:
            place = opened(self.vault, self._slice.place, question)
            if place.position != position:
                raise GraphqlError(Code.CURSOR_INVALID, f"this cursor is of position {place.position}: ask for that (`asOf`)", position=place.position)
            begin, end = (0, bisect_left(ids, place.id)) if self._slice.backwards else (bisect_right(ids, place.id), end)
        begin, end = (max(end - self._slice.size, begin), end) if self._slice.backwards else (begin, min(begin + self._slice.size, end))
        loaded = await asyncio.gather(*(self._reading.row(self._wanted.level, id) for id in ids[begin:end]))
        there = [(id, row) for id, row in zip(ids[begin:end], loaded, strict=True) if row is not None]
        places = [Place(question, position, None, id) for id, _ in there]
        return Page(places, [self._made(row, self._reading) for _, row in there], end < len(ids), begin > 0)


def named(asked: Asked, order: Order | None) -> bytes:
    """A name of a question and its order, whatever the position: what a cursor of one may not be used for another by."""
    text = _ENCODER.encode((asked.query, sorted((field, list(values)) for field, values in asked.ticked.items()), order))
    return hashlib.sha256(text).digest()[:8]


def total_of(counts: Counts, level: Level) -> int:
    return {Level.SUBJECT: counts.subjects, Level.STUDY: counts.studies, Level.SERIES: counts.series, Level.FINDING: counts.findings}[level]


_ENCODER = msgspec.json.Encoder(order="sorted")
