"""Parameters of URL and header, each said once; and the parts of paths."""

from __future__ import annotations

from server.openapi.schemas import ID, TEXT, Json, ref

_INSTANT = "a date, or an instant with an offset"
_TYPE = ref("ResourceType")


def _many(of: Json) -> Json:
    return {"type": "array", "items": of}


PATH: dict[str, Json] = {
    "resource_type": _TYPE,
    "searched_type": _TYPE,
    "resource_id": {"type": "string", "pattern": f"^{ID}$"},
    "version": {"type": "string", "pattern": "^[1-9][0-9]{0,7}$"},
    "frame_list": {"type": "string", "pattern": "^[1-9][0-9]{0,8}(,[1-9][0-9]{0,8})*$"},
}
"""What FastAPI does not know of a part of a path."""

_QUERY: dict[str, tuple[Json, str]] = {
    "_asof": (TEXT, f"A position of the log (digits), or {_INSTANT}: as of which to answer"),
    "_format": ({"enum": ["json", "application/json", "application/fhir+json"]}, "JSON is all that there is"),
    "_pretty": ({"enum": ["true", "false"]}, "With line breaks"),
    "_summary": ({"enum": ["true", "text", "data", "count", "false"]}, "Less of each resource; count: of a search, just the total"),
    "_elements": (TEXT, "Names of elements, with commas between them"),
    "_since": (TEXT, f"Made from {_INSTANT} on"),
    "_at": (TEXT, f"Held at some time of {_INSTANT}"),
    "_sort": (TEXT, "Parameters, with commas between them; with - before it descending"),
    "_count": ({"type": "integer", "minimum": 0}, "Entries a page, up to 1,000; 0: of a search, just the total"),
    "_total": ({"enum": ["accurate", "estimate", "none"]}, "none spares the count"),
    "_page": (TEXT, "Which page; only links of ours have it, and take nothing beside it"),
    "_type": (TEXT, "Types of resources, with commas between them"),
    "_typeFilter": (TEXT, "Type?search of what is to come, with commas between them"),
    "_outputFormat": ({"enum": ["application/fhir+ndjson", "application/ndjson", "ndjson"]}, "NDJSON is all that there is"),
    "_include": (_many(TEXT), "Type:parameter: what matches refer to"),
    "_revinclude": (_many(TEXT), "Type:parameter: what refers to matches"),
    "mode": ({"enum": ["create", "update", "delete", "profile"]}, "What the resource is meant for"),
    "profile": (TEXT, "Canonical of a profile that is known here"),
    "limit": ({"type": "integer", "minimum": 0, "maximum": 10**9 - 1}, "Matches an answer"),
    "offset": ({"type": "integer", "minimum": 0, "maximum": 10**9 - 1}, "Matches left out before the first"),
    "includefield": (_many(TEXT), "Keywords or tags of attributes, or all"),
    "fuzzymatching": ({"enum": ["true", "false"]}, "Not supported: a Warning says so"),
    "window": (TEXT, "centre,width in modality units"),
    "viewport": (TEXT, "width,height in pixels"),
    "quality": ({"type": "integer", "minimum": 1, "maximum": 100}, "Of a JPEG"),
    "search": ({"type": "object", "additionalProperties": TEXT}, "Any search parameter of the type, or key to match"),
}
_HEADERS: dict[str, str] = {
    "If-None-Match": "ETag of what the client holds, or * of what must not be there",
    "If-Modified-Since": "When the client got what it holds",
    "If-Match": "ETag of the version that is to be changed",
    "X-Provenance": "A Provenance of what is written, as JSON without target: created with it",
    "If-None-Exist": "Search parameters: create only where they find nothing",
    "Prefer": "handling=lenient; return=minimal, representation or OperationOutcome; respond-async of an export",
}


def components() -> dict[str, Json]:
    """Name → parameter object."""
    query: dict[str, Json] = {
        name: {"name": name, "in": "query", "schema": schema, "description": says, "style": "form", "explode": True}
        for name, (schema, says) in _QUERY.items()
    }
    return query | {name: {"name": name, "in": "header", "schema": TEXT, "description": says} for name, says in _HEADERS.items()}
