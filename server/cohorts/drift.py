"""Drift between two versions of a dataset: which series entered, left or changed and why, and how the fields' values shifted."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import msgspec

from domain import dataset
from domain.condition import Between, Condition, Level, OneOf, Query, decode
from domain.dataset import DatasetFrozen
from domain.members import FrozenSeries
from domain.principal import Principal
from domain.shift import psi
from projections.cohort.engine import Asked, FacetAsked
from projections.cohort.fields import field_named
from projections.cohort.naming import Kind
from server.cohorts.access import require_member
from server.cohorts.members import dataset_state, frozen_series
from server.cohorts.questions import Curating, narrowed, series_that
from server.cohorts.reasons import About, Reason, reasons

USUAL = ("Modality", "sex", "age_years", "Manufacturer", "ManufacturerModelName", "InstitutionName", "slice_spacing_mm", "BodyPartExamined")
"""Fields that are compared unless others are asked for."""
MOST = 100
"""Series that are named of each kind, beside how many there are."""
_VALUES, _BINS = 20, 10


class DriftedSeries(msgspec.Struct, frozen=True, kw_only=True):
    """A series that is not in both versions as it is, and the events about it between their positions."""

    series_uid: str
    study_uid: str
    subject_id: str
    instances_before: int
    instances_after: int
    reasons: Sequence[Reason]


class ShiftedValue(msgspec.Struct, frozen=True):
    """How many series have the value. Of numbers: a stretch, from its low to below its high; other: all that are not listed."""

    value: str
    before: int
    after: int


class Shift(msgspec.Struct, frozen=True, kw_only=True):
    """``psi``: see domain.shift."""

    field: str
    psi: float
    values: Sequence[ShiftedValue]


class Drift(msgspec.Struct, frozen=True, kw_only=True):
    """From one version to another. The lists name the first of how many there are."""

    dataset_id: str
    before: DatasetFrozen
    after: DatasetFrozen
    question_changed: bool
    same_count: int
    entered_count: int
    left_count: int
    changed_count: int
    entered: Sequence[DriftedSeries]
    left: Sequence[DriftedSeries]
    changed: Sequence[DriftedSeries]
    shifts: Sequence[Shift]


async def drift(
    services: Curating, dataset_id: str, before: int, after: int, by: Principal, *, fields: Sequence[str] = USUAL, most: int = MOST
) -> Drift:
    """Compares two versions. Shifts are of what is there still: series of persons who were erased since count in neither.

    Raises DatasetUnknown, NotAMember, ListLost, FieldUnknown, FieldRefused.
    """
    state = await dataset_state(services.log, dataset_id)
    await require_member(services.log, state, dataset_id, by)
    old, new = (dataset.version_of(state, dataset_id, version) for version in (before, after))
    left: list[tuple[FrozenSeries | None, FrozenSeries | None]] = []
    entered, changed = list(left), list(left)
    counts = {"same": 0, "left": 0, "entered": 0, "changed": 0}
    async for was, is_ in _merged(frozen_series(services, old), frozen_series(services, new)):
        if was is None or is_ is None:
            kind, those = ("left", left) if is_ is None else ("entered", entered)
        elif was == is_:
            kind, those = "same", []
        else:
            kind, those = "changed", changed
        counts[kind] += 1
        if len(those) < most:
            those.append((was, is_))
    between = (old.at_position, new.at_position)
    return Drift(
        dataset_id=dataset_id,
        before=old,
        after=new,
        question_changed=old.query_sha256 != new.query_sha256,
        same_count=counts["same"],
        entered_count=counts["entered"],
        left_count=counts["left"],
        changed_count=counts["changed"],
        entered=await _explained(services, entered, *between),
        left=await _explained(services, left, *between),
        changed=await _explained(services, changed, *between),
        shifts=[await _shift(services, field, old, new) for field in fields],
    )


async def _merged(
    before: AsyncIterator[list[FrozenSeries]], after: AsyncIterator[list[FrozenSeries]]
) -> AsyncIterator[tuple[FrozenSeries | None, FrozenSeries | None]]:
    """Each series of two lists, as it is in either."""
    olds, news = _each(before), _each(after)
    old, new = await anext(olds, None), await anext(news, None)
    while old is not None or new is not None:
        if new is None or (old is not None and old.series_uid < new.series_uid):
            yield old, None
            old = await anext(olds, None)
        elif old is None or new.series_uid < old.series_uid:
            yield None, new
            new = await anext(news, None)
        else:
            yield old, new
            old, new = await anext(olds, None), await anext(news, None)


async def _each(batches: AsyncIterator[list[FrozenSeries]]) -> AsyncIterator[FrozenSeries]:
    async for batch in batches:
        for one in batch:
            yield one


async def _explained(
    services: Curating, pairs: Sequence[tuple[FrozenSeries | None, FrozenSeries | None]], since: int, until: int
) -> list[DriftedSeries]:
    either = [(was, is_, was or is_) for was, is_ in pairs]
    things = [About(level=Level.SERIES, subject_id=one.subject_id, study_uid=one.study_uid, series_uid=one.series_uid) for _, _, one in either if one]
    why = await reasons(services.log, things, since, until)
    return [
        DriftedSeries(
            series_uid=thing.series_uid,
            study_uid=thing.study_uid,
            subject_id=thing.subject_id,
            instances_before=len(was.instances) if was else 0,
            instances_after=len(is_.instances) if is_ else 0,
            reasons=its,
        )
        for (was, is_, _), thing, its in zip(either, things, why, strict=True)
    ]


async def _shift(services: Curating, field: str, old: DatasetFrozen, new: DatasetFrozen) -> Shift:
    numeric = field_named(field, Level.SERIES).kind is Kind.NUMBER
    old_counts, new_counts = await (_numbers if numeric else _values)(services, field, old, new)
    listed = list(dict.fromkeys((*old_counts, *new_counts)))
    return Shift(
        field=field,
        psi=round(psi(old_counts, new_counts), 6),
        values=[ShiftedValue(value, old_counts.get(value, 0), new_counts.get(value, 0)) for value in listed],
    )


async def _values(services: Curating, field: str, old: DatasetFrozen, new: DatasetFrozen) -> tuple[dict[str, int], dict[str, int]]:
    """The most frequent values of each version, all that is beside them as one, and what has none."""
    values: dict[str, OneOf] = {}
    asked = [_asked(one) for one in (old, new)]
    facets = [(await services.cohorts.facets(one, [FacetAsked(field=field, size=_VALUES)]))[0] for one in asked]
    for facet in facets:
        values.update({str(one.value): OneOf(field, (one.value,)) for one in facet.values})
    found = []
    for question, facet in zip(asked, facets, strict=True):
        counts = {str(one.value): one.count for one in facet.values}
        for value in values.keys() - counts.keys() if facet.distinct > len(facet.values) else ():
            counts[value] = await _count(services, question, values[value])
        total = (await services.cohorts.counts(question)).series
        several = sum(counts.values()) + facet.missing
        found.append({**{value: counts.get(value, 0) for value in values}, "other": max(0, total - several), "none": facet.missing})
    return found[0], found[1]


async def _numbers(services: Curating, field: str, old: DatasetFrozen, new: DatasetFrozen) -> tuple[dict[str, int], dict[str, int]]:
    """Counts in the stretches of the older version's histogram, and beyond them."""
    asked = [_asked(one) for one in (old, new)]
    histogram = await services.cohorts.histogram(asked[0], field, _BINS)
    lows = [float(one.low) for one in histogram.bins]
    if not lows or histogram.high is None:
        lows = [0.0]
    stretches: dict[str, Condition] = {f"<{lows[0]:g}": Between(field=field, less_than=lows[0])}
    for low, high in zip(lows, [*lows[1:], float(histogram.high or lows[-1])], strict=True):
        in_last = low == lows[-1]
        stretches[f"{low:g}–{high:g}"] = Between(
            field=field, at_least=low, at_most=high if in_last else None, less_than=None if in_last else high
        )
    top = float(histogram.high or lows[-1])
    stretches[f">{top:g}"] = Between(field=field, more_than=top)
    found = []
    for question in asked:
        counts = {name: await _count(services, question, condition) for name, condition in stretches.items()}
        (facet,) = await services.cohorts.facets(question, [FacetAsked(field=field, size=1)])
        found.append({**counts, "none": facet.missing})
    return found[0], found[1]


def _asked(frozen: DatasetFrozen) -> Asked:
    return Asked(query=series_that(decode(frozen.query.encode("utf-8"))), position=frozen.at_position)


async def _count(services: Curating, asked: Asked, condition: Condition) -> int:
    narrower: Query = narrowed(asked.query, condition)
    return (await services.cohorts.counts(Asked(query=narrower, position=asked.position))).series
