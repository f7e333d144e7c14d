"""A resource against a profile: cardinality, types, fixed values, patterns, required bindings, invariants and slices.

It comes after the walk, and says nothing of what R5 itself asks for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from projections.fhir.definitions import is_resource_type
from server.fhir.validation.bindings import is_bound
from server.fhir.validation.invariants import unmet
from server.fhir.validation.issues import Issue, Location, expression_of
from server.fhir.validation.profiles import Profile, Rule, profile
from server.fhir.validation.references import may_point_to, target_type
from server.fhir.validation.shapes import Property, shape
from server.fhir.validation.walk import Held

_DECIDED = frozenset({"value", "pattern", "exists", "type"})
"""Kinds of discriminators; `profile` and `position` are said to be undecided."""


def unmet_rules(given: Profile, held: Held) -> Iterator[Issue]:
    """What a resource, or an element of a data type, does not meet of a profile."""
    if held.shape_name != given.type_name:
        text = f"the profile {given.url} is of {given.type_name}, not of {held.shape_name}"
        yield Issue("error", "invalid", text, expression_of(held.location))
        return
    for issue in _of_element(given.rule, held, 0):
        yield msgspec.structs.replace(issue, text=f"{issue.text} (profile {given.url})")


def _of_element(rule: Rule, held: Held, depth: int) -> Iterator[Issue]:
    if rule.types and held.shape_name not in rule.types and not _is_abstract(rule.types):
        if "." not in held.shape_name:
            yield _issue("structure", f"a {' or '.join(rule.types)} is wanted here", held.location)
    elif rule.targets and not _points_to(rule.targets, held):
        yield _issue("structure", f"a reference to {' or '.join(rule.targets)} is wanted here", held.location)
    if rule.fixed is not None and held.value != rule.fixed:
        yield _issue("value", "the value is not the one that is fixed", held.location)
    if rule.pattern is not None and not _contains(held.value, rule.pattern):
        yield _issue("value", "the value has not what the pattern asks for", held.location)
    if rule.value_set and held.value is not None and not is_bound(rule.value_set, held.shape_name, held.value):
        yield _issue("code-invalid", f"no code from the value set {rule.value_set}, which is required here", held.location)
    if rule.constraints and held.value is not None:
        yield from unmet(rule.constraints, held)
    for url in rule.profiles if depth < 8 else ():  # a profile may refer to itself
        known = profile(url)
        if known is not None and known.type_name == held.shape_name:
            yield from _of_element(known.rule, held, depth + 1)
    for name, child in rule.children.items():
        yield from _of_elements(child, children(held, name), held, name.removesuffix("[x]"), depth)


def _of_elements(rule: Rule, found: Sequence[Held], parent: Held, name: str, depth: int) -> Iterator[Issue]:
    location: Location = found[0].location if len(found) == 1 else (parent.location, name, None)
    yield from _counted(rule, len(found), name, location)
    for one in found:
        yield from _of_element(rule, one, depth)
    if not rule.slices:
        return
    undecided = [one for one in rule.slicing if one.get("type") not in _DECIDED]
    if undecided or not rule.slicing:
        text = f"slices of {name} are not told apart here, so what they ask for is not checked"
        yield Issue("information", "not-supported", text, expression_of((parent.location, name, None)))
        return
    members: dict[str, list[Held]] = {one: [] for one in rule.slices}
    for one in found:
        slice_name = next((key for key, part in rule.slices.items() if _is_in_slice(part, one, rule.slicing)), None)
        if slice_name is not None:
            members[slice_name].append(one)
        elif rule.is_closed:
            yield _issue("structure", f"it is in none of the slices {', '.join(rule.slices)}, and no other is allowed", one.location)
    for slice_name, part in rule.slices.items():
        yield from _counted(part, len(members[slice_name]), f"{name}:{slice_name}", (parent.location, name, None))
        for one in members[slice_name]:
            yield from _of_element(part, one, depth)


def _counted(rule: Rule, count: int, name: str, location: Location) -> Iterator[Issue]:
    if count < rule.min:
        yield _issue("required", f"{name} is there {count} times, and at least {rule.min} times are required", location)
    if rule.max is not None and count > rule.max:
        yield _issue("structure", f"{name} is there {count} times, and at most {rule.max} are allowed", location)


def _is_in_slice(part: Rule, held: Held, discriminators: Sequence[dict[str, str]]) -> bool:
    return all(_is_told(part, held, one) for one in discriminators)


def _is_told(part: Rule, held: Held, discriminator: dict[str, str]) -> bool:
    path = [] if discriminator["path"] == "$this" else discriminator["path"].split(".")
    kind = discriminator["type"]
    if kind == "value" and path == ["url"] and part.profiles:
        return isinstance(held.value, dict) and held.value.get("url") in part.profiles
    rule, steps = part, list(path)
    found = [held]
    while steps:
        following = next((rule.children[name] for name in (steps[0], f"{steps[0]}[x]") if name in rule.children), None)
        if following is None:
            break  # what tells is a pattern further up
        found = [child for one in found for child in children(one, steps[0])]
        rule = following
        steps.pop(0)
    if kind == "exists":
        return bool(found) != (rule.max == 0)
    if kind == "type":
        return any(one.shape_name in rule.types for one in found)
    return _tells(rule) and any(_meets(rule, one) for one in found)


def _tells(rule: Rule) -> bool:
    return rule.fixed is not None or rule.pattern is not None or bool(rule.value_set) or any(map(_tells, rule.children.values()))


def _meets(rule: Rule, held: Held) -> bool:
    """What tells the members of a slice: fixed value, pattern or binding, of the element or below it."""
    if rule.fixed is not None and held.value != rule.fixed:
        return False
    if rule.pattern is not None and not _contains(held.value, rule.pattern):
        return False
    if rule.value_set and not is_bound(rule.value_set, held.shape_name, held.value):
        return False
    return all(any(_meets(child, one) for one in children(held, name)) for name, child in rule.children.items() if _tells(child))


def children(held: Held, name: str) -> list[Held]:
    """An element's children by name: of all types for `value[x]`, of one for `valueQuantity`."""
    beside = held.companion if isinstance(held.companion, dict) else None
    value, shape_name = (held.value, held.shape_name) if isinstance(held.value, dict) else (beside, "Element")
    if not isinstance(value, dict):
        return []
    form = shape(shape_name)
    found: list[Held] = []
    for one in form.by_element.get(name.removesuffix("[x]"), [form.properties[name]] if name in form.properties else []):
        companion = value.get(f"_{one.name}") if one.is_primitive else None
        if one.name in value or companion is not None:
            found.extend(_each(one, value.get(one.name), companion, held))
    return found


