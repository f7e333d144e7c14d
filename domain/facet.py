"""Facets of a site: DICOM elements that people count cohorts by, beyond those that everybody does. Each is kept as a column in memory."""

from __future__ import annotations

import msgspec

from domain.errors import DomainError
from domain.event import Event, event
from domain.ids import StreamName

FACETS_STREAM = StreamName("facets")
MAX_FACETS = 200
"""A column costs one to four bytes for each series."""


class FacetsExhausted(DomainError):
    """Raised when a site has as many facets as it may have: one is to be removed first."""


@event
class FacetAdded(Event, frozen=True, kw_only=True):
    """``element`` as it is named canonically: a keyword of PS3.6, or ``(0019,"creator",0A)``."""

    element: str


@event
class FacetRemoved(Event, frozen=True, kw_only=True):
    element: str


class Facets(msgspec.Struct, frozen=True):
    """In the order in which they were added."""

    elements: tuple[str, ...] = ()


def evolve(state: Facets, happened: Event) -> Facets:
    match happened:
        case FacetAdded():
            return Facets((*state.elements, happened.element))
        case FacetRemoved():
            return Facets(tuple(each for each in state.elements if each != happened.element))
    return state


def add_facet(state: Facets, element: str) -> list[Event]:
    """Nothing new where it is one already. Raises FacetsExhausted."""
    if element in state.elements:
        return []
    if len(state.elements) >= MAX_FACETS:
        raise FacetsExhausted(f"there are {MAX_FACETS} facets: remove one that nobody counts by")
    return [FacetAdded(element=element)]


def remove_facet(state: Facets, element: str) -> list[Event]:
    """Nothing new where it is none."""
    return [FacetRemoved(element=element)] if element in state.elements else []
