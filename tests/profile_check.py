"""A resource against what a profile of the guide changes of R5: cardinalities, types, fixed values, patterns, slices, required bindings.

A second reading of the profiles, beside the server's validator and without its code; invariants are left to that one.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from projections.fhir import guide
from projections.fhir.vocabulary import Json


@dataclass
class Rule:
    """An element of the differential. ``children`` by name and slice (empty: the element itself)."""

    element: Json
    children: dict[tuple[str, str], Rule] = field(default_factory=dict)


def faults(resource: Json, profile_url: str) -> list[str]:
    """What the resource does not meet, each with where."""
    profile = guide.by_url(profile_url)
    assert profile is not None
    if profile["type"] != resource["resourceType"]:
        return [f"no {profile['type']}"]
    return list(_of_children(_tree(profile), resource, profile["type"]))


def _tree(profile: Json) -> Rule:
    root = Rule({})
    for element in profile["differential"]["element"]:
        rule = root
        for step in element["id"].split(".")[1:]:
            name, _, slice_name = step.partition(":")
            rule = rule.children.setdefault((name, slice_name), Rule({}))
        rule.element = element
    return root


def _of_children(rule: Rule, value: Json, where: str) -> Iterator[str]:
    for (name, slice_name), child in rule.children.items():
        here = f"{where}.{name}"
        given = _given(value, name)
        slicing = rule.children.get((name, ""), Rule({})).element.get("slicing")
        if slice_name:
            assert slicing is not None and len(slicing["discriminator"]) == 1
            path = slicing["discriminator"][0]["path"]
            given = [(key, one) for key, one in given if _is_of(child, one, path)]
            here += f":{slice_name}"
        elif slicing is not None and slicing["rules"] == "closed":
            path = slicing["discriminator"][0]["path"]
            slices = [one for (other, slice_of), one in rule.children.items() if other == name and slice_of]
            if not all(any(_is_of(one, v, path) for one in slices) for _, v in given):
                yield f"{here} is of no slice"
        yield from _of_element(child, given, here)


def _of_element(rule: Rule, given: list[tuple[str, object]], where: str) -> Iterator[str]:
    element = rule.element
    if len(given) < element.get("min", 0):
        yield f"{where} is there {len(given)} times, not {element['min']}"
    if element.get("max", "*") != "*" and len(given) > int(element["max"]):
        yield f"{where} is there {len(given)} times, at most {element['max']}"
    for key, value in given:
        if where.endswith("[x]") and "type" in element:
            base = where.rpartition(".")[2].removesuffix("[x]")
            if key not in {base + one["code"][0].upper() + one["code"][1:] for one in element["type"]}:
                yield f"{where} is {key}"
        for name, wanted in element.items():
            if (name.startswith("fixed") and value != wanted) or (name.startswith("pattern") and not _holds(value, wanted)):
                yield f"{where} is not {wanted}"
        binding = element.get("binding", {})
        if binding.get("strength") == "required" and not _is_bound(value, binding["valueSet"]):
            yield f"{where} is not of {binding['valueSet']}"
        if rule.children and isinstance(value, dict):
            yield from _of_children(rule, value, where)


def _given(value: Json, name: str) -> list[tuple[str, object]]:
    """Name and value of each occurrence."""
    if name.endswith("[x]"):
        base = name.removesuffix("[x]")
        keys = [key for key in value if key.startswith(base) and key[len(base) : len(base) + 1].isupper()]
    else:
        keys = [name] if name in value else []
    return [(key, one) for key in keys for one in (value[key] if isinstance(value[key], list) else [value[key]])]


def _is_of(rule: Rule, value: object, path: str) -> bool:
    """Whether a value is of a slice, by the one thing that tells slices apart."""
    assert isinstance(value, dict)
    if path == "url":
        return value["url"] == rule.element["type"][0]["profile"][0]
    element = rule.element if path == "$this" else rule.children[path, ""].element
    told = value if path == "$this" else value.get(path)
    return any(_holds(told, wanted) for name, wanted in element.items() if name.startswith(("fixed", "pattern")))


def _holds(value: object, pattern: object) -> bool:
    if isinstance(pattern, dict):
        return isinstance(value, dict) and all(name in value and _holds(value[name], one) for name, one in pattern.items())
    if isinstance(pattern, list):
        return isinstance(value, list) and all(any(_holds(one, wanted) for one in value) for wanted in pattern)
    return value == pattern


def _is_bound(value: object, url: str) -> bool:
    codes = guide.value_set(url)
    assert codes is not None
    if isinstance(value, str):
        return codes.holds(value)
    assert isinstance(value, dict)
    return any(codes.holds(one["code"], one["system"]) for one in value.get("coding", [value]))
