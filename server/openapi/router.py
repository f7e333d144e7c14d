"""GET /openapi.json: for tools that make clients, or ask what they may."""

from __future__ import annotations

from fastapi import APIRouter, Depends, Request, Response

from server.auth.principals import requires
from server.openapi.document import document
from server.plain_json import json_answer

router = APIRouter(tags=["OpenAPI"])


@router.get("/openapi.json", dependencies=[Depends(requires("fhir:read"))])
async def openapi(request: Request) -> Response:
    """Every route with its parameters and answers (OpenAPI 3.1)."""
    return json_answer(document(request.app))
