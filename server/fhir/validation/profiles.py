"""Profiles as rules: what a StructureDefinition changes of the type that it constrains, as a tree along its elements' ids.

The differential is what is read, over the rules of the profile that it is derived from; a snapshot only where there is no differential.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from projections.fhir import guide
from projections.fhir.definitions import Constraint, is_resource_type, type_names

R5 = "http://hl7.org/fhir/StructureDefinition/"
_BY_URL = [{"type": "value", "path": "url"}]
_BY_TYPE = [{"type": "type", "path": "$this"}]
_LONGEST_CHAIN = 16


class Rule:
    """What is asked of an element, or of those of its occurrences that are in a slice."""

    def __init__(self, name: str) -> None:
        self.name = name
        """Of a slice, that of the slice."""
        self.min = 0
        self.max: int | None = None
        self.types: tuple[str, ...] = ()
        self.targets: tuple[str, ...] = ()
        """Types that a reference may point to."""
        self.profiles: tuple[str, ...] = ()
        self.fixed: Any = None
        self.pattern: Any = None
        self.value_set = ""
        """Of a required binding."""
        self.constraints: tuple[Constraint, ...] = ()
        self.discriminators: list[dict[str, str]] = []
        self.is_closed = False
        self.children: dict[str, Rule] = {}
        """By element name, as `component`, `value[x]` or `valueQuantity`."""
        self.slices: dict[str, Rule] = {}

    def narrow(self, element: dict[str, Any]) -> None:
        """Takes in what an ElementDefinition says."""
        self.min = max(self.min, element.get("min", 0))
        if element.get("max", "*") != "*":
            self.max = int(element["max"]) if self.max is None else min(self.max, int(element["max"]))
        types = element.get("type", [])
        if types:
            self.types = tuple(one["code"] for one in types if "code" in one)
            self.targets = tuple(sorted({_type_of(url) for one in types for url in one.get("targetProfile", [])} - {""}))
            self.profiles = tuple(url for one in types for url in one.get("profile", []))
        for key, value in element.items():
            if key.startswith("fixed"):
                self.fixed = value
            elif key.startswith("pattern"):
                self.pattern = value
        binding = element.get("binding", {})
        if binding.get("strength") == "required":
            self.value_set = binding.get("valueSet", "")
        said = (Constraint(one["key"], one["severity"], one["human"], one.get("expression", "")) for one in element.get("constraint", []))
        self.constraints = tuple(dict.fromkeys((*self.constraints, *said)))
        slicing = element.get("slicing")
        if slicing:
            self.discriminators = slicing.get("discriminator", [])
            self.is_closed = slicing.get("rules") == "closed"

    def child(self, step: str) -> Rule:
        """By a step of an element's id: `component`, `component:volume`."""
        name, _, slice_name = step.partition(":")
        rule = self.children.setdefault(name, Rule(name))
        return rule.slices.setdefault(slice_name, Rule(slice_name)) if slice_name else rule

    @property
    def slicing(self) -> list[dict[str, str]]:
        """How to tell its slices: as R5 says for extensions and for choices of type, where the profile does not."""
        if self.discriminators:
            return self.discriminators
        if self.name in ("extension", "modifierExtension"):
            return _BY_URL
        return _BY_TYPE if self.name.endswith("[x]") else []


class Profile:
    def __init__(self, url: str, type_name: str, rule: Rule) -> None:
        self.url = url
        self.type_name = type_name
        self.rule = rule


def profile(url: str) -> Profile | None:
    """A profile of the guide by its canonical, with or without a version; None where it is not known."""
    definition = guide.by_url(url)
    if definition is None or definition["resourceType"] != "StructureDefinition":
        return None
    return _of_the_guide(definition["url"])


@cache
def _of_the_guide(url: str) -> Profile:
    definition = guide.by_url(url)
    assert definition is not None
    return compiled(definition)


def compiled(definition: dict[str, Any]) -> Profile:
    """Any StructureDefinition that constrains a type of R5."""
    rule = Rule(definition["type"])
    chain = [definition]
    while len(chain) < _LONGEST_CHAIN and (base := guide.by_url(chain[-1].get("baseDefinition", ""))) is not None:
        chain.append(base)
    for one in reversed(chain):
        for element in (one.get("differential") or one.get("snapshot") or {}).get("element", []):
            _at(rule, element.get("id") or element["path"]).narrow(element)
    return Profile(definition["url"], definition["type"], rule)


def _at(root: Rule, element_id: str) -> Rule:
    rule = root
    for step in element_id.split(".")[1:]:
        rule = rule.child(step)
    return rule


def _type_of(canonical: str) -> str:
    """The resource type that a targetProfile lets a reference point to; empty where that is not known here."""
    name = canonical.partition("|")[0].removeprefix(R5)
    if is_resource_type(name) or name in type_names():
        return name
    definition = guide.by_url(canonical)
    return str(definition["type"]) if definition is not None and definition["resourceType"] == "StructureDefinition" else ""
