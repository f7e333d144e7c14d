"""One write that a client asks for (R5 http.html#create, #update, #patch, #delete), and what became of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from starlette.requests import Request

from projections.fhir.vocabulary import Json
from server.fhir.as_of import Given
from server.fhir.outcome import FhirError

Patch = Callable[[Json], Json]


class Interaction(msgspec.Struct, frozen=True, kw_only=True):
    """``at`` is where it stands in a Bundle (``Bundle.entry[3]``); empty for one that came by itself."""

    method: str
    """POST, PUT, PATCH or DELETE."""
    resource_type: str
    resource_id: str | None = None
    resource: Json | None = None
    """As `incoming.checked` gives it."""
    patch: Patch | None = None
    condition: Given | None = None
    """Search parameters by which the resource is found, in place of an id; with POST, If-None-Exist."""
    if_match: int | None = None
    must_be_new: bool = False
    """If-None-Match: *."""
    full_url: str | None = None
    at: str = ""

    @property
    def resource_at(self) -> str:
        return f"{self.at}.resource" if self.at else self.resource_type


class Written(msgspec.Struct, frozen=True, kw_only=True):
    """``version``: 0 where there was nothing to delete."""

    status: int
    resource_type: str
    resource_id: str
    version: int
    is_found: bool = False
    """It was there already: the condition of a create found it."""


def condition_of(text: str, expression: str) -> Given:
    """The parameters of a condition, as in a URL. Raises FhirError (400)."""
    given = parse_qsl(text.partition("?")[2] if "?" in text else text, keep_blank_values=True)
    if not given:
        raise FhirError(400, "required", "a condition needs search parameters", expression)
    return given


def if_match(request: Request) -> int | None:
    value = request.headers.get("if-match")
    return None if value is None else version_in(value, "http.if-match")


def version_in(etag: str, expression: str) -> int | None:
    """The version that an ETag names; None for ``*``. Raises FhirError (400)."""
    text = etag.strip().removeprefix("W/").strip('"')
    if text == "*":
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise FhirError(400, "value", 'an ETag of ours has the form W/"3"', expression)
    return int(text)


def plain(tree: Any) -> Any:
    """A tree of JSON of one's own, to be changed."""
    if isinstance(tree, dict):
        return {name: plain(value) for name, value in tree.items()}
    return [plain(one) for one in tree] if isinstance(tree, list) else tree
