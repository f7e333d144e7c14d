"""What every FHIR route has in common: JSON or 406, errors as OperationOutcomes, HEAD as GET without its body, and who may read."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Annotated, Any

from fastapi import Depends, Request, Response
from starlette.convertors import Convertor, register_url_convertor

from projections.fhir.projection import TYPES
from server.auth.principals import Authenticated
from server.direct_route import DirectRoute
from server.fhir.access import access_of
from server.fhir.as_of import Given, single
from server.fhir.deadline import in_time
from server.fhir.negotiation import check_accept
from server.fhir.outcome import FhirError, outcome
from server.fhir.preferences import preferences
from server.read_models import reads
from server.services import Services

READ = ["GET", "HEAD"]
MAX_COUNT = 1000


class _Name(Convertor[str]):
    """In a path, the type or id of a resource: no operation ($…), and nothing of the protocol (_history, _search)."""

    regex = "[^/$_][^/]*"

    def convert(self, value: str) -> str:
        return value

    def to_string(self, value: str) -> str:
        return value


register_url_convertor("name", _Name())


class FhirRoute(DirectRoute):
    """A route whose FhirErrors become OperationOutcomes, and that speaks JSON alone.

    Answers may be kept, for this user alone, who asks each time whether they still stand: with another token names are not in them.
    What may hold names is not kept at all. What takes longer than the site allows is ended, in the database too.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()

        async def handle(request: Request) -> Response:
            try:
                check_accept(request)
                async with in_time(request.app.state.services):
                    answer = await handler(request)
            except FhirError as error:
                answer = outcome(error.status, error.code, error.detail, expression=error.expression, headers=error.headers)
            answer.headers.setdefault("Cache-Control", _kept_by_whom(request))
            answer.headers.setdefault("Vary", "Accept, Authorization")
            if request.method == "HEAD":
                answer.body = b""  # Content-Length stays that of the answer to GET (RFC 9110, 9.3.2)
            return answer

        return handle


def _kept_by_whom(request: Request) -> str:
    reader: Authenticated | None = getattr(request.state, "authenticated", None)
    return "private, no-store" if reader is not None and reader.may("identities:read") else "private, no-cache"


Reader = Annotated[Authenticated, Depends(reads("fhir:read", "fhir", or_some="rs"))]
"""Who may read or search something: what, a route asks server.fhir.access."""


def services_of(request: Request) -> Services:
    if "\0" in request.path_params.get("resource_id", ""):
        raise FhirError(404, "not-found", "no id holds a NUL character, nor can PostgreSQL look for one")
    services: Services = request.app.state.services
    return services


def services_for(request: Request, reader: Authenticated, interaction: str, resource_type: str) -> Services:
    """The services, if the type is served, and who asks may do this with some resource of it. Raises FhirError (404), ScopeMissing.

    ``interaction``: a letter of `cruds`. What of the type is within reach is asked for beside (server.fhir.access).
    """
    if resource_type not in TYPES:
        raise FhirError(404, "not-supported", "no resource type of this name is served: the CapabilityStatement lists those that are")
    access_of(reader).require(interaction, resource_type)
    return services_of(request)


def base_url(request: Request) -> str:
    services: Services = request.app.state.services
    return f"{(services.settings.public_url or str(request.base_url)).rstrip('/')}/fhir"


def given_in_url(request: Request) -> Given:
    return request.query_params.multi_items()


def known_only(request: Request, given: Given, known: Sequence[str], what: str) -> list[tuple[str, str]]:
    """These parameters, if all are known; less the others, where ``handling=lenient`` is preferred. Raises FhirError (400)."""
    unknown = sorted({name for name, _ in given} - set(known))
    if unknown and not preferences(request).is_lenient:
        names = ", ".join(known)
        raise FhirError(400, "not-supported", f"{what} has no parameter {unknown[0]}; there are {names}", f"http.{unknown[0]}")
    return [(name, value) for name, value in given if name in known]


def count_asked(given: Given, default: int, *, least: int = 1) -> int:
    """``_count``, as far as a page goes. Raises FhirError (400)."""
    text = single(given, "_count")
    if text is None:
        return default
    if not (text.isascii() and text.isdigit()) or int(text[:18]) < least:
        raise FhirError(400, "value", f"_count must be a whole number from {least}", "http._count")
    return min(int(text[:18]), MAX_COUNT)
