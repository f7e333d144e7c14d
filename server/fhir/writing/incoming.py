"""What comes in: JSON with its decimals as they are written, of the type that the URL says, with the structure of R5.

Structure (elements, cardinality, types, the form of primitives) is checked by the models of fhir.resources, where it cannot be told for
less (well_formed), and nothing else of them is kept: what is stored is what the client sent.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from decimal import Decimal
from typing import Any

import msgspec
from fastapi import Request
from fhir.resources import get_fhir_model_class
from pydantic import ValidationError

from projections.fhir.definitions import is_resource_type
from projections.fhir.search.rows import add_rows, no_rows
from projections.fhir.vocabulary import LOG_ENTRY_EXTENSION, Json
from server.fhir.negotiation import JSON_TYPES
from server.fhir.outcome import FhirError, issue
from server.fhir.writing.well_formed import is_well_formed

MAX_BODY_BYTES = 48 * 1024 * 1024
"""Below what one event holds."""
MOST_ISSUES = 100

_DECODER = msgspec.json.Decoder(float_hook=Decimal)
_ID = re.compile(r"[A-Za-z0-9\-.]{1,64}")
_BY_SERVER = ("versionId", "lastUpdated")


class Refused(FhirError):
    """A resource with one fault or many, each with the element that has it."""

    def __init__(self, status: int, issues: Sequence[Json]) -> None:
        super().__init__(status, issues[0]["code"], issues[0]["diagnostics"], next(iter(issues[0].get("expression", ())), None))
        self.issues = list(issues)


async def body_of(request: Request, media_types: Sequence[str] = JSON_TYPES) -> bytes:
    """Raises FhirError: 415 for another format, 413 for more than one event may hold."""
    if media_type_of(request) not in media_types:
        raise FhirError(415, "not-supported", f"a body has to be {media_types[0]} (Content-Type)", "http.content-type")
    raw = await request.body()
    if len(raw) > MAX_BODY_BYTES:
        raise FhirError(413, "too-long", f"a body may have {MAX_BODY_BYTES} bytes")
    return raw


def media_type_of(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def decoded(raw: bytes) -> Any:
    """JSON, its decimals as they are written. Raises FhirError (400)."""
    try:
        found = _DECODER.decode(raw)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError, ArithmeticError) as error:
        where = re.search(r"\(byte \d+\)", str(error))
        raise FhirError(400, "structure", f"the body is not JSON {where[0] if where else ''}".strip()) from None
    if b"\\u0000" in raw and _holds_nul(found):
        raise FhirError(400, "value", "the body holds a NUL character, which no FHIR string may")
    return found


def resource_in(tree: Any, resource_type: str, at: str = "") -> Json:
    """The resource, of a type that R5 has, and the one that the URL says. Raises FhirError (400)."""
    if not isinstance(tree, dict) or not isinstance(tree.get("resourceType"), str):
        raise FhirError(400, "structure", "a resource is a JSON object with a resourceType", at or None)
    found = tree["resourceType"]
    if not is_resource_type(found):
        raise FhirError(400, "structure", "resourceType names no type of R5", f"{at}.resourceType".lstrip("."))
    if found != resource_type:
        raise FhirError(400, "invalid", f"this is a {found}, and the URL says {resource_type}", f"{at}.resourceType".lstrip("."))
    return tree


def checked(resource: Json, at: str = "") -> Json:
    """The resource if its structure is R5's, less what the server says itself (id, version, time). Raises Refused (400)."""
    kind = resource["resourceType"]
    if not is_well_formed(resource):
        _judge(resource, at or kind)
    kept = _kept(resource, at)
    try:
        add_rows({**kept, "id": "x"}, 1, no_rows())  # what cannot be indexed would stop the read model, and everybody with it
    except Exception:
        raise FhirError(422, "not-supported", f"this {kind} holds a value by which it cannot be found", at or kind) from None
    return kept


