"""GET /fhir/metadata: what this server can do (R5 capabilitystatement.html)."""

from __future__ import annotations

import importlib.metadata
from typing import Any

from projections.fhir.projection import TYPES
from server.fhir.parameters import supported

PUBLISHED = "2026-11-20"


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
                "security": {"description": "Bearer tokens; scope fhir:read, and identities:read for names"},
                "resource": [_resource(resource_type) for resource_type in TYPES],
            }
        ],
    }


def _resource(resource_type: str) -> dict[str, Any]:
    return {
        "type": resource_type,
        "interaction": [{"code": code} for code in ("read", "vread", "history-instance", "search-type")],
        "versioning": "versioned",
        "readHistory": True,
        "searchParam": [{"name": name, "type": kind} for name, kind in sorted(supported(resource_type).items())],
    }
