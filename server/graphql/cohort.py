"""What was asked for as a whole: how many, how they are spread, and what answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import strawberry

from domain.condition import Query, Value, encode
from projections.cohort.engine import Asked, FacetAsked
from server.graphql.context import Context
from server.graphql.counts import Counts, Explanation, Facet, FacetInput, Histogram, TickInput
from server.graphql.errors import Code, GraphqlError
from server.graphql.levels import Level
from server.graphql.scalars import Long

MOST_VALUES = 1000
MOST_BINS = 1000


@strawberry.type(description="What was asked for as a whole: how many, and how they are spread.")
class CohortView:
    context: strawberry.Private[Context]
    asked: strawberry.Private[Asked]
    position: Long = strawberry.field(description="The position in the log that it is as of.")
    level: Level = strawberry.field(description="What is counted.")

    @strawberry.field(description="How many of each.")
    async def counts(self) -> Counts:
        return Counts.of(await self.context.engine.counts(self.asked))

    @strawberry.field(description="Counts of fields' values (with drill-sideways counts where values are ticked).")
    async def facets(self, fields: list[FacetInput]) -> list[Facet]:
        wanted = [FacetAsked(field=one.field, size=_within(one.size, MOST_VALUES), subjects=one.subjects) for one in fields]
        self._check((one.field, f"facets.fields[{number}]") for number, one in enumerate(wanted))
        return [Facet.of(one) for one in await self.context.engine.facets(self.asked, wanted)]

    @strawberry.field(description="How a field's numbers or dates are spread, in at most 1000 bins.")
    async def histogram(self, field: str, bins: int = 20) -> Histogram:
        self._check([(field, "histogram.field")])
        return Histogram.of(await self.context.engine.histogram(self.asked, field, _within(bins, MOST_BINS)))

    @strawberry.field(description="What was used to answer, how many rows, how long.")
    async def explain(self) -> Explanation:
        return Explanation.of(await self.context.engine.explain(self.asked))

    @strawberry.field(description="The question as canonical JSON: what cohorts are saved as, and datasets frozen from.")
    def query(self) -> str:
        return encode(self.asked.query).decode("utf-8")

    def _check(self, others: Sequence[tuple[str, str]] | object) -> None:
        self.context.asked(Query(level=self.asked.query.level), self.asked.position, None, others)  # type: ignore[arg-type]


def ticks(given: Sequence[TickInput] | None) -> Mapping[str, Sequence[Value]]:
    """Raises GraphqlError where a field is ticked twice, or without a value."""
    made: dict[str, Sequence[Value]] = {}
    for one in given or ():
        if one.field in made or not one.values:
            raise GraphqlError(Code.BAD_INPUT, "each field is ticked once, with at least one value")
        made[one.field] = msgspec.convert(one.values, list[Value])
    return made


def _within(asked: int, most: int) -> int:
    if not 1 <= asked <= most:
        raise GraphqlError(Code.BAD_INPUT, f"this is 1 to {most}", most=most)
    return asked
