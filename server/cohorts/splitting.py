"""Splitting a version of a dataset: who is alike, who is one person, who was where before; then the lot decides, or somebody by hand."""

from __future__ import annotations

import asyncio
import itertools
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

import msgspec

from domain import dataset, splits
from domain.condition import Between, Condition, Level, Not, OneOf, Present, Query, decode
from domain.dataset import Dataset, DatasetFrozen, DatasetSplit, SplitDataset, dataset_stream
from domain.errors import SplitRefused
from domain.event import Event
from domain.ids import Position
from domain.members import assignment_lines
from domain.principal import Principal
from domain.project import Role
from domain.splits import USUAL, Part
from eventlog.aggregate import execute
from projections.checkpoint import wait_for
from projections.cohort.engine import Asked, FacetAsked
from projections.cohort.fields import field_named
from projections.cohort.naming import Kind
from projections.curation import reading
from projections.curation.projection import CurationProjection
from server.cohorts.access import require_member
from server.cohorts.errors import StrataTooMany
from server.cohorts.lists import keep_list
from server.cohorts.members import dataset_state, erased_among, everybody_assigned, frozen_series
from server.cohorts.questions import Curating, narrowed, series_that, subjects_in

MAX_VALUES = 50
"""A field with more values makes no strata."""


class Stratum(msgspec.Struct, frozen=True, kw_only=True):
    """A field in which the parts are to be alike. A number needs ``edges``: below the first, from it to below the second, and so on."""

    field: str
    edges: tuple[float, ...] = ()


class SplitWanted(msgspec.Struct, frozen=True, kw_only=True):
    """``assigned``: subject → part, by hand: then who is not named is in no part. ``left_out``: subjects that are to be in none."""

    parts: Sequence[Part] = USUAL
    seed: str = "0"
    strata: Sequence[Stratum] = ()
    assigned: Mapping[str, str] | None = None
    left_out: frozenset[str] = frozenset()


class WasSplit(msgspec.Struct, frozen=True, kw_only=True):
    """``position`` is that of the event; None where the version was split just so already."""

    split: DatasetSplit
    position: Position | None


async def split_dataset(services: Curating, dataset_id: str, version: int | None, wanted: SplitWanted, by: Principal) -> WasSplit:
    """Puts each subject of a version into a part. Those of earlier versions stay where they are, and so does who is the same person.

    Raises DatasetUnknown, NotAMember, SplitRefused, SubjectWouldLeak, StrataTooMany, ListLost, and what the engine raises.
    """
    log = services.log
    state = await dataset_state(log, dataset_id)
    await require_member(log, state, dataset_id, by, Role.CURATOR)
    frozen = dataset.version_of(state, dataset_id, version)
    listed = {one.subject_id async for batch in frozen_series(services, frozen) for one in batch}
    there = listed - await erased_among(log, listed)
    before = await everybody_assigned(services, state)
    groups = await asyncio.to_thread(splits.groups_of, {*there, *before}, await _same_persons(services))
    left_out = wanted.left_out
    if wanted.assigned is None:
        among = there - left_out
        strata = await strata_of(services, frozen, wanted.strata)
        standing = {subject: part for subject, part in before.items() if subject not in left_out}
        assigned = await asyncio.to_thread(splits.assign, among, groups, strata, wanted.parts, wanted.seed, standing)
    else:
        assigned = dict(wanted.assigned)
        if not assigned.keys() <= there:
            raise SplitRefused(f"{len(assigned.keys() - there)} of the subjects that are named are not in version {frozen.version}")
        left_out |= there - assigned.keys()
    lines = await asyncio.to_thread(assignment_lines, {**before, **assigned}, left_out)
    sha256 = await asyncio.to_thread(keep_list, services.store, Path(log.settings.data_dir) / "lists", lines)
    command = SplitDataset(
        dataset_id=dataset_id,
        version=frozen.version,
        parts=wanted.parts,
        seed=wanted.seed,
        stratified_by=tuple(named(one) for one in wanted.strata),
        by_hand=wanted.assigned is not None,
        assigned=assigned,
        before=before,
        groups=groups,
        left_out=left_out & listed,
        assignment_sha256=sha256,
        assignment_bytes=len(lines),
    )

    def decide(standing: Dataset) -> Sequence[Event]:
        if standing.last_split != state.last_split:
            raise SplitRefused("somebody else split this dataset at the same time: look at theirs, and split again")
        return dataset.split(standing, command)

    done = await execute(log, dataset_stream(dataset_id), Dataset(), dataset.evolve, decide, principal=by)
    after = await dataset_state(log, dataset_id)
    return WasSplit(split=after.splits[frozen.version], position=done.position)


