"""The implementation guide as it ships: what SUSHI made of ig/, by type and id, by canonical URL, and as the server uses it.

`make ig` builds the file. Which profile a resource is of can be told from what it says of itself (:func:`profile_of`): what a client
wrote is of none, whatever it looks like, since the ids of projected resources are derived.
"""

from __future__ import annotations

import zipfile
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec

from projections.fhir.definitions import ParameterComponent, SearchParameter, ValueSetCodes
from projections.fhir.vocabulary import (
    DICOM_UID,
    FINDING_SYSTEM,
    GUIDE,
    LOG_ENTRY_EXTENSION,
    SEGMENTER_SYSTEM,
    SERIES_INDEX_SYSTEM,
    SUBJECT_SYSTEM,
    Json,
    index_id,
    observation_id,
    selection_id,
    study_id,
)

FILE = Path(__file__).parent / "definitions" / "guide.zip"
SOURCES = "sources.sha256"
"""The entry with the digest of what the file was made of (ig/build_guide.py)."""
URL = f"{GUIDE}:ImplementationGuide:anamnesis"
TYPES = ("CodeSystem", "ImplementationGuide", "NamingSystem", "OperationDefinition", "SearchParameter", "StructureDefinition", "ValueSet")
"""Types of the definitions, some of which there may be none of."""
PROFILES = {
    "Patient": ("pseudonymous-patient",),
    "ImagingStudy": ("curated-study",),
    "ImagingSelection": ("series-selection",),
    "BodyStructure": ("finding-structure", "series-index"),
    "Observation": ("finding-measurement",),
    "Device": ("segmenter",),
    "Provenance": ("log-provenance",),
    "AuditEvent": ("access-audit-event",),
}
"""Resource type → ids of the profiles of what is projected."""


def profile_url(profile_id: str) -> str:
    return f"{GUIDE}:StructureDefinition:{profile_id}"


def version() -> str:
    """That of the guide and of all its definitions."""
    return str(_decoded("ImplementationGuide/anamnesis")["version"])


def ids(resource_type: str) -> tuple[str, ...]:
    """Of all definitions of a type, in order."""
    return tuple(name.partition("/")[2] for name in _names() if name.startswith(f"{resource_type}/"))


def definitions() -> Iterator[tuple[str, str, bytes]]:
    """Type, id and FHIR JSON of each, in order."""
    for name in _names():
        kind, _, definition_id = name.partition("/")
        if kind in TYPES:
            yield kind, definition_id, _read(name)


def definition(resource_type: str, definition_id: str) -> bytes | None:
    """A definition as FHIR JSON; None where there is none."""
    name = f"{resource_type}/{definition_id}"
    return _read(name) if resource_type in TYPES and name in _names() else None


def by_url(url: str) -> Json | None:
    """A definition by its canonical URL, with or without its version; None where the guide has none such. To be read and not changed."""
    canonical, _, wanted = url.partition("|")
    name = _by_url().get(canonical)
    return None if name is None or wanted not in ("", version()) else _decoded(name)


@cache
def search_parameters() -> tuple[SearchParameter, ...]:
    """Those of the guide, in order of their URLs."""
    given = [_decoded(f"SearchParameter/{one}") for one in ids("SearchParameter")]
    types = {one["url"]: one["type"] for one in given}
    return tuple(sorted((_search_parameter(one, types) for one in given), key=lambda one: one.url))


def value_set(url: str) -> ValueSetCodes | None:
    """The codes of a value set of the guide; None where it is another's, or takes in a code system that is not ours whole."""
    found = by_url(url)
    return _codes(found["id"]) if found is not None and found["resourceType"] == "ValueSet" else None


@cache
def _codes(value_set_id: str) -> ValueSetCodes | None:
    found = _decoded(f"ValueSet/{value_set_id}")
    codes: dict[str, set[str]] = {}
    for include in found["compose"]["include"]:
        concepts = include.get("concept") or (by_url(include["system"]) or {}).get("concept")
        if concepts is None:
            return None
        codes.setdefault(include["system"], set()).update(one["code"] for one in concepts)
    return ValueSetCodes({system: frozenset(codes[system]) for system in sorted(codes)})


def profile_of(resource: Mapping[str, Any]) -> str | None:
    """The canonical URL of the profile that a resource is of; None where it is none that the projection made."""
    found = _profile_of(resource)
    return None if found is None else profile_url(found)


def _profile_of(resource: Mapping[str, Any]) -> str | None:
    resource_type = str(resource.get("resourceType"))
    if resource_type in _OF_THE_LOG:
        urls = {one.get("url") for one in resource.get("extension", [])}
        return _OF_THE_LOG[resource_type] if LOG_ENTRY_EXTENSION in urls else None
    identifiers = resource.get("identifier", [])
    if not identifiers:
        return None
    system, value = str(identifiers[0].get("system")), str(identifiers[0].get("value"))
    profile, derived = _IDENTIFIED.get((resource_type, system), (None, None))
    return profile if derived is None or derived(value) == resource.get("id") else None


_OF_THE_LOG = {"Provenance": "log-provenance", "AuditEvent": "access-audit-event"}
_IDENTIFIED: dict[tuple[str, str], tuple[str, Callable[[str], str] | None]] = {
    ("Patient", SUBJECT_SYSTEM): ("pseudonymous-patient", str),
    ("ImagingStudy", DICOM_UID): ("curated-study", lambda value: study_id(value.removeprefix("urn:oid:"))),
    ("ImagingSelection", DICOM_UID): ("series-selection", lambda value: selection_id(value.removeprefix("urn:oid:"))),
    ("BodyStructure", FINDING_SYSTEM): ("finding-structure", str),
    ("BodyStructure", SERIES_INDEX_SYSTEM): ("series-index", index_id),
    ("Observation", FINDING_SYSTEM): ("finding-measurement", observation_id),
    ("Device", SEGMENTER_SYSTEM): ("segmenter", None),
}
"""Type and system of the first identifier → profile, and how the id follows from the identifier's value."""


def _search_parameter(given: Json, types: Mapping[str, str]) -> SearchParameter:
    return SearchParameter(
        code=given["code"],
        type=given["type"],
        url=given["url"],
        base=tuple(given["base"]),
        expression=given.get("expression"),
        targets=tuple(sorted(given.get("target", []))),
        components=tuple(
            ParameterComponent(one["definition"], types[one["definition"]], one["expression"]) for one in given.get("component", [])
        ),
        comparators=tuple(given.get("comparator", [])),
        modifiers=tuple(given.get("modifier", [])),
    )


@cache
def _decoded(name: str) -> Json:
    found: Json = msgspec.json.decode(_read(name))
    return found


@cache
def _by_url() -> Mapping[str, str]:
    """Canonical URL → type and id."""
    return MappingProxyType(dict(_urls()))


def _urls() -> Iterator[tuple[str, str]]:
    for name in _names():
        if name != SOURCES:
            yield _decoded(name)["url"], name


# What is kept is kept by names of the file alone: a client chooses what is asked for, and could otherwise fill the memory.


@cache
def _names() -> tuple[str, ...]:
    with zipfile.ZipFile(FILE) as archive:
        return tuple(sorted(archive.namelist()))


@cache
def _read(name: str) -> bytes:
    with zipfile.ZipFile(FILE) as archive:
        return archive.read(name)
