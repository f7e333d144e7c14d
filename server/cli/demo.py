"""`anamnesis demo`: one CT series through the whole house, on a machine with nothing but Python.

Starts the embedded database, server and worker in a temporary folder, sends a series over a real C-STORE association, waits for
its index and shows what came of it. Without a PATH it makes a phantom, and ends 0 only when every figure is within
2 % of the phantom's truth.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from archive.phantom import PhantomTruth, make_phantom
from server.demo.picture import draw_findings
from server.demo.report import FindingRow, findings_of, provenance_rows, study_rows, within
from server.demo.sender import SendFailed, dicom_files, send
from server.demo.site import DemoSite, SiteFailed

TOLERANCE = 0.02
INDEX_TIMEOUT_S = 600.0

console = Console()


def demo(
    path: Annotated[
        Path | None, typer.Argument(help="A folder of your own DICOM files; without it a CT phantom is made.", exists=True)
    ] = None,
    keep: Annotated[bool, typer.Option("--keep", help="Go on serving afterwards, until Ctrl-C.")] = False,
    slices: Annotated[int, typer.Option(min=60, help="Slices of the phantom.")] = 64,
    output: Annotated[Path, typer.Option(help="Folder for the picture.")] = Path("demo-output"),
) -> None:
    """Walk one CT series through receiving, indexing and FHIR, and show each step.

    Examples:

        anamnesis demo

        anamnesis demo ~/my-ct --keep
    """
    folder = Path(tempfile.mkdtemp(prefix="anamnesis-demo-"))
    try:
        code = asyncio.run(_demo(folder, path, keep, slices, output))
    except (SiteFailed, SendFailed, TimeoutError) as error:
        console.print(f"[red]The demonstration failed:[/red] {error}")
        code = 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    raise typer.Exit(code)


async def _demo(folder: Path, path: Path | None, keep: bool, slices: int, output: Path) -> int:
    truth: PhantomTruth | None = None
    with _progress() as progress:
        if path is None:
            task = progress.add_task(f"Making a CT phantom of {slices} slices of 512 × 512", total=None)
            truth = await asyncio.to_thread(make_phantom, folder / "phantom", slices=slices)
            progress.update(task, total=1, completed=1)
        task = progress.add_task("Starting database, server and worker", total=None)
        async with DemoSite(folder / "site") as site:
            progress.update(task, total=1, completed=1)
            files = dicom_files(path or folder / "phantom")
            task = progress.add_task("Sending over C-STORE", total=len(files))
            sent = await asyncio.to_thread(send, files, site.dimse_address, lambda: progress.advance(task))
            task = progress.add_task("Indexing", total=len(sent.series))
            outcomes = await _wait_for_index(site, sent.series, lambda n: progress.update(task, completed=n))
            progress.stop()
            good = await _show(site, sent.series, outcomes, truth, output)
            if keep:
                console.print(f"\nServing at [bold]{site.url}[/bold] (token: {site.token}). Ctrl-C ends it.")
                await site.wait()
            return 0 if good else 1


async def _wait_for_index(site: DemoSite, series: list[str], done: Any) -> dict[str, str]:
    """Series → indexed, or the reason why not. Raises TimeoutError."""
    deadline = time.monotonic() + INDEX_TIMEOUT_S
    while True:
        outcomes = await site.indexing_outcomes(series)
        done(len(outcomes))
        if len(outcomes) == len(series):
            return outcomes
        if time.monotonic() > deadline:
            raise TimeoutError(f"{len(series) - len(outcomes)} of {len(series)} series had no index after {INDEX_TIMEOUT_S:.0f} s")
        await asyncio.sleep(0.3)


async def _show(
    site: DemoSite, series: list[str], outcomes: dict[str, str], truth: PhantomTruth | None, output: Path
) -> bool:
    good = True
    for uid in series:
        study = await site.study_of(uid)
        console.print(_table("Study (FHIR ImagingStudy)", ("element", "value"), study_rows(study, uid)))
        if outcomes[uid] != "indexed":
            console.print(f"Series {uid} was not indexed: [yellow]{outcomes[uid]}[/yellow]")
            good = good and truth is None
            continue
        findings = await findings_of(site, uid)
        console.print(_findings_table(findings, truth))
        if truth is not None:
            good = good and all(within(findings, label, volume, TOLERANCE) for label, volume in truth.volumes_mm3.items())
        provenance = await site.provenance_of(f"Observation/{findings[0].observation_id}")
        console.print(_table("Provenance of the first finding", ("element", "value"), provenance_rows(provenance)))
        events = await site.events_of(uid)
        rows = [(str(e.position), e.recorded_at.strftime("%H:%M:%S.%f")[:-3], e.type, e.principal.id) for e in events]
        console.print(_table("Events of the series", ("position", "recorded", "event", "principal"), rows))
        picture = await draw_findings(site, study, uid, findings, output / f"{uid[-12:]}.png")
        console.print(f"Picture: [bold]{picture}[/bold]\n")
    if truth is not None:
        verdict = "[green]every figure is within 2 % of the truth[/green]" if good else "[red]a figure is off by more than 2 %[/red]"
        console.print(verdict)
    return good


def _findings_table(findings: list[FindingRow], truth: PhantomTruth | None) -> Table:
    columns = ["structure", "side", "volume (mL)", "mean (HU)", "at the edge"]
    rows = [[f.display, f.laterality or "", f"{f.volume_mm3 / 1000:.1f}", f"{f.mean_hu:.0f}", "yes" if f.touches_edge else "no"] for f in findings]
    if truth is not None:
        columns += ["truth (mL)", "off by"]
        for row, finding in zip(rows, findings, strict=True):
            true = truth.volumes_mm3.get(finding.label)
            row += [f"{true / 1000:.1f}", f"{100 * (finding.volume_mm3 / true - 1):+.2f} %"] if true else ["", ""]
    return _table("Findings (FHIR BodyStructure and Observation)", columns, rows)


def _table(title: str, columns: Any, rows: Any) -> Table:
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row)
    return table


def _progress() -> Progress:
    return Progress(
        SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), console=console
    )
