"""FHIRPath Patch (R5 fhirpatch.html): a Parameters resource whose operations add, insert, delete, replace and move what a path names."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import msgspec

from projections.fhir.fhirpath import Branch, Node, UnsupportedExpression, syntax
from projections.fhir.places import SELF, Place, elements_named, places, repeats, root
from projections.fhir.vocabulary import Json
from server.fhir.outcome import FhirError
from server.fhir.writing import incoming
from server.fhir.writing.interaction import Patch, plain

MOST_OPERATIONS = 1000
MOST_CHARACTERS = 500
"""Of a path."""
_PARTS = {
    "add": ("name", "value"),
    "insert": ("index", "value"),
    "delete": (),
    "replace": ("value",),
    "move": ("source", "destination"),
}
"""Type of an operation → the parts that it has to have, beside type and path."""


class Operation(msgspec.Struct, frozen=True):
    type: str
    path: Node
    parts: dict[str, Json]
    at: str
    """Where it stands in what was sent."""


def fhirpath_patch(body: Any, at: str = "") -> Patch:
    """Raises FhirError: 400 for what is no such patch; when it is applied, 422 where it does not fit the resource."""
    parameters = incoming.checked(incoming.resource_in(body, "Parameters", at), at).get("parameter", [])
    if len(parameters) > MOST_OPERATIONS:
        raise FhirError(413, "too-costly", f"a patch may have {MOST_OPERATIONS} operations", f"{at or 'Parameters'}.parameter")
    operations = [_operation(one, f"{at or 'Parameters'}.parameter[{nth}]") for nth, one in enumerate(parameters)]

    def apply(before: Json) -> Json:
        after: Json = plain(before)
        for one in operations:
            try:
                _APPLY[one.type](after, one)
            except (UnsupportedExpression, RecursionError):
                raise _unusable(one) from None
        return after

    return apply


def _operation(parameter: Json, at: str) -> Operation:
    if parameter.get("name") != "operation":
        raise FhirError(400, "invalid", "each parameter of a patch is an operation", f"{at}.name")
    parts: dict[str, Json] = {}
    for nth, part in enumerate(parameter.get("part", ())):
        if part["name"] in parts:
            raise FhirError(400, "invalid", "a part is given twice", f"{at}.part[{nth}]")
        parts[part["name"]] = part
    kind, path = _text(parts, "type", at), _text(parts, "path", at)
    if kind not in _PARTS:
        raise FhirError(400, "value", f"an operation is one of {', '.join(_PARTS)}", f"{at}.part.where(name = 'type')")
    missing = [name for name in _PARTS[kind] if name not in parts]
    if missing:
        raise FhirError(400, "required", f"{kind} needs the part {missing[0]}", at)
    unknown = sorted(parts.keys() - {"type", "path", *_PARTS[kind]})
    if unknown:
        raise FhirError(400, "invalid", f"{kind} has no part of this name", f"{at}.part.where(name = '{unknown[0]}')" if unknown[0].isalpha() else at)
    made = Operation(kind, Node("none"), parts, at)
    if len(path) > MOST_CHARACTERS:
        raise FhirError(413, "too-costly", f"a path may have {MOST_CHARACTERS} characters", at)
    try:
        return msgspec.structs.replace(made, path=_tree(path))
    except (UnsupportedExpression, RecursionError):
        raise _unusable(made) from None


@lru_cache(maxsize=1024)
def _tree(path: str) -> Node:
    return syntax(path)


def _unusable(one: Operation) -> FhirError:
    said = "a path of a patch has names, indexes, where with a comparison, first, extension and ofType"
    return FhirError(400, "not-supported", said, f"{one.at}.part.where(name = 'path')")


def _text(parts: dict[str, Json], name: str, at: str) -> str:
    for key in ("valueCode", "valueString"):
        if isinstance(found := parts.get(name, {}).get(key), str):
            return found
    raise FhirError(400, "required", f"an operation has a {name}, as a code or string", at)


def _number(one: Operation, name: str) -> int:
    found = one.parts[name].get("valueInteger", one.parts[name].get("valueUnsignedInt"))
    if not isinstance(found, int):
        raise FhirError(400, "value", f"{name} is an integer", one.at)
    return found


def _misfit(one: Operation, said: str) -> FhirError:
    return FhirError(422, "processing", f"{said}: nothing was changed", one.at)


# Operations


def _add(resource: Json, one: Operation) -> None:
    """At the end of a list, or where there is nothing yet."""
    parent, name = _only(resource, one, one.path), _text(one.parts, "name", one.at).removesuffix("[x]")
    value = parent.value
    if not isinstance(value, dict):
        raise _misfit(one, "an element is added to an element that has parts")
    key, made, beside = _made(one, parent, name, one.parts["value"])
    if repeats(parent, name):
        _spliced(value, key, made, beside, lambda items, new: items.append(new))
    elif any(branch.path in value or f"_{branch.path}" in value for branch in elements_named(parent, name)):
        raise _misfit(one, "the element is there already, and does not repeat")
    else:
        _set(value, key, made, beside)


def _insert(resource: Json, one: Operation) -> None:
    owner, parent, name = _list(resource, one)
    index = _number(one, "index")
    key, made, beside = _made(one, parent, name, one.parts["value"])
    if not 0 <= index <= _length(owner, key):
        raise _misfit(one, "the index is beyond the list")
    _spliced(owner, key, made, beside, lambda items, new: items.insert(index, new))


def _move(resource: Json, one: Operation) -> None:
    owner, parent, name = _list(resource, one)
    source, destination = _number(one, "source"), _number(one, "destination")
    (key,) = {branch.path for branch in elements_named(parent, name)}
    count = _length(owner, key)
    if not (0 <= source < count and 0 <= destination < count):
        raise _misfit(one, "source and destination are places in the list")
    for items in _both(owner, key):
        items.insert(destination, items.pop(source))


def _delete(resource: Json, one: Operation) -> None:
    """What is not there is deleted already."""
    found = _places(resource, one.path)
    if len(found) > 1:
        raise _misfit(one, "the path names several elements: one is deleted by an operation")
    if not found:
        return
    (place,) = found
    _check_inside(one, place)
    for key in (place.key, f"_{place.key}"):
        items = place.owner.get(key)
        if place.index is None or not isinstance(items, list):
            place.owner.pop(key, None)
        elif place.index < len(items):
            del items[place.index]
    _prune(resource)


def _replace(resource: Json, one: Operation) -> None:
    place = _only(resource, one, one.path)
    _check_inside(one, place)
    made, beside = _value(one, one.parts["value"], [place.branch], place.branch.type)[1:]
    if place.index is None:
        place.owner.pop(place.key, None)
        place.owner.pop(f"_{place.key}", None)
        _set(place.owner, place.key, made, beside)
        return
    for key, new in ((place.key, made), (f"_{place.key}", beside)):
        items = place.owner.get(key)
        if isinstance(items, list) or new is not None:
            items = items if isinstance(items, list) else place.owner.setdefault(key, [])
            items.extend([None] * (place.index + 1 - len(items)))
            items[place.index] = new
    _prune(resource)


_APPLY: dict[str, Callable[[Json, Operation], None]] = {
    "add": _add,
    "insert": _insert,
    "delete": _delete,
    "replace": _replace,
    "move": _move,
}


# Paths


def _places(resource: Json, path: Node) -> list[Place]:
    return places(path, [root(resource)])


def _only(resource: Json, one: Operation, path: Node) -> Place:
    found = _places(resource, path)
    if len(found) != 1:
        raise _misfit(one, "the path names several elements" if found else "the path names no element")
    return found[0]


def _list(resource: Json, one: Operation) -> tuple[Json, Place, str]:
    """The element that has the list, its place, and the list's name."""
    match one.path:
        case Node(kind="dot", parts=(left, Node(kind="name", text=name))):
            parent = _only(resource, one, left)
        case Node(kind="name", text=name):
            parent = root(resource)
        case _:
            raise _misfit(one, "the path has to end with the name of a list")
    owner = parent.value
    if not isinstance(owner, dict) or not repeats(parent, name):
        raise _misfit(one, "the path names no list")
    return owner, parent, name


