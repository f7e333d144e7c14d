"""WADO-RS retrieve (PS3.18, 10.4.1.1.1): studies, series and instances as the Part 10 files that the archive holds.

The data set's bytes are those that were sent. So without a transfer syntax in Accept an instance is given as it is stored,
where the standard's default would have a compressed one decoded to Explicit VR Little Endian.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from fastapi import APIRouter, Depends, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse

from archive.errors import NotInArchive
from archive.store import Store
from server.dicomweb.accept import DICOM, MediaRange, accepted, covers
from server.dicomweb.caching import cached, etag_headers
from server.dicomweb.errors import BytesMissing, NotAcceptable
from server.dicomweb.multipart import CHUNK_BYTES, Multipart, Part
from server.dicomweb.problem import ProblemRoute
from server.dicomweb.targets import Target, find_target, find_targets
from server.read_models import reads
from server.services import Services

router = APIRouter(route_class=ProblemRoute, dependencies=[Depends(reads("dicom:read", "dicom"))], tags=["WADO-RS"])


@router.get("/studies/{study_uid}")
async def retrieve_study(request: Request, study_uid: str) -> Response:
    """All instances of a study."""
    services: Services = request.app.state.services
    return await _answer(request, services.store, await find_targets(request, study_uid), is_single=False)


@router.get("/studies/{study_uid}/series/{series_uid}")
async def retrieve_series(request: Request, study_uid: str, series_uid: str) -> Response:
    """All instances of a series."""
    services: Services = request.app.state.services
    return await _answer(request, services.store, await find_targets(request, study_uid, series_uid), is_single=False)


@router.get("/studies/{study_uid}/series/{series_uid}/instances/{sop_instance_uid}")
async def retrieve_instance(request: Request, study_uid: str, series_uid: str, sop_instance_uid: str) -> Response:
    """One instance: as the one part of a multipart answer, or by itself as application/dicom."""
    services: Services = request.app.state.services
    target = await find_target(request, study_uid, series_uid, sop_instance_uid)
    return await _answer(request, services.store, [target], is_single=True)


async def _answer(request: Request, store: Store, targets: Sequence[Target], *, is_single: bool) -> Response:
    in_parts = _in_parts(accepted(request), targets, is_single=is_single)
    parts = [_part(store, target) for target in targets]
    multipart = Multipart(parts, DICOM)
    digest = multipart.digest if in_parts else targets[0].sha256
    if (unchanged := cached(request, digest, targets[0].as_of)) is not None:
        return unchanged
    try:
        (await run_in_threadpool(parts[0].open)).close()
    except NotInArchive:
        raise BytesMissing(f"the archive lacks the bytes of instance {targets[0].sop_instance_uid}") from None
    headers = etag_headers(digest, targets[0].as_of)
    if in_parts:
        headers["Content-Length"] = str(multipart.content_length)
        return StreamingResponse(multipart.stream(), headers=headers, media_type=multipart.content_type)
    headers["Content-Length"] = str(targets[0].size)
    return StreamingResponse(_chunks(parts[0]), headers=headers, media_type=parts[0].content_type)


def _in_parts(ranges: Sequence[MediaRange], targets: Sequence[Target], *, is_single: bool) -> bool:
    """Whether the best acceptable form is multipart. Raises NotAcceptable."""
    stored = {target.transfer_syntax_uid for target in targets}
    for one in ranges:
        if one.transfer_syntax not in (None, "*") and stored != {one.transfer_syntax}:
            continue
        if one.media_type == "*/*" or (one.is_multipart and covers(one.part_type, DICOM)):
            return True
        if is_single and one.includes(DICOM):
            return False
    single = f" or {DICOM}" if is_single else ""
    raise NotAcceptable(
        f'this is given as multipart/related; type="{DICOM}"; transfer-syntax=*{single}, in the transfer syntax as stored:'
        f" {', '.join(sorted(stored))}"
    )


def _part(store: Store, target: Target) -> Part:
    return Part(
        content_type=f"{DICOM}; transfer-syntax={target.transfer_syntax_uid}",
        size=target.size,
        digest=target.sha256,
        open=lambda: store.open(target.sha256),
    )


def _chunks(part: Part) -> Iterator[bytes]:
    with part.open() as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk
