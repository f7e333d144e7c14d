"""Saved cohorts in GraphQL, and what changed in them."""

from __future__ import annotations

import datetime
from collections.abc import Sequence

import strawberry

from domain.condition import Query, decode
from projections.curation import reading
from projections.curation.reading import CohortRow
from server.cohorts import changes as changing
from server.cohorts.access import acting
from server.cohorts.changes import Changed
from server.cohorts.reasons import Reason
from server.graphql.cohort import CohortView
from server.graphql.context import Context
from server.graphql.counts import AsOfInput
from server.graphql.curation.asking import Info, by_owner, curating, position_of, seen, told, within
from server.graphql.levels import Level
from server.graphql.scalars import Long


@strawberry.type(description="An event that is about a thing, or about what it belongs to and about no neighbour of it: why something changed.")
class ChangeReason:
    position: Long = strawberry.field(description="Its place in the log.")
    type: str = strawberry.field(description="SeriesIndexed, FindingReviewed, TagSet, …")
    recorded_at: datetime.datetime = strawberry.field(description="When it was recorded.")
    principal_id: str = strawberry.field(description="Who did it.")

    @classmethod
    def of(cls, reason: Reason) -> ChangeReason:
        return cls(position=Long(reason.position), type=reason.type, recorded_at=reason.recorded_at, principal_id=reason.principal_id)


@strawberry.type(description="What entered a cohort, or left it, and the events about it in between (at most 20, the latest).")
class ChangedThing:
    subject_id: str = strawberry.field(description="Whose it is, by pseudonym.")
    study_uid: str = strawberry.field(description="Empty for a subject.")
    series_uid: str = strawberry.field(description="Empty for a subject or study.")
    finding_key: str = strawberry.field(description="Empty but for a finding.")
    reasons: list[ChangeReason] = strawberry.field(description="In the order of the log.")

    @classmethod
    def of(cls, changed: Changed) -> ChangedThing:
        thing = changed.thing
        return cls(
            subject_id=thing.subject_id,
            study_uid=thing.study_uid,
            series_uid=thing.series_uid,
            finding_key=thing.finding_key,
            reasons=[ChangeReason.of(one) for one in changed.reasons],
        )


@strawberry.type(description="What entered and left a cohort between two positions, by the same question. Persons who were erased are in neither.")
class CohortChanges:
    since: Long = strawberry.field(description="Position before.")
    until: Long = strawberry.field(description="Position after.")
    level: Level = strawberry.field(description="What is counted.")
    before_count: int = strawberry.field(description="How many were in it.")
    after_count: int = strawberry.field(description="How many are in it.")
    entered_count: int = strawberry.field(description="How many entered.")
    left_count: int = strawberry.field(description="How many left.")
    entered: list[ChangedThing] = strawberry.field(description="The first of those that entered.")
    left: list[ChangedThing] = strawberry.field(description="The first of those that left.")


async def changes_of(context: Context, query: Query, since: AsOfInput, until: AsOfInput | None, first: int) -> CohortChanges:
    """Raises what the engine raises, and GraphqlError."""
    before = await position_of(context, since)
    after = None if until is None else await position_of(context, until)
    async with told():
        found = await changing.changes(curating(context), query, before, after, most=within(first, changing.MOST, 0))
    seen(context, (one.thing.subject_id for one in (*found.entered, *found.left)))
    return CohortChanges(
        since=Long(found.since),
        until=Long(found.until),
        level=found.level,
        before_count=found.before_count,
        after_count=found.after_count,
        entered_count=found.entered_count,
        left_count=found.left_count,
        entered=[ChangedThing.of(one) for one in found.entered],
        left=[ChangedThing.of(one) for one in found.left],
    )


@strawberry.type(description="A version of a saved cohort's question.")
class SavedCohortVersion:
    version: int = strawberry.field(description="From 1.")
    saved_at: Long = strawberry.field(description="Position at which it was saved.")
    level: Level = strawberry.field(description="What is in it.")
    query: str = strawberry.field(description="The question as canonical JSON.")


@strawberry.type(description="A question that is kept under a title, in versions, and shared in projects.")
class SavedCohort:
    context: strawberry.Private[Context]
    row: strawberry.Private[CohortRow]
    cohort_id: str = strawberry.field(description="A UUID.")
    title: str = strawberry.field(description="By which it is found again.")
    description: str = strawberry.field(description="In words.")
    owner: str = strawberry.field(description="The principal whose it is.")
    mine: bool = strawberry.field(description="It is yours: you share and delete it.")
    version: int = strawberry.field(description="Of the question, from 1.")
    saved_at: Long = strawberry.field(description="Position at which this version was saved.")
    level: Level = strawberry.field(description="What is in it.")
    query: str = strawberry.field(description="The question as canonical JSON.")
    shared_in: list[str] = strawberry.field(description="Projects whose members see it.")
    versions: list[SavedCohortVersion] = strawberry.field(description="Each version of the question, the first one first.")

    @strawberry.field(description="What is in it: counts, facets, histograms.")
    async def cohort(self, info: Info, as_of: AsOfInput | None = None) -> CohortView:
        position = await info.context.position() if as_of is None else await position_of(info.context, as_of)
        asked = info.context.asked(self.question(), position)
        return CohortView(context=info.context, asked=asked, position=Long(position), level=self.level)

    @strawberry.field(description="What entered and left it since, and why. Each list names the `first` ones.")
    async def changes(self, info: Info, since: AsOfInput, until: AsOfInput | None = None, first: int = 20) -> CohortChanges:
        return await changes_of(info.context, self.question(), since, until, first)

    def question(self) -> Query:
        return decode(self.row.query.encode("utf-8"))

    @classmethod
    def of(cls, row: CohortRow, versions: Sequence[CohortRow], context: Context) -> SavedCohort:
        return cls(
            context=context,
            row=row,
            cohort_id=row.cohort_id,
            title=row.title,
            description=row.description,
            owner=row.owner,
            mine=row.owner == acting(context.principal),
            version=row.version,
            saved_at=Long(row.saved_at),
            level=row.level,
            query=row.query,
            shared_in=list(row.shared_in),
            versions=[SavedCohortVersion(version=one.version, saved_at=Long(one.saved_at), level=one.level, query=one.query) for one in versions],
        )


async def saved_cohorts(context: Context) -> list[SavedCohort]:
    """The principal's own, and those shared in its projects."""
    pool, principal_id = context.services.pool, acting(context.principal)
    roles = await reading.roles_of(pool, principal_id)
    rows = await reading.cohorts(pool, principal_id, list(roles))
    versions = by_owner(await reading.cohort_versions(pool, [row.cohort_id for row in rows]), lambda one: one.cohort_id)
    return [SavedCohort.of(row, versions[row.cohort_id], context) for row in rows]


async def saved_cohort(context: Context, cohort_id: str) -> SavedCohort | None:
    """None where there is none that the principal may see."""
    pool, principal_id = context.services.pool, acting(context.principal)
    row = await reading.cohort(pool, cohort_id)
    if row is None or (row.owner != principal_id and not {*await reading.roles_of(pool, principal_id)} & {*row.shared_in}):
        return None
    return SavedCohort.of(row, await reading.cohort_versions(pool, [cohort_id]), context)
