"""What is kept of R5's definitions: names as in StructureDefinition, SearchParameter and the other conformance resources."""

from __future__ import annotations

from typing import Any

import msgspec


class Constraint(msgspec.Struct, frozen=True, omit_defaults=True):
    """An invariant (ElementDefinition.constraint)."""

    key: str
    severity: str
    """error or warning."""
    human: str
    expression: str
    """FHIRPath, from the element that has the constraint; empty where R5 gives none."""


class ElementType(msgspec.Struct, frozen=True, omit_defaults=True):
    """One of the types that an element may have (ElementDefinition.type)."""

    code: str
    """Name of the type; of the value of a primitive, and of `id` and `url`, the FHIR type that it stands for."""
    targets: tuple[str, ...] = ()
    """Types that a reference or canonical may point to, by name; empty is any."""
    profiles: tuple[str, ...] = ()
    """Canonicals of profiles that a value must meet: SimpleQuantity, MoneyQuantity, …"""
    regex: str | None = None
    """Of the value of a primitive; to be matched as a whole."""


class Element(msgspec.Struct, frozen=True, omit_defaults=True):
    """An element of a type's snapshot."""

    path: str
    """As in the snapshot: ``Observation.value[x]``."""
    min: int = 0
    max: str = "1"
    """A number or ``*``."""
    types: tuple[ElementType, ...] = ()
    binding_strength: str | None = None
    """required, extensible, preferred or example."""
    value_set: str | None = None
    """Canonical, with its version as R5 writes it."""
    constraints: tuple[Constraint, ...] = ()
    is_summary: bool = False
    is_modifier: bool = False
    content_reference: str | None = None
    """Path of the element whose children this one has: ``Bundle.link``."""
    fixed: dict[str, Any] | None = None
    """``{"fixedCode": …}``, as in the snapshot."""
    pattern: dict[str, Any] | None = None
    max_length: int | None = None

    @property
    def is_repeated(self) -> bool:
        return self.max not in ("0", "1")

    @property
    def name(self) -> str:
        return self.path.rpartition(".")[2]

    @property
    def json_names(self) -> tuple[str, ...]:
        """Of its values: several, where it may be of several types."""
        if not self.is_choice:
            return (self.name,)
        return tuple(f"{self.name.removesuffix('[x]')}{one.code[:1].upper()}{one.code[1:]}" for one in self.types)

    @property
    def is_choice(self) -> bool:
        return self.path.endswith("[x]")


class TypeDefinition(msgspec.Struct, frozen=True, omit_defaults=True):
    """A resource, data type or primitive (StructureDefinition, derivation specialization)."""

    name: str
    kind: str
    """resource, complex-type or primitive-type."""
    url: str
    elements: tuple[Element, ...]
    ancestors: tuple[str, ...] = ()
    """Nearest first: of Patient, DomainResource and Resource."""
    is_abstract: bool = False


class ParameterComponent(msgspec.Struct, frozen=True):
    """A part of a composite search parameter."""

    definition: str
    """URL of the search parameter that says how to compare; some of them R5 names but does not publish."""
    type: str
    """Its type, as of a search parameter."""
    expression: str
    """From what the composite's own expression gives."""


class SearchParameter(msgspec.Struct, frozen=True, omit_defaults=True):
    code: str
    type: str
    """number, date, string, token, reference, composite, quantity, uri or special."""
    url: str
    base: tuple[str, ...]
    expression: str | None = None
    """FHIRPath; a union over all of ``base``, of which a resource answers the parts of its own type."""
    targets: tuple[str, ...] = ()
    components: tuple[ParameterComponent, ...] = ()
    comparators: tuple[str, ...] = ()
    modifiers: tuple[str, ...] = ()
    """Only where R5 restricts them; otherwise those of the parameter's type."""
    processing_mode: str = "normal"
    """normal, phonetic or other."""


class ValueSetCodes(msgspec.Struct, frozen=True):
    """The codes of a value set by their system."""

    codes: dict[str, frozenset[str]]

    def holds(self, code: str, system: str | None = None) -> bool:
        """Whether the code is there: in the given system, or in any where none is given (a `code` has none)."""
        if system is None:
            return any(code in codes for codes in self.codes.values())
        return code in self.codes.get(system, ())


class Compartment(msgspec.Struct, frozen=True):
    code: str
    url: str
    parameters: dict[str, tuple[str, ...]]
    """Resource type → the search parameters by which it is in the compartment; ``{def}`` is the resource itself."""


class OperationParameter(msgspec.Struct, frozen=True, omit_defaults=True):
    name: str
    use: str
    """in or out."""
    min: int
    max: str
    type: str | None = None
    search_type: str | None = None
    targets: tuple[str, ...] = ()
    scopes: tuple[str, ...] = ()
    """Where it may be given: system, type, instance; empty is wherever the operation may be called."""
    parts: tuple[OperationParameter, ...] = ()


class Operation(msgspec.Struct, frozen=True, omit_defaults=True):
    code: str
    url: str
    kind: str
    """operation or query."""
    affects_state: bool
    resources: tuple[str, ...] = ()
    on_system: bool = False
    on_type: bool = False
    on_instance: bool = False
    parameters: tuple[OperationParameter, ...] = ()