def _check_inside(one: Operation, place: Place) -> None:
    if place.key == SELF:
        raise _misfit(one, "a patch changes elements of a resource, and not the resource as a whole")


# Values


def _made(one: Operation, parent: Place, name: str, part: Json) -> tuple[str, Any, Any]:
    """The element's name in JSON, its value, and what stands beside it."""
    branches = elements_named(parent, name)
    if not branches:
        raise _misfit(one, "R5 has no such element there")
    return _value(one, part, branches, "")


def _value(one: Operation, part: Json, branches: Sequence[Branch], replaced: str) -> tuple[str, Any, Any]:
    """Of a part, for one of these ways to be an element."""
    if "resource" in part:
        return branches[0].path, plain(part["resource"]), None
    if "part" in part:
        made: Json = {}
        holder = Place({SELF: made}, SELF, None, branches[0])
        for inner in part["part"]:
            named = elements_named(holder, inner["name"])
            if not named:
                raise _misfit(one, "R5 has no such element there")
            key, value, beside = _value(one, inner, named, "")
            if repeats(holder, inner["name"]):
                _spliced(made, key, value, beside, lambda items, new: items.append(new))
            else:
                _set(made, key, value, beside)
        return branches[0].path, made, None
    given = sorted({name.lstrip("_") for name in part if re.fullmatch(r"_?value[A-Z]\w*", name)})
    if len(given) != 1:
        raise FhirError(400, "required", "the part has a value, or parts", one.at)
    kind = given[0].removeprefix("value")
    fitting = [branch for branch in branches if branch.type[:1].upper() + branch.type[1:] == kind]
    if len(branches) > 1 and not fitting:
        raise _misfit(one, "the element may have no value of this type")
    key = (fitting or branches)[0].path
    return key, plain(part.get(given[0])), plain(part.get(f"_{given[0]}"))


