"""The members of a frozen dataset as they may be seen and exported now: its list, without who was erased, with each one's part."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Set
from typing import Protocol

import msgspec

from archive.store import Store
from domain import dataset
from domain.dataset import Dataset, DatasetFrozen, dataset_stream
from domain.members import Assigned, FrozenInstance, FrozenSeries, assignment_in, members_in
from eventlog.aggregate import load
from eventlog.log import EventLog
from server.cohorts.lists import lines_of, members_after

_ERASED = "SELECT subject_id FROM subject_key WHERE destroyed_at IS NOT NULL AND subject_id = ANY($1)"


class Curation(Protocol):
    """The parts of a server that datasets need: server.services.Services, and what a command opens."""

    @property
    def log(self) -> EventLog: ...

    @property
    def store(self) -> Store: ...


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """One series of a version. ``instances`` are in the order of their SOP Instance UIDs; ``sha256`` of each is its name in the archive.

    ``split`` is the part that its subject is in (train, validation, test); None where the version is not split, or the subject left out.
    """

    subject_id: str
    study_uid: str
    series_uid: str
    series_digest: str
    modality: str
    instances: tuple[FrozenInstance, ...]
    split: str | None = None

    @property
    def bytes(self) -> int:
        """Of its instances' files."""
        return sum(one.size for one in self.instances)


async def dataset_state(log: EventLog, dataset_id: str) -> Dataset:
    """Everything that the log says of a dataset."""
    state, _ = await load(log, dataset_stream(dataset_id), Dataset(), dataset.evolve)
    return state


async def members_of(
    services: Curation, dataset_id: str, version: int | None = None, *, without: Set[str] = frozenset()
) -> AsyncIterator[Member]:
    """The members of a version (None: the latest), in the order of their Series Instance UIDs: always the same, whoever asks.

    What is exported of a version is this and nothing else. Series of subjects that were erased since are left out, and those of
    subjects in ``without`` (whose consent was withdrawn: see server.cohorts.terms.may_export, which says who). Findings, tags and
    headers of a member are those as of the version's position (``DatasetFrozen.at_position``).

    Raises DatasetUnknown, and ListLost where the archive has lost the list.
    """
    state = await dataset_state(services.log, dataset_id)
    frozen = dataset.version_of(state, dataset_id, version)
    part_of = await assignment_of(services, state, frozen.version)
    async for batch in frozen_series(services, frozen):
        gone = await erased_among(services.log, {one.subject_id for one in batch})
        for one in batch:
            if one.subject_id not in gone and one.subject_id not in without:
                yield _member(one, part_of.get(one.subject_id))


async def members_page(
    services: Curation, dataset_id: str, version: int | None, after: str | None, size: int
) -> tuple[list[Member], bool]:
    """Members beyond a Series Instance UID, and whether there are more; what comes before is not read for it.

    Raises DatasetUnknown, ListLost.
    """
    state = await dataset_state(services.log, dataset_id)
    frozen = dataset.version_of(state, dataset_id, version)
    part_of = await assignment_of(services, state, frozen.version)
    page: list[Member] = []
    async for lines in members_after(services.store, frozen.members_sha256, after or ""):
        batch = [one for one in members_in(lines) if one.series_uid > (after or "")]
        gone = await erased_among(services.log, {one.subject_id for one in batch})
        page += [_member(one, part_of.get(one.subject_id)) for one in batch if one.subject_id not in gone]
        if len(page) > size:
            break
    return page[:size], len(page) > size


async def frozen_series(services: Curation, frozen: DatasetFrozen) -> AsyncIterator[list[FrozenSeries]]:
    """The list as it was frozen, erased subjects too, in batches. Raises ListLost."""
    async for lines in lines_of(services.store, frozen.members_sha256):
        yield list(members_in(lines))


async def assignment_of(services: Curation, state: Dataset, version: int) -> Mapping[str, str]:
    """Subject → part, of a version that is split; also of subjects that are in other versions alone. Raises ListLost."""
    split = state.splits.get(version)
    if split is None:
        return {}
    return {one.subject_id: one.part async for one in _assigned(services, split.assignment_sha256) if not one.left_out}


async def everybody_assigned(services: Curation, state: Dataset) -> Mapping[str, str]:
    """Subject → part, of everybody who was ever in one. Raises ListLost."""
    if state.last_split is None:
        return {}
    return {one.subject_id: one.part async for one in _assigned(services, state.last_split.assignment_sha256)}


async def erased_among(log: EventLog, subjects: Set[str]) -> frozenset[str]:
    """Who of these is erased, or about to be: the key is destroyed."""
    return frozenset(row["subject_id"] for row in await log.pool.fetch(_ERASED, sorted(subjects)))


async def _assigned(services: Curation, sha256: str) -> AsyncIterator[Assigned]:
    async for lines in lines_of(services.store, sha256):
        for one in assignment_in(lines):
            yield one


def _member(one: FrozenSeries, split: str | None) -> Member:
    return Member(
        subject_id=one.subject_id,
        study_uid=one.study_uid,
        series_uid=one.series_uid,
        series_digest=one.series_digest,
        modality=one.modality,
        instances=one.instances,
        split=split,
    )
