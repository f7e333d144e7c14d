"""Makes the exports of datasets that were asked for: plans them, has them written by a child process, and says so in the log.

Whose data an export holds is recorded before it can be fetched, and that it was made before it is done: nobody is handed a file of which
the log says neither.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import sys
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import msgspec

from domain.access import Action
from domain.dataset_export import DatasetExported, export_stream
from domain.ids import derived_id
from domain.principal import Principal
from eventlog.envelope import NewEvent, StreamAppend
from eventlog.log import EventLog
from server.audit.recorder import append_accesses, one_access
from server.cohorts.members import Curation
from server.datasets import plan as plans
from server.datasets.child import Heard
from server.datasets.errors import ExportFailed
from server.datasets.folder import Folder
from server.datasets.jobs import Asked, Job, Jobs, kept
from server.datasets.planning import make_plan
from server.datasets.writing import Progress, Written
from server.exports.jobs import DONE
from server.exports.making import Maker, Named, NotWanted
from server.services import Services

ROUTE = "/datasets/{dataset_id}/versions/{version}/exports"
SUBJECTS_AN_ACCESS = 500
NOTE_S = 0.5
NOT_IN_ARCHIVE = "not-in-archive"
"""An instance that the dataset holds is lost or damaged: a backup of the archive has it."""
_LOST = {"NotInArchive", "ObjectDamaged"}
_logger = logging.getLogger(__name__)

Hears = Callable[[Progress], Awaitable[None]]


def exporter(services: Services) -> Maker[Asked, Progress]:
    """Makes what was asked for, until it is cancelled."""
    jobs = kept(services.log, services.settings.data_dir)

    async def make(job: Job, asked: Asked) -> None:
        await _make(services, jobs, job, asked)

    async def is_ready() -> bool:
        return True

    keep = timedelta(hours=services.settings.dataset_export_keep_hours)
    return Maker(services.log, jobs, make, asked_for=services.dataset_export_asked, keep=keep, is_ready=is_ready)


async def _make(services: Services, jobs: Jobs, job: Job, asked: Asked) -> None:
    """Raises NotWanted, Named, OSError, and what planning and appending raise."""
    root = jobs.folder_of(job.export_id)

    async def heard(progress: Progress) -> None:
        if not await jobs.note(job.export_id, progress):
            raise NotWanted

    await heard(job.progress)
    root.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    plan = await planned(services, asked, root)
    if services.recorder is not None:
        await record_subjects(services.log, asked.reader.principal, plan, ROUTE)
    written = await write_in_child(root, services.settings.store_url, heard)
    await say_exported(services.log, job.export_id, asked, plan, written)
    if not await jobs.end(job.export_id, DONE):
        raise NotWanted


async def planned(services: Curation, asked: Asked, root: Path) -> plans.Plan:
    """What was planned before it was interrupted, or now. Raises DatasetUnknown, ListLost, ProjectionBehind, OSError."""
    folder = Folder(root)
    before = await asyncio.to_thread(folder.plan)
    if before is not None:
        return plans.decode(before)
    plan = await make_plan(services, asked.wanted, frozenset(asked.withdrawn))
    await asyncio.to_thread(folder.keep_plan, plans.encode(plan))
    return plan


async def record_subjects(log: EventLog, principal: Principal, plan: plans.Plan, route: str) -> None:
    """Who looked at whom. Raises LogUnavailable."""
    subjects = sorted(one.subject_id for one in plan.persons)
    for first in range(0, len(subjects), SUBJECTS_AN_ACCESS):
        some = subjects[first : first + SUBJECTS_AN_ACCESS]
        await append_accesses(log, one_access(principal, Action.EXPORT, route=route, subjects=some))


async def write_in_child(root: Path, store_url: str, heard: Hears) -> Written:
    """``heard`` may raise, and ends the child. Raises OSError as the child met it, Named, ExportFailed."""
    command = [sys.executable, "-m", "server.datasets.child", str(root), store_url]
    pipe = asyncio.subprocess.PIPE
    child = await asyncio.create_subprocess_exec(*command, stdin=pipe, stdout=pipe, stderr=asyncio.subprocess.DEVNULL)
    assert child.stdout is not None
    latest: Progress | None = None
    ended: Heard | None = None
    try:
        loop = asyncio.get_running_loop()
        noted = loop.time()
        async for line in child.stdout:
            one = msgspec.json.decode(line, type=Heard)
            if one.progress is None:
                ended = one
                continue
            latest = one.progress
            if loop.time() - noted >= NOTE_S:
                noted = loop.time()
                await heard(latest)
        await child.wait()
    finally:
        await _end(child)
    if latest is not None:
        await heard(latest)
    if ended is not None and ended.written is not None:
        return ended.written
    if ended is None:
        raise ExportFailed("the process that writes the export has ended: what it wrote is kept")
    if ended.number:
        raise OSError(ended.number, "an export cannot be written")
    raise Named(NOT_IN_ARCHIVE) if ended.problem in _LOST else ExportFailed(f"an export cannot be written ({ended.problem})")


async def _end(child: asyncio.subprocess.Process) -> None:
    """Returns when nobody writes any more."""
    if child.returncode is None:
        with contextlib.suppress(ProcessLookupError):
            child.kill()
        await asyncio.shield(child.wait())


async def say_exported(log: EventLog, export_id: str, asked: Any, plan: plans.Plan, written: Written) -> None:
    """Once for an export, however often it is said. Raises LogUnavailable."""
    happened = DatasetExported(
        dataset_id=plan.about.dataset_id,
        export_id=export_id,
        version=plan.about.version,
        purpose=asked.purpose,
        layouts=tuple(str(layout) for layout in plan.layouts),
        manifest_sha256=written.manifest_sha256,
        files_count=written.files,
        bytes=written.bytes,
        subjects_count=len(plan.persons),
        left_out_count=written.left_out,
    )
    stream = export_stream(export_id)
    if await log.read_stream(stream):
        return
    new = NewEvent(event=happened, event_id=derived_id("dataset-export", export_id))
    await log.append([StreamAppend(stream=stream, events=[new], expected_version=0)], principal=asked.reader.principal)
