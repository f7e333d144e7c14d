"""What each kind of route takes and answers: the one place that says it. FHIR routes have the kind that `server.fhir.served` says of them."""

from __future__ import annotations

import re
from collections.abc import Mapping

import msgspec

from server.fhir import served
from server.fhir.outcome import FHIR_JSON
from server.fhir.writing.patches import JSON_PATCH
from server.openapi.schemas import ANY, TEXT, Json, ref

FORM = "application/x-www-form-urlencoded"
PROBLEM = "application/problem+json"
BINARY: Json = {"type": "string", "contentMediaType": "application/octet-stream"}
MULTIPART = "multipart/related"


class Answer(msgspec.Struct, frozen=True):
    """``content``: media type → schema; empty where there is no body. ``headers``: those that are always there."""

    says: str
    content: Mapping[str, Json] = {}
    headers: tuple[str, ...] = ()


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """``parameters`` of URL and header, by their names in `server.openapi.parameters`; what FastAPI knows of a route comes beside them."""

    answers: Mapping[int, Answer]
    refusals: tuple[int, ...] = ()
    """Beside those that every route of its room has."""
    parameters: tuple[str, ...] = ()
    body: Mapping[str, Json] = {}
    is_body_optional: bool = False


def _json(name: str) -> dict[str, Json]:
    return {"application/json": ref(name)}


def _fhir(name: str) -> dict[str, Json]:
    return {FHIR_JSON: ref(name)}


HOW = ("_format", "_pretty")
SHOWN = ("_summary", "_elements", *HOW)
AS_OF = ("_asof",)
HELD = ("If-None-Match", "If-Modified-Since")
POSITION = ("Anamnesis-Position",)

_FOUND = {200: Answer("What is found, a page", _fhir("Bundle"), POSITION)}
_NOT_MODIFIED = Answer("The client holds it already", {}, ("ETag", *POSITION))
_VERSION = {200: Answer("The resource", _fhir("Resource"), ("ETag", *POSITION)), 304: _NOT_MODIFIED}
_CREATED = Answer("Created; the resource, an OperationOutcome, or nothing, as Prefer says", _fhir("Resource"), ("ETag", "Location"))
_UPDATED = Answer("The resource as it stands, an OperationOutcome, or nothing, as Prefer says", _fhir("Resource"), ("ETag", "Location"))
_WRITE_REFUSALS = (404, 405, 409, 410, 412, 413, 415, 422)
_RESOURCE = {FHIR_JSON: ref("Resource")}
_PATCH = {JSON_PATCH: ref("JsonPatch"), FHIR_JSON: ref("Resource")}

_READ = Kind(answers=_VERSION, refusals=(404, 410), parameters=(*AS_OF, *SHOWN, *HELD))
_HISTORY = Kind(answers=_FOUND, refusals=(404, 410), parameters=(*AS_OF, "_since", "_at", "_sort", "_count", "_page", *SHOWN))
_SEARCH = Kind(
    answers=_FOUND,
    refusals=(404, 415),
    parameters=(*AS_OF, "_sort", "_count", "_include", "_revinclude", "_total", "_page", *SHOWN, "search", "Prefer"),
    body={FORM: {"type": "object", "additionalProperties": TEXT}},
    is_body_optional=True,
)
_SYSTEM_SEARCH = msgspec.structs.replace(_SEARCH, parameters=("_type", *(one for one in _SEARCH.parameters if one != "_sort")))
_CREATE = Kind(
    answers={200: _UPDATED, 201: _CREATED}, refusals=_WRITE_REFUSALS, parameters=(*HOW, "If-None-Exist", "Prefer", "X-Provenance"), body=_RESOURCE
)
_UPDATE = msgspec.structs.replace(_CREATE, parameters=(*HOW, "If-Match", "Prefer", "X-Provenance"))
_DELETE = Kind(answers={204: Answer("It is deleted, or was not there")}, refusals=_WRITE_REFUSALS, parameters=(*HOW, "If-Match", "X-Provenance"))
_OPERATION = Kind(answers={200: Answer("What the operation gives", _fhir("Resource"))}, refusals=(404, 410, 413, 415, 422))

