"""Exports of datasets over HTTP: asked for, looked after, taken up again, cancelled, and fetched file by file (with Range)."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from pathlib import PurePosixPath
from typing import Annotated

import msgspec
from fastapi import APIRouter, Depends, Path, Request, Response
from fastapi.responses import FileResponse
from starlette.exceptions import HTTPException

from domain.errors import DatasetUnknown, NotAMember, UseNotIntended
from server.auth.principals import Authenticated, requires
from server.datasets.asking import SCOPE, ExportWanted, jobs_of, own_export, start_export
from server.datasets.errors import ExportRefused, ExportUnknown
from server.datasets.exporting import NOT_IN_ARCHIVE
from server.datasets.folder import STATE
from server.datasets.jobs import Job
from server.datasets.layouts.croissant import media_type
from server.errors import ScopeMissing
from server.exports.jobs import DONE, ERASED, FAILED, RUNNING, TooMany
from server.exports.making import DISK_FULL, UNWRITABLE
from server.plain_json import body_of, json_answer, refusals
from server.services import Services

RETRY_LATER_S = 60
ASK_AGAIN_S = 2
router = APIRouter(prefix="/datasets", tags=["Datasets"])
Id = Annotated[str, Path(pattern="^[A-Za-z0-9-]{1,64}$")]
Exporting = Annotated[Authenticated, Depends(requires(SCOPE))]

_STATUS: dict[type[Exception], int] = {
    DatasetUnknown: 404,
    ExportUnknown: 404,
    ExportRefused: 422,
    NotAMember: 403,
    UseNotIntended: 403,
    ScopeMissing: 403,
}
_PROBLEMS = {
    DISK_FULL: "the disk of the server is full: make room, and resume the export",
    UNWRITABLE: "its files cannot be written: mend the folder dataset-exports/ below the data folder, and resume the export",
    NOT_IN_ARCHIVE: "an instance is not in the archive, or not as it was stored: restore it from a backup, and resume the export",
}
_PROBLEM = "it could not be made; the server's log says where it failed"


class ExportStatus(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """``state``: running, done, failed or erased. ``bytes`` and ``files`` are on the disk by now. ``problem`` is a code, ``detail`` what to do."""

    export_id: str
    dataset_id: str = ""
    version: int = 0
    layouts: Sequence[str] = ()
    purpose: str = ""
    state: str
    percent: int = 0
    files: int = 0
    bytes: int = 0
    asked_at: datetime
    ended_at: datetime | None = None
    expires_at: datetime | None = None
    problem: str | None = None
    detail: str | None = None
    manifest: str | None = None
    """Where the list of files is, once all are there; each is found beside it by its path."""


@router.post("/{dataset_id}/versions/{version}/exports", status_code=202)
async def start(request: Request, reader: Exporting, dataset_id: Id, version: Annotated[int, Path(ge=1, le=10**8)]) -> Response:
    """Begins an export, in the background. Content-Location says where to ask how far it is."""
    services: Services = request.app.state.services
    wanted = await body_of(request, ExportWanted)
    try:
        with _refusals():
            export_id = await start_export(services, reader, dataset_id, version, wanted)
    except TooMany:
        said = f"{services.settings.dataset_exports} exports of datasets are being made: try again when one has ended"
        raise HTTPException(429, said, {"Retry-After": str(RETRY_LATER_S)}) from None
    return await _answer(request, reader, export_id, 202)


@router.get("/exports/{export_id}")
async def status(request: Request, asker: Exporting, export_id: Id) -> Response:
    """How far an export is, and how it ended."""
    return await _answer(request, asker, export_id)


@router.post("/exports/{export_id}/resumption", status_code=202)
async def resume(request: Request, asker: Exporting, export_id: Id) -> Response:
    """Takes up an export that failed; what it had written is kept."""
    services: Services = request.app.state.services
    with _refusals():
        job = await own_export(services, asker, export_id)
    if job.state != RUNNING and not await jobs_of(services).resume(export_id):
        raise HTTPException(409, f"this export is {job.state}: only one that failed can be taken up")
    services.dataset_export_asked.set()
    return await _answer(request, asker, export_id, 202)


@router.delete("/exports/{export_id}", status_code=202)
async def cancel(request: Request, asker: Exporting, export_id: Id) -> Response:
    """Ends an export, and removes its files."""
    services: Services = request.app.state.services
    with _refusals():
        await own_export(services, asker, export_id)
    await jobs_of(services).cancel(export_id)
    return Response(status_code=202)


@router.api_route("/exports/{export_id}/files/{path:path}", methods=["GET", "HEAD"])
async def file(request: Request, asker: Exporting, export_id: Id, path: str) -> Response:
    """One file of an export, by its path in the manifest."""
    services: Services = request.app.state.services
    with _refusals():
        job = await own_export(services, asker, export_id)
    if job.state == ERASED:
        raise HTTPException(410, "a person was erased here since this export was made: ask again, and replace what you had of it")
    _may_still(asker, job)
    parts = PurePosixPath(path.replace("\0", "")).parts
    if job.state != DONE or not parts or parts[0] in (STATE, "/") or ".." in parts:
        raise HTTPException(404, "there is no such file: manifest.json lists them")
    found = jobs_of(services).folder_of(export_id).joinpath(*parts)
    if not found.parents[len(parts) - 1].is_dir():
        raise HTTPException(503, "the files are not on this machine: servers of one site share the folder dataset-exports/ below the data folder")
    if not found.is_file():
        raise HTTPException(404, "there is no such file: manifest.json lists them")
    return FileResponse(found, media_type=media_type(path), headers={"Cache-Control": "private, no-store"})


def _may_still(asker: Authenticated, job: Job) -> None:
    """With a token that reaches as far as the one that it was asked for with."""
    for scope in ("dicom:read", "identities:read"):
        if job.asked is not None and job.asked.reader.may(scope) and not asker.may(scope):
            raise ScopeMissing(scope)


def _refusals() -> AbstractContextManager[None]:
    return refusals(_STATUS)


async def _answer(request: Request, asker: Authenticated, export_id: str, status: int = 200) -> Response:
    services: Services = request.app.state.services
    with _refusals():
        job = await own_export(services, asker, export_id)
    here = f"{(services.settings.public_url or str(request.base_url)).rstrip('/')}/datasets/exports/{export_id}"
    headers = {"Content-Location": here, "Cache-Control": "private, no-store"}
    if job.state == RUNNING:
        headers |= {"Retry-After": str(ASK_AGAIN_S), "X-Progress": f"{job.progress.percent} %, {job.progress.files} files"}
    return json_answer(_status(services, job, here), status, headers)


def _status(services: Services, job: Job, here: str) -> ExportStatus:
    ended = job.ended_at.astimezone(UTC) if job.ended_at else None
    wanted = job.asked.wanted if job.asked else None
    return ExportStatus(
        export_id=job.export_id,
        dataset_id=wanted.dataset_id if wanted else "",
        version=wanted.version if wanted else 0,
        layouts=[str(layout) for layout in wanted.layouts] if wanted else (),
        purpose=str(job.asked.purpose) if job.asked else "",
        state=job.state,
        percent=100 if job.state == DONE else job.progress.percent,
        files=job.progress.files,
        bytes=job.progress.bytes,
        asked_at=job.made_at.astimezone(UTC),
        ended_at=ended,
        expires_at=ended + timedelta(hours=services.settings.dataset_export_keep_hours) if ended else None,
        problem=job.problem,
        detail=_PROBLEMS.get(job.problem or "", _PROBLEM) if job.state == FAILED else None,
        manifest=f"{here}/files/manifest.json" if job.state == DONE else None,
    )
