"""WADO-RS rendered resources and thumbnails (PS3.18, 10.4.1.1.3 and .4): one frame as a JPEG or PNG."""

from __future__ import annotations

import math

from fastapi import APIRouter, Depends, Request, Response
from fastapi.concurrency import run_in_threadpool

from archive import frames as archived
from server.dicomweb.accept import accepted
from server.dicomweb.caching import cached, etag_headers
from server.dicomweb.errors import NotAcceptable, NotRenderable, QueryInvalid
from server.dicomweb.frames import frame_numbers
from server.dicomweb.located import located, require_frames
from server.dicomweb.problem import ProblemRoute
from server.dicomweb.targets import Target, find_target, find_targets
from server.read_models import reads
from server.services import Services

router = APIRouter(route_class=ProblemRoute, dependencies=[Depends(reads("dicom:read", "dicom"))], tags=["WADO-RS"])

THUMBNAIL = (128, 128)
"""Width and height in pixels, unless the client says otherwise."""
MAX_VIEWPORT = 16384
_MEDIA_TYPES = ("image/jpeg", "image/png")
_INSTANCE = "/studies/{study_uid}/series/{series_uid}/instances/{sop_instance_uid}"


@router.get(f"{_INSTANCE}/rendered")
async def render_instance(request: Request, study_uid: str, series_uid: str, sop_instance_uid: str) -> Response:
    """The instance as a picture; of several frames, the first."""
    return await _picture(request, await find_target(request, study_uid, series_uid, sop_instance_uid), 1)


@router.get(f"{_INSTANCE}/frames/{{frame_list}}/rendered")
async def render_frame(request: Request, study_uid: str, series_uid: str, sop_instance_uid: str, frame_list: str) -> Response:
    """One frame as a picture."""
    number = _only(frame_numbers(frame_list))
    return await _picture(request, await find_target(request, study_uid, series_uid, sop_instance_uid), number)


@router.get(f"{_INSTANCE}/frames/{{frame_list}}/thumbnail")
async def frame_thumbnail(request: Request, study_uid: str, series_uid: str, sop_instance_uid: str, frame_list: str) -> Response:
    """One frame as a small picture."""
    number = _only(frame_numbers(frame_list))
    target = await find_target(request, study_uid, series_uid, sop_instance_uid)
    return await _picture(request, target, number, THUMBNAIL)


@router.get(f"{_INSTANCE}/thumbnail")
async def instance_thumbnail(request: Request, study_uid: str, series_uid: str, sop_instance_uid: str) -> Response:
    """The middle frame of the instance as a small picture."""
    target = await find_target(request, study_uid, series_uid, sop_instance_uid)
    return await _picture(request, target, (target.frames + 1) // 2, THUMBNAIL)


@router.get("/studies/{study_uid}/series/{series_uid}/thumbnail")
async def series_thumbnail(request: Request, study_uid: str, series_uid: str) -> Response:
    """The middle instance of the series as a small picture."""
    return await _middle(request, await find_targets(request, study_uid, series_uid))


@router.get("/studies/{study_uid}/thumbnail")
async def study_thumbnail(request: Request, study_uid: str) -> Response:
    """The middle instance of the study's first series with pixels as a small picture."""
    targets = await find_targets(request, study_uid)
    first = next((target.series_uid for target in targets if target.has_pixel_data), None)
    return await _middle(request, [target for target in targets if target.series_uid == first])


async def _middle(request: Request, targets: list[Target]) -> Response:
    with_pixels = [target for target in targets if target.has_pixel_data]
    if not with_pixels:
        raise NotRenderable("none of these instances has pixel data")
    target = with_pixels[len(with_pixels) // 2]
    return await _picture(request, target, (target.frames + 1) // 2, THUMBNAIL)


async def _picture(request: Request, target: Target, number: int, viewport: tuple[int, int] | None = None) -> Response:
    services: Services = request.app.state.services
    media_type = _media_type(request)
    window, quality = _window(request), _quality(request)
    viewport = _viewport(request) or viewport
    if not target.has_pixel_data:
        raise NotRenderable(f"instance {target.sop_instance_uid} has no pixel data: there is nothing to render")
    require_frames(target, [number])
    digest = f"{target.sha256}-{number}-{media_type}-{window}-{viewport}-{quality}".replace(" ", "")
    if (unchanged := cached(request, digest, target.as_of)) is not None:
        return unchanged

    def render() -> bytes:
        with located(services.store, target) as path:
            return archived.rendered(path, number, window=window, viewport=viewport, media_type=media_type, quality=quality)

    return Response(await run_in_threadpool(render), headers=etag_headers(digest, target.as_of), media_type=media_type)


def _only(numbers: list[int]) -> int:
    if len(numbers) != 1:
        raise QueryInvalid("one frame at a time is rendered: name one")
    return numbers[0]


def _media_type(request: Request) -> str:
    for one in accepted(request):
        for media_type in _MEDIA_TYPES:
            if one.includes(media_type):
                return media_type
    raise NotAcceptable(f"pictures are given as {' or '.join(_MEDIA_TYPES)}")


def _window(request: Request) -> tuple[float, float] | None:
    """``window=centre,width[,function]`` (PS3.18, 8.3.5.1.4)."""
    text = request.query_params.get("window")
    if text is None:
        return None
    parts = text.split(",")
    if len(parts) not in (2, 3) or parts[2:] not in ([], ["linear"], ["linear-exact"]):
        raise QueryInvalid("window takes centre,width in modality units; of functions, linear alone is supported")
    try:
        window = float(parts[0]), float(parts[1])
    except ValueError:
        raise QueryInvalid("window takes centre,width in modality units") from None
    if not all(map(math.isfinite, window)) or window[1] <= 0:
        raise QueryInvalid("window takes a finite centre and a width above 0")
    return window


def _viewport(request: Request) -> tuple[int, int] | None:
    """``viewport=width,height`` (PS3.18, 8.3.5.1.3); cutting out a part of the picture is not supported."""
    text = request.query_params.get("viewport")
    if text is None:
        return None
    sizes = text.split(",")
    if len(sizes) != 2 or not all(size.isascii() and size.isdigit() and 1 <= int(size) <= MAX_VIEWPORT for size in sizes):
        raise QueryInvalid(f"viewport takes width,height in pixels, each from 1 to {MAX_VIEWPORT}, and no source region")
    return int(sizes[0]), int(sizes[1])


def _quality(request: Request) -> int:
    """``quality`` of a JPEG (PS3.18, 8.3.5.1.2), from 1 to 100."""
    text = request.query_params.get("quality", "90")
    if not (text.isascii() and text.isdigit() and len(text) < 4 and 1 <= int(text) <= 100):
        raise QueryInvalid("quality takes a number from 1 to 100")
    return int(text)
