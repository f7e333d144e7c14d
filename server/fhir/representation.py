"""How much of a resource is answered, and how it is laid out: ``_summary``, ``_elements`` and ``_pretty`` (R5 search.html#summary).

A part of a resource is cut out of its stored bytes: numbers and instants stay as they were written. What was cut says so by the
tag SUBSETTED.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import msgspec

from projections.fhir.definitions import Element, elements_by_path
from projections.fhir.vocabulary import OBSERVATION_VALUE
from server.fhir.outcome import FhirError

PARAMETERS = ("_format", "_pretty", "_summary", "_elements")
SUMMARIES = ("true", "text", "data", "count", "false")
SUBSETTED = {"system": OBSERVATION_VALUE, "code": "SUBSETTED", "display": "subsetted"}

_ALWAYS = ("resourceType", "id", "meta", "implicitRules", "modifierExtension")
"""Whatever else is asked for: what is needed to know the resource, and what may change the meaning of all the rest."""

Tree = dict[str, "Tree | None"]
"""Names of elements that are kept; below each either the names kept there, or everything."""

_OBJECT = msgspec.json.Decoder(dict[str, msgspec.Raw])
_VALUE = msgspec.json.Decoder(list[dict[str, msgspec.Raw]] | dict[str, msgspec.Raw])


class Representation(msgspec.Struct, frozen=True, kw_only=True):
    summary: str = "false"
    elements: tuple[str, ...] = ()
    is_pretty: bool = False

    @classmethod
    def asked(cls, given: Sequence[tuple[str, str]]) -> Representation:
        """Raises FhirError (400)."""
        summary = _one_of(given, "_summary", SUMMARIES) or "false"
        elements = tuple(sorted({name.strip() for key, value in given if key == "_elements" for name in value.split(",") if name.strip()}))
        if any(key == "_elements" for key, _ in given):
            if not elements:
                raise FhirError(400, "value", "_elements names no element", "http._elements")
            if summary != "false":
                raise FhirError(400, "value", "_elements and _summary both say what to leave out: give one of them", "http._elements")
        return cls(summary=summary, elements=elements, is_pretty=_one_of(given, "_pretty", ("true", "false")) == "true")

    @property
    def is_whole(self) -> bool:
        return self.summary == "false" and not self.elements

    @property
    def is_count(self) -> bool:
        """Of a search: how many, and none of them."""
        return self.summary == "count"

    def check(self, resource_types: Sequence[str]) -> None:
        """Raises FhirError (400) for an element that none of these types has."""
        known = {name for one in resource_types for name in element_names(one)}
        for name in self.elements:
            if _bare(name) not in known:
                of = resource_types[0] if len(resource_types) == 1 else "none of the types that are asked for"
                raise FhirError(400, "value", f"_elements: there is no element {name!r} in {of}", "http._elements")

    def of(self, resource_type: str, body: str | bytes) -> msgspec.Raw:
        """The resource as it is to be answered."""
        encoded = body.encode("utf-8") if isinstance(body, str) else body
        if self.is_whole:
            return msgspec.Raw(encoded)
        whole = _OBJECT.decode(encoded)
        if self.summary == "data":
            kept = {name: value for name, value in whole.items() if name != "text"}
        else:
            kept = _cut(whole, self._tree(resource_type))
        kept["meta"] = _with_subsetted(whole.get("meta"))
        return msgspec.Raw(msgspec.json.encode(kept))

    def encode(self, body: Any) -> bytes:
        encoded = msgspec.json.encode(body)
        return msgspec.json.format(encoded, indent=2) if self.is_pretty else encoded

    def _tree(self, resource_type: str) -> Tree:
        if self.summary == "true":
            return summary_tree(resource_type)
        if self.summary == "text":
            return {**mandatory(resource_type), "text": None}
        named = [name for name in self.elements if "." not in name or name.startswith(f"{resource_type}.")]
        chosen = element_names(resource_type)
        return {**mandatory(resource_type), **{json_name: None for name in named for json_name in chosen.get(_bare(name), ())}}


@lru_cache(maxsize=256)
def element_names(resource_type: str) -> dict[str, tuple[str, ...]]:
    """Name of each element of a type as `_elements` may write it → its names in JSON (``value`` → ``valueQuantity``, …)."""
    found: dict[str, tuple[str, ...]] = {}
    for element in _children(resource_type, resource_type):
        names = element.json_names
        for name in (element.name, *names):
            found[name.removesuffix("[x]")] = names if name == element.name else (name,)
    return found


@lru_cache(maxsize=256)
def mandatory(resource_type: str) -> Tree:
    """What is never left out: elements that must be there, and those that change the meaning of others."""
    wanted = [one for one in _children(resource_type, resource_type) if one.min > 0 or one.is_modifier]
    return dict.fromkeys((*_ALWAYS, *(name for one in wanted for name in one.json_names)))


@lru_cache(maxsize=256)
def summary_tree(resource_type: str) -> Tree:
    """The elements that R5 marks as summary, those of backbone elements too."""
    return {**dict.fromkeys(_ALWAYS), **_summary_below(resource_type, resource_type, ())}


def _summary_below(resource_type: str, path: str, above: tuple[str, ...]) -> Tree:
    tree: Tree = {}
    for element in _children(resource_type, path):
        if element.is_summary:
            inner = element.content_reference or element.path
            is_backbone = inner not in above and bool(_children(resource_type, inner))
            below = _summary_below(resource_type, inner, (*above, inner)) if is_backbone else None
            tree |= dict.fromkeys(element.json_names, below)
    return tree


def _children(resource_type: str, path: str) -> list[Element]:
    depth = path.count(".") + 1
    return [one for key, one in elements_by_path(resource_type).items() if key.startswith(f"{path}.") and key.count(".") == depth]


def _bare(name: str) -> str:
    """Of ``Observation.value[x]`` as of ``value``."""
    return name.rpartition(".")[2].removesuffix("[x]")


def _cut(whole: dict[str, msgspec.Raw], tree: Tree) -> dict[str, msgspec.Raw]:
    kept = {}
    for name, value in whole.items():
        key = name.removeprefix("_")  # of a primitive: its extensions
        if key in tree:
            below = tree[key]
            kept[name] = value if below is None else _cut_value(value, below)
    return kept


def _cut_value(value: msgspec.Raw, tree: Tree) -> msgspec.Raw:
    inner = _VALUE.decode(value)
    return msgspec.Raw(msgspec.json.encode([_cut(one, tree) for one in inner] if isinstance(inner, list) else _cut(inner, tree)))


def _with_subsetted(meta: msgspec.Raw | None) -> msgspec.Raw:
    parts = _OBJECT.decode(meta) if meta is not None else {}
    tags = msgspec.json.decode(parts["tag"], type=list[msgspec.Raw]) if "tag" in parts else []
    parts["tag"] = msgspec.Raw(msgspec.json.encode([*tags, SUBSETTED]))
    return msgspec.Raw(msgspec.json.encode(parts))


def _one_of(given: Sequence[tuple[str, str]], name: str, values: Sequence[str]) -> str | None:
    found = [value for key, value in given if key == name]
    if len(found) > 1 or (found and found[0] not in values):
        raise FhirError(400, "value", f"{name} is one of {', '.join(values)}, given once", f"http.{name}")
    return found[0] if found else None
