"""The document, from the application's routes (their paths, their docstrings, what FastAPI knows of their parameters) and their kinds."""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Iterable
from http import HTTPStatus

from fastapi import FastAPI

from server.fhir.outcome import FHIR_JSON
from server.openapi import parameters, schemas
from server.openapi.kinds import PROBLEM, Answer, Kind, kind_of
from server.openapi.schemas import TEXT, Json, ref

_OPEN = ("/health/", "/auth/token")
"""What asks for no token: it has none of the refusals of what does."""
_OF_FHIR = (400, 401, 403, 406, 503)
_ELSEWHERE = (400, 401, 403, 503)
"""Refusals that every route of a room has."""
_HEADERS: Json = {
    "ETag": TEXT,
    "Location": TEXT,
    "Content-Location": TEXT,
    "Anamnesis-Position": {"type": "integer", "minimum": 0},
    "WWW-Authenticate": {"type": "string", "pattern": "^Bearer "},
}


def document(app: FastAPI) -> Json:
    """OpenAPI 3.1. Raises LookupError where a route is of no kind."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # GET and HEAD of one route have one operation id, which is mended here
        known = copy.deepcopy(app.openapi())
    paths = {path: {method: _operation(method.upper(), path, one) for method, one in sorted(methods.items())} for path, methods in known["paths"].items()}
    return {
        "openapi": "3.1.0",
        "info": known["info"],
        "paths": paths,
        "components": {
            "schemas": schemas.components(),
            "parameters": parameters.components(),
            "headers": {name: {"schema": schema, "required": True} for name, schema in _HEADERS.items()},
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer"}},
        },
        "security": [{"bearer": []}],
    }


def _operation(method: str, path: str, known: Json) -> Json:
    kind = kind_of("GET" if method == "HEAD" else method, path)
    made: Json = {"operationId": re.sub("_(head|get)$", f"_{method.lower()}", known["operationId"])}
    made |= {name: known[name] for name in ("summary", "description", "tags") if name in known}
    shared = [{"$ref": f"#/components/parameters/{name}"} for name in kind.parameters]
    made["parameters"] = [*(_mended(one) for one in known.get("parameters", ())), *shared]
    if kind.body and method != "GET" and method != "HEAD":
        made["requestBody"] = {"required": not kind.is_body_optional, "content": _content(kind.body)}
    made["responses"] = _responses(method, path, kind)
    if path.startswith(_OPEN):
        made["security"] = []
    return made


def _mended(parameter: Json) -> Json:
    """With the form of a part of a path, which FastAPI takes for any text."""
    if parameter["in"] == "path" and parameter["name"] in parameters.PATH:
        return {**parameter, "schema": parameters.PATH[parameter["name"]]}
    return parameter


def _responses(method: str, path: str, kind: Kind) -> Json:
    answers = dict(kind.answers)
    for status in _refusals(path, kind):
        if status not in answers:
            answers[status] = _refusal(path, status)
        elif status not in kind.answers or 400 <= status < 500:
            refused = _refusal(path, status)
            answers[status] = Answer(answers[status].says, {**answers[status].content, **refused.content}, answers[status].headers)
    return {str(status): _response(one, with_body=method != "HEAD") for status, one in sorted(answers.items())}


def _refusals(path: str, kind: Kind) -> Iterable[int]:
    if path.startswith(_OPEN):
        return ()
    return {*(_OF_FHIR if _is_fhir(path) else _ELSEWHERE), *kind.refusals}


def _refusal(path: str, status: int) -> Answer:
    if not _is_fhir(path):
        return Answer(HTTPStatus(status).phrase, {PROBLEM: ref("Problem")})
    return Answer(HTTPStatus(status).phrase, {FHIR_JSON: ref("OperationOutcome")}, ("WWW-Authenticate",) if status in (401, 403) else ())


def _response(one: Answer, *, with_body: bool) -> Json:
    made: Json = {"description": one.says}
    if one.headers:
        made["headers"] = {name: {"$ref": f"#/components/headers/{name}"} for name in one.headers}
    if one.content and with_body:
        made["content"] = _content(one.content)
    return made


def _content(content: object) -> Json:
    assert isinstance(content, dict)
    return {media_type: {"schema": schema} for media_type, schema in content.items()}


def _is_fhir(path: str) -> bool:
    return f"{path}/".startswith("/fhir/")
