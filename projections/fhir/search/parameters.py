"""The search parameters of each type, R5's and our guide's, and the sources that they look into.

Parameters that lead to the same elements share a source, and so its rows: `patient` is `subject` of one type of target, `combo-code`
is `code` and `component-code`. A source is known in the tables by a number that is derived from what it is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from types import MappingProxyType

import msgspec

from projections.fhir import guide
from projections.fhir.definitions import Element, SearchParameter, elements_by_path, search_parameters
from projections.fhir.fhirpath import Branch, compiled, compiled_from

TABLES = {
    "token": "token",
    "reference": "reference",
    "date": "date",
    "string": "string",
    "uri": "uri",
    "number": "quantity",
    "quantity": "quantity",
}
"""Type of a search parameter → table of its rows."""
TYPES_FOUND = {
    "token": frozenset(
        {
            "Coding", "CodeableConcept", "CodeableReference", "Identifier", "ContactPoint",
            "boolean", "code", "string", "id", "uri", "url", "canonical", "oid", "uuid",
        }
    ),
    "reference": frozenset({"Reference", "CodeableReference", "canonical", "uri", "url", "oid", "uuid", "Composition", "MessageHeader"}),
    "date": frozenset({"date", "dateTime", "instant", "Period", "Timing"}),
    "string": frozenset({"string", "markdown", "code", "HumanName", "Address"}),
    "uri": frozenset({"uri", "url", "canonical", "oid", "uuid"}),
    "number": frozenset({"decimal", "integer", "positiveInt", "unsignedInt"}),
    "quantity": frozenset({"Quantity", "Age", "Duration", "Distance", "Count", "Money", "Range", "SampledData"}),
}  # fmt: skip
"""Type of a search parameter → types of values that it compares (R5 search.html, the table of each type)."""
LEFT_OUT = frozenset({"_in", "_list", "_text", "_content", "_filter", "_query", "_type", "_has"})
"""Of Resource: no element is behind them. `_has` has a syntax of its own."""
AUDIT_PATIENT = "AuditEvent.patient | AuditEvent.entity.what.where(resolve() is Patient)"
"""An access to several patients has no one patient (R5 AuditEvent.patient is 0..1), and yet is found by each of them."""
AUDIT_AGENT = "AuditEvent.agent.who.identifier"
"""Who looked is a principal, which is no resource that a reference could point to: R5 has a reference here."""


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """Where values come from: elements of one type of resource, as one type of parameter sees them."""

    number: int
    kind: str
    """Type of the search parameter, as of TABLES."""
    branch: Branch
    """From the resource; of a part of a composite, from what ``container`` gives."""
    container: Branch | None = None
    """The parts of a composite belong together where they are of the same one of these."""


class Look(msgspec.Struct, frozen=True):
    """A source as a parameter looks into it."""

    source: Source
    target: str | None = None
    """References to this type alone count."""


class Part(msgspec.Struct, frozen=True):
    """A component of a composite, over the containers that its looks have."""

    kind: str
    looks: tuple[Look, ...]


class Parameter(msgspec.Struct, frozen=True, kw_only=True):
    code: str
    type: str
    url: str
    looks: tuple[Look, ...] = ()
    parts: tuple[Part, ...] = ()
    targets: tuple[str, ...] = ()
    """Types that a reference may point to; empty is any."""


@cache
def parameters(resource_type: str) -> Mapping[str, Parameter]:
    """By code: those that can be searched by. `_id` and `_lastUpdated` have no looks: columns of the version itself."""
    return MappingProxyType(_made(resource_type)[0])


@cache
def sources(resource_type: str) -> tuple[Source, ...]:
    """What the rows of a resource of this type are made from."""
    return _made(resource_type)[1]


def added(resource_type: str, defined: SearchParameter) -> tuple[Parameter | None, tuple[Source, ...]]:
    """A parameter beside those of a type, or None where it leads to nothing that its type compares, and the sources that no other has.

    They depend on the definition alone, and not on what else was added. Raises UnsupportedExpression and what a strange one makes fail.
    """
    maker = _Maker(resource_type, beside=_made(resource_type)[2])
    return maker.parameter(defined), tuple(maker.sources.values())


def is_single(resource_type: str, parameter: Parameter) -> bool:
    """Whether no resource has several values that this parameter looks at: they are of one element, on top, that comes once."""
    return _are_of_one(resource_type, tuple(look.source.branch.path for look in parameter.looks))


@cache
def _are_of_one(resource_type: str, paths: tuple[str, ...]) -> bool:
    found = set()
    for path in paths:
        element = next((one for one in _elements_on_top(resource_type) if path in one.json_names), None)
        if element is None or element.is_repeated:
            return False
        found.add(element.path)
    return len(found) == 1


@cache
def _elements_on_top(resource_type: str) -> tuple[Element, ...]:
    return tuple(one for one in elements_by_path(resource_type).values() if one.path.count(".") == 1)


@cache
def _made(resource_type: str) -> tuple[dict[str, Parameter], tuple[Source, ...], _Maker]:
    defined = {**search_parameters(resource_type), **_own(resource_type)}
    maker = _Maker(resource_type)
    # Composites come first: a plain parameter then shares the rows of their parts.
    ordered = sorted(defined.values(), key=lambda one: (one.type != "composite", one.code))
    made = {one.code: found for one in ordered if (found := maker.parameter(one)) is not None}
    return dict(sorted(made.items())), tuple(maker.sources.values()), maker


def _own(resource_type: str) -> dict[str, SearchParameter]:
    own = {one.code: one for one in guide.search_parameters() if resource_type in one.base}
    if resource_type == "AuditEvent":
        defined = search_parameters(resource_type)
        own["patient"] = msgspec.structs.replace(defined["patient"], expression=AUDIT_PATIENT)
        own["agent"] = msgspec.structs.replace(defined["agent"], type="token", expression=AUDIT_AGENT, targets=())
    return own


class _Maker:
    def __init__(self, resource_type: str, beside: _Maker | None = None) -> None:
        """``beside``: what it has made is shared, and not made again."""
        self._type = resource_type
        self._compiled = compiled if beside is None else compiled.__wrapped__  # what a client writes would fill the cache
        self._known = beside.sources if beside is not None else {}
        self.sources: dict[tuple[str, str, str], Source] = {}
        self._shared: dict[tuple[str, str], Source] = dict(beside._shared) if beside is not None else {}
        """Kind and whole path → the source that is made for it, with or without a container."""

    def parameter(self, defined: SearchParameter) -> Parameter | None:
        if defined.code in LEFT_OUT or defined.type == "special" or defined.expression is None:
            return None
        if defined.code in ("_id", "_lastUpdated"):
            return Parameter(code=defined.code, type=defined.type, url=defined.url)
        branches = self._compiled(defined.expression, self._type)
        if defined.type == "composite":
            parts = self._parts(defined, branches)
            return Parameter(code=defined.code, type="composite", url=defined.url, parts=parts) if parts else None
        looks = tuple(
            Look(self._source(defined.type, branch), branch.target) for branch in branches if branch.type in TYPES_FOUND[defined.type]
        )
        if not looks:
            return None
        return Parameter(code=defined.code, type=defined.type, url=defined.url, looks=looks, targets=defined.targets)

    def _parts(self, defined: SearchParameter, containers: tuple[Branch, ...]) -> tuple[Part, ...]:
        """None of them, where R5 names a part that its containers do not have."""
        parts = []
        for component in defined.components:
            looks = tuple(
                Look(self._source(component.type, branch, container), branch.target)
                for container in containers
                for branch in compiled_from(component.expression, container)
                if branch.type in TYPES_FOUND.get(component.type, ())
            )
            if not looks:
                return ()
            parts.append(Part(component.type, looks))
        return tuple(parts)

    def _source(self, kind: str, branch: Branch, container: Branch | None = None) -> Source:
        if container is not None and not container.steps:
            container = None  # the resource itself: there is just one
        whole = f"{container.path}.{branch.path}" if container is not None else branch.path
        shared = self._shared.get((kind, whole))
        if shared is not None and (container is None or shared.container == container):
            return shared
        within = container.path if container is not None else ""
        key = (kind, within, branch.path)
        if key in self._known:
            return self._known[key]
        if key not in self.sources:
            number = number_of(self._type, *key, branch.type)
            self.sources[key] = Source(number=number, kind=kind, branch=branch, container=container)
            self._shared.setdefault((kind, whole), self.sources[key])
        return self.sources[key]


def number_of(resource_type: str, kind: str, container: str, path: str, value_type: str) -> int:
    """A 32-bit integer; that no two sources of R5 have the same is tested."""
    said = "\n".join((resource_type, kind, container, path, value_type))
    return int.from_bytes(hashlib.sha256(said.encode()).digest()[:4], "big", signed=True)
