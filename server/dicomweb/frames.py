"""WADO-RS frames (PS3.18, 10.4.1.1.6): as they are stored, or decoded to Explicit VR Little Endian.

Viewers ask for ``type=application/octet-stream; transfer-syntax=*`` and mean: whatever you have. So an octet stream in any
transfer syntax is the stored one, labelled with its syntax; an octet stream in none, or in little endian, is decoded.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from fastapi import APIRouter, Depends, Request, Response
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse

from archive import frames as archived
from archive.frames import Frame
from archive.part10 import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN
from archive.store import Store
from server.dicomweb.accept import OCTET_STREAM, MediaRange, accepted, covers
from server.dicomweb.caching import cached, etag_headers
from server.dicomweb.errors import NotAcceptable, RequestInvalid
from server.dicomweb.located import located, require_frames
from server.dicomweb.problem import ProblemRoute
from server.dicomweb.targets import Target, find_target
from server.read_models import reads
from server.services import Services

router = APIRouter(route_class=ProblemRoute, dependencies=[Depends(reads("dicom:read", "dicom"))], tags=["WADO-RS"])

_NATIVE = (EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN)
"""Of native frames, both mean the same bytes."""


@router.get("/studies/{study_uid}/series/{series_uid}/instances/{sop_instance_uid}/frames/{frame_list}")
async def retrieve_frames(request: Request, study_uid: str, series_uid: str, sop_instance_uid: str, frame_list: str) -> Response:
    """Frames by number, counted from 1, divided by commas."""
    services: Services = request.app.state.services
    numbers = frame_numbers(frame_list)
    target = await find_target(request, study_uid, series_uid, sop_instance_uid)
    require_frames(target, numbers)
    ranges = accepted(request)
    first, form = await run_in_threadpool(_first, services.store, target, numbers, ranges)
    digest = f"{target.sha256}-{','.join(map(str, numbers))}-{'' if form.in_parts else 'single-'}{first.transfer_syntax_uid}"
    if (unchanged := cached(request, digest, target.as_of)) is not None:
        return unchanged
    headers = etag_headers(digest, target.as_of)
    content_type = f"{form.media_type}; transfer-syntax={first.transfer_syntax_uid}"
    if not form.in_parts:
        return Response(first.data, headers=headers, media_type=content_type)
    boundary = f"anamnesis-{target.sha256[:32]}"
    whole_type = f'multipart/related; type="{form.media_type}"; boundary={boundary}'
    pieces = _pieces(services.store, target, numbers, form, first, boundary, content_type)
    if len(numbers) == 1:
        return Response(b"".join(pieces), headers=headers, media_type=whole_type)
    return StreamingResponse(pieces, headers=headers, media_type=whole_type)


def frame_numbers(frame_list: str) -> list[int]:
    """Raises RequestInvalid."""
    if not re.fullmatch(r"[1-9][0-9]{0,8}(,[1-9][0-9]{0,8})*", frame_list, re.ASCII):
        raise RequestInvalid("frames are named by their numbers from 1, divided by commas")
    return [int(number) for number in frame_list.split(",")]


class Form:
    """How frames are given: decoded or not, in parts or one by itself, under which media type."""

    def __init__(self, *, decoded: bool, media_type: str, in_parts: bool) -> None:
        self.decoded = decoded
        self.media_type = media_type
        self.in_parts = in_parts


def _first(store: Store, target: Target, numbers: Sequence[int], ranges: Sequence[MediaRange]) -> tuple[Frame, Form]:
    with located(store, target) as path:
        stored = archived.frame(path, numbers[0])
        form = choose_form(ranges, stored, is_single=len(numbers) == 1)
        if form.decoded and stored.transfer_syntax_uid not in _NATIVE:
            return archived.native(path, numbers[0]), form
        return stored, form


def choose_form(ranges: Sequence[MediaRange], stored: Frame, *, is_single: bool) -> Form:
    """The first acceptable form of frames that are stored like this one. Raises NotAcceptable."""
    is_native = stored.transfer_syntax_uid in _NATIVE
    for one in ranges:
        in_parts = one.is_multipart or one.media_type == "*/*"
        if not in_parts and not is_single:
            continue
        wanted = one.part_type if in_parts else one.media_type
        syntax = one.transfer_syntax
        as_stored = syntax in ("*", stored.transfer_syntax_uid) or (is_native and syntax in (None, *_NATIVE))
        if wanted == OCTET_STREAM and as_stored:
            return Form(decoded=False, media_type=OCTET_STREAM, in_parts=in_parts)
        if covers(wanted, stored.media_type) and (as_stored or syntax is None):
            return Form(decoded=False, media_type=stored.media_type, in_parts=in_parts)
        if covers(wanted, OCTET_STREAM) and syntax in (None, *_NATIVE):
            return Form(decoded=True, media_type=OCTET_STREAM, in_parts=in_parts)
    raise NotAcceptable(
        f'these frames are given as multipart/related; type="{stored.media_type}"; transfer-syntax={stored.transfer_syntax_uid},'
        f' or decoded as type="{OCTET_STREAM}"; transfer-syntax={EXPLICIT_VR_LITTLE_ENDIAN}'
    )


def _pieces(
    store: Store, target: Target, numbers: Sequence[int], form: Form, first: Frame, boundary: str, content_type: str
) -> Iterator[bytes]:
    head = f"--{boundary}\r\nContent-Type: {content_type}\r\n\r\n".encode("ascii")
    yield head
    yield first.data
    for number in numbers[1:]:
        with located(store, target) as path:
            further = archived.native(path, number) if form.decoded else archived.frame(path, number)
        yield b"\r\n" + head + further.data
    yield f"\r\n--{boundary}--\r\n".encode("ascii")
