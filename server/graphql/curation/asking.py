"""What resolvers of curation share: the question that is given, what a mutation waits for, and how errors of ours are told."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from typing import TypeVar, cast

import msgspec
import strawberry

from domain.condition import Query, decode
from domain.errors import DomainError
from domain.ids import Position
from projections.catalogue import projections
from projections.checkpoint import wait_for
from server.as_of import AsOf
from server.cohorts.errors import CurationError
from server.cohorts.questions import Curating
from server.errors import ScopeMissing
from server.graphql import questions
from server.graphql.conditions import ConditionInput, compiled
from server.graphql.context import Context
from server.graphql.counts import AsOfInput
from server.graphql.errors import Code, GraphqlError
from server.graphql.levels import Level

WRITE = "cohorts:write"
_READ = ("curation", "cohort")
"""Read models that show what is written here."""
T = TypeVar("T")
Info = strawberry.Info[Context, None]


@strawberry.input(
    description="A question to be kept: a level and a condition, or (instead) the canonical JSON that `cohort { query }` gives. What identifies"
    " people may not be asked for."
)
class QuestionInput:
    level: Level = strawberry.field(default=Level.SERIES, description="What is in the cohort.")
    where: ConditionInput | None = strawberry.field(default=None, description="What it meets; all of it without one.")
    query: str | None = strawberry.field(default=None, description="Canonical JSON; then level and where are left out.")


def question(context: Context, given: QuestionInput) -> Query:
    """Raises GraphqlError, ScopeMissing and what is wrong with a field."""
    if given.query is None:
        query = Query(level=given.level, where=compiled(given.where, given.level))
    elif given.where is not None:
        raise GraphqlError(Code.BAD_INPUT, "a question is given by level and where, or by its JSON, and not by both")
    else:
        try:
            query = decode(given.query.encode("utf-8"))
        except msgspec.MsgspecError as error:
            raise GraphqlError(Code.BAD_INPUT, f"this is no question as canonical JSON: {error}") from None
    context.fields.update(questions.check(query, may_identify=context.may_identify))
    return query


async def position_of(context: Context, given: AsOfInput) -> int:
    """Raises AsOfInvalid, PositionUnknown."""
    if given.position is not strawberry.UNSET and given.position is not None:
        return await context.position(AsOf(at_position=given.position))
    assert given.instant is not None
    return await context.position(AsOf.parse(given.instant))


def curating(context: Context) -> Curating:
    return cast(Curating, context.services)


def require_write(context: Context) -> None:
    """Raises ScopeMissing."""
    if not context.reader.may(WRITE):
        raise ScopeMissing(WRITE)


async def readable(context: Context, position: Position | int | None) -> None:
    """Returns once whoever reads next sees what was written up to this position: projects and cohorts, rows and columns.

    Raises ProjectionBehind, PositionUnknown.
    """
    if position is None:
        return
    for projection in projections():
        if projection.name in _READ:
            await wait_for(context.services.pool, projection, position)
    await context.reached(position)


@asynccontextmanager
async def told() -> AsyncIterator[None]:
    """Refusals become errors that programs tell apart: extensions.code is REFUSED, extensions.reason names what was refused."""
    try:
        yield
    except (DomainError, CurationError) as error:
        raise GraphqlError(Code.REFUSED, str(error), reason=type(error).__name__) from None


def by_owner(rows: Sequence[T], key: Callable[[T], str]) -> dict[str, list[T]]:
    """What was read of many at once, by what it belongs to, in its order."""
    found: dict[str, list[T]] = defaultdict(list)
    for row in rows:
        found[key(row)].append(row)
    return found


def seen(context: Context, subjects: Iterable[str]) -> None:
    """Persons (by pseudonym) who are in the answer, for the record of who looked."""
    context.persons.update(subjects)


def within(asked: int, most: int, least: int = 1) -> int:
    if not least <= asked <= most:
        raise GraphqlError(Code.BAD_INPUT, f"this is {least} to {most}", most=most)
    return asked


def not_empty(keys: Sequence[str]) -> Sequence[str]:
    if not keys:
        raise GraphqlError(Code.BAD_INPUT, "name at least one thing")
    return keys