def _judge(resource: Json, at: str) -> None:
    """By fhir.resources. Raises Refused, FhirError (400)."""
    kind = resource["resourceType"]
    empty = [issue("structure", "nothing in R5's JSON is empty or null", expression=where) for where in _empty(resource, at)]
    if empty:
        raise Refused(400, empty[:MOST_ISSUES])
    try:
        get_fhir_model_class(kind).model_validate(resource)
    except ValidationError as error:
        raise Refused(400, _issues(error, at)) from None
    except (ValueError, TypeError, AssertionError, RecursionError, LookupError, AttributeError):
        raise FhirError(400, "structure", f"this {kind} cannot be read as R5", at) from None


def _kept(resource: Json, at: str) -> Json:
    """Less what the server says itself. Raises FhirError (422)."""
    if _says_log_entry(resource):
        expression = f"{at or resource['resourceType']}.extension"
        raise FhirError(422, "business-rule", "only this server says where in its log something stands", expression)
    kept = {name: value for name, value in resource.items() if name not in ("id", "_id", "meta")}
    meta = {name: value for name, value in resource.get("meta", {}).items() if name.lstrip("_") not in _BY_SERVER}
    if meta:
        kept["meta"] = meta
    return kept


def id_given(resource: Json, at: str = "") -> str | None:
    """The id in the resource. Raises FhirError (400) where it has not the form of one."""
    found = resource.get("id")
    if found is not None and not is_id(found):
        raise FhirError(400, "value", "an id has 1 to 64 letters, digits, hyphens and dots", f"{at or resource['resourceType']}.id")
    return found


def is_id(text: object) -> bool:
    return isinstance(text, str) and _ID.fullmatch(text) is not None


def _says_log_entry(resource: Json) -> bool:
    extensions = resource.get("extension", ())
    return any(isinstance(one, dict) and one.get("url") == LOG_ENTRY_EXTENSION for one in extensions)


def _issues(error: ValidationError, at: str) -> list[Json]:
    """One for each fault; pydantic's words quote the type that is wanted and never the value."""
    found: dict[tuple[str, str], Json] = {}
    for one in error.errors(include_url=False, include_input=False, include_context=False)[:MOST_ISSUES]:
        expression = at
        for step in one["loc"][:-1] if one["loc"][-1:] == ("root",) else one["loc"]:
            expression += f"[{step}]" if isinstance(step, int) else f".{step}" if re.fullmatch(r"_?[A-Za-z][A-Za-z0-9]*", step) else ""
        code = "required" if one["type"].endswith("missing") else "structure"
        said = _WORDS.get(one["type"], one["type"].replace("_", " "))
        found.setdefault((expression, said), issue(code, said, expression=expression))
    return list(found.values())


_WORDS = {
    "missing": "this element is required",
    "extra_forbidden": "R5 has no such element here",
    "model_field_validation.missing": "this element is required",
    "model_validation_format": "the value is not of the type of this element",
    "string_pattern_mismatch": "the value has not the form that its type asks for",
    "value_error": "the value has not the form that its type asks for, or several stand where one may",
}


def _empty(tree: Any, at: str) -> Iterator[str]:
    """Where something is empty (R5 json.html): null stands for a primitive in a list alone, beside its extensions."""
    if isinstance(tree, dict):
        for name, value in tree.items():
            if value is None or value == "" or value == [] or value == {}:
                yield f"{at}.{name}"
            else:
                yield from _empty(value, f"{at}.{name}")
    elif isinstance(tree, list):
        for nth, one in enumerate(tree):
            if one == "" or one == [] or one == {}:
                yield f"{at}[{nth}]"
            elif one is not None:
                yield from _empty(one, f"{at}[{nth}]")


def _holds_nul(tree: Any) -> bool:
    if isinstance(tree, str):
        return "\0" in tree
    if isinstance(tree, dict):
        return any("\0" in name or _holds_nul(value) for name, value in tree.items())
    return isinstance(tree, list) and any(_holds_nul(one) for one in tree)
