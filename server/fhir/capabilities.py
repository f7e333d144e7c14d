"""GET /fhir/metadata: what this server can do (R5 capabilitystatement.html)."""

from __future__ import annotations

import importlib.metadata
from typing import Any

from projections.fhir.projection import TYPES
from server.as_of import HEADER, PARAMETER
from server.fhir.parameters import supported

PUBLISHED = "2026-11-20"


_AS_OF = (
    "The position of the log (digits), or the instant or date (its end), as of which to answer: on read, vread, history and search."
    " The answer is, byte for byte, what it was when the log ended there, less the subjects that were erased since."
)
_INTERACTIONS = {
    "read": f"takes {PARAMETER}",
    "vread": f"takes {PARAMETER}: as of an earlier position, later versions are not there",
    "history-instance": f"takes _at, _since, _count and {PARAMETER}",
    "search-type": f"takes {PARAMETER}; pages are as of one position",
}


def capability_statement(base: str) -> dict[str, Any]:
    return {
        "resourceType": "CapabilityStatement",
        "status": "active",
        "date": PUBLISHED,
        "kind": "instance",
        "software": {"name": "Anamnesis", "version": importlib.metadata.version("anamnesis")},
        "implementation": {"description": "Anamnesis", "url": base},
        "fhirVersion": "5.0.0",
        "format": ["application/fhir+json", "json"],
        "rest": [
            {
                "mode": "server",
                "documentation": f"Every answer says in the header {HEADER} which position of the log it is as of.",
                "security": {"description": "Bearer tokens; scope fhir:read, and identities:read for names"},
                "resource": [_resource(resource_type) for resource_type in TYPES],
                "searchParam": [{"name": PARAMETER, "type": "special", "documentation": _AS_OF}],
            }
        ],
    }


def _resource(resource_type: str) -> dict[str, Any]:
    return {
        "type": resource_type,
        "interaction": [{"code": code, "documentation": said} for code, said in _INTERACTIONS.items()],
        "versioning": "versioned",
        "readHistory": True,
        "searchParam": [{"name": name, "type": kind} for name, kind in sorted(supported(resource_type).items())],
    }
