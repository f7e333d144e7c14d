"""What the events of a stream add up to: for each kind of stream its parts, each with its first state and its evolve.

A part's name and the fields in it are what a timeline calls a change's path. ``identifying`` are fields that hold a person's
identity. A new aggregate is a new line here; a stream that has none adds up to nothing, and its events speak for themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from domain import clinical_record, review, series, signature, study, subject
from domain.event import Event


class Part(msgspec.Struct, frozen=True):
    name: str
    initial: Any
    evolve: Callable[[Any, Event], Any]
    identifying: frozenset[str] = frozenset()


SIGNATURES = Part("signatures", signature.Signatures(), signature.evolve_signatures)

PARTS: Mapping[str, tuple[Part, ...]] = {
    "series-": (
        Part("series", series.Series(), series.evolve),
        Part("findings", review.SeriesFindings(), review.evolve),
        SIGNATURES,
    ),
    "study-": (Part("study", study.Study(), study.evolve), SIGNATURES),
    "subject-": (Part("subject", subject.Subject(), subject.evolve, frozenset({"seen", "resource"})), SIGNATURES),
    "record-": (
        Part("record", clinical_record.ClinicalRecord(), clinical_record.evolve, frozenset({"resource"})),
        SIGNATURES,
    ),
    "signer-": (Part("signer", signature.Signer(), signature.evolve_signer),),
}
"""Prefix of a stream's name → its parts."""


class Folded:
    """The state of one stream, event by event."""

    def __init__(self, stream: str) -> None:
        self.parts = next((parts for prefix, parts in PARTS.items() if stream.startswith(prefix)), ())
        self._states = [part.initial for part in self.parts]

    def evolve(self, event: Event) -> None:
        self._states = [part.evolve(state, event) for part, state in zip(self.parts, self._states, strict=True)]

    def plain(self) -> dict[str, Any]:
        """The state as mappings, lists and scalars: part → field → value."""
        named = zip(self.parts, self._states, strict=True)
        return {part.name: msgspec.to_builtins(state, enc_hook=dict) for part, state in named}  # a mappingproxy is the one thing it lacks

    def identifies(self, path: str) -> bool:
        """Whether what is at this path (``part.field…``) identifies a person."""
        part_name, _, rest = path.partition(".")
        fields = next((part.identifying for part in self.parts if part.name == part_name), frozenset())
        return rest.split(".")[0] in fields
