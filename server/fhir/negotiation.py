"""In which format an answer may be given (R5 http.html#mime-type): JSON, and a plain word to who asks for another.

XML is not offered: fhir.resources can write it, but reads every decimal as a binary fraction (1.50 becomes 1.5, which says less
of a measurement), writes instants another way than they are stored, and gives nothing for a resource that is not valid.
"""

from __future__ import annotations

from collections.abc import Sequence

from starlette.requests import Request

from server.dicomweb.accept import MediaRange, accepted
from server.fhir.outcome import FHIR_JSON, FhirError

JSON_TYPES = (FHIR_JSON, "application/json", "text/json")
_SHORT = "json"
_REFUSED = f"this server answers in {FHIR_JSON} (FHIR 5.0) alone: neither XML nor Turtle nor HTML is offered"


def check_accept(request: Request) -> None:
    """Raises FhirError (406) unless the client takes JSON, by ``_format`` in the URL or, without it, by Accept."""
    asked = request.query_params.getlist("_format")
    if asked:
        check_format([("_format", value) for value in asked])
    elif "accept" in request.headers and not any(map(_is_json, accepted(request))):
        raise FhirError(406, "not-supported", _REFUSED)


def check_format(given: Sequence[tuple[str, str]]) -> None:
    """``_format`` among these parameters. Raises FhirError (400, 406)."""
    values = [value for name, value in given if name == "_format"]
    if len(values) > 1:
        raise FhirError(400, "value", "_format is given more than once", "http._format")
    for value in values:
        media_type = value.partition(";")[0].strip().lower().replace(" ", "+")  # a plus sign that was not escaped
        if media_type not in (_SHORT, *JSON_TYPES):
            raise FhirError(406, "not-supported", _REFUSED, "http._format")


def _is_json(one: MediaRange) -> bool:
    return any(map(one.includes, JSON_TYPES)) and one.parameters.get("fhirversion", "5.0") in ("5.0", "5.0.0")
