"""OperationOutcomes, and the errors that become them."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.responses import Response

FHIR_JSON = "application/fhir+json"


class FhirError(Exception):
    """Raised for what a client asked wrongly: an HTTP status, an issue code (R5 valueset-issue-type) and where it is."""

    def __init__(self, status: int, code: str, detail: str, expression: str | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.code = code
        self.detail = detail
        self.expression = expression
        self.headers: dict[str, str] = {}


def issue(code: str, detail: str, *, severity: str = "error", expression: str | None = None) -> dict[str, Any]:
    made: dict[str, Any] = {"severity": severity, "code": code, "diagnostics": detail}
    if expression is not None:
        made["expression"] = [expression]
    return made


def outcome(
    status: int,
    code: str,
    detail: str,
    *,
    severity: str = "error",
    expression: str | None = None,
    headers: dict[str, str] | None = None,
) -> Response:
    body = {"resourceType": "OperationOutcome", "issue": [issue(code, detail, severity=severity, expression=expression)]}
    return Response(msgspec.json.encode(body), status, headers, media_type=FHIR_JSON)
