"""What a resource is found by (R5 search parameters, and `body-structure` of our guide), as rows beside it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from functools import cache

import msgspec

from projections.fhir.vocabulary import Json

TokenRow = tuple[str, str, str, str, str, int]
"""type, param, code, system, id, version"""
ReferenceRow = tuple[str, str, str, str, int]
"""type, param, target (Type/id), id, version"""
DateRow = tuple[str, str, datetime, datetime, str, int]
"""type, param, low (inclusive), high (exclusive), id, version"""


MAX_CHARACTERS = 400
"""Longer codes are cut for matching: an index entry of PostgreSQL holds at most 2.7 kB."""


class SearchRows(msgspec.Struct):
    tokens: list[TokenRow]
    references: list[ReferenceRow]
    dates: list[DateRow]


# For each type: parameter → path of elements that hold what is searched.
TOKENS: dict[str, dict[str, str]] = {
    "Patient": {"identifier": "identifier", "gender": "gender"},
    "ImagingStudy": {"identifier": "identifier", "modality": "series.modality", "status": "status", "series": "series.uid"},
    "ImagingSelection": {"identifier": "identifier", "code": "code", "status": "status", "study-uid": "studyUid", "series-uid": "seriesUid"},
    "BodyStructure": {
        "identifier": "identifier",
        "included_structure": "includedStructure.structure",
        "structure-laterality": "includedStructure.laterality",
        "active": "active",
    },
    "Observation": {"identifier": "identifier", "code": "code", "component-code": "component.code", "status": "status"},
    "Device": {"identifier": "identifier", "type": "type"},
    "Provenance": {"activity": "activity", "agent-identifier": "agent.who.identifier"},
    "AuditEvent": {
        "action": "action",
        "agent": "agent.who.identifier",
        "category": "category",
        "code": "code",
        "outcome": "outcome.code",
    },
}
REFERENCES: dict[str, dict[str, str]] = {
    "ImagingStudy": {"patient": "subject", "subject": "subject", "body-structure": "series.bodySite.reference"},
    "ImagingSelection": {"patient": "subject", "subject": "subject", "derived-from": "derivedFrom"},
    "BodyStructure": {"patient": "patient"},
    "Observation": {
        "patient": "subject",
        "subject": "subject",
        "part-of": "partOf",
        "focus": "focus",
        "device": "device",
        "body-structure": "bodyStructure",
    },
    "Provenance": {"target": "target", "patient": "patient", "agent": "agent.who", "entity": "entity.what"},
    "AuditEvent": {"patient": "entity.what", "entity": "entity.what"},
}
DATES: dict[str, dict[str, str]] = {
    "ImagingStudy": {"started": "started"},
    "ImagingSelection": {"issued": "issued"},
    "Observation": {"date": "effectiveDateTime"},
    "Provenance": {"recorded": "recorded", "when": "occurredDateTime"},
    "AuditEvent": {"date": "recorded"},
}


def search_rows(body: Json, version: int) -> SearchRows:
    """The rows of one version of a resource."""
    kind, resource_id = body["resourceType"], body["id"]
    token_paths, reference_paths, date_paths = _paths_of(kind)
    tokens = {
        (kind, param, code.replace("\0", "")[:MAX_CHARACTERS], system, resource_id, version)
        for param, path in token_paths
        for value in _values(body, path)
        for system, code in _tokens(value)
    }
    references = {
        (kind, param, target, resource_id, version)
        for param, path in reference_paths
        for value in _values(body, path)
        if (target := _target(value)) is not None
    }
    dates = {
        (kind, param, *interval(str(value)), resource_id, version)
        for param, path in date_paths
        for value in _values(body, path)
    }
    return SearchRows(sorted(tokens), sorted(references), sorted(dates))


Paths = tuple[tuple[str, tuple[str, ...]], ...]
"""Search parameter and the names on its path."""


@cache
def _paths_of(kind: str) -> tuple[Paths, Paths, Paths]:
    """Of tokens, references and dates, taken apart once and not for each version."""
    tokens, references, dates = (
        tuple((param, tuple(path.split("."))) for param, path in table.get(kind, {}).items()) for table in (TOKENS, REFERENCES, DATES)
    )
    return tokens, references, dates


def _values(body: Json, path: Sequence[str]) -> list[object]:
    """The values at a path, through arrays."""
    found: list[object] = [body]
    for name in path:
        inner: list[object] = []
        for outer in found:
            if isinstance(outer, dict) and name in outer:
                value = outer[name]
                if isinstance(value, list):
                    inner += value
                else:
                    inner.append(value)
        found = inner
    return found


def interval(value: str) -> tuple[datetime, datetime]:
    """A FHIR date or dateTime as the interval that its precision covers (R5 search.html#date), in UTC."""
    if "T" in value:
        moment = datetime.fromisoformat(value.replace("Z", "+00:00"))
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        parts = value.split("T")[1].split("+")[0].split("-")[0].rstrip("Z")
        step = timedelta(microseconds=1) if "." in parts else timedelta(seconds=1) if parts.count(":") == 2 else timedelta(minutes=1)
        return moment, moment + step
    year, *rest = (int(part) for part in value.split("-"))
    if not rest:
        return _midnight(date(year, 1, 1)), _midnight(date(year + 1, 1, 1))
    if len(rest) == 1:
        following = date(year + rest[0] // 12, rest[0] % 12 + 1, 1)
        return _midnight(date(year, rest[0], 1)), _midnight(following)
    day = date(year, rest[0], rest[1])
    if day == date.max:
        return _midnight(day), datetime.max.replace(tzinfo=UTC)
    return _midnight(day), _midnight(day + timedelta(days=1))


def _midnight(day: date) -> datetime:
    return datetime(day.year, day.month, day.day, tzinfo=UTC)


def _tokens(value: object) -> Iterator[tuple[str, str]]:
    if isinstance(value, bool):
        yield "", "true" if value else "false"
    elif isinstance(value, str):
        yield "", value
    elif isinstance(value, dict):
        if "coding" in value:
            for coding in value["coding"]:
                yield coding.get("system", ""), coding.get("code", "")
        elif "concept" in value:
            yield from _tokens(value["concept"])
        else:
            yield str(value.get("system", "")), str(value.get("value", value.get("code", "")))


def _target(value: object) -> str | None:
    if not isinstance(value, dict) or "reference" not in value:
        return None
    return str(value["reference"]).partition("/_history/")[0]
