"""What every event type has in common: its registration, its schema version, and the mark on fields that identify a person.

A field marked ``Identifying`` is sealed by the log under the key of the event's ``subject_id`` and reads as its default
once that key is destroyed; so every such field has a default, and every event type with one has a ``subject_id``.
"""

from __future__ import annotations

import typing
from typing import Annotated, Any, TypeVar

import msgspec

from domain.errors import EventTypeError

T = TypeVar("T")
IDENTIFYING = msgspec.Meta(extra={"identifying": True})
Identifying = Annotated[T, IDENTIFYING]


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """The base of all events. A stored event's meaning never changes: a changed shape is a new ``SCHEMA_VERSION``."""

    SCHEMA_VERSION: typing.ClassVar[int] = 1
    EXACT_DECIMALS: typing.ClassVar[bool] = False
    """Numbers with a point in sealed fields read as Decimal: 1.50 says more of a measurement than 1.5 (R5 datatypes.html#decimal)."""

    def scope(self) -> frozenset[str]:
        """What this event is about, as tags (``study:1.2.3``, ``series:…``, ``subject:…``, ``dataset:…``).

        The digest commits to each of them, so that an auditor who sees only what is about one study can be shown that
        nothing else in the log is about it. An event about more than its own fields name adds to them.
        """
        found = ((kind, getattr(self, name)) for name, kind in _SCOPE_FIELDS[type(self)])
        return frozenset(f"{kind}:{value}" for kind, value in found if value)


EVENT_TYPES: dict[str, type[Event]] = {}
"""Every event type that the running code knows, by its name."""

_IDENTIFYING_FIELDS: dict[type[Event], frozenset[str]] = {}
_SCOPE_FIELDS: dict[type[Event], tuple[tuple[str, str], ...]] = {}
_SCOPE_ENDINGS = {"study_uid": "study", "series_uid": "series", "subject_id": "subject", "dataset_id": "dataset"}

E = TypeVar("E", bound=type[Event])


def event(cls: E) -> E:
    """Registers an event type. Raises EventTypeError where a mark could not be honoured."""
    fields = _marked_fields(cls)
    names = {f.name for f in msgspec.structs.fields(cls)}
    if fields and "subject_id" not in names:
        raise EventTypeError(f"{cls.__name__} marks {sorted(fields)} as identifying but has no subject_id")
    for field in msgspec.structs.fields(cls):
        without_default = field.default is msgspec.NODEFAULT and field.default_factory is msgspec.NODEFAULT
        if field.name in fields and without_default:
            raise EventTypeError(f"{cls.__name__}.{field.name} is identifying and needs a default for after erasure")
    EVENT_TYPES[cls.__name__] = cls
    _IDENTIFYING_FIELDS[cls] = fields
    _SCOPE_FIELDS[cls] = tuple(
        (name, kind) for name in sorted(names) for ending, kind in _SCOPE_ENDINGS.items() if name.endswith(ending)
    )
    return cls


def identifying_fields(cls: type[Event]) -> frozenset[str]:
    """Names of the top-level fields of this event type that identify a person."""
    return _IDENTIFYING_FIELDS[cls]


def _marked_fields(cls: type[Event]) -> frozenset[str]:
    hints: dict[str, Any] = typing.get_type_hints(cls, include_extras=True)
    return frozenset(name for name, hint in hints.items() if IDENTIFYING in getattr(hint, "__metadata__", ()))