FHIR: Mapping[str, Kind] = {
    "read": _READ,
    "vread": _READ,
    "history-instance": _HISTORY,
    "history-type": _HISTORY,
    "history-system": _HISTORY,
    "search-type": _SEARCH,
    "search-system": _SYSTEM_SEARCH,
    "create": _CREATE,
    "update": _UPDATE,
    "conditionalUpdate": msgspec.structs.replace(_UPDATE, parameters=(*_UPDATE.parameters, "search")),
    "patch": msgspec.structs.replace(_UPDATE, answers={200: _UPDATED}, body=_PATCH),
    "conditionalPatch": msgspec.structs.replace(_UPDATE, answers={200: _UPDATED}, body=_PATCH, parameters=(*_UPDATE.parameters, "search")),
    "delete": _DELETE,
    "conditionalDelete": msgspec.structs.replace(_DELETE, parameters=(*_DELETE.parameters, "search")),
    "transaction": Kind(
        answers={200: Answer("An entry for each entry", _fhir("Bundle"))},
        refusals=_WRITE_REFUSALS,
        parameters=(*HOW, "Prefer", "X-Provenance"),
        body={FHIR_JSON: ref("Bundle")},
    ),
    "capabilities": Kind(answers={200: Answer("What this server can do", _fhir("CapabilityStatement"))}, parameters=HOW),
    "$everything": Kind(answers=_FOUND, refusals=(404, 410), parameters=(*AS_OF, "_since", "_type", "_count", "_page", *SHOWN)),
    "$meta": Kind(answers={200: Answer("meta", _fhir("Parameters"))}, refusals=(404, 410), parameters=(*AS_OF, *HOW)),
    "$validate": Kind(
        answers={200: Answer("What was found", _fhir("OperationOutcome"))},
        refusals=(404, 410, 413, 415),
        parameters=("mode", "profile", *HOW),
        body={FHIR_JSON: ANY},
        is_body_optional=True,
    ),
}
"""Code of an interaction, element of a condition, or name of an operation → what such routes take and answer."""

_CACHED = {304: Answer("The client holds it already", {}, ("ETag", *POSITION))}
_RETRIEVED = (400, 404, 406)
_QIDO = Kind(
    answers={200: Answer("The matches", {"application/dicom+json": ref("DicomJson"), "application/json": ref("DicomJson")}, POSITION), 204: Answer("There are none", {}, POSITION)},
    refusals=(404, 406),
    parameters=("limit", "offset", "includefield", "fuzzymatching", *AS_OF, "search"),
)  # fmt: skip
_PICTURE = Kind(
    answers={200: Answer("A picture", {"image/jpeg": BINARY, "image/png": BINARY}, ("ETag", *POSITION)), **_CACHED},
    refusals=_RETRIEVED,
    parameters=("window", "viewport", "quality", *AS_OF, "If-None-Match"),
)
_METADATA = Kind(
    answers={200: Answer("Headers without bulk data", {"application/dicom+json": ref("DicomJson"), "application/json": ref("DicomJson")}, ("ETag", *POSITION)), **_CACHED},
    refusals=_RETRIEVED,
    parameters=(*AS_OF, "If-None-Match"),
)  # fmt: skip
_RETRIEVE = Kind(
    answers={200: Answer("As it is stored", {MULTIPART: BINARY, "application/dicom": BINARY, "application/octet-stream": BINARY, "image/*": BINARY}, ("ETag", *POSITION)), **_CACHED},
    refusals=_RETRIEVED,
    parameters=(*AS_OF, "If-None-Match"),
)  # fmt: skip
_STORED = {"application/dicom+json": ref("StoreInstancesResponse"), "application/json": ref("StoreInstancesResponse")}
_STORE = Kind(
    answers={200: Answer("All are stored", _STORED), 202: Answer("Some are stored", _STORED), 409: Answer("None is stored", _STORED)},
    refusals=(404, 406, 415, 507),
    body={MULTIPART: BINARY, "application/dicom": BINARY},
)
_SIGNING = (401, 404, 409, 422, 429)
_ERASING = (404, 409, 410, 422)
_ERASURE = _json("ErasureStatus")

_NO_TOKEN = Answer("Why there is none (RFC 6749, 5.2)", _json("TokenRefused"))
_FILES = {kind: BINARY for kind in ("application/octet-stream", "application/gzip", "application/dicom", "application/json", "text/*", "image/svg+xml")}
_NDJSON = {"application/fhir+ndjson": BINARY}
_EXPORT_BEGUN = Answer("Begun: Content-Location says where to ask how far it is", _fhir("OperationOutcome"), ("Content-Location",))

