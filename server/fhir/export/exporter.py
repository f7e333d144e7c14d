"""Makes Bulk Data exports.

What is written is the same whenever and however often it is interrupted: everything is read as of one position, in one order, and a file
that is longer than what was noted is cut back to that. Before anything is noted, its bytes are on the disk and whose data they are is
in the log: nobody is handed a file of which the log does not say so.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import msgspec

from domain.access import Action
from eventlog.envelope import instant
from projections.errors import ProjectionBehind
from projections.fhir.projection import SCHEMA
from server.audit.reads import subjects_of
from server.audit.recorder import append_accesses, one_access
from server.exports.jobs import DONE
from server.exports.making import Maker, NotWanted
from server.fhir.bundles import shown_bodies
from server.fhir.export.contents import DELETED, IGNORED, OUTPUT, Deletions, Step, statement_of, steps_of
from server.fhir.export.jobs import Asked, File, Job, Jobs, Progress, kept
from server.fhir.outcome import issue
from server.fhir.representation import Representation
from server.fhir.state import reached_position
from server.services import Services

LINES_A_FILE = 100_000
LINES_A_NOTE = 5_000
"""So many are written anew, at most, after a kill."""
FIRST_PAGE, LARGEST_PAGE = 50, 2000
PAGE_BYTES = 4 * 1024 * 1024
"""A page is about so large, whatever the size of its resources."""
DELETIONS_A_BUNDLE = 500
SUBJECTS_AN_ACCESS = 500
SUBJECTS_REMEMBERED = 100_000
"""Each is recorded once for an export, while there are no more than these."""


def exporter(services: Services) -> Maker[Asked, Progress]:
    """Makes what was asked for, until it is cancelled."""
    jobs = kept(services.log, services.settings.data_dir)

    async def make(job: Job, asked: Asked) -> None:
        await _Making(services, jobs, job, asked).run()

    async def is_readable() -> bool:
        """A read model that is being built for the first time holds only the beginning of the log."""
        return bool(await services.pool.fetchval("SELECT built FROM projection_checkpoint WHERE name || '_v' || version = $1", SCHEMA))

    keep = timedelta(hours=services.settings.fhir_export_keep_hours)
    return Maker(services.log, jobs, make, asked_for=services.export_asked, keep=keep, is_ready=is_readable)


class _Making:
    """One export, from where it was left to its end."""

    def __init__(self, services: Services, jobs: Jobs, job: Job, asked: Asked) -> None:
        self._services = services
        self._pool = services.pool
        self._jobs = jobs
        self._export_id = job.export_id
        self._asked = asked
        self._progress = job.progress
        self._folder = jobs.folder_of(job.export_id)
        self._shown = Representation(elements=asked.elements)
        self._unnoted = 0
        self._known: set[str] = set()
        self._disclosed: list[str] = []
        self._descriptor: int | None = None

    async def run(self) -> None:
        """Raises NotWanted, OSError, and what reading and appending raise."""
        if await reached_position(self._services) < self._asked.position:
            raise ProjectionBehind(SCHEMA, self._asked.position, 0)
        try:
            await asyncio.to_thread(self._prepare)
            steps = steps_of(self._asked)
            for nth in range(self._progress.step, len(steps)):
                await self._take(steps[nth])
                await self._finish_file()
                self._progress.step, self._progress.after = nth + 1, ""
            await self._note()
        finally:
            self._close()
        await asyncio.to_thread(_sync_folder, self._folder)
        if not await self._jobs.end(self._export_id, DONE):
            raise NotWanted

    def _prepare(self) -> None:
        """The folder as it was noted; anew, where it is not all there or another read model is read now."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._folder.parent.chmod(0o700)
        whole = all(_size(self._folder / one.name) >= one.size for one in self._progress.files)
        if not whole or self._asked.schema != SCHEMA:
            self._progress = Progress()
        noted = {one.name: one.size for one in self._progress.files}
        for path in sorted(self._folder.iterdir()):
            if path.name not in noted:
                path.unlink()
            elif path.stat().st_size > noted[path.name]:
                os.truncate(path, noted[path.name])
        if self._progress.after and self._progress.files:  # the file in which it goes on
            self._descriptor = os.open(self._folder / self._progress.files[-1].name, os.O_WRONLY | os.O_APPEND)

    async def _take(self, step: Step) -> None:
        if step.kind == IGNORED:
            said = [
                issue("not-supported", f"ignored, as preferred: {', '.join(self._asked.ignored)}", severity="warning")
            ]
            await self._write(step, [msgspec.json.encode({"resourceType": "OperationOutcome", "issue": said})])
            return
        source: Any = (
            Deletions(self._asked, step.type) if step.kind == DELETED else statement_of(self._asked, step.type)
        )
        limit = DELETIONS_A_BUNDLE if step.kind == DELETED else FIRST_PAGE
        rows = await source.page(self._pool, self._progress.after, limit)
        while rows:
            after, was_full = source.mark(rows[-1]), len(rows) == limit
            limit = limit if step.kind == DELETED else _next_limit(rows)
            # PostgreSQL reads the next page while this one is written.
            reading = asyncio.create_task(source.page(self._pool, after, limit)) if was_full else None
            try:
                await self._write(
                    step, [self._deletions(rows)] if step.kind == DELETED else await self._lines(step.type, rows)
                )
                self._progress.after = after
                if self._unnoted >= LINES_A_NOTE:
                    await self._note()
                rows = await reading if reading is not None else []
            except BaseException:
                if reading is not None:
                    reading.cancel()
                    await asyncio.gather(reading, return_exceptions=True)
                raise

    async def _lines(self, resource_type: str, rows: Sequence[asyncpg.Record]) -> list[bytes]:
        """Each resource as a search answers it."""
        bodies = await shown_bodies(
            self._services, self._asked.reader, [resource_type] * len(rows), rows, self._asked.position
        )
        return await asyncio.to_thread(self._encoded, resource_type, bodies)

    def _encoded(self, resource_type: str, bodies: Sequence[str]) -> list[bytes]:
        if self._services.recorder is not None:
            new = sorted(subjects_of(bodies) - self._known)
            if len(self._known) > SUBJECTS_REMEMBERED:
                self._known.clear()
            self._known.update(new)
            self._disclosed += new
        if self._shown.is_whole:
            return [body.encode("utf-8") for body in bodies]
        return [bytes(self._shown.of(resource_type, body)) for body in bodies]

    def _deletions(self, rows: Sequence[asyncpg.Record]) -> bytes:
        """A transaction that deletes these, for who keeps a copy (Bulk Data, "deleted")."""
        entries = [{"request": {"method": "DELETE", "url": f"{row['type']}/{row['id']}"}} for row in rows]
        meta = {"lastUpdated": instant(self._asked.transaction_time)}
        return msgspec.json.encode({"resourceType": "Bundle", "meta": meta, "type": "transaction", "entry": entries})

    async def _write(self, step: Step, lines: Sequence[bytes]) -> None:
        while lines:
            if self._descriptor is None:
                await asyncio.to_thread(self._open_next, step)
            file = self._progress.files[-1]
            now, lines = lines[: LINES_A_FILE - file.count], lines[LINES_A_FILE - file.count :]
            assert self._descriptor is not None
            file.size += await asyncio.to_thread(_append, self._descriptor, now)
            file.count += len(now)
            self._unnoted += len(now)
            if file.count == LINES_A_FILE:
                await self._finish_file()

    def _open_next(self, step: Step) -> None:
        of_step = step.type if step.kind == OUTPUT else f"{step.kind}.{step.type}"
        nth = 1 + sum(one.name.startswith(f"{of_step}.") for one in self._progress.files)
        name = f"{of_step}.{nth}.ndjson"
        self._descriptor = os.open(self._folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        self._progress.files.append(
            File(name=name, kind=step.kind, type="Bundle" if step.kind == DELETED else step.type)
        )

    async def _note(self) -> None:
        """What is written is on the disk, and who is in it in the log, before it counts. Raises NotWanted."""
        if self._descriptor is not None:
            await asyncio.to_thread(os.fsync, self._descriptor)
        await self._record()
        self._unnoted = 0
        if not await self._jobs.note(self._export_id, self._progress):
            raise NotWanted

    async def _record(self) -> None:
        while self._disclosed:
            now = self._disclosed[:SUBJECTS_AN_ACCESS]
            access = one_access(self._asked.reader.principal, Action.EXPORT, route=self._asked.route, subjects=now)
            await append_accesses(self._services.log, access)
            del self._disclosed[: len(now)]

    async def _finish_file(self) -> None:
        if self._descriptor is not None:
            await asyncio.to_thread(os.fsync, self._descriptor)
        self._close()

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def _next_limit(rows: Sequence[asyncpg.Record]) -> int:
    mean = sum(len(row["body"]) for row in rows) // len(rows) + 1
    return max(1, min(LARGEST_PAGE, 4 * len(rows), PAGE_BYTES // mean))


def _append(descriptor: int, lines: Sequence[bytes]) -> int:
    """Bytes written."""
    text = b"".join([one + b"\n" for one in lines])
    left = memoryview(text)
    while left:
        left = left[os.write(descriptor, left) :]
    return len(text)


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else -1


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
