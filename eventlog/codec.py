"""Events to stored bytes and back: canonical JSON, in which the identifying fields are one sealed text.

Stored data are an object of the event's plain fields, and where the type has identifying fields also ``sealed``: the
base64 of a format byte, a nonce and the AES-256-GCM ciphertext of those fields' JSON (deflated first: headers shrink
to a fifth). The plaintext's key belongs to the event's ``subject_id``.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping
from decimal import Decimal
from typing import Any
from uuid import UUID

import msgspec

import domain.access
import domain.clinical_record
import domain.dataset
import domain.dataset_export
import domain.facet
import domain.intake
import domain.project
import domain.review
import domain.saved_cohort
import domain.series
import domain.signature
import domain.study
import domain.subject
import domain.tag  # noqa: F401  (importing the aggregates registers their event types)
from domain.event import EVENT_TYPES, Event, identifying_fields
from eventlog.errors import EventTooLarge, UnknownEventType
from eventlog.sealing import SubjectKey, open_sealed, seal
from eventlog.upcasters import UPCASTERS

MAX_DATA_BYTES = 64 * 1024 * 1024
"""A bound against a runaway event; what a decider makes stays below 2 MiB."""

_ENCODER = msgspec.json.Encoder(order="sorted", decimal_format="number")
_EXACT = msgspec.json.Decoder(float_hook=Decimal)
"""For types with ``EXACT_DECIMALS``."""
_PLAIN, _DEFLATED = b"\x01", b"\x02"


def subject_of(event: Event) -> str | None:
    """The subject under whose key this event's identifying fields are sealed; None when there are none."""
    return getattr(event, "subject_id", None) if identifying_fields(type(event)) else None


def encode(event: Event, event_id: UUID, key: SubjectKey | None) -> bytes:
    """The stored data of an event. ``key`` is that of ``subject_of(event)``. Raises EventTooLarge."""
    marked = identifying_fields(type(event))
    if not marked:
        data = _ENCODER.encode(event)
    else:
        assert key is not None, "an event with identifying fields needs its subject's key"
        tree: dict[str, Any] = msgspec.to_builtins(event, builtin_types=(Decimal,))
        identifying = {name: tree.pop(name) for name in marked}
        tree["sealed"] = _seal(_ENCODER.encode(identifying), type(event).__name__, event_id, key)
        data = _ENCODER.encode(tree)
    if len(data) > MAX_DATA_BYTES:
        raise EventTooLarge(f"{type(event).__name__} {event_id} takes {len(data)} bytes; at most {MAX_DATA_BYTES} fit")
    return data


def decode(
    type_name: str, schema_version: int, data: bytes, event_id: UUID, keys: Mapping[str, SubjectKey], position: int = 0
) -> Event:
    """The event that was stored. Without its subject's key, identifying fields are at their defaults.

    Raises UnknownEventType, SealBroken.
    """
    cls = EVENT_TYPES.get(type_name)
    if cls is None:
        raise UnknownEventType(type_name, schema_version, position)
    marked = identifying_fields(cls)
    if not marked and schema_version == cls.SCHEMA_VERSION:
        return msgspec.json.decode(data, type=cls)
    tree: dict[str, Any] = msgspec.json.decode(data)
    sealed = tree.pop("sealed", None)
    key = keys.get(tree.get("subject_id", ""))
    if sealed is not None and key is not None:
        opened = _open(sealed, type_name, event_id, key)
        tree.update(_EXACT.decode(opened) if cls.EXACT_DECIMALS else msgspec.json.decode(opened))
    upcast = UPCASTERS.upcast(type_name, schema_version, cls.SCHEMA_VERSION, tree)
    if upcast is None:
        raise UnknownEventType(type_name, schema_version, position)
    return msgspec.convert(upcast, type=cls)


def _seal(plaintext: bytes, type_name: str, event_id: UUID, key: SubjectKey) -> str:
    form, body = (_DEFLATED, zlib.compress(plaintext, 1)) if len(plaintext) > 200 else (_PLAIN, plaintext)
    return base64.b64encode(form + seal(body, key, _binding(type_name, event_id))).decode("ascii")


def _open(sealed: str, type_name: str, event_id: UUID, key: SubjectKey) -> bytes:
    raw = base64.b64decode(sealed)
    body = open_sealed(raw[1:], key, _binding(type_name, event_id))
    return zlib.decompress(body) if raw[:1] == _DEFLATED else body


def _binding(type_name: str, event_id: UUID) -> bytes:
    """Associated data: a sealed part moved into another event does not open."""
    return f"{type_name}|{event_id}".encode("ascii")
