"""Conditions that a path or a right adds to what a search asks for: of these compartments, all of several, one of several, by type."""

from __future__ import annotations

from functools import cache

import msgspec

from projections.fhir.definitions import compartment, compartments
from projections.fhir.projection import SCHEMA
from projections.fhir.search.parameters import parameters
from server.fhir.conditions import Condition, Statement, of

ITSELF = "{def}"
"""In a CompartmentDefinition: the resource that the compartment is named for is in it."""


@cache
def compartment_sources(compartment: str, resource_type: str) -> frozenset[int]:
    """The sources of references by which a resource of a type is in a compartment (R5 compartmentdefinition.html)."""
    named = compartments()[compartment].parameters.get(resource_type, ())
    known = parameters(resource_type)
    looks = [look for name in named if name in known for look in known[name].looks]
    return frozenset(look.source.number for look in looks if look.target in (None, compartment))


class InCompartment(msgspec.Struct, frozen=True):
    """It is in the compartment of a resource (R5 compartmentdefinition.html). ``types``: those that are looked at."""

    compartment: str
    resource_id: str
    types: tuple[str, ...]

    def sql(self, version: str, statement: Statement) -> str:
        numbers = sorted({number for one in self.types for number in compartment_sources(self.compartment, one)})
        keys = []
        if numbers:
            target = statement.argument(f"{self.compartment}/{self.resource_id}")
            keys.append(f"SELECT s.key FROM {SCHEMA}.reference s WHERE s.target = {target} AND {of(numbers, 's')}")
        if self._holds_itself:
            kind, own_id = statement.argument(self.compartment), statement.argument(self.resource_id)
            keys.append(f"SELECT i.key FROM {SCHEMA}.resource i WHERE i.type = {kind} AND i.id = {own_id}")
        return f"{version}.key IN ({' UNION ALL '.join(keys)})" if keys else "FALSE"

    @property
    def _holds_itself(self) -> bool:
        found = compartment(self.compartment)
        return self.compartment in self.types and found is not None and ITSELF in found.parameters.get(self.compartment, ())


class All(msgspec.Struct, frozen=True):
    conditions: tuple[Condition, ...]

    def sql(self, version: str, statement: Statement) -> str:
        return f"({' AND '.join(one.sql(version, statement) for one in self.conditions) or 'TRUE'})"


class Any(msgspec.Struct, frozen=True):
    conditions: tuple[Condition, ...]

    def sql(self, version: str, statement: Statement) -> str:
        return f"({' OR '.join(one.sql(version, statement) for one in self.conditions) or 'FALSE'})"


class OfType(msgspec.Struct, frozen=True):
    """It is of one of these types, and for it the condition holds; None where there is none to hold."""

    types: tuple[str, ...]
    condition: Condition | None

    def sql(self, version: str, statement: Statement) -> str:
        kinds = f"{version}.type = ANY({statement.argument(list(self.types))}::text[])"
        return kinds if self.condition is None else f"({kinds} AND {self.condition.sql(version, statement)})"


class Clause:
    """A statement of another's making into which conditions are written: their arguments come after the ones that it has.

    ``position`` is what stands in it for the position, as of which other resources are looked at.
    """

    def __init__(self, arguments: list[object], position: str) -> None:
        self.arguments = arguments
        self._position = position
        self._aliases = 0

    def argument(self, value: object) -> str:
        self.arguments.append(value)
        return f"${len(self.arguments)}"

    def held(self, alias: str) -> str:
        return f"{alias}.position_from <= {self._position} AND ({alias}.position_to IS NULL OR {alias}.position_to > {self._position})"

    def alias(self) -> str:
        self._aliases += 1
        return f"w{self._aliases}"
