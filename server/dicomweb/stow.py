"""STOW-RS (PS3.18, 10.5): instances into the archive, each with an answer of its own.

An instance is reported as referenced only when it is durable and in the log; other bytes under a known SOP Instance UID are kept
apart and reported as failed (0111H). A client that was told of success finds its instances by QIDO-RS at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated, Any
from urllib.parse import quote

import msgspec
from fastapi import APIRouter, Depends, Request, Response
from python_multipart.multipart import parse_options_header
from starlette.requests import ClientDisconnect

from archive.errors import Refused, SpoolFull
from archive.header import read_header
from domain.principal import Principal
from domain.series import DicomJson
from projections.checkpoint import wait_for
from projections.dicom.projection import DicomProjection
from projections.errors import ProjectionBehind
from server.auth.principals import Authenticated, requires
from server.dicomweb.accept import json_type
from server.dicomweb.answers import service_url
from server.dicomweb.body import Arrived, NoInstance, PartsParser, PartWriter
from server.dicomweb.errors import DicomWebError, RequestInvalid
from server.dicomweb.problem import ProblemRoute
from server.intake import sender_of
from server.refusal import refuse
from server.services import Services
from server.verdict import Verdict

router = APIRouter(route_class=ProblemRoute, tags=["STOW-RS"])
Writer = Annotated[Authenticated, Depends(requires("dicom:write"))]

CHUNK_BYTES = 512 * 1024
"""The body goes to the disk in pieces of this size: each costs a change of thread."""
VERDICT_TIMEOUT_S = 60.0
PROJECTION_TIMEOUT_S = 10.0

_CANNOT_UNDERSTAND, _OTHER_STUDY, _DUPLICATE_UID, _NOT_AUTHORIZED = 0xC000, 0xA901, 0x0111, 0x0124
_FAILURE_REASONS = {"other-study": _OTHER_STUDY, "other-bytes-under-known-uid": _DUPLICATE_UID, "subject-erased": _NOT_AUTHORIZED}
"""(0008,1197) for a reason code: PS3.18, table I.2-2, and PS3.7, annex C, where that has none; else C000H."""


class UnsupportedMediaType(DicomWebError):
    """Raised when the body is neither multipart/related with DICOM files nor one DICOM file."""

    status = 415
    title = "Unsupported media type"


class StorageFull(DicomWebError):
    """Raised when the disk is full: what was not reported before is not stored."""

    status = 507
    title = "The archive is full"


class VerdictLate(DicomWebError):
    """Raised when the log did not answer in time: the instances are safe and will be stored; sending them again does no harm."""

    status = 503
    title = "Not decided in time"


@router.post("/studies")
async def store_instances(request: Request, writer: Writer) -> Response:
    """Stores instances of any study."""
    return await _store(request, writer.principal, None)


@router.post("/studies/{study_uid}")
async def store_instances_of_study(request: Request, writer: Writer, study_uid: str) -> Response:
    """Stores instances of this study; those of others are refused."""
    return await _store(request, writer.principal, study_uid)


async def _store(request: Request, principal: Principal, study_uid: str | None) -> Response:
    media_type = json_type(request)
    services: Services = request.app.state.services
    door = _Door(services, principal, study_uid)
    content_type, parameters = _content_type(request.headers.get("content-type", ""))
    try:
        if content_type == "application/dicom":
            await _receive_one(request, door)
        elif content_type == "multipart/related":
            await _receive_parts(request, parameters, door)
        else:
            raise UnsupportedMediaType('send multipart/related; type="application/dicom", or one application/dicom')
    except SpoolFull as error:
        raise StorageFull("the spool's disk is full: make room, and send the instances again") from error
    except ClientDisconnect:
        raise RequestInvalid("the connection ended inside the body; whole parts before that are stored") from None
    verdicts = await door.verdicts()
    if not verdicts:
        raise RequestInvalid("the body holds no part")
    await _until_visible(services, verdicts, request)
    status, answer = respond(verdicts, service_url(request))
    return Response(msgspec.json.encode(answer), status, media_type=media_type)


class _Door:
    """What has arrived in one request, each on its way to a verdict."""

    def __init__(self, services: Services, principal: Principal, study_uid: str | None) -> None:
        self._services = services
        self._principal = principal
        self._study_uid = study_uid
        self._loop = asyncio.get_running_loop()
        self._underway: list[asyncio.Future[Verdict]] = []

    @property
    def sender(self) -> str:
        return sender_of(self._principal)

    def writer(self) -> PartWriter:
        return PartWriter(self._services.spool, self.sender)

    def parser(self, boundary: str) -> PartsParser:
        return PartsParser(boundary, self._services.spool, self.sender, self.arrived)

    def arrived(self, one: Arrived) -> None:
        """From any thread."""
        self._loop.call_soon_threadsafe(lambda: self._underway.append(self._loop.create_task(self._decide(one))))

    async def verdicts(self) -> Sequence[Verdict]:
        """In the order in which the parts came. Raises VerdictLate."""
        await asyncio.sleep(0)  # what threads have handed over comes first
        if not self._underway:
            return []
        done, late = await asyncio.wait(self._underway, timeout=VERDICT_TIMEOUT_S)
        if late:
            raise VerdictLate(f"{len(done)} of {len(self._underway)} instances are in the log; ask again")
        return [await task for task in self._underway]

    async def _decide(self, one: Arrived) -> Verdict:
        services = self._services
        if isinstance(one, NoInstance):
            try:
                return await refuse(
                    services.log, services.rejects, one.path, reason=one.reason, detail=one.detail, door="stow", principal=self._principal
                )
            finally:
                one.path.unlink(missing_ok=True)
        if self._study_uid is not None and not await asyncio.to_thread(self._is_of_study, one.path):
            verdict = await refuse(
                services.log,
                services.rejects,
                one.path,
                reason="other-study",
                detail="the request is for another study than the one (0020,000D) that the instance names",
                door="stow",
                principal=self._principal,
                sop_class_uid=one.sop_class_uid,
                sop_instance_uid=one.sop_instance_uid,
            )
            one.path.unlink(missing_ok=True)
            return verdict
        return await asyncio.wrap_future(services.intake.submit(one, self._principal))

    def _is_of_study(self, path: Any) -> bool:
        try:
            return read_header(path).study_uid == self._study_uid
        except Refused:
            return True  # the intake refuses it, with its own reason


async def _receive_one(request: Request, door: _Door) -> None:
    part = door.writer()
    try:
        async for chunk in _chunks(request):
            await asyncio.to_thread(part.write, chunk)
        door.arrived(await asyncio.to_thread(part.close))
    except BaseException:
        await asyncio.to_thread(part.abort)
        raise


async def _receive_parts(request: Request, parameters: dict[str, str], door: _Door) -> None:
    kind = parameters.get("type", "application/dicom").lower()
    if kind != "application/dicom":
        raise UnsupportedMediaType(f"parts of type {kind} are not taken: send application/dicom")
    boundary = parameters.get("boundary", "")
    if not boundary:
        raise RequestInvalid("Content-Type names no boundary")
    parser = door.parser(boundary)
    try:
        async for chunk in _chunks(request):
            await asyncio.to_thread(parser.write, chunk)
        parser.finish()
    except BaseException:
        await asyncio.to_thread(parser.abort)
        raise


async def _chunks(request: Request) -> Any:
    """The body in pieces of about CHUNK_BYTES."""
    waiting = bytearray()
    async for chunk in request.stream():
        waiting += chunk
        if len(waiting) >= CHUNK_BYTES:
            yield bytes(waiting)
            waiting.clear()
    if waiting:
        yield bytes(waiting)


async def _until_visible(services: Services, verdicts: Sequence[Verdict], request: Request) -> None:
    """Waits for the projection that the client will read, unless it prefers not to (RFC 7240, 4.1)."""
    position = max((v.position for v in verdicts if v.position is not None), default=None)
    if position is None or "respond-async" in request.headers.get("prefer", ""):
        return
    try:
        await wait_for(services.pool, DicomProjection(), position, PROJECTION_TIMEOUT_S)
    except ProjectionBehind:
        pass  # stored all the same


def respond(verdicts: Sequence[Verdict], service: str) -> tuple[int, DicomJson]:
    """Status and Store Instances Response Module (PS3.18, 10.5.3 and annex I)."""
    stored = [v for v in verdicts if v.outcome in ("stored", "duplicate")]
    failed = [v for v in verdicts if v.outcome not in ("stored", "duplicate")]
    answer: DicomJson = {}
    studies = {v.study_uid for v in stored}
    if len(studies) == 1:
        answer["00081190"] = _element("UR", f"{service}/studies/{quote(studies.pop())}")
    named = [_failed(v) for v in failed if v.sop_instance_uid and v.sop_class_uid]
    nameless = [{"00081197": _element("US", _failure_reason(v))} for v in failed if not (v.sop_instance_uid and v.sop_class_uid)]
    for tag, items in (("00081198", named), ("00081199", [_referenced(v, service) for v in stored]), ("0008119A", nameless)):
        if items:
            answer[tag] = {"vr": "SQ", "Value": items}
    status = 200 if not failed else 202 if stored else 409
    return status, answer


def _referenced(verdict: Verdict, service: str) -> DicomJson:
    path = "/".join(
        (service, "studies", quote(verdict.study_uid), "series", quote(verdict.series_uid), "instances", quote(verdict.sop_instance_uid))
    )
    return {**_sop(verdict), "00081190": _element("UR", path)}


def _failed(verdict: Verdict) -> DicomJson:
    return {**_sop(verdict), "00081197": _element("US", _failure_reason(verdict))}


def _sop(verdict: Verdict) -> DicomJson:
    return {"00081150": _element("UI", verdict.sop_class_uid), "00081155": _element("UI", verdict.sop_instance_uid)}


def _failure_reason(verdict: Verdict) -> int:
    return _FAILURE_REASONS.get(verdict.reason, _CANNOT_UNDERSTAND)


def _element(vr: str, value: Any) -> DicomJson:
    return {"vr": vr, "Value": [value]}


def _content_type(text: str) -> tuple[str, dict[str, str]]:
    """Media type and parameters. A boundary keeps its case; quotes are taken off."""
    kind, options = parse_options_header(text)
    return kind.decode("latin-1").lower(), {
        name.decode("latin-1").lower(): value.decode("latin-1") for name, value in options.items()
    }
