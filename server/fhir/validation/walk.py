"""The walk over a resource: each property against the shape of its type.

It finds what is unknown, missing, too many or of the wrong type, values that do not fit their pattern or binding, and references to the
wrong type. The invariants of every element (`ele-1`, `ext-1`), of contained resources (`dom-2` to `dom-5`) and of local references
(`ref-1`) are decided on the way, since the walk knows what they ask for; the others are collected, each with the element that it is about.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from projections.fhir.definitions import Constraint, Element, is_resource_type
from server.fhir.validation.bindings import is_bound
from server.fhir.validation.issues import Issue, Location, expression_of, identifier
from server.fhir.validation.primitives import fault_of
from server.fhir.validation.references import may_point_to, target_type, types_by_url
from server.fhir.validation.shapes import Property, Shape, own_constraints, shape

DEEPEST = 64
"""Levels of elements within elements; beyond, nothing is looked at. R5's deepest example has 14."""

_NO_CHILD = frozenset({"id"})
_LINKS = ("canonical", "uri", "url")


class Scope:
    """A resource that stands for itself, and what the references in it may mean."""

    def __init__(self, resource: dict[str, Any], container: Scope | None = None, known: Mapping[str, str] | None = None) -> None:
        self.resource = resource
        self.container = container
        """Of a contained resource, the one that it is in."""
        self.known = types_by_url(resource) | dict(known or {})
        self.references: set[str] = set()
        """Local ones (`#id`), from anywhere in it."""
        self.refers_to_container = False

    @property
    def root(self) -> Scope:
        return self.container or self

    def refer(self, text: str) -> None:
        if text.startswith("#"):
            self.root.references.add(text)
            self.refers_to_container = self.refers_to_container or text == "#"


class Held(msgspec.Struct, frozen=True):
    """An element, and where it is."""

    value: Any
    """None of a primitive that has an extension instead of a value."""
    shape_name: str
    location: Location
    scope: Scope
    companion: Any = None
    """Of a primitive, what stands in its property with an underscore."""


class Met(msgspec.Struct, frozen=True):
    """An element that has invariants."""

    held: Held
    constraints: tuple[Constraint, ...]


