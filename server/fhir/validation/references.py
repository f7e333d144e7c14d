"""What a reference points to, as far as its text tells (R5 references.html#literal), and whether its element lets it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from projections.fhir.definitions import is_resource_type, type_definition

_LITERAL = re.compile(r"(?:.*/)?([A-Z][A-Za-z]+)/[A-Za-z0-9\-.]{1,64}(?:/_history/[A-Za-z0-9\-.]{1,64})?")
_CONDITIONAL = re.compile(r"([A-Z][A-Za-z]+)\?.*")


def target_type(reference: str, known: Mapping[str, str]) -> str | None:
    """The type of resource that a literal reference points to; None where its text does not tell.

    ``known`` has the types of contained resources by ``#id``, and of a Bundle's entries by their fullUrl.
    """
    if reference in known:
        return known[reference]
    for form in (_LITERAL, _CONDITIONAL):
        match = form.fullmatch(reference)
        if match is not None and is_resource_type(match[1]):
            return match[1]
    return None


def may_point_to(kind: str, targets: tuple[str, ...]) -> bool:
    """Whether a type is one of the targets, or is derived from one of them."""
    if not targets or kind in targets or "Resource" in targets:
        return True
    return bool(set(type_definition(kind).ancestors).intersection(targets))


def types_by_url(resource: Mapping[str, Any]) -> dict[str, str]:
    """Of what a resource holds itself: contained ones by ``#id``, and a Bundle's entries by fullUrl."""
    known: dict[str, str] = {}
    for one in _dicts(resource.get("contained")):
        _keep(known, f"#{one.get('id')}", one)
    if resource.get("resourceType") == "Bundle":
        for entry in _dicts(resource.get("entry")):
            if isinstance(entry.get("fullUrl"), str):
                _keep(known, entry["fullUrl"], entry.get("resource"))
    return known


def _keep(known: dict[str, str], url: str, resource: Any) -> None:
    kind = resource.get("resourceType") if isinstance(resource, dict) else None
    if isinstance(kind, str) and is_resource_type(kind):
        known[url] = kind


def _dicts(value: Any) -> list[dict[str, Any]]:
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []
