"""Bulk Data Export over HTTP: kick-off, status, cancelling, and the files (HL7 FHIR Bulk Data Access 2.0)."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import AsyncIterator, Callable, Coroutine
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import FileResponse, StreamingResponse
from fastapi.routing import APIRoute

from eventlog.envelope import instant
from projections.fhir.vocabulary import POSITION_SYSTEM
from server.auth.principals import Authenticated, requires
from server.exports.jobs import DONE, ERASED, FAILED, TooMany
from server.exports.making import DISK_FULL
from server.fhir.access import may_see_what
from server.fhir.export.asking import asked_of
from server.fhir.export.contents import steps_of
from server.fhir.export.jobs import Asked, Job, Jobs, kept
from server.fhir.outcome import FhirError, outcome
from server.fhir.preferences import preferences
from server.fhir.route import READ, FhirRoute, Reader, base_url
from server.fhir.state import reached_position
from server.services import Services

NDJSON = "application/fhir+ndjson"
RETRY_LATER_S = 60
LONGEST_WAIT_S = 30
CHUNK = 256 * 1024
_FAILURES = {
    DISK_FULL: (
        507,
        "no-store",
        "the disk of the server is full: nothing of this export is kept; make room, and ask again",
    ),
}
_FAILURE = (
    500,
    "exception",
    "this export could not be made, and nothing of it is kept; the server's log says where it failed",
)

router = APIRouter(route_class=FhirRoute)
Asker = Annotated[Authenticated, Depends(requires("fhir:read", or_some="rs"))]


class _FileRoute(APIRoute):
    """A file is NDJSON, whatever of JSON is accepted: errors are OperationOutcomes all the same."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            try:
                answer = await handler(request)
            except FhirError as error:
                answer = outcome(
                    error.status, error.code, error.detail, expression=error.expression, headers=error.headers
                )
            answer.headers.setdefault("Cache-Control", "private, no-store")
            return answer

        return handle


files = APIRouter(route_class=_FileRoute)


@router.get("/$export")
async def export_system(request: Request, reader: Reader) -> Response:
    return await _start(request, reader, "", "")


@router.post("/$export")
async def export_system_by_post(request: Request, reader: Reader) -> Response:
    return await _start(request, reader, "", "")


@router.get("/{resource_type}/$export")
async def export_patients(request: Request, reader: Reader, resource_type: str) -> Response:
    return await _start(request, reader, _of_type(resource_type, "Patient"), "")


@router.post("/{resource_type}/$export")
async def export_patients_by_post(request: Request, reader: Reader, resource_type: str) -> Response:
    return await _start(request, reader, _of_type(resource_type, "Patient"), "")


@router.get("/{resource_type}/{resource_id}/$export")
async def export_group(request: Request, reader: Reader, resource_type: str, resource_id: str) -> Response:
    return await _start(request, reader, _of_type(resource_type, "Group"), resource_id)


@router.post("/{resource_type}/{resource_id}/$export")
async def export_group_by_post(request: Request, reader: Reader, resource_type: str, resource_id: str) -> Response:
    return await _start(request, reader, _of_type(resource_type, "Group"), resource_id)


@router.get("/$export/{export_id}")
async def export_status(request: Request, asker: Asker, export_id: str) -> Response:
    job = await _own(request, asker, export_id)
    if job.state == FAILED:
        status, code, said = _FAILURES.get(job.problem or "", _FAILURE)
        return outcome(status, code, said)
    if job.state == ERASED or job.asked is None:
        said = "a person was erased here since this export was asked for, so that it is gone: ask again, and replace what you had of it"
        raise FhirError(410, "deleted", said)
    if job.state == DONE:
        headers = {"Expires": format_datetime(_expires(request, job), usegmt=True)}
        return Response(
            msgspec.json.encode(_manifest(request, job, job.asked)), headers=headers, media_type="application/json"
        )
    age = (datetime.now(UTC) - job.made_at).total_seconds()
    wait = max(1, min(LONGEST_WAIT_S, int(age / 5)))
    said = f"{job.progress.step} of {len(steps_of(job.asked))} steps, {job.progress.resources} resources"
    return Response(status_code=202, headers={"X-Progress": said, "Retry-After": str(wait)})


@router.delete("/$export/{export_id}")
async def cancel_export(request: Request, asker: Asker, export_id: str) -> Response:
    job = await _own(request, asker, export_id)
    await _jobs(request).cancel(job.export_id)
    return outcome(202, "informational", "cancelled: what was written of it is removed", severity="information")


