"""Questions that are kept: what they may ask, and the same question put to the series of what it is about."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Protocol

import asyncpg

from domain.condition import All, Any, Between, Condition, Contains, Followed, Has, Level, Not, OneOf, Present, Query
from domain.errors import CohortRefused
from projections.checkpoint import wait_for
from projections.cohort.engine import Asked, Engine
from projections.cohort.fields import Field, field_named
from projections.cohort.projection import CohortProjection
from server.cohorts.members import Curation

ROWS = "cohort_v1"
"""The schema of the cohort rows."""
BATCH = 2000
_HELD = "position_from <= $2 AND (position_to IS NULL OR position_to > $2)"


class Curating(Curation, Protocol):
    """What saved cohorts and datasets need beside the log and the archive."""

    @property
    def cohorts(self) -> Engine: ...


async def latest(services: Curating) -> int:
    """The log's head, once it can be asked for: who freezes, or asks for consent, means all that was written until then.

    Raises ProjectionBehind.
    """
    head = await services.log.head()
    await wait_for(services.log.pool, CohortProjection(), head)
    return head


def check_kept(query: Query) -> None:
    """A question that is kept names fields that there are, and none that says who somebody is: it outlives that person's erasure.

    Raises FieldUnknown, CohortRefused.
    """
    identifying = sorted({field.name for field in fields_of(query.where, query.level) if field.identifies and not field.name.startswith("(")})
    if identifying:
        raise CohortRefused(
            f"a question that is kept may not ask for {', '.join(identifying)}: it would name people when they are erased."
            " Tag those whom you mean, and ask for the tag"
        )


def fields_of(condition: Condition | None, level: Level) -> Iterator[Field]:
    """Each field that a condition names. Raises FieldUnknown."""
    match condition:
        case OneOf() | Between() | Present() | Contains():
            yield field_named(condition.field, level)
        case All() | Any():
            for one in condition.of:
                yield from fields_of(one, level)
        case Not():
            yield from fields_of(condition.of, level)
        case Has():
            yield from fields_of(condition.where, condition.level)
        case Followed():
            yield from fields_of(condition.baseline, Level.STUDY)
            yield from fields_of(condition.follow_up, Level.STUDY)


def series_that(query: Query) -> Query:
    """The series that belong to what a question is about, so that any field of theirs can be asked for."""
    if query.level is Level.SERIES:
        return query
    return Query(level=Level.SERIES, where=Has(level=query.level, where=query.where))


def narrowed(query: Query, *conditions: Condition) -> Query:
    """What of it meets these too."""
    return Query(level=query.level, where=All((*(() if query.where is None else (query.where,)), *conditions)))


async def subjects_in(pool: asyncpg.Pool, engine: Engine, asked: Asked) -> AsyncIterator[Sequence[str]]:
    """Pseudonyms of the subjects of what was asked for, in batches."""
    async for ids in engine.members(asked, Level.SUBJECT):
        rows = await pool.fetch(f"SELECT subject_id FROM {ROWS}.subject WHERE id = ANY($1) AND {_HELD}", list(ids), asked.position)
        yield [row["subject_id"] for row in rows]
