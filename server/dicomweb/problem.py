"""Errors as problem details (RFC 9457): one mapping for every DICOMweb route."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
from fastapi import Request, Response
from fastapi.routing import APIRoute

from server.dicomweb.errors import DicomWebError


class ProblemRoute(APIRoute):
    """A route whose DicomWebErrors become application/problem+json."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            try:
                return await handler(request)
            except DicomWebError as error:
                return problem(error)

        return handle


def problem(error: DicomWebError) -> Response:
    body = {"type": "about:blank", "title": error.title, "status": error.status, "detail": str(error)}
    return Response(msgspec.json.encode(body), error.status, media_type="application/problem+json")
