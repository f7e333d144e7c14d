"""Where in a resource the values of a path are: FHIRPath as far as a patch needs it (R5 fhirpatch.html), with each value's holder.

Names, indexers, ``where`` with comparisons, ``first``, ``extension``, ``ofType`` and ``as``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from projections.fhir.definitions import elements_by_path, is_resource_type, type_names
from projections.fhir.fhirpath import Branch, Node, UnsupportedExpression, children, of_type, predicate
from projections.fhir.vocabulary import Json

SELF = ""
"""The key of a resource that is nobody's element."""


class Place(msgspec.Struct, frozen=True):
    """``owner[key]``, or ``owner[key][index]``; and for what a primitive has beside its value, the same of ``_key``."""

    owner: Json
    key: str
    index: int | None
    branch: Branch
    """Its type, from where a path may go on."""

    @property
    def value(self) -> Any:
        """None of a primitive that has extensions alone."""
        return self._of(self.key)

    @property
    def parts(self) -> Json | None:
        """What elements are in; of a primitive, what it has beside its value."""
        found = self.value if isinstance(self.value, dict) else self._of(f"_{self.key}")
        return found if isinstance(found, dict) else None

    def _of(self, key: str) -> Any:
        found = self.owner.get(key)
        if self.index is None or not isinstance(found, list):
            return found
        return found[self.index] if self.index < len(found) else None


def root(resource: Json) -> Place:
    kind = resource["resourceType"]
    return Place({SELF: resource}, SELF, None, _at(kind, kind, kind))


def places(node: Node, roots: Sequence[Place]) -> list[Place]:
    """Raises UnsupportedExpression."""
    match node:
        case Node(kind="name", text=name):
            if name in type_names() and any(one.key == SELF and one.branch.type == name for one in roots):
                return list(roots)
            return [inner for one in roots for inner in _elements(one, name)]
        case Node(kind="dot", parts=(left, right)):
            return places(right, places(left, roots))
        case Node(kind="index", text=nth, parts=(inner,)):
            return places(inner, roots)[int(nth) : int(nth) + 1]
        case Node(kind="as", text=name, parts=(inner,)):
            return _of_type(places(inner, roots), name)
        case Node(kind="call", text="ofType" | "as", parts=(Node(kind="name", text=name),)):
            return _of_type(roots, name)
        case Node(kind="call", text="where", parts=(criterion,)):
            return [one for one in roots if predicate(criterion, one.branch)(one.value) is True]
        case Node(kind="call", text="first", parts=()):
            return list(roots[:1])
        case Node(kind="call", text="extension", parts=(Node(kind="text", text=url),)):
            return [inner for one in roots for inner in _elements(one, "extension") if inner.value.get("url") == url]
    raise UnsupportedExpression(f"{node.kind} {node.text}")


def elements_named(parent: Place, name: str) -> list[Branch]:
    """What an element may have under this name: one type, or each of a choice; the key is the branch's path with its start cut off."""
    return children(_at(parent.branch.type, parent.branch.definition, parent.branch.element), name)


def repeats(parent: Place, name: str) -> bool:
    """Whether an element's elements of this name are a list."""
    elements = elements_by_path(parent.branch.definition)
    path = f"{parent.branch.element}.{name}"
    found = elements.get(path) or elements.get(f"{path}[x]")
    return found is not None and found.is_repeated


def _elements(parent: Place, name: str) -> list[Place]:
    value = parent.parts
    if value is None:
        return []
    found = []
    for branch in elements_named(parent, name):
        key = branch.path
        inner, beside = value.get(key), value.get(f"_{key}")
        if isinstance(inner, list) or isinstance(beside, list):
            count = max(len(one) for one in (inner, beside) if isinstance(one, list))
            found += [Place(value, key, nth, branch) for nth in range(count)]
        elif inner is not None or beside is not None:
            found.append(Place(value, key, None, branch))
    return [_as_resource(one) for one in found]


def _of_type(roots: Sequence[Place], name: str) -> list[Place]:
    return [one for one in roots if one.branch.type == name or of_type(one.branch, name)]


def _as_resource(place: Place) -> Place:
    """A resource inside another one is of the type that it says."""
    kind = place.value.get("resourceType") if isinstance(place.value, dict) else None
    return msgspec.structs.replace(place, branch=_at(kind, kind, kind)) if isinstance(kind, str) and is_resource_type(kind) else place


def _at(type_name: str, definition: str, element: str) -> Branch:
    return Branch(type=type_name, path="", definition=definition, element=element)
