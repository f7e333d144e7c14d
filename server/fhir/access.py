"""What of FHIR is within the reach of who asks: the scopes of a token as conditions of a search (SMART App Launch 2.2,
scopes-and-launch-context.html).

How a route uses it. Who asks is a principal; ``access_of(reader)`` gives its :class:`Access`, and the letters are those of SMART:
`c` create, `r` read, vread and history of one resource, `u` update and patch, `d` delete, `s` search, and history of types. Then

* ``access.require("r", resource_type)`` refuses (403) who may not do that with any resource of the type, and ``access.types("s")``
  are the types of which it may be done with some;
* ``access.condition("s", resource_type)`` is what a resource has to fulfil beside: None where any will do, so that nothing is added to
  the statements of a token without SMART scopes. A search takes it among its conditions (``Statement(type, [*asked, condition], …)``),
  and ``access.seen_by(asked)`` holds its chains and `_has` to what may be searched;
* ``access.reach("r", types)`` is the same of several types: a condition to be written into a statement by ``Clause``, or None;
* ``reached(pool, access, "r", keys, types, position)`` are those of some versions (by their keys) that are within reach.

A version is judged by what it says itself, and what is out of reach is answered as what is not there: 404, whether it exists or not.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from functools import lru_cache

import asyncpg
import msgspec

from projections.fhir.definitions import compartment, search_parameters
from projections.fhir.projection import SCHEMA, TYPES
from server.auth.principals import Authenticated
from server.auth.smart_scopes import ANY, PATIENT, SmartScope
from server.auth.tokens import granted
from server.errors import ScopeMissing, ScopeUnusable, SettingRefused
from server.fhir.conditions import Chained, Condition, Never, ReferredBy
from server.fhir.outcome import FhirError
from server.fhir.parameters import condition as parsed_condition
from server.fhir.within import All, Any, Clause, InCompartment, OfType

AUDIT_EVENT = "AuditEvent"
AUDIT_SCOPE = "audit:read"
"""AuditEvents are read with this one beside, whatever other scope names them."""
INTERACTIONS = "cruds"
_PLAIN = {"c": "fhir:write", "r": "fhir:read", "u": "fhir:write", "d": "fhir:write", "s": "fhir:read"}
"""Interaction → the scope of our own that permits it with every resource."""
_ANY_TYPE = "Basic"
"""A constraint of all types is of what every resource has; this type has nothing else that could be meant."""

Group = tuple[tuple[str, ...], Condition | None]
"""Types, and what a resource of one of them has to fulfil."""


class Access:
    """Made once for the scopes that a token has; raises ScopeUnusable (403) where one of them cannot be held to."""

    def __init__(self, scopes: frozenset[str], smart: tuple[SmartScope, ...], patient: str | None) -> None:
        self._plain = frozenset(one for one in INTERACTIONS if "admin" in scopes or _PLAIN[one] in scopes)
        self._audit = "admin" in scopes or AUDIT_SCOPE in scopes
        self._smart = smart
        self._patient = patient
        self._conditions: dict[tuple[str, str], Condition | None] = {}
        for one in smart:
            if one.level == PATIENT and patient is None:
                raise ScopeUnusable(one.name, "it is about one patient, and the token names none")
            check_constraint(one)
        said = repr((sorted(self._plain), self._audit, sorted(smart, key=repr), patient)).encode()
        self.name = hashlib.sha256(said).hexdigest()[:32] if smart else ""
        """The same for all who may do the same; empty where there is no scope of SMART."""

    def may(self, interaction: str, resource_type: str) -> bool:
        """With some resource of the type."""
        if resource_type == AUDIT_EVENT and interaction in "rs" and not self._audit:
            return False
        return interaction in self._plain or bool(self._covering(interaction, resource_type))

    def require(self, interaction: str, resource_type: str) -> None:
        """Raises ScopeMissing, which names a scope that would do."""
        if self.may(interaction, resource_type):
            return
        if resource_type == AUDIT_EVENT and interaction in "rs" and not self._audit:
            raise ScopeMissing(AUDIT_SCOPE)
        if not self._smart:
            raise ScopeMissing(_PLAIN[interaction])
        raise ScopeMissing(f"{self._smart[0].level}/{resource_type}.{interaction}")

    def types(self, interaction: str) -> tuple[str, ...]:
        """The types of which it may be done with some resource."""
        return tuple(one for one in TYPES if self.may(interaction, one))

    def condition(self, interaction: str, resource_type: str) -> Condition | None:
        """What a resource of the type has to fulfil; None where any will do."""
        if not self.may(interaction, resource_type):
            return Never()
        if interaction in self._plain:
            return None
        key = interaction, resource_type
        if key not in self._conditions:
            self._conditions[key] = self._of(self._covering(*key), resource_type)
        return self._conditions[key]

    def reach(self, interaction: str, types: Iterable[str]) -> Condition | None:
        """The same of resources of several types, of which there are no others where it is written."""
        wanted = tuple(types)
        groups = self.groups(interaction, wanted)
        if groups == [(wanted, None)] or not wanted:
            return None
        return Any(tuple(OfType(*group) for group in groups))

    def groups(self, interaction: str, types: Sequence[str]) -> list[Group]:
        """These types, as far as it may be done with some resource of them, by what such a resource has to fulfil."""
        if interaction in self._plain:
            free = tuple(one for one in types if self.may(interaction, one))
            return [(free, None)] if free else []
        whole: list[str] = []
        of_patient: list[str] = []
        others: list[Group] = []
        for one in types:
            if not self.may(interaction, one):
                continue
            found = self.condition(interaction, one)
            if found is None:
                whole.append(one)
            elif isinstance(found, InCompartment):
                of_patient.append(one)
            else:
                others.append(((one,), found))
        made: list[Group] = [(tuple(whole), None)] if whole else []
        if of_patient:
            assert self._patient is not None
            made.append((tuple(of_patient), InCompartment("Patient", self._patient, tuple(of_patient))))
        return made + others

    def seen_by(self, asked: Condition) -> Condition:
        """The same condition, of whose chains and `_has` each link leads only to what may be searched. Raises ScopeMissing where that is
        no type at all."""
        match asked:
            case Chained(alternatives=ways):
                open_ways = [way for way in ways if self.may("s", way[0])]
                if not open_ways:
                    self.require("s", ways[0][0])
                return msgspec.structs.replace(asked, alternatives=tuple((kind, self._inner(kind, inner)) for kind, inner in open_ways))
            case ReferredBy(other_type=kind, inner=inner):
                self.require("s", kind)
                return msgspec.structs.replace(asked, inner=self._inner(kind, inner))
        return asked

    def _inner(self, resource_type: str, asked: Condition) -> Condition:
        seen, own = self.seen_by(asked), self.condition("s", resource_type)
        return seen if own is None else All((seen, own))

    def _covering(self, interaction: str, resource_type: str) -> list[SmartScope]:
        found = compartment("Patient")
        assert found is not None
        return [
            one
            for one in self._smart
            if one.covers(interaction, resource_type) and (one.level != PATIENT or resource_type in found.parameters)
        ]

    def _of(self, scopes: Sequence[SmartScope], resource_type: str) -> Condition | None:
        ways = [self._of_one(one, resource_type) for one in scopes]
        if any(not way for way in ways):
            return None
        made = [way[0] if len(way) == 1 else All(tuple(way)) for way in ways]
        return made[0] if len(made) == 1 else Any(tuple(made))

    def _of_one(self, scope: SmartScope, resource_type: str) -> list[Condition]:
        conditions = [parsed_condition(resource_type, name, value) for name, value in scope.constraint]
        if scope.level != PATIENT:
            return conditions
        assert self._patient is not None
        return [InCompartment("Patient", self._patient, (resource_type,)), *conditions]


def access_of(asker: Authenticated) -> Access:
    """Raises ScopeUnusable."""
    return _access(asker.scopes, asker.smart, asker.patient)


def may_see_what(asker: Authenticated, other: Authenticated) -> bool:
    """Whether all that somebody else was answered may be shown to who asks: one principal may come with several tokens, each with its
    own scopes."""
    plain = "admin" in asker.scopes or other.scopes <= asker.scopes
    return plain and set(other.smart) <= set(asker.smart) and (other.patient == asker.patient or all(one.level != PATIENT for one in other.smart))


@lru_cache(maxsize=1000)
def _access(scopes: frozenset[str], smart: tuple[SmartScope, ...], patient: str | None) -> Access:
    return Access(scopes, smart, patient)


def check_constraint(scope: SmartScope) -> None:
    """Raises ScopeUnusable where its search parameters are not those of its type: none is ever ignored."""
    if not scope.constraint:
        return
    if any(name.partition(":")[0] == "_lastUpdated" for name, _ in scope.constraint) and set(scope.interactions) & set("cud"):
        raise ScopeUnusable(scope.name, "what is written is always of now, so _lastUpdated limits reading alone")
    common = search_parameters(_ANY_TYPE).keys() & search_parameters("Binary").keys()
    for name, value in scope.constraint:
        if scope.resource_type == ANY and name.partition(":")[0] not in common:
            raise ScopeUnusable(scope.name, f"not every type has a search parameter {name}")
        try:
            parsed_condition(_ANY_TYPE if scope.resource_type == ANY else scope.resource_type, name, value)
        except FhirError:  # its words would repeat the value
            raise ScopeUnusable(scope.name, f"{scope.resource_type} cannot be searched by {name} in this way") from None


def check_usable(scopes: Iterable[str]) -> None:
    """Raises SettingRefused where the constraint of a scope could not be held to. Words that are no scope of SMART are left aside."""
    for one in granted(scopes)[1]:
        try:
            check_constraint(one)
        except ScopeUnusable as error:
            raise SettingRefused(str(error)) from None


async def reached(
    pool: asyncpg.Pool, access: Access, interaction: str, keys: Sequence[int], types: Iterable[str], position: int
) -> set[int]:
    """Those of these versions, by their keys, that are within reach. ``types`` are those of the versions."""
    reach = access.reach(interaction, sorted(set(types)))
    if reach is None or not keys:
        return set(keys)
    clause = Clause([list(keys), position], "$2")
    # By LATERAL: looked up by index, however many there are.
    rows = await pool.fetch(
        f"SELECT r.key FROM unnest($1::bigint[]) AS k (key) CROSS JOIN LATERAL (SELECT r.key FROM {SCHEMA}.resource r"
        f" WHERE r.key = k.key AND $2::bigint IS NOT NULL AND {reach.sql('r', clause)} OFFSET 0) r",
        *clause.arguments,
    )
    return {row["key"] for row in rows}
