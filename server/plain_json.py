"""Plain JSON over HTTP, for routes that are neither FHIR nor DICOMweb. What is refused becomes problem details in server.app."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import msgspec
from fastapi import Request, Response
from starlette.exceptions import HTTPException

from domain.errors import DomainError
from eventlog.errors import NotSealed
from eventlog.log import EventLog
from server.errors import ServerError

if TYPE_CHECKING:  # the command line uses what is here without a server
    from server.services import Services

T = TypeVar("T")
CONFLICT = 409


async def body_of(request: Request, wanted: type[T]) -> T:
    """Raises HTTPException: 400 for what is no JSON, 422 for what is not of the form that is wanted."""
    try:
        return msgspec.json.decode(await request.body(), type=wanted)
    except msgspec.ValidationError as error:
        raise HTTPException(422, str(error)) from None
    except msgspec.DecodeError:
        raise HTTPException(400, "the body is not JSON") from None


def json_answer(body: object, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(body), status, headers, media_type="application/json")


@contextmanager
def refusals(statuses: Mapping[type[Exception], int]) -> Iterator[None]:
    """Refusals by name, with the status that each has over HTTP; those without one are conflicts (RFC 9110, 15.5.10)."""
    try:
        yield
    except (DomainError, ServerError, NotSealed) as error:
        raise HTTPException(statuses.get(type(error), CONFLICT), str(error)) from None


def log_of(request: Request) -> EventLog:
    services: Services = request.app.state.services
    return services.log
