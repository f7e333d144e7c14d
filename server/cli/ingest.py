"""`anamnesis ingest`: files of this machine into the archive and the log, with or without a server beside.

It writes into a spool folder of its own process, so a running server leaves it alone; should this process die, a server takes
up what it had made safe. Patients' names are never shown; file names are, since the person who asked gave them.
"""

from __future__ import annotations

import asyncio
import json
import logging
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from archive.errors import Refused
from archive.header import InstanceHeader, read_header
from archive.part10 import read_part10
from archive.rejects import Rejects
from archive.spool import Spool, SpooledInstance
from archive.store import Store
from domain.principal import Principal, PrincipalKind
from eventlog.log import EventLog
from server.cli.files import Found, Unusable, count_files, find_files
from server.intake import Intake
from server.refusal import refuse
from server.settings import ServerSettings
from server.verdict import Verdict

PRINCIPAL = Principal(id="door:ingest", kind=PrincipalKind.DEVICE)
MAX_UNDECIDED = 400
MAX_LISTED = 50
"""Refused files that the table names; --json names them all."""
_CHUNK = 1 << 20


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one file."""

    file: str
    outcome: str
    reason: str = ""
    detail: str = ""
    study_uid: str = ""
    series_uid: str = ""
    sop_instance_uid: str = ""


class Ingested(msgspec.Struct, frozen=True, kw_only=True):
    outcomes: Sequence[Outcome]

    @property
    def counts(self) -> dict[str, int]:
        counted = Counter(one.outcome for one in self.outcomes)
        return {name: counted[name] for name in ("stored", "duplicate", "conflict", "refused")}

    @property
    def is_fine(self) -> bool:
        return all(one.outcome in ("stored", "duplicate") for one in self.outcomes)


def ingest(
    paths: Annotated[list[Path], typer.Argument(help="Folders, zip archives, DICOMDIRs or single files.", exists=True, metavar="PATH…")],
    as_json: Annotated[bool, typer.Option("--json", help="Print what became of every file as JSON.")] = False,
) -> None:
    """Take in DICOM files. Ends 0 when all are stored (or were before), 1 when some are not, 2 on a mistake in the call.

    Examples:

        anamnesis ingest ~/scans

        anamnesis ingest export.zip /media/cdrom/DICOMDIR --json
    """
    warnings.simplefilter("ignore")
    for noisy in ("pydicom", "pynetdicom"):  # their messages hold values
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    settings = ServerSettings()
    console = Console(stderr=True)
    with Progress(
        SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        console=console, disable=as_json or not console.is_terminal, transient=True,
    ) as progress:  # fmt: skip
        ingested = asyncio.run(_ingest(settings, paths, progress))
    if as_json:
        typer.echo(json.dumps({**ingested.counts, "files": msgspec.to_builtins(ingested.outcomes)}, indent=2))
    else:
        show(ingested, Console())
    raise typer.Exit(0 if ingested.is_fine else 1)


async def _ingest(settings: ServerSettings, paths: list[Path], progress: Progress) -> Ingested:
    log = await EventLog.open(settings)
    try:
        spool, store, rejects = Spool(settings.spool_dir), Store(settings.store_url), Rejects(settings.rejects_dir)
        intake = Intake(
            log,
            store,
            spool,
            rejects,
            linger_s=settings.intake_linger_s,
            patient_id_systems=settings.patient_id_systems,
        )
        try:
            return await ingest_files(paths, log=log, spool=spool, rejects=rejects, intake=intake, progress=progress)
        finally:
            await intake.close()
    finally:
        await log.close()


async def ingest_files(
    paths: list[Path], *, log: EventLog, spool: Spool, rejects: Rejects, intake: Intake, progress: Progress | None = None
) -> Ingested:
    """Takes in every file below these paths; gives what became of each, in the order in which they were found."""
    bar = None
    if progress is not None:
        bar = progress.add_task("ingest", total=await asyncio.to_thread(count_files, paths))
    outcomes: dict[int, Outcome] = {}
    underway: set[asyncio.Task[None]] = set()

    def done(number: int, outcome: Outcome) -> None:
        outcomes[number] = outcome
        if progress is not None and bar is not None:
            progress.advance(bar)

    async def await_verdict(number: int, shown: str, spooled: SpooledInstance) -> None:
        try:
            verdict = await asyncio.wrap_future(intake.submit(spooled, PRINCIPAL))
        except Exception as error:  # the instance is safe in the spool, and the others go on
            detail = f"not recorded yet ({type(error).__name__}); the spool keeps it for the next start of the server"
            done(number, Outcome(file=shown, outcome="refused", reason="not-recorded", detail=detail))
        else:
            done(number, _outcome(shown, verdict))

    files = find_files(paths)
    number = 0
    while (found := await asyncio.to_thread(next, files, None)) is not None:
        number += 1
        if isinstance(found, Unusable):
            done(number, Outcome(file=found.shown, outcome="refused", reason=found.reason, detail=found.detail))
            continue
        try:
            spooled = await asyncio.to_thread(_spool, found, spool)
        except Refused as error:
            verdict = await refuse(
                log, rejects, found.path, reason=error.reason, detail=str(error), door="ingest", principal=PRINCIPAL
            )
            done(number, _outcome(found.shown, verdict))
            continue
        except OSError as error:
            detail = f"the file cannot be read ({error.strerror})"
            done(number, Outcome(file=found.shown, outcome="refused", reason="unreadable", detail=detail))
            continue
        task = asyncio.create_task(await_verdict(number, found.shown, spooled))
        underway.add(task)
        task.add_done_callback(underway.discard)
        while len(underway) >= MAX_UNDECIDED:
            await asyncio.wait(underway, return_when=asyncio.FIRST_COMPLETED)
    await asyncio.gather(*underway)
    return Ingested(outcomes=[outcomes[n] for n in sorted(outcomes)])


def _spool(found: Found, spool: Spool) -> SpooledInstance:
    """The file's data set, durable in the spool. Raises Refused (nothing is in the spool then), SpoolFull, OSError."""
    header: InstanceHeader = read_header(found.path)
    with found.path.open("rb") as file:
        offset = read_part10(file).dataset_offset
        file.seek(offset)
        # The data set's own UIDs, and not those of the file's meta information: so the stored file is that of the other doors.
        with spool.receive(
            sop_class_uid=header.sop_class_uid,
            sop_instance_uid=header.sop_instance_uid,
            transfer_syntax_uid=header.transfer_syntax_uid,
            door="ingest",
        ) as reception:
            while chunk := file.read(_CHUNK):
                reception.write(chunk)
            return reception.commit()


