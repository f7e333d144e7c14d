"""Freezing: what a question finds as of a position becomes a list in the archive, and the event that names it by its digest."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import asyncpg
import msgspec

from domain import dataset
from domain.condition import Level, Query, decode, encode
from domain.dataset import Dataset, DatasetFrozen, dataset_stream, own_subject_id
from domain.errors import DatasetUnknown
from domain.ids import Position
from domain.members import FrozenInstance, FrozenSeries, Tally
from domain.principal import Principal
from domain.project import Role
from domain.saved_cohort import query_sha256
from eventlog.aggregate import execute
from projections.cohort.engine import Asked
from server.cohorts.access import require_member
from server.cohorts.errors import ListDiffers
from server.cohorts.lists import ListFile
from server.cohorts.members import dataset_state
from server.cohorts.questions import BATCH, ROWS, Curating, check_kept, latest

SERIES_AT_ONCE = 100
"""Read with their instances in one statement."""
Heard = Callable[[int, int], None]
"""Is told how many series of how many are written."""

_HELD = "position_from <= $2 AND (position_to IS NULL OR position_to > $2)"
_UIDS = f"SELECT id, series_uid FROM {ROWS}.series WHERE id = ANY($1) AND {_HELD}"
_SERIES = f"""
    SELECT s.id, s.series_uid, s.series_digest, coalesce(s.elements->'00080060'->>0, '') AS modality,
           (SELECT p.subject_id FROM {ROWS}.subject p WHERE p.id = s.subject ORDER BY p.position_from DESC LIMIT 1) AS subject_id,
           (SELECT t.study_uid FROM {ROWS}.study t WHERE t.id = s.study ORDER BY t.position_from DESC LIMIT 1) AS study_uid
    FROM {ROWS}.series s WHERE s.id = ANY($1) AND s.position_from <= $2 AND (s.position_to IS NULL OR s.position_to > $2)
"""
_INSTANCES = f"""
    SELECT series, sop_instance_uid, sop_class_uid, transfer_syntax_uid, sha256, bytes, frame_count
    FROM {ROWS}.instance WHERE series = ANY($1) AND {_HELD} ORDER BY series, sop_instance_uid