@files.api_route("/$export/{export_id}/{file_name}", methods=READ)
async def export_file(request: Request, asker: Asker, export_id: str, file_name: str) -> Response:
    job = await _own(request, asker, export_id)
    if job.state == ERASED:
        raise FhirError(410, "deleted", "a person was erased here since this export was made: ask again")
    if job.state != DONE or file_name not in {one.name for one in job.progress.files}:
        raise FhirError(404, "not-found", "there is no such file: the manifest lists them")
    path = _jobs(request).folder_of(export_id) / file_name
    if not path.is_file():
        said = "this file is not on this machine: servers of one site share the folder exports/ below the data folder"
        raise FhirError(503, "transient", said)
    headers = {"Vary": "Accept-Encoding, Authorization"}
    if request.method == "GET" and "range" not in request.headers and _takes_gzip(request):
        return StreamingResponse(_gzipped(path), headers={**headers, "Content-Encoding": "gzip"}, media_type=NDJSON)
    return FileResponse(path, headers=headers, media_type=NDJSON)


async def _start(request: Request, reader: Authenticated, resource_type: str, resource_id: str) -> Response:
    """Raises FhirError (400, 404, 410, 429)."""
    if not preferences(request).respond_async:
        raise FhirError(
            400, "required", "an export is made in the background: send Prefer: respond-async", "http.prefer"
        )
    services: Services = request.app.state.services
    known = await reached_position(services)
    asked = await asked_of(request, reader, resource_type, resource_id)
    try:
        export_id = await _jobs(request).start(asked, reader.principal.id, known, services.settings.fhir_exports)
    except TooMany:
        error = FhirError(
            429, "throttled", f"{services.settings.fhir_exports} exports are being made: try again when one has ended"
        )
        error.headers = {"Retry-After": str(RETRY_LATER_S)}
        raise error from None
    services.export_asked.set()
    url = f"{base_url(request)}/$export/{export_id}"
    said = "accepted: Content-Location says where to ask how far it is"
    return outcome(202, "informational", said, severity="information", headers={"Content-Location": url})


async def _own(request: Request, asker: Authenticated, export_id: str) -> Job:
    """An export of who asks, with a token that reaches as far as the one that it was asked for with. Raises FhirError (404)."""
    job = await _jobs(request).find(export_id)
    is_mine = job is not None and job.principal_id == asker.principal.id and (job.asked is None or may_see_what(asker, job.asked.reader))
    if job is None or not (is_mine or asker.may("admin")):
        raise FhirError(404, "not-found", "there is no such export of yours: it may have expired, or was cancelled")
    return job


def _of_type(resource_type: str, wanted: str) -> str:
    if resource_type != wanted:
        raise FhirError(404, "not-supported", "$export is of the system, of Patient, and of a Group by its id")
    return resource_type


def _jobs(request: Request) -> Jobs:
    services: Services = request.app.state.services
    return kept(services.log, services.settings.data_dir)


def _expires(request: Request, job: Job) -> datetime:
    services: Services = request.app.state.services
    return (job.ended_at or job.made_at).astimezone(UTC) + timedelta(hours=services.settings.fhir_export_keep_hours)


def _manifest(request: Request, job: Job, asked: Asked) -> dict[str, Any]:
    """Bulk Data, "Response - Complete Status"."""
    base = f"{base_url(request)}/$export/{job.export_id}"
    listed: dict[str, list[dict[str, Any]]] = {"output": [], "deleted": [], "error": []}
    for one in job.progress.files:
        listed[one.kind].append({"type": one.type, "url": f"{base}/{one.name}", "count": one.count})
    return {
        "transactionTime": instant(asked.transaction_time),
        "request": asked.request,
        "requiresAccessToken": True,
        **listed,
        "extension": {POSITION_SYSTEM: asked.position},
    }


def _takes_gzip(request: Request) -> bool:
    for one in ",".join(request.headers.getlist("accept-encoding")).split(","):
        name, _, rest = one.partition(";")
        if name.strip().lower() == "gzip":
            return rest.replace(" ", "") not in ("q=0", "q=0.0", "q=0.00", "q=0.000")
    return False


async def _gzipped(path: Path) -> AsyncIterator[bytes]:
    packer = zlib.compressobj(1, zlib.DEFLATED, 31)  # 31: with gzip's header
    with path.open("rb") as file:
        while chunk := await asyncio.to_thread(file.read, CHUNK):
            if packed := await asyncio.to_thread(packer.compress, chunk):
                yield packed
    yield packer.flush()