async def strata_of(services: Curating, frozen: DatasetFrozen, strata: Sequence[Stratum]) -> dict[str, str]:
    """Subject → what it is alike in: for each field the values that its series have, as of the version's position.

    Raises StrataTooMany, FieldUnknown, FieldRefused.
    """
    if not strata:
        return {}
    query = series_that(decode(frozen.query.encode("utf-8")))
    found: dict[str, list[str]] = defaultdict(list)
    for stratum in strata:
        values: dict[str, set[str]] = defaultdict(set)
        async for label, condition in _classes(services, query, frozen.at_position, stratum):
            asked = Asked(query=narrowed(query, condition), position=frozen.at_position)
            async for batch in subjects_in(services.log.pool, services.cohorts, asked):
                for subject in batch:
                    values[subject].add(label)
        for subject, labels in values.items():
            found[subject].append(f"{named(stratum)}={','.join(sorted(labels))}")
    return {subject: "|".join(parts) for subject, parts in found.items()}


async def _classes(services: Curating, query: Query, position: int, stratum: Stratum) -> AsyncIterator[tuple[str, Condition]]:
    """What series are told apart by: a field's values, or stretches of its numbers; and those without one."""
    field = field_named(stratum.field, Level.SERIES)
    if stratum.edges:
        edges = sorted(set(stratum.edges))
        yield f"<{edges[0]:g}", Between(field=stratum.field, less_than=edges[0])
        for low, high in itertools.pairwise(edges):
            yield f"{low:g}-{high:g}", Between(field=stratum.field, at_least=low, less_than=high)
        yield f">={edges[-1]:g}", Between(field=stratum.field, at_least=edges[-1])
    elif field.kind is Kind.NUMBER:
        raise StrataTooMany(f"{stratum.field} is a number: give edges for its strata, as in {stratum.field}:40,60")
    else:
        asked = Asked(query=query, position=position)
        (facet,) = await services.cohorts.facets(asked, [FacetAsked(field=stratum.field, size=MAX_VALUES)])
        if facet.distinct > MAX_VALUES:
            raise StrataTooMany(f"{stratum.field} has {facet.distinct} values; by at most {MAX_VALUES} a dataset can be stratified")
        for one in facet.values:
            yield str(one.value), OneOf(stratum.field, (one.value,))
    yield "", Not(Present(stratum.field))


def named(stratum: Stratum) -> str:
    """As an event has it: ``age_years:40,60``."""
    return stratum.field + (":" + ",".join(f"{edge:g}" for edge in stratum.edges) if stratum.edges else "")


def stratum_named(text: str) -> Stratum:
    """The stratum that `named` gives this name. Raises SplitRefused."""
    field, found, edges = text.rpartition(":")
    if not found:
        return Stratum(field=text)
    try:
        return Stratum(field=field, edges=tuple(float(edge) for edge in edges.split(",")))
    except ValueError:
        raise SplitRefused(f"{text!r} does not say by what to stratify: a field, or a field of numbers with edges as in age_years:40,60") from None


async def _same_persons(services: Curating) -> list[tuple[str, str]]:
    """As of the head: a number that was joined a moment ago must not leak."""
    log = services.log
    await wait_for(log.pool, CurationProjection(), await log.head())
    return await reading.same_persons(log.pool)
