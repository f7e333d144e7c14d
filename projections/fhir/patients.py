"""Of which patient a resource is: the elements in which R5's types say so."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

ELEMENTS = ("subject", "patient", "for", "beneficiary", "candidate", "deliverFor", "actor")
"""Top-level elements whose reference to a Patient says whose a resource is (the search parameter `patient` of its type). A Person
says it by a link."""


def patient_references(resource: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Each element that says whose the resource is, as a path, and its reference as written."""
    for name in ELEMENTS:
        if name in resource:
            yield from _references(resource[name], f"{resource.get('resourceType', '')}.{name}")
    links = resource.get("link")
    if resource.get("resourceType") == "Person" and isinstance(links, list):
        for nth, one in enumerate(links):
            yield from _references(one.get("target") if isinstance(one, dict) else None, f"Person.link[{nth}].target")


def patient_id(reference: str) -> str | None:
    """The id in a relative reference to a Patient, with or without a version; None for any other."""
    parts = reference.split("/")
    return parts[1] if parts[0] == "Patient" and (len(parts) == 2 or (len(parts) == 4 and parts[2] == "_history")) else None


def _references(value: Any, path: str) -> Iterator[tuple[str, str]]:
    many = isinstance(value, list)
    for nth, one in enumerate(value if many else [value]):
        if isinstance(one, dict) and isinstance(one.get("reference"), str):
            yield (f"{path}[{nth}]" if many else path), one["reference"]
