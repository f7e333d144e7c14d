"""R5's definitions as the walk wants them: of each type, and of each element with children of its own, which JSON properties it may have.

A shape is named as its type (`Observation`, `Period`) or by its path (`Observation.component`).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from projections.fhir.definitions import Constraint, Element, ElementType, elements_by_path, type_definition
from server.fhir.validation.issues import identifier

_NO_CHILDREN_OF_THEIR_OWN = frozenset({"BackboneElement", "Element"})
_WALKED = frozenset({"ele-1", "ext-1", "dom-2", "dom-3", "dom-4", "dom-5", "ref-1"})
"""Invariants that the walk itself decides."""


class Property:
    """One JSON property: an element, or an element by one of its types (`valueQuantity`)."""

    __slots__ = ("element", "element_name", "is_primitive", "is_resource", "name", "repeats", "shape_name", "step", "use")

    def __init__(self, name: str, step: str, element: Element, use: ElementType | None, shape_name: str) -> None:
        self.name = name
        self.step = step
        """Its name in FHIRPath: ``value.ofType(Quantity)``."""
        self.element_name = element.path.rpartition(".")[2].removesuffix("[x]")
        self.element = element
        self.use = use
        self.repeats = element.is_repeated
        self.shape_name = shape_name
        kind = "" if "." in shape_name else type_definition(shape_name).kind
        self.is_primitive = kind == "primitive-type"
        self.is_resource = kind == "resource"


class Shape:
    """What an object may hold."""

    def __init__(
        self, name: str, kind: str, properties: Mapping[str, Property], elements: Mapping[str, Element], constraints: tuple[Constraint, ...]
    ) -> None:
        self.name = name
        self.kind = kind
        self.properties = properties
        self.elements = elements
        """By name, without ``[x]``."""
        self.by_element: dict[str, list[Property]] = {}
        for one in properties.values():
            self.by_element.setdefault(one.element_name, []).append(one)
        self.required = tuple(name for name, element in elements.items() if element.min > 0)
        self.constraints = constraints
        """Of the type itself."""

    @property
    def is_resource(self) -> bool:
        return self.kind == "resource"


@cache
def shape(name: str) -> Shape:
    """The shape of a type or path. Raises KeyError."""
    definition = type_definition(name.partition(".")[0])
    by_path = elements_by_path(definition.name)
    whole = by_path[name]
    parents = {path.rpartition(".")[0] for path in by_path}
    elements, properties = {}, {}
    for path, element in by_path.items():
        if path.rpartition(".")[0] != name:
            continue
        last = path.rpartition(".")[2]
        elements[last.removesuffix("[x]")] = element
        for one in _properties(last, element, path if path in parents else ""):
            properties[one.name] = one
    is_type = "." not in name
    constraints = tuple(one for one in whole.constraints if is_type and one.key not in _WALKED)
    return Shape(name, definition.kind if is_type else "backbone", properties, elements, constraints)


@cache
def own_constraints(element: Element, shape_name: str) -> tuple[Constraint, ...]:
    """The invariants that an element adds to those of its type, those of the walk apart.

    One that has the children of another (contentReference) has its invariants too.
    """
    known = set(_WALKED) if "." in shape_name else _WALKED | {one.key for one in shape(shape_name).constraints}
    given = element.constraints
    if element.content_reference is not None:
        given = (*given, *elements_by_path(shape_name.partition(".")[0])[shape_name].constraints)
    return tuple(one for one in dict.fromkeys(given) if one.key not in known)


def _properties(last: str, element: Element, own_path: str) -> list[Property]:
    if element.content_reference is not None:
        return [Property(last, last, element, None, element.content_reference)]
    if element.is_choice:
        name = last.removesuffix("[x]")
        return [
            Property(f"{name}{use.code[0].upper()}{use.code[1:]}", f"{name}.ofType({use.code})", element, use, use.code)
            for use in element.types
        ]
    use = element.types[0] if element.types else None
    if use is None:
        return []
    shape_name = own_path if own_path and use.code in _NO_CHILDREN_OF_THEIR_OWN else use.code
    if element.path == "ElementDefinition.id":  # published as an `id`, yet R5's own have colons and brackets in theirs
        shape_name = "string"
    return [Property(last, identifier(last), element, use, shape_name)]
