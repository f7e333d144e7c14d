"""GET /fhir/metadata: what this server can do (R5 capabilitystatement.html), from the table of what is served."""

from __future__ import annotations

import importlib.metadata
from functools import lru_cache
from typing import Any

from projections.fhir import guide
from projections.fhir.definitions import compartments, search_parameters
from projections.fhir.projection import TYPES
from projections.fhir.search.site import CURRENT
from server.as_of import HEADER, PARAMETER
from server.fhir.includes import may_be_included, may_include
from server.fhir.outcome import FHIR_JSON
from server.fhir.parameters import supported
from server.fhir.served import CONDITIONS, INSTANTIATES, INTERACTIONS, OPERATIONS, Routes, is_served
from server.fhir.writing.patches import JSON_PATCH

PUBLISHED = "2026-11-21"
OAUTH_URIS = "http://fhir-registry.smarthealthit.org/StructureDefinition/oauth-uris"

_AS_OF = (
    "The position of the log (digits), or the instant or date (its end), as of which to answer: on read, vread, history and search."
    " The answer is, byte for byte, what it was when the log ended there, less the subjects that were erased since."
)


def capability_statement(base: str, routes: Routes, token_address: str | None) -> dict[str, Any]:
    """With what the site has added to the search parameters, as this request knows it."""
    known = CURRENT.get()
    return _statement(base, routes, token_address, known.revision, tuple(sorted(known.indexing.items())))


@lru_cache(maxsize=8)
def _statement(
    base: str,
    routes: Routes,
    token_address: str | None,
    revision: tuple[int, int],
    indexing: tuple[tuple[tuple[str, str], int], ...],
) -> dict[str, Any]:
    says = [f"Every answer says in the header {HEADER} which position of the log it is as of."]
    says += [f"Being indexed, and refused until that is done: {kind}.{code} ({percent} %)." for (kind, code), percent in indexing]
    return {
        "resourceType": "CapabilityStatement",
        "status": "active",
        "date": PUBLISHED,
        "kind": "instance",
        "instantiates": list(INSTANTIATES),
        "software": {"name": "Anamnesis", "version": importlib.metadata.version("anamnesis")},
        "implementation": {"description": "Anamnesis", "url": base},
        "fhirVersion": "5.0.0",
        "implementationGuide": [guide.URL],
        "format": ["application/fhir+json", "json"],
        "patchFormat": [FHIR_JSON, JSON_PATCH],
        "rest": [
            {
                "mode": "server",
                "documentation": " ".join(says),
                "security": _security(token_address),
                "resource": [_resource(resource_type, routes) for resource_type in TYPES],
                "interaction": _interactions("system", routes),
                "operation": _operations(None, routes),
                "compartment": [one.url for _, one in sorted(compartments().items())],
                "searchParam": [
                    *(_search_parameter("Basic", name, kind) for name, kind in sorted(supported("Basic").items()) if name.startswith("_")),
                    _search_parameter("Resource", PARAMETER, "special") | {"documentation": _AS_OF},
                ],
            }
        ],
    }


def _security(token_address: str | None) -> dict[str, Any]:
    """How to get a token, in the older way too: SMART 2.2 has it in .well-known/smart-configuration."""
    made: dict[str, Any] = {
        "service": [{"coding": [{"system": "http://hl7.org/fhir/restful-security-service", "code": "SMART-on-FHIR"}]}],
        "description": "Bearer tokens, whose scopes are those of SMART or fhir:read and fhir:write; names need identities:read beside",
    }
    if token_address is None:
        return made
    return {"extension": [{"url": OAUTH_URIS, "extension": [{"url": "token", "valueUri": token_address}]}], **made}


def _interactions(level: str, routes: Routes) -> list[dict[str, str]]:
    """One of several rows says what all of them say."""
    says: dict[str, list[str]] = {}
    for one in INTERACTIONS:
        if one.level == level and is_served(one, routes):
            said = says.setdefault(one.code, [])
            said += [one.says] if one.says not in said else []
    return [{"code": code, "documentation": "; ".join(said)} for code, said in says.items()]


def _resource(resource_type: str, routes: Routes) -> dict[str, Any]:
    made: dict[str, Any] = {"type": resource_type}
    if resource_type in guide.PROFILES:
        made["supportedProfile"] = [guide.profile_url(one) for one in guide.PROFILES[resource_type]]
    return made | {
        "interaction": _interactions("type", routes),
        "versioning": "versioned",
        "readHistory": True,
        **{one.element: one.value for one in CONDITIONS if is_served(one, routes)},
        "searchInclude": may_include(resource_type),
        "searchRevInclude": may_be_included(resource_type),
        "searchParam": [_search_parameter(resource_type, name, kind) for name, kind in sorted(supported(resource_type).items())],
        "operation": _operations(resource_type, routes),
    }


def _operations(resource_type: str | None, routes: Routes) -> list[dict[str, str]]:
    """Of a type; without one, of the system."""
    found = {
        one.name: one.definition
        for one in OPERATIONS
        if is_served(one, routes) and (resource_type in one.types if resource_type is not None else not one.types)
    }
    return [{"name": name, "definition": definition} for name, definition in found.items()]


def _search_parameter(resource_type: str, name: str, kind: str) -> dict[str, Any]:
    """With its definition, where the guide, R5 or the site has it."""
    ours = {one.code: one for one in guide.search_parameters() if resource_type in one.base}
    found = ours.get(name) or (None if resource_type == "Resource" else search_parameters(resource_type).get(name))
    made = {"name": name, "type": kind}
    if found is None:
        added = CURRENT.get().site.of(resource_type).get(name)
        return made if added is None else {**made, "definition": added.url}
    return made if found.type != kind else {**made, "definition": found.url}
