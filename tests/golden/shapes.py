"""The shape of an event type, by which a test tells that it changed. The code of any release can run this."""

from __future__ import annotations

from typing import Any

import msgspec

from domain.event import Event, identifying_fields


def schema_of(event_type: type[Event]) -> dict[str, Any]:
    """The shape of an event as stored, without the words that describe it, and which of its fields are sealed."""
    shape = msgspec.json.decode(msgspec.json.encode(_without_words(msgspec.json.schema(event_type))))  # as it reads from a file
    return {"version": event_type.SCHEMA_VERSION, "sealed": sorted(identifying_fields(event_type)), "shape": shape}


def _without_words(schema: Any) -> Any:
    if isinstance(schema, dict):
        return {key: _without_words(value) for key, value in schema.items() if not (key == "description" and isinstance(value, str))}
    if isinstance(schema, list):
        return [_without_words(value) for value in schema]
    return schema
