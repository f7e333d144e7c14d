"""Patches as functions of a resource: JSON Patch (RFC 6902; R5 http.html#patch), and what says which kind of patch it is."""

from __future__ import annotations

import base64
import binascii
from typing import Any

import jsonpatch
import msgspec
from jsonpointer import JsonPointerException

from projections.fhir.vocabulary import Json
from server.fhir.outcome import FhirError
from server.fhir.writing.fhirpath_patch import fhirpath_patch
from server.fhir.writing.incoming import MAX_BODY_BYTES, decoded
from server.fhir.writing.interaction import Patch, plain

JSON_PATCH = "application/json-patch+json"
_MOST_OPERATIONS = 1000
_ENCODER = msgspec.json.Encoder(decimal_format="number")


def json_patch(operations: Any, at: str = "") -> Patch:
    """Raises FhirError: 400 for what is no JSON Patch; when it is applied, 422 where it does not fit the resource."""
    if not isinstance(operations, list) or not all(isinstance(one, dict) for one in operations):
        raise FhirError(400, "structure", "a JSON Patch is a list of operations", at or None)
    if len(operations) > _MOST_OPERATIONS:
        raise FhirError(413, "too-costly", f"a JSON Patch may have {_MOST_OPERATIONS} operations", at or None)
    try:
        steps = [(one.get("op"), jsonpatch.JsonPatch([one])) for one in operations]
    except (jsonpatch.JsonPatchException, JsonPointerException, TypeError, AttributeError):
        raise FhirError(400, "invalid", "this is no JSON Patch (RFC 6902)", at or None) from None

    def apply(before: Json) -> Json:
        after = plain(before)
        try:
            for operation, step in steps:
                after = step.apply(after, in_place=True)
                if operation == "copy" and len(_ENCODER.encode(after)) > MAX_BODY_BYTES:  # a copy of a copy doubles
                    raise FhirError(413, "too-long", f"the patch makes more than {MAX_BODY_BYTES} bytes", at or None)
        except jsonpatch.InvalidJsonPatch:
            raise FhirError(400, "invalid", "this is no JSON Patch (RFC 6902)", at or None) from None
        except jsonpatch.JsonPatchTestFailed:
            raise FhirError(422, "business-rule", "a test of the patch does not hold: nothing was changed", at or None) from None
        except (jsonpatch.JsonPatchException, JsonPointerException, TypeError, LookupError, ValueError, RecursionError):
            raise FhirError(422, "processing", "the patch does not fit the resource: nothing was changed", at or None) from None
        if not isinstance(after, dict):
            raise FhirError(422, "processing", "the patch leaves no resource", at or None)
        return after

    return apply


def patch_of(media_type: str, body: Any) -> Patch:
    """By the media type of a request: a JSON Patch, or the Parameters of a FHIRPath Patch. Raises FhirError (400, 415)."""
    if media_type == JSON_PATCH:
        return json_patch(body)
    if not isinstance(body, dict) or body.get("resourceType") != "Parameters":
        said = f"a patch is Parameters (FHIRPath Patch), or a JSON Patch as {JSON_PATCH}: a part of a resource is none"
        raise FhirError(415, "not-supported", said, "http.content-type")
    return fhirpath_patch(body)


def patch_in(resource: Json, at: str) -> Patch:
    """The patch in an entry of a Bundle: the Parameters of a FHIRPath Patch, or a JSON Patch as a Binary (R5
    http.html#jsonpatch-bundle). Raises FhirError (400)."""
    if resource.get("resourceType") == "Parameters":
        return fhirpath_patch(resource, at)
    data = resource.get("data")
    if resource.get("resourceType") != "Binary" or resource.get("contentType") != JSON_PATCH or not isinstance(data, str):
        raise FhirError(400, "not-supported", f"a patch in a Bundle is Parameters, or a Binary of {JSON_PATCH}", at)
    try:
        return json_patch(decoded(base64.b64decode(data, validate=True)), f"{at}.data")
    except binascii.Error:
        raise FhirError(400, "value", "the data are not base64", f"{at}.data") from None
