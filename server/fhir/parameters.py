"""Search parameters: those of each type, parsed into conditions. What is not known is an error, never ignored in silence."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import msgspec

from projections.fhir.search_rows import DATES, REFERENCES, TOKENS, interval
from server.fhir.outcome import FhirError

PREFIXES = ("eq", "ne", "gt", "lt", "ge", "le", "sa", "eb")
RESULT_PARAMETERS = ("_asof", "_count", "_format", "_pretty")
CHAINS = {"ImagingStudy": {"body-structure.included_structure": ("body-structure", "BodyStructure", "included_structure")}}
"""Chained parameters: name → (reference parameter, type of its target, token parameter there)."""


class Condition(msgspec.Struct, frozen=True, kw_only=True):
    """One parameter of a search. ``values`` are alternatives; several conditions must all hold."""

    kind: str
    """id, updated, token, reference, date or chain."""
    param: str
    values: tuple[tuple[str, ...], ...]


def supported(resource_type: str) -> dict[str, str]:
    """Parameter → its type in a CapabilityStatement."""
    return {
        "_id": "token",
        "_lastUpdated": "date",
        **dict.fromkeys(TOKENS.get(resource_type, {}), "token"),
        **dict.fromkeys(REFERENCES.get(resource_type, {}), "reference"),
        **dict.fromkeys(DATES.get(resource_type, {}), "date"),
        **dict.fromkeys(CHAINS.get(resource_type, {}), "token"),
    }


def parse(resource_type: str, given: Sequence[tuple[str, str]], *, lenient: bool) -> tuple[list[Condition], list[str]]:
    """Conditions, and the names that were left out because ``lenient`` handling was preferred. Raises FhirError (400)."""
    conditions: list[Condition] = []
    ignored: list[str] = []
    for name, value in given:
        if name in RESULT_PARAMETERS:
            continue
        if name not in supported(resource_type):
            if not lenient:
                names = ", ".join(sorted({*supported(resource_type), *RESULT_PARAMETERS}))
                raise FhirError(
                    400, "not-supported", f"{resource_type} has no search parameter {name}; there are {names}", f"http.{name}"
                )
            ignored.append(name)
            continue
        if "\0" in value:
            raise FhirError(400, "value", f"parameter {name} holds a NUL character", f"http.{name}")
        if not value:
            raise FhirError(400, "value", f"parameter {name} has no value", f"http.{name}")
        conditions.append(_condition(resource_type, name, value))
    return conditions, ignored


def _condition(resource_type: str, name: str, value: str) -> Condition:
    alternatives = _split(value)
    if name == "_id":
        return Condition(kind="id", param=name, values=tuple((one,) for one in alternatives))
    if name == "_lastUpdated":
        return Condition(kind="updated", param=name, values=tuple(_date(name, one) for one in alternatives))
    if name in TOKENS.get(resource_type, {}):
        return Condition(kind="token", param=name, values=tuple(_token(one) for one in alternatives))
    if name in DATES.get(resource_type, {}):
        return Condition(kind="date", param=name, values=tuple(_date(name, one) for one in alternatives))
    if name in CHAINS.get(resource_type, {}):
        return Condition(kind="chain", param=name, values=tuple(_token(one) for one in alternatives))
    return Condition(kind="reference", param=name, values=tuple((_reference(name, one),) for one in alternatives))


def _split(value: str) -> list[str]:
    """Alternatives are separated by commas; `\\,` is a comma, `\\|` a bar and `\\\\` a backslash (R5 search.html#escaping)."""
    parts, current, escaped = [], "", False
    for character in value:
        if escaped:
            current += character if character in ",\\$" else "\\" + character
            escaped = False
        elif character == "\\":
            escaped = True
        elif character == ",":
            parts.append(current)
            current = ""
        else:
            current += character
    return [*parts, current]


def _token(value: str) -> tuple[str, ...]:
    """(code,) or (system, code): `code`, `system|code`, `|code` (no system), `system|` (any code)."""
    system, bar, code = value.partition("|")
    return (system, code) if bar else (value,)


def _reference(name: str, value: str) -> str:
    if "/" in value:
        kind, resource_id = value.split("/_history/")[0].rstrip("/").split("/")[-2:]
        return f"{kind}/{resource_id}"
    if name in ("patient", "subject"):
        return f"Patient/{value}"
    kinds = {"derived-from": "ImagingStudy", "part-of": "ImagingStudy", "focus": "ImagingSelection", "device": "Device", "body-structure": "BodyStructure"}
    if name not in kinds:
        raise FhirError(400, "value", f"parameter {name} needs a type: write {name}=Type/{value}", f"http.{name}")
    return f"{kinds[name]}/{value}"


def _date(name: str, value: str) -> tuple[str, ...]:
    """(prefix, low, high) with the ends in ISO 8601."""
    prefix, text = (value[:2], value[2:]) if value[:2] in PREFIXES else ("eq", value)
    try:
        low, high = interval(text.replace(" ", "+"))
    except (ValueError, OverflowError):
        raise FhirError(400, "value", f"{name}: {text!r} is no date (YYYY, YYYY-MM, YYYY-MM-DD or with a time)", f"http.{name}") from None
    return prefix, low.isoformat(), high.isoformat()


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)