"""


class Frozen(msgspec.Struct, frozen=True, kw_only=True):
    """``position`` is that of the event; None where nothing was new: the version that was there holds just this."""

    version: DatasetFrozen
    position: Position | None


async def freeze_dataset(
    services: Curating,
    dataset_id: str,
    query: Query,
    by: Principal,
    *,
    at_position: int | None = None,
    cohort_id: str = "",
    cohort_version: int = 0,
    heard: Heard = lambda done, of: None,
) -> Frozen:
    """The next version of a dataset: what the question finds as of a position (None: the latest one that can be asked for).

    Raises DatasetUnknown, NotAMember, DatasetIsEmpty, DatasetRefused, CohortRefused, and what the engine raises.
    """
    state = await dataset_state(services.log, dataset_id)
    await require_member(services.log, state, dataset_id, by, Role.CURATOR)
    check_kept(query)
    position = await latest(services) if at_position is None else at_position
    file = ListFile(Path(services.log.settings.data_dir) / "lists")
    try:
        tally = await write_list(services, query, position, file, heard)

        def version_after(state: Dataset) -> DatasetFrozen:
            return DatasetFrozen(
                dataset_id=dataset_id,
                subject_id=own_subject_id(dataset_id),
                version=state.latest + 1,
                at_position=position,
                level=query.level,
                query_sha256=query_sha256(query),
                query=encode(query).decode("utf-8"),
                cohort_id=cohort_id,
                cohort_version=cohort_version,
                members_sha256=tally.sha256,
                members_bytes=tally.list_size,
                subjects_count=len(tally.subjects),
                studies_count=len(tally.studies),
                series_count=tally.series,
                instances_count=tally.instances,
                bytes=tally.size,
            )

        dataset.freeze(state, version_after(state))  # refuses before anything is kept
        await asyncio.to_thread(file.keep, services.store, tally.sha256)
        done = await execute(
            services.log,
            dataset_stream(dataset_id),
            Dataset(),
            dataset.evolve,
            lambda standing: dataset.freeze(standing, version_after(standing)),
            principal=by,
        )
    finally:
        file.discard()
    return Frozen(version=dataset.version_of(await dataset_state(services.log, dataset_id), dataset_id, None), position=done.position)


async def recover_list(services: Curating, dataset_id: str, version: int, by: Principal, *, heard: Heard = lambda done, of: None) -> int:
    """Makes the list of a version again, from the log, where the archive has lost it; gives its bytes.

    Raises DatasetUnknown, NotAMember, and ListDiffers where the question finds something else of that position now: subjects were erased since.
    """
    state = await dataset_state(services.log, dataset_id)
    await require_member(services.log, state, dataset_id, by, Role.CURATOR)
    frozen = dataset.version_of(state, dataset_id, version)
    if not frozen.query:
        raise DatasetUnknown(f"the question that version {version} of dataset {dataset_id} answers cannot be read: its key is destroyed")
    file = ListFile(Path(services.log.settings.data_dir) / "lists")
    try:
        tally = await write_list(services, decode(frozen.query.encode("utf-8")), frozen.at_position, file, heard)
        if tally.sha256 != frozen.members_sha256:
            raise ListDiffers(
                f"version {version} of dataset {dataset_id} had {frozen.series_count} series, and {tally.series} are found at its position"
                " now: what was erased since cannot be listed again. A backup has the list"
            )
        await asyncio.to_thread(services.store.delete, tally.sha256)  # what is there may be damaged
        await asyncio.to_thread(file.keep, services.store, tally.sha256)
    finally:
        file.discard()
    return tally.list_size


async def write_list(services: Curating, query: Query, position: int, file: ListFile, heard: Heard) -> Tally:
    """Writes the members that a question has as of a position; gives what they add up to."""
    uids: list[tuple[str, int]] = []
    async for ids in services.cohorts.members(Asked(query=query, position=position), Level.SERIES):
        for start in range(0, len(ids), BATCH):
            rows = await services.log.pool.fetch(_UIDS, list(ids[start : start + BATCH]), position)
            uids += [(row["series_uid"], row["id"]) for row in rows]
    uids.sort()
    tally = Tally()
    async for members in _series(services.log.pool, [id for _, id in uids], position):
        await asyncio.to_thread(lambda some: file.write([tally.line(one) for one in some]), members)
        heard(tally.series, len(uids))
    return tally


async def _series(pool: asyncpg.Pool, ids: Sequence[int], position: int) -> AsyncIterator[list[FrozenSeries]]:
    """These series with their instances, in this order."""
    for start in range(0, len(ids), SERIES_AT_ONCE):
        wanted = list(ids[start : start + SERIES_AT_ONCE])
        by_id = {row["id"]: row for row in await pool.fetch(_SERIES, wanted, position)}
        instances: dict[int, list[FrozenInstance]] = defaultdict(list)
        for row in await pool.fetch(_INSTANCES, wanted, position):
            instances[row["series"]].append(_instance(row))
        yield [_member(by_id[id], instances[id]) for id in wanted]


def _member(row: Any, instances: Sequence[FrozenInstance]) -> FrozenSeries:
    return FrozenSeries(
        subject_id=row["subject_id"],
        study_uid=row["study_uid"],
        series_uid=row["series_uid"],
        modality=row["modality"],
        series_digest=row["series_digest"],
        instances=tuple(instances),
    )


def _instance(row: Any) -> FrozenInstance:
    return FrozenInstance(
        sop_instance_uid=row["sop_instance_uid"],
        sop_class_uid=row["sop_class_uid"],
        transfer_syntax_uid=row["transfer_syntax_uid"],
        sha256=row["sha256"],
        size=row["bytes"],
        number_of_frames=row["frame_count"],
    )
