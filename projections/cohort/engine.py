"""What counts and lists cohorts, and what it answers. Columns in memory do, and PostgreSQL: both give the same."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Protocol

import msgspec

from domain.condition import Level, Query, Value


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """A query, of a position, with what is ticked in facets.

    ``ticked``: field → values of which one has to hold, each a further condition; but a facet's own ticks do not narrow what that
    facet counts (drill-sideways), so that one sees what ticking another value would add.
    """

    query: Query
    position: int
    ticked: Mapping[str, Sequence[Value]] = {}


class Counts(msgspec.Struct, frozen=True, kw_only=True):
    """How many of each are in what was asked for: of levels above, those that it belongs to; of its level, itself.

    ``instances`` and ``bytes`` are of the series in question (of a subject or study, of all of its series that are known).
    """

    subjects: int
    studies: int
    series: int
    findings: int
    instances: int
    bytes: int


class FacetAsked(msgspec.Struct, frozen=True, kw_only=True):
    """The most frequent ``size`` values of a field, most frequent first, equal ones by value. ``subjects``: also how many persons."""

    field: str
    size: int = 20
    subjects: bool = False


class FacetValue(msgspec.Struct, frozen=True):
    value: Value
    count: int
    subjects: int | None = None


class Facet(msgspec.Struct, frozen=True, kw_only=True):
    """``distinct``: how many values there are in all; ``missing``: how many entities have none. An entity counts once for each of its values."""

    field: str
    values: Sequence[FacetValue]
    distinct: int
    missing: int


class Bin(msgspec.Struct, frozen=True):
    """Counts of [low, high); the last bin of a histogram holds its high too. Numbers, or dates as YYYY-MM-DD."""

    low: Value
    high: Value
    count: int


class Histogram(msgspec.Struct, frozen=True, kw_only=True):
    """Of numbers and dates; of an entity with several values, each counts. ``low`` and ``high`` are of all that was asked for."""

    field: str
    bins: Sequence[Bin]
    low: Value | None
    high: Value | None
    missing: int


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """By a field's smallest value (``descending``: its largest); those without one come last either way, equal ones by entity id."""

    field: str
    descending: bool = False


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """Ids of entities, in order. ``keys`` are what each is sorted by (None without a value): with the id, a cursor."""

    ids: Sequence[int]
    keys: Sequence[Value | None]
    has_more: bool


class After(msgspec.Struct, frozen=True):
    """Where a page begins: beyond this entity."""

    key: Value | None
    id: int


class Explanation(msgspec.Struct, frozen=True, kw_only=True):
    """What was used: ``engine`` (columns, postgresql); for each condition, in order, how many entities of its level met it."""

    engine: str
    steps: Sequence[tuple[str, int, float]]
    """What was looked at (words), how many met it, milliseconds."""


class Engine(Protocol):
    """All of it raises FieldUnknown, FieldRefused (a kind of field that cannot be asked so) and PositionUnknown (beyond what is read)."""

    async def position(self) -> int:
        """The latest position that can be asked for."""

    async def counts(self, asked: Asked) -> Counts: ...

    async def facets(self, asked: Asked, facets: Sequence[FacetAsked]) -> list[Facet]: ...

    async def histogram(self, asked: Asked, field: str, bins: int) -> Histogram: ...

    async def page(self, asked: Asked, first: int, order: Order | None = None, after: After | None = None, *, backwards: bool = False) -> Page:
        """``backwards``: the last ``first`` before ``after`` (still in order). Without an order: by entity id."""

    def members(self, asked: Asked, level: Level) -> AsyncIterator[Sequence[int]]:
        """Ids of the entities of a level that belong to what was asked for, ascending, in batches.

        A series' subject, a study's series: upwards what it belongs to, downwards all that belongs to it.
        """

    async def explain(self, asked: Asked) -> Explanation: ...