def _set(owner: Json, key: str, value: Any, beside: Any) -> None:
    if value is not None:
        owner[key] = value
    if beside is not None:
        owner[f"_{key}"] = beside


def _spliced(owner: Json, key: str, value: Any, beside: Any, place: Callable[[list[Any], Any], None]) -> None:
    """Into a list, and as far as there is one, into the list beside it that holds what primitives have beside their values."""
    count = _length(owner, key)
    for name, new in ((key, value), (f"_{key}", beside)):
        if name in owner or new is not None:
            items = owner.setdefault(name, [])
            items.extend([None] * (count - len(items)))
            place(items, new)


def _both(owner: Json, key: str) -> list[list[Any]]:
    """The list and the one beside it, as long as each other."""
    count = _length(owner, key)
    found = [owner[name] for name in (key, f"_{key}") if isinstance(owner.get(name), list)]
    for items in found:
        items.extend([None] * (count - len(items)))
    return found


def _length(owner: Json, key: str) -> int:
    return max(len(found) if isinstance(found := owner.get(name), list) else 0 for name in (key, f"_{key}"))


def _prune(tree: Any, *, is_beside: bool = False) -> bool:
    """Takes out what has nothing in it any more (R5 json.html: nothing is empty); whether there is something left.

    ``is_beside``: a list of what primitives have beside their values, in which each keeps its place.
    """
    if isinstance(tree, dict):
        for name in [name for name, value in tree.items() if not _prune(value, is_beside=name.startswith("_"))]:
            del tree[name]
        return bool(tree)
    if isinstance(tree, list):
        pruned = [one if one is not None and _prune(one) else None for one in tree]
        tree[:] = [new for new, old in zip(pruned, tree, strict=True) if new is not None or old is None or is_beside]
        return any(one is not None for one in tree)
    return tree is not None
