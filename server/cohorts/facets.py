"""Facets of a site: elements that somebody wants to count by beyond those that everybody does."""

from __future__ import annotations

from domain import facet
from domain.condition import Level
from domain.facet import FACETS_STREAM, Facets
from domain.ids import Position
from domain.principal import Principal
from eventlog.aggregate import execute, load
from eventlog.log import EventLog
from projections.cohort.errors import FieldRefused
from projections.cohort.fields import field_named


def canonical(name: str) -> str:
    """How an element is named in the log. Raises FieldUnknown, FieldRefused for what is no element."""
    field = field_named(name, Level.SERIES)
    if not field.key:
        raise FieldRefused(f"{field.name} is a field of ours: it is kept in memory already")
    return field.name


async def added(log: EventLog) -> tuple[str, ...]:
    state, _ = await load(log, FACETS_STREAM, Facets(), facet.evolve)
    return state.elements


async def add(log: EventLog, name: str, principal: Principal) -> Position | None:
    """Where it was added; None where it is a facet of this site already. Raises FieldUnknown, FieldRefused, FacetsExhausted."""
    element = canonical(name)
    done = await execute(log, FACETS_STREAM, Facets(), facet.evolve, lambda state: facet.add_facet(state, element), principal=principal)
    return done.position


async def remove(log: EventLog, name: str, principal: Principal) -> Position | None:
    """Where it was removed; None where it is none. Raises FieldUnknown, FieldRefused."""
    element = canonical(name)
    done = await execute(log, FACETS_STREAM, Facets(), facet.evolve, lambda state: facet.remove_facet(state, element), principal=principal)
    return done.position
