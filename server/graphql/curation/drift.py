"""Drift between versions of a dataset, in GraphQL."""

from __future__ import annotations

import strawberry

from server.cohorts import drift as drifting
from server.cohorts.drift import DriftedSeries as Drifted
from server.graphql.context import Context
from server.graphql.curation.asking import curating, seen, told, within
from server.graphql.curation.saved import ChangeReason
from server.graphql.scalars import Long

MOST_FIELDS = 20


@strawberry.type(description="A series that is not in both versions as it is.")
class DriftedSeries:
    series_uid: str = strawberry.field(description="Series Instance UID.")
    study_uid: str = strawberry.field(description="Study Instance UID.")
    subject_id: str = strawberry.field(description="Whose it is, by pseudonym.")
    instances_before: int = strawberry.field(description="Instances in the earlier version.")
    instances_after: int = strawberry.field(description="Instances in the later version.")
    reasons: list[ChangeReason] = strawberry.field(description="Events about it between the versions' positions (at most 20, the latest).")

    @classmethod
    def of(cls, one: Drifted) -> DriftedSeries:
        return cls(
            series_uid=one.series_uid,
            study_uid=one.study_uid,
            subject_id=one.subject_id,
            instances_before=one.instances_before,
            instances_after=one.instances_after,
            reasons=[ChangeReason.of(reason) for reason in one.reasons],
        )


@strawberry.type(description="How many series of each version have a value; of numbers, lie in a stretch from its low to below its high.")
class ShiftedValue:
    value: str = strawberry.field(description="`other`: all that are not listed; `none`: without a value.")
    before: int = strawberry.field(description="In the earlier version.")
    after: int = strawberry.field(description="In the later version.")


@strawberry.type(description="How a field's values shifted.")
class Shift:
    field: str = strawberry.field(description="The field.")
    psi: float = strawberry.field(description="Population stability index: below 0.1 no shift to speak of, from 0.25 on a marked one.")
    values: list[ShiftedValue] = strawberry.field(description="The most frequent ones of both.")


@strawberry.type(description="What is not the same in two versions. Shifts leave out persons who were erased since.")
class DatasetDrift:
    before: int = strawberry.field(description="The earlier version.")
    after: int = strawberry.field(description="The later version.")
    since: Long = strawberry.field(description="The position that the earlier one is as of.")
    until: Long = strawberry.field(description="The position that the later one is as of.")
    question_changed: bool = strawberry.field(description="They are of different questions.")
    same_count: int = strawberry.field(description="Series that are in both as they are.")
    entered_count: int = strawberry.field(description="Series that are in the later one alone.")
    left_count: int = strawberry.field(description="Series that are in the earlier one alone.")
    changed_count: int = strawberry.field(description="Series that are in both with other content.")
    entered: list[DriftedSeries] = strawberry.field(description="The first of those that entered.")
    left: list[DriftedSeries] = strawberry.field(description="The first of those that left.")
    changed: list[DriftedSeries] = strawberry.field(description="The first of those that changed.")
    shifts: list[Shift] = strawberry.field(description="For each field that was asked for.")


async def drift_of(context: Context, dataset_id: str, before: int, after: int, fields: list[str] | None, first: int) -> DatasetDrift:
    wanted = drifting.USUAL if fields is None else fields
    within(len(wanted), MOST_FIELDS, 0)
    async with told():
        most = within(first, drifting.MOST, 0)
        found = await drifting.drift(curating(context), dataset_id, before, after, context.principal, fields=wanted, most=most)
    seen(context, (one.subject_id for one in (*found.entered, *found.left, *found.changed)))
    return DatasetDrift(
        before=before,
        after=after,
        since=Long(found.before.at_position),
        until=Long(found.after.at_position),
        question_changed=found.question_changed,
        same_count=found.same_count,
        entered_count=found.entered_count,
        left_count=found.left_count,
        changed_count=found.changed_count,
        entered=[DriftedSeries.of(one) for one in found.entered],
        left=[DriftedSeries.of(one) for one in found.left],
        changed=[DriftedSeries.of(one) for one in found.changed],
        shifts=[
            Shift(field=one.field, psi=one.psi, values=[ShiftedValue(value=v.value, before=v.before, after=v.after) for v in one.values])
            for one in found.shifts
        ],
    )
