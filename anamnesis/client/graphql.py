"""GraphQL over HTTP: documents made of our records' fields, conditions as the schema takes them, and errors by the server's codes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from anamnesis.client import errors
from anamnesis.client.asking import Answer, Ask, Steps
from anamnesis.client.shapes import as_name, camel

PATH = "/graphql"
_BUSY = b'"code":"UNAVAILABLE"'
_NAMED = {
    "FIELD_UNKNOWN": errors.FieldUnknown,
    "FIELD_REFUSED": errors.FieldRefused,
    "POSITION_UNKNOWN": errors.PositionUnknown,
    "NOT_FOUND": errors.NotFound,
    "SCOPE_MISSING": errors.NotPermitted,
    "TOKEN_INVALID": errors.TokenRefused,
    "INTERNAL": errors.ServerFailed,
    "UNAVAILABLE": errors.ServerFailed,
}
"""``extensions.code`` of an answer; every other one is a QuestionRefused with its code."""


def ask(document: str, variables: Mapping[str, Any], *, is_safe: bool = True) -> Steps[dict[str, Any]]:
    """The data that a document asks for. Raises QuestionRefused, or the error that the server's code names."""
    body = {"query": document, "variables": {name: value for name, value in variables.items() if value is not None}}
    answer: Answer = yield Ask(path=PATH, method="POST", body=body, is_safe=is_safe, busy=_BUSY)
    answered = answer.json
    if refused := answered.get("errors"):
        raise _named(refused[0])
    data: dict[str, Any] = answered["data"]
    return data


def _named(error: Mapping[str, Any]) -> errors.AnamnesisError:
    extensions = error.get("extensions") or {}
    code, at = str(extensions.get("code", "")), extensions.get("at", "")
    message = str(error.get("message", "the server refused the question"))
    return _NAMED.get(code, errors.QuestionRefused)(f"{message} (at {at})" if at else message, code=code)


_REACHED = {
    "study_uid": "study { studyUid }",
    "subject_id": "subject { subjectId }",
    "series_uid": "series { seriesUid }",
}
_OWN = {"subject": "subject_id", "study": "study_uid", "series": "series_uid", "finding": "finding_key"}


def node_selection(record: type[Any], level: str, elements: Sequence[str]) -> str:
    """What of a thing is asked for: each field of its record, by way of what it belongs to where it is that one's.

    DICOM elements are asked for one by one ($element0, …), so that each is found again by the name that it was asked by.
    """
    names = [one.name for one in fields(record) if one.name != "elements"]
    own = [camel(name) if name == _OWN[level] else _REACHED.get(name, camel(name)) for name in names]
    return " ".join([*own, *(f"element{n}: element(name: $element{n}) {{ values }}" for n in range(len(elements)))])


def read_record(record: type[Any], node: Mapping[str, Any], elements: Sequence[str]) -> Any:
    """A record of a node that ``node_selection`` asked for."""
    values: dict[str, Any] = {}
    for one in fields(record):
        if one.name == "elements":
            values["elements"] = {name: node[f"element{n}"]["values"] for n, name in enumerate(elements) if node[f"element{n}"]}
        elif (key := camel(one.name)) in node:
            values[one.name] = node[key]
        else:
            values[one.name] = node[one.name.partition("_")[0]][key]
    return record(**values)


def condition_input(node: Mapping[str, Any]) -> dict[str, Any]:
    """A condition as the schema's ConditionInput takes it."""
    kind = node["is"]
    match kind:
        case "all" | "any":
            return {kind: [condition_input(one) for one in node["of"]]}
        case "not":
            return {"not": condition_input(node["of"])}
        case "has":
            where = {"where": condition_input(node["where"])} if node.get("where") else {}
            return {"has": {"level": as_name(node["level"]), "atLeast": node.get("at_least", 1), **where}}
        case "followed":
            days = {camel(name): node[name] for name in ("at_least_days", "at_most_days") if node.get(name) is not None}
            return {"followed": {"baseline": condition_input(node["baseline"]), "followUp": condition_input(node["follow_up"]), **days}}
    return {"oneOf" if kind == "one-of" else kind: {camel(name): value for name, value in node.items() if name != "is"}}


def as_of_input(as_of: int | str | None) -> dict[str, Any] | None:
    """A position, or the end of a date or an instant."""
    if as_of is None:
        return None
    return {"instant": as_of} if isinstance(as_of, str) else {"position": as_of}