def _each(found: Property, item: Any, companion: Any, parent: Held) -> Iterator[Held]:
    scope = parent.scope
    if not found.repeats:
        yield Held(item, _shape_name(found, item), (parent.location, found.step, None), scope, companion)
        return
    items = item if isinstance(item, list) else []
    companions = companion if isinstance(companion, list) else []
    for index in range(max(len(items), len(companions))):
        one = items[index] if index < len(items) else None
        beside = companions[index] if index < len(companions) else None
        yield Held(one, _shape_name(found, one), (parent.location, found.step, index), scope, beside)


def _shape_name(found: Property, item: Any) -> str:
    kind = item.get("resourceType") if found.is_resource and isinstance(item, dict) else None
    return kind if isinstance(kind, str) and is_resource_type(kind) else found.shape_name


def _contains(value: Any, pattern: Any) -> bool:
    """Whether a value has all that a pattern has (ElementDefinition.pattern[x]); of an array, each entry somewhere."""
    if isinstance(pattern, dict):
        return isinstance(value, dict) and all(_contains(value.get(key), part) for key, part in pattern.items())
    if isinstance(pattern, list):
        return isinstance(value, list) and all(any(_contains(one, part) for one in value) for part in pattern)
    return type(value) is type(pattern) and bool(value == pattern)


def _points_to(targets: tuple[str, ...], held: Held) -> bool:
    value = held.value.get("reference") if held.shape_name == "CodeableReference" and isinstance(held.value, dict) else held.value
    if not isinstance(value, dict):
        return True
    text, said = value.get("reference"), value.get("type")
    kind = target_type(text, held.scope.root.known) if isinstance(text, str) else None
    if kind is None and isinstance(said, str) and is_resource_type(said):
        kind = said
    return kind is None or may_point_to(kind, targets)


def _is_abstract(types: tuple[str, ...]) -> bool:
    return bool({"BackboneElement", "Element", "Resource", "DomainResource"}.intersection(types))


def _issue(code: str, text: str, location: Location) -> Issue:
    return Issue("error", code, text, expression_of(location))