ROUTES: tuple[tuple[str, Kind], ...] = (
    (r"(GET|POST) /fhir/(.*/)?\$export", Kind(answers={202: _EXPORT_BEGUN}, refusals=(404, 410, 413, 415, 429), parameters=(*AS_OF, "_since", "_type", "_typeFilter", "_elements", "_outputFormat", "Prefer"), body=_fhir("Parameters"), is_body_optional=True)),
    (r"GET /fhir/\$export/{export_id}", Kind(answers={200: Answer("It is done: its files", {"application/json": ref("Manifest")}), 202: Answer("It is being made")}, refusals=(404, 410, 500, 507))),
    (r"DELETE /fhir/\$export/{export_id}", Kind(answers={202: Answer("Cancelled", _fhir("OperationOutcome"))}, refusals=(404,))),
    (r"GET /fhir/\$export/{export_id}/{file_name}", Kind(answers={200: Answer("A resource on each line", _NDJSON), 206: Answer("A part of it", _NDJSON)}, refusals=(404, 410, 416))),
    (r"GET /dicomweb/.*/(rendered|thumbnail)", _PICTURE),
    (r"GET /dicomweb/.*/metadata", _METADATA),
    (r"GET /dicomweb/(.*/)?(studies|series|instances)", _QIDO),
    (r"GET /dicomweb/.*", _RETRIEVE),
    (r"POST /dicomweb/.*", _STORE),
    (r"GET /audit/timeline/.*", Kind(answers={200: Answer("A page of the timeline", _json("Timeline"), POSITION)}, refusals=(404,))),
    (r"GET /audit/lineage/.*", Kind(answers={200: Answer("The lineage", _json("Lineage"), POSITION)}, refusals=(404,))),
    (r"GET /audit/(log/)?checkpoint", Kind(answers={200: Answer("A signed note", {"text/plain": TEXT})}, refusals=(404,))),
    (r"GET /audit/checkpoints", Kind(answers={200: Answer("Checkpoints", _json("Checkpoints"))})),
    (r"GET /audit/keys", Kind(answers={200: Answer("Keys", _json("Keys"))})),
    (r"GET /audit/inclusion", Kind(answers={200: Answer("Proofs", _json("Inclusions"))}, refusals=(404,))),
    (r"GET /audit/inclusion/.*", Kind(answers={200: Answer("A proof", _json("Inclusion"))}, refusals=(404,))),
    (r"GET /audit/consistency", Kind(answers={200: Answer("A proof", _json("Consistency"))}, refusals=(404,))),
    (r"GET /audit/log/tile/.*", Kind(answers={200: Answer("A tile", {"application/octet-stream": BINARY})}, refusals=(404,))),
    (r"POST /reviews", Kind(answers={201: Answer("Recorded", _json("Done"))}, refusals=_SIGNING, body=_json("ReviewWanted"))),
    (r"POST /events/.*", Kind(answers={201: Answer("Signed", _json("Done"))}, refusals=_SIGNING, body=_json("SignatureWanted"))),
    (r"POST /signers", Kind(answers={201: Answer("Enrolled", _json("Signer"))}, refusals=_SIGNING, body=_json("Enrollment"))),
    (r"DELETE /signers", Kind(answers={204: Answer("The key has ended")}, refusals=_SIGNING)),
    (r"GET /subjects/erasures", Kind(answers={200: Answer("Erasures", _json("Erasures"))})),
    (r"(GET|DELETE) /subjects/.*/erasure", Kind(answers={200: Answer("How far it is", _ERASURE)}, refusals=_ERASING)),
    (r"POST /subjects/.*/erasure", Kind(answers={201: Answer("Asked for", _ERASURE)}, refusals=_ERASING, body=_json("ErasureWanted"))),
    (r"POST /subjects/.*/confirmation", Kind(answers={202: Answer("Confirmed", _ERASURE)}, refusals=_ERASING)),
    (r"POST /subjects/.*/holds", Kind(answers={201: Answer("Placed", _json("PlacedHold"))}, refusals=_ERASING, body=_json("HoldWanted"))),
    (r"DELETE /subjects/.*/holds/.*", Kind(answers={204: Answer("Lifted")}, refusals=_ERASING)),
    (r"POST /datasets/.*/exports", Kind(answers={202: Answer("Begun", _json("ExportStatus"), ("Content-Location",))}, refusals=(404, 409, 422, 429), body=_json("ExportWanted"))),
    (r"GET /datasets/exports/{export_id}", Kind(answers={200: Answer("How far it is", _json("ExportStatus"), ("Content-Location",))}, refusals=(404,))),
    (r"DELETE /datasets/exports/{export_id}", Kind(answers={202: Answer("Ended: its files are removed")}, refusals=(404,))),
    (r"POST /datasets/exports/.*/resumption", Kind(answers={202: Answer("It goes on", _json("ExportStatus"), ("Content-Location",))}, refusals=(404, 409))),
    (r"GET /datasets/exports/.*/files/.*", Kind(answers={200: Answer("A file", _FILES), 206: Answer("A part of it", _FILES)}, refusals=(404, 410, 416))),
    (r"POST /auth/token", Kind(answers={200: Answer("An access token", _json("AccessToken")), **{status: _NO_TOKEN for status in (400, 401, 413, 429)}}, body={FORM: ref("TokenWanted")})),
    (r"GET /health/live", Kind(answers={200: Answer("The process answers", _json("Health"))})),
    (r"GET /health/ready", Kind(answers={200: Answer("It can work", _json("Health")), 503: Answer("It cannot", _json("Health"))})),
    (r"GET /metrics", Kind(answers={200: Answer("The exposition format", {"text/plain": TEXT})})),
    (r"GET /openapi.json", Kind(answers={200: Answer("This document", {"application/json": {"type": "object"}})})),
)  # fmt: skip
"""Method and path → kind, the first that fits; of FHIR only what has several ways within one operation."""


def kind_of(method: str, path: str) -> Kind:
    """Raises LookupError for a route of which nothing is said."""
    for pattern, kind in ROUTES:
        if re.fullmatch(pattern, f"{method} {path}"):
            return kind
    for row in served.rows():
        if method in row.methods and path == row.path:
            match row:
                case served.Interaction(code=name) | served.Condition(element=name):
                    return FHIR[name]
                case served.Operation(name=name):
                    return FHIR.get(f"${name}", _OPERATION)
    raise LookupError(f"{method} {path} has no row here, and none in server.fhir.served")