def _outcome(shown: str, verdict: Verdict) -> Outcome:
    return Outcome(
        file=shown,
        outcome=verdict.outcome,
        reason=verdict.reason,
        detail=verdict.detail,
        study_uid=verdict.study_uid,
        series_uid=verdict.series_uid,
        sop_instance_uid=verdict.sop_instance_uid,
    )


def show(ingested: Ingested, console: Console) -> None:
    """The summary, and by name what was not stored."""
    counts: dict[str, Any] = ingested.counts
    table = Table("outcome", "files", title=f"{len(ingested.outcomes)} files")
    for label, name in (("stored", "stored"), ("duplicates", "duplicate"), ("conflicts", "conflict"), ("refused", "refused")):
        table.add_row(label, str(counts[name]))
    console.print(table)
    studies = {one.study_uid for one in ingested.outcomes if one.study_uid}
    series = {one.series_uid for one in ingested.outcomes if one.series_uid}
    console.print(f"{len(series)} series in {len(studies)} studies")
    bad = [one for one in ingested.outcomes if one.outcome in ("conflict", "refused")]
    if not bad:
        return
    problems = Table("file", "outcome", "reason", "detail", title="Not stored in place")
    for one in bad[:MAX_LISTED]:
        problems.add_row(*(escape(text) for text in (one.file, one.outcome, one.reason, one.detail)))
    console.print(problems)
    if len(bad) > MAX_LISTED:
        console.print(f"and {len(bad) - MAX_LISTED} more: --json names them all")
