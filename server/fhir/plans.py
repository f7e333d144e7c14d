"""Which searches PostgreSQL plans once for whatever is asked, and which for the values that are asked for.

Planning a search takes as long as a short search itself, and is needed where a value may be common: of what one resource in eight has,
a page is walked in order, of what few have, those few are looked up. PostgreSQL's own statistics say which values are common and how dates
are spread. A search that looks up few by one of its conditions is planned once. Whatever is chosen, what is found is the same.
"""

from __future__ import annotations

import asyncio
import logging
from bisect import bisect
from collections.abc import Sequence

import asyncpg
import msgspec

from eventlog.appender import CONNECTION_ERRORS
from projections.fhir.projection import SCHEMA
from server.fhir.comparisons import DateTest, SameTest, TargetTest, Test
from server.fhir.conditions import Chained, Condition, HasId, HasRow, ReferredBy

FEW = 2_000
"""Rows that a span of time may hold for it to be looked up."""
REFRESH_S = 300.0
RETRY_S = 5.0

_logger = logging.getLogger(__name__)


class Statistics(msgspec.Struct, frozen=True):
    """``common``: codes and targets of which PostgreSQL knows that many rows have them. ``bounds``: of instants, in seconds since 1970,
    equally many dates begin between one and the next; ``begins``: instants at which many begin. ``dates``: how many dates there are."""

    common: frozenset[str]
    bounds: tuple[float, ...]
    begins: tuple[float, ...]
    dates: float

    def are_few(self, first: float, last: float) -> bool:
        """So few dates begin from the first instant to the last, wherever they stand."""
        if any(first <= one <= last for one in self.begins):
            return False
        return len(self.bounds) > 1 and self.dates * max(0.0, self._share(last) - self._share(first)) <= FEW

    def _share(self, instant: float) -> float:
        """Of all dates, how many begin before it."""
        place = bisect(self.bounds, instant)
        if place in (0, len(self.bounds)):
            return float(place > 0)
        low, high = self.bounds[place - 1], self.bounds[place]
        return (place - 1 + (instant - low) / (high - low)) / (len(self.bounds) - 1)


class Plans:
    """``each``: sessions that plan every search for its values; ``once``: those that plan it once for all."""

    def __init__(self, each: asyncpg.Pool, once: asyncpg.Pool) -> None:
        self._each, self._once = each, once
        self._statistics: Statistics | None = None

    async def run(self) -> None:
        """Keeps the statistics, until cancelled."""
        while True:
            try:
                self._statistics = await read_statistics(self._each)
            except (*CONNECTION_ERRORS, asyncpg.PostgresError) as lost:
                _logger.warning("the statistics of the read model cannot be read (%s); trying again", type(lost).__name__)
            await asyncio.sleep(RETRY_S if self._statistics is None else REFRESH_S)

    def pool(self, conditions: Sequence[Condition], *, is_sorted: bool = False) -> asyncpg.Pool:
        """The sessions for a search by these conditions. A sorted page walks the index of what it is sorted by."""
        known = self._statistics
        return self._once if known is not None and not is_sorted and any(finds_few(one, known) for one in conditions) else self._each


def finds_few(condition: Condition, known: Statistics) -> bool:
    match condition:
        case HasId(is_negated=False):
            return True
        case HasRow(is_negated=False, tests=tests):
            return all(_is_rare(test, known) for test in tests)
        case Chained(alternatives=((_, inner),)) | ReferredBy(inner=inner):
            return finds_few(inner, known)
    return False


def _is_rare(test: Test, known: Statistics) -> bool:
    match test:
        case SameTest(columns=columns):
            return any(name == "code" and value not in known.common for name, value in columns)
        case TargetTest(targets=targets):
            return not known.common.intersection(targets)
        case DateTest():
            within = test.within
            return within is not None and known.are_few(within[0].timestamp(), within[1].timestamp())
    return False


async def read_statistics(pool: asyncpg.Pool) -> Statistics | None:
    """What PostgreSQL knows of the rows that searches look into; None before it has looked at them."""
    values, dates = await pool.fetch(_VALUES, SCHEMA), await pool.fetchrow(_DATES, SCHEMA)
    if len(values) < 2 or dates is None:
        return None
    together = [code for row in await pool.fetch(_TOGETHER, SCHEMA) for (code,) in row["codes"]]
    common = frozenset([value for row in values for value in row["common"]] + together)
    return Statistics(common, tuple(dates["bounds"]), tuple(dates["common"]), float(dates["rows"]))


_VALUES = """
SELECT coalesce(most_common_vals::text::text[], '{}') AS common FROM pg_stats
WHERE schemaname = $1 AND (tablename, attname) IN (('token', 'code'), ('reference', 'target'))
"""
_TOGETHER = """
SELECT most_common_vals[1:][2:2] AS codes FROM pg_stats_ext
WHERE schemaname = $1 AND statistics_name = 'token_values' AND most_common_vals IS NOT NULL
"""
_DATES = """
SELECT c.reltuples AS rows,
       ARRAY(SELECT extract(epoch FROM one)::float8 FROM unnest(s.histogram_bounds::text::timestamptz[]) one) AS bounds,
       ARRAY(SELECT extract(epoch FROM one)::float8 FROM unnest(s.most_common_vals::text::timestamptz[]) one) AS common
FROM pg_stats s JOIN pg_namespace n ON n.nspname = s.schemaname JOIN pg_class c ON c.relnamespace = n.oid AND c.relname = s.tablename
WHERE s.schemaname = $1 AND s.tablename = 'date' AND s.attname = 'low'
"""
