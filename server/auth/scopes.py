"""The scopes that a principal can have."""

from __future__ import annotations

SCOPES = {
    "fhir:read": "read and search FHIR resources, subjects by pseudonym",
    "fhir:write": "create, update and delete FHIR resources that clients write",
    "dicom:read": "QIDO-RS and WADO-RS; headers and pixels hold identities",
    "dicom:write": "STOW-RS",
    "identities:read": "names, birth dates and record numbers in FHIR answers",
    "audit:read": "checkpoints, proofs and timelines; subjects by pseudonym",
    "cohorts:read": "ask GraphQL for subjects, studies, series and findings, their counts and facets, subjects by pseudonym",
    "cohorts:write": "tag, save cohorts, and make, freeze and split datasets",
    "datasets:export": "export frozen datasets, on their terms",
    "reviews:write": "review findings, and sign what one did",
    "subjects:erase": "ask for, confirm or refuse the erasure of a subject, and place or lift a legal hold",
    "metrics:read": "GET /metrics",
    "admin": "all of it",
}


def grants(scopes: frozenset[str], wanted: str) -> bool:
    return wanted in scopes or "admin" in scopes