class Walk:
    def __init__(self) -> None:
        self.issues: list[Issue] = []
        self.met: list[Met] = []
        self.resources: list[Held] = []
        """Every resource that was met, that of the walk first."""
        self.extensions: list[Held] = []

    def resource(self, value: Any, location: Location | None = None, within: Scope | None = None, *, depth: int = 0) -> None:
        """A resource alone, an entry of a Bundle, or one that is contained (``within`` is then what contains it)."""
        if not isinstance(value, dict):
            self._say("structure", "a resource is a JSON object", location or (None, "Resource", None))
            return
        kind = value.get("resourceType")
        if not isinstance(kind, str) or not is_resource_type(kind):
            text = "resourceType is missing" if kind is None else "resourceType names no resource of R5"
            self._say("structure", text, (location, "resourceType", None) if location else (None, "Resource", None))
            return
        here: Location = location or (None, kind, None)
        is_contained = within is not None and location is not None and location[1] == "contained"
        scope = Scope(value, within.root if is_contained and within else None, within.known if within else None)
        self.resources.append(Held(value, kind, here, scope))
        self._object(value, shape(kind), here, scope, depth, ())
        if is_contained:
            self._contained(value, here, scope)
        else:
            self._unreferred(value, here, scope)

    def _object(
        self,
        value: dict[str, Any],
        form: Shape,
        location: Location,
        scope: Scope,
        depth: int,
        constraints: tuple[Constraint, ...],
        *,
        has_value: bool = False,
    ) -> None:
        if depth > DEEPEST:
            self._say("too-costly", f"elements are nested deeper than {DEEPEST} levels", location)
            return
        if not form.is_resource and not (value.keys() - _NO_CHILD or (has_value and value)):  # an id alone is not enough
            self._invariant("ele-1", "every element has a value or children", location)
            return
        present: dict[str, Property] = {}
        for name, item in value.items():
            found = form.properties.get(name)
            companion = None
            if found is None:
                if name == "resourceType" and form.is_resource:
                    continue
                found = form.properties.get(name[1:]) if name.startswith("_") else None
                if found is None or not found.is_primitive:
                    self._say("structure", f"{form.name} has no such element", (location, identifier(name), None))
                    continue
                if name[1:] in value:
                    continue  # met with its value
                item, companion = None, item
            elif found.is_primitive:
                companion = value.get(f"_{name}")
            if found.element_name in present:
                self._say("structure", f"only one type of {found.element_name}[x] may be given", (location, found.step, None))
                continue
            present[found.element_name] = found
            self._property(item, companion, found, location, scope, depth)
        for name in form.required:
            if name not in present:
                self._say("required", f"{form.name}.{name} is required", (location, identifier(name), None))
        if form.name == "Extension":
            self.extensions.append(Held(value, form.name, location, scope))
            if ("extension" in present) == ("value" in present):
                self._invariant("ext-1", "an extension has either a value or extensions", location)
        if form.constraints or constraints:
            self.met.append(Met(Held(value, form.name, location, scope), (*form.constraints, *constraints)))

    def _property(self, item: Any, companion: Any, found: Property, parent: Location, scope: Scope, depth: int) -> None:
        location: Location = (parent, found.step, None)
        if not found.repeats:
            if isinstance(item, list) or isinstance(companion, list):
                self._say("structure", f"{found.name} does not repeat: it is no JSON array", location)
            else:
                self._value(item, companion, found, location, scope, depth)
            return
        given = companion if item is None else item
        if not isinstance(given, list) or not isinstance(companion, list | None):
            self._say("structure", f"{found.name} may repeat, so it is a JSON array", location)
            return
        if not given:
            self._say("structure", "an array is never empty: leave the element out", location)
            return
        companions = companion or []
        items = item or []
        if companions and items and len(companions) != len(items):
            self._say("structure", f"{found.name} and _{found.name} differ in length: null stands where one has nothing", location)
        count = max(len(items), len(companions))
        for index in range(count):
            one = items[index] if index < len(items) else None
            beside = companions[index] if index < len(companions) else None
            self._value(one, beside, found, (parent, found.step, index), scope, depth)
        self._count(count, found.element, found.name, location)

    def _count(self, count: int, element: Element, name: str, location: Location) -> None:
        if count < element.min:
            self._say("required", f"{name} is there {count} times, and at least {element.min} times are required", location)
        if element.max != "*" and count > int(element.max):
            self._say("structure", f"{name} is there {count} times, and at most {element.max} are allowed", location)

    def _value(self, item: Any, companion: Any, found: Property, location: Location, scope: Scope, depth: int) -> None:
        if item is None and companion is None:
            self._invariant("ele-1", "every element has a value or children, and is never null", location)
        elif found.is_primitive:
            self._primitive(item, companion, found, location, scope, depth)
        elif found.is_resource:
            self.resource(item, location, scope, depth=depth + 1)
        elif not isinstance(item, dict):
            self._say("structure", f"{found.name} is a {found.shape_name}, a JSON object", location)
        else:
            constraints = own_constraints(found.element, found.shape_name)
            self._object(item, shape(found.shape_name), location, scope, depth + 1, constraints)
            if found.shape_name == "Reference":
                self._reference(item, found.use.targets if found.use else (), location, scope)
            elif found.shape_name == "CodeableReference" and isinstance(item.get("reference"), dict):
                self._target(item["reference"], found.use.targets if found.use else (), (location, "reference", None), scope)
            self._binding(item, found, location)

    def _primitive(self, item: Any, companion: Any, found: Property, location: Location, scope: Scope, depth: int) -> None:
        if companion is not None:
            if isinstance(companion, dict):
                self._object(companion, shape("Element"), location, scope, depth + 1, (), has_value=item is not None)
            else:
                self._say("structure", f"_{found.name} is a JSON object with an id or extensions", location)
        if item is None:
            return
        said = fault_of(found.shape_name, item)
        if said is not None:
            self._say(*said, location)
            return
        if found.shape_name in _LINKS:
            scope.refer(item)
        if found.element.max_length is not None and len(str(item)) > found.element.max_length:
            self._say("too-long", f"{found.name} has at most {found.element.max_length} characters", location)
        self._binding(item, found, location)
        constraints = own_constraints(found.element, found.shape_name)
        if constraints:
            self.met.append(Met(Held(item, found.shape_name, location, scope), constraints))

    def _binding(self, item: Any, found: Property, location: Location) -> None:
        element = found.element
        if element.binding_strength == "required" and element.value_set and not is_bound(element.value_set, found.shape_name, item):
            self._say("code-invalid", f"no code from the value set {element.value_set}, which is required here", location)

    def _reference(self, item: dict[str, Any], targets: tuple[str, ...], location: Location, scope: Scope) -> None:
        text = item.get("reference")
        if isinstance(text, str):
            scope.refer(text)
            if text == "#" and scope.container is None:
                self._invariant("ref-1", "only a contained resource refers to its container as #", location)
            elif text.startswith("#") and text != "#" and not _is_contained(text[1:], scope.root):
                self._invariant("ref-1", "a local reference is to a contained resource, and there is none of that id", location)
        self._target(item, targets, location, scope)

    def _target(self, item: dict[str, Any], targets: tuple[str, ...], location: Location, scope: Scope) -> None:
        text, said = item.get("reference"), item.get("type")
        kind = target_type(text, scope.root.known) if isinstance(text, str) else None
        if text == "#" and scope.container is not None:
            kind = scope.container.resource["resourceType"]
        if isinstance(said, str) and is_resource_type(said):
            if kind is not None and kind != said:
                self._say("value", "the reference's type is another than what it points to", (location, "type", None))
            kind = kind or said
        if kind is not None and not may_point_to(kind, targets):
            self._say("structure", f"a reference to {' or '.join(targets)} is wanted here, not to {kind}", location)

    def _contained(self, value: dict[str, Any], location: Location, scope: Scope) -> None:
        """dom-2, dom-4 and dom-5 of what contains this resource."""
        meta = value.get("meta")
        if "contained" in value:
            self._invariant("dom-2", "a contained resource contains none itself", location)
        if isinstance(meta, dict) and ("versionId" in meta or "lastUpdated" in meta):
            self._invariant("dom-4", "a contained resource has neither meta.versionId nor meta.lastUpdated", location)
        if isinstance(meta, dict) and "security" in meta:
            self._invariant("dom-5", "a contained resource has no security label", location)
        if scope.refers_to_container:
            scope.root.references.add(f"#{value.get('id')}")

    def _unreferred(self, value: dict[str, Any], location: Location, scope: Scope) -> None:
        """dom-3, once everything was met."""
        contained = value.get("contained")
        for index, one in enumerate(contained if isinstance(contained, list) else ()):
            if isinstance(one, dict) and f"#{one.get('id')}" not in scope.references:
                text = "a contained resource is referred to, or refers to its container"
                self._invariant("dom-3", text, (location, "contained", index))

    def _invariant(self, key: str, text: str, location: Location) -> None:
        self._say("invariant", f"{key}: {text}", location)

    def _say(self, code: str, text: str, location: Location) -> None:
        self.issues.append(Issue("error", code, text, expression_of(location)))


def _is_contained(resource_id: str, scope: Scope) -> bool:
    contained = scope.resource.get("contained")
    return any(isinstance(one, dict) and one.get("id") == resource_id for one in (contained if isinstance(contained, list) else ()))
