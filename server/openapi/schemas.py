"""What bodies look like, as JSON Schema: of our own structs from their types, of FHIR and DICOM as far as every resource has it."""

from __future__ import annotations

from typing import Any

import msgspec

from projections.fhir.projection import TYPES
from server.audit.lineage import Lineage
from server.audit.proving import Consistency, Inclusion
from server.audit.timeline import Timeline
from server.datasets.asking import ExportWanted
from server.datasets.routes import ExportStatus
from server.reviews import Done, Enrollment, ReviewWanted, SignatureWanted
from server.subjects import ErasureStatus, ErasureWanted, HoldWanted

Json = dict[str, Any]
REF = "#/components/schemas/{name}"
ID = "[A-Za-z0-9\\-.]{1,64}"
_OURS = (Timeline, Lineage, Inclusion, Consistency, ReviewWanted, SignatureWanted, Enrollment, Done, ErasureWanted, HoldWanted, ErasureStatus, ExportWanted, ExportStatus)

TEXT: Json = {"type": "string"}
ANY: Json = {}


def ref(name: str) -> Json:
    return {"$ref": REF.format(name=name)}


def components() -> Json:
    """Name → schema."""
    _, ours = msgspec.json.schema_components(_OURS, ref_template=REF)
    return {**ours, **_FHIR, **_PLAIN}


def _resource(resource_type: str, **properties: Json) -> Json:
    """Of one type, with what every client of it counts on."""
    return {
        "type": "object",
        "required": ["resourceType", *(name for name in properties if name in ("issue", "type"))],
        "properties": {"resourceType": {"const": resource_type}, **properties},
    }


def _object(*required: str, **properties: Json) -> Json:
    return {"type": "object", "required": list(required), "properties": properties}


def _many(of: Json) -> Json:
    return {"type": "array", "items": of}


_ISSUE = _object(
    "severity",
    "code",
    severity={"enum": ["fatal", "error", "warning", "information", "success"]},
    code=TEXT,
    diagnostics=TEXT,
    details={"type": "object"},
    expression=_many(TEXT),
)
_ENTRY = _object(fullUrl=TEXT, resource=ref("Resource"), request={"type": "object"}, response={"type": "object"}, search={"type": "object"})
_FHIR: Json = {
    "ResourceType": {"enum": list(TYPES)},
    "Resource": _object("resourceType", resourceType=TEXT, id={"type": "string", "pattern": f"^{ID}$"}, meta={"type": "object"}),
    "OperationOutcome": _resource("OperationOutcome", issue={**_many(_ISSUE), "minItems": 1}),
    "Bundle": _resource("Bundle", type=TEXT, total={"type": "integer", "minimum": 0}, link=_many({"type": "object"}), entry=_many(_ENTRY)),
    "Parameters": _resource("Parameters", parameter=_many(_object("name", name=TEXT))),
    "CapabilityStatement": _resource("CapabilityStatement", fhirVersion=TEXT, rest=_many({"type": "object"})),
    "JsonPatch": _many(
        _object("op", "path", op={"enum": ["add", "remove", "replace", "move", "copy", "test"]}, path=TEXT, value=ANY, **{"from": TEXT})
    ),
}
_PLAIN: Json = {
    "Problem": _object("type", "status", "detail", type=TEXT, title=TEXT, status={"type": "integer"}, detail=TEXT),
    "DicomJson": _many({"type": "object"}),
    "StoreInstancesResponse": {"type": "object"},
    "Manifest": _object("transactionTime", "output", transactionTime=TEXT, requiresAccessToken={"type": "boolean"}, output=_many({"type": "object"})),
    "TokenWanted": _object("grant_type", "client_assertion_type", "client_assertion", grant_type=TEXT, client_assertion_type=TEXT, client_assertion=TEXT, scope=TEXT),
    "AccessToken": _object("access_token", "token_type", "expires_in", access_token=TEXT, token_type=TEXT, expires_in={"type": "integer"}, scope=TEXT),
    "TokenRefused": _object("error", error=TEXT, error_description=TEXT),
    "Health": _object("status", status={"enum": ["live", "ready", "unready"]}, problems=_many(TEXT)),
    "Checkpoints": _object("checkpoints", checkpoints=_many({"type": "object"})),
    "Keys": _object("keys", keys=_many({"type": "object"})),
    "Inclusions": _object("proofs", proofs=_many(ref("Inclusion"))),
    "Signer": _object("key_id", "principal", key_id=TEXT, principal=TEXT),
    "Erasures": _many(ref("ErasureStatus")),
    "PlacedHold": _object("hold_id", hold_id=TEXT),
}  # fmt: skip
