"""A rich resource of any R5 type, made from R5's own definitions: every element is there, repeated ones twice.

The same type and seed give the same resource. Of a choice of types each seed takes another one. Bindings that are required are met;
invariants are not minded.
"""

from __future__ import annotations

import hashlib
from typing import Any

from projections.fhir.definitions import Element, ElementType, elements_by_path, value_set

Json = dict[str, Any]

DEPTH = 5
PRIMITIVES: dict[str, tuple[Any, ...]] = {
    "base64Binary": ("aGVsbG8=", "d29ybGQ="),
    "boolean": (True, False),
    "canonical": ("http://example.org/fhir/Questionnaire/one|1.0", "http://example.org/fhir/PlanDefinition/two"),
    "code": ("alpha", "beta"),
    "date": ("2024-02-29", "2023-05", "1970"),
    "dateTime": ("2024-02-29T10:11:12.345+01:00", "2023-05-06", "2022"),
    "decimal": (1.5, -20.25, 0.001),
    "id": ("an-id", "another.id"),
    "instant": ("2024-02-29T10:11:12Z", "2023-05-06T07:08:09.123-05:00"),
    "integer": (-7, 12),
    "integer64": ("9007199254740993", "-5"),
    "markdown": ("*Größe* of it", "plain"),
    "oid": ("urn:oid:1.2.3.4", "urn:oid:2.25.7"),
    "positiveInt": (3, 8),
    "string": ("Müller-Lüdenscheidt", "two words", "Ångström"),
    "time": ("10:11:12", "23:59:59"),
    "unsignedInt": (0, 41),
    "uri": ("http://example.org/a/b", "urn:example:x"),
    "url": ("http://example.org/fhir/endpoint", "https://example.org/b"),
    "uuid": ("urn:uuid:c757873d-ec9a-4326-a141-556f43239520", "urn:uuid:a757873d-ec9a-4326-a141-556f43239520"),
    "xhtml": ('<div xmlns="http://www.w3.org/1999/xhtml">text</div>',),
}
UNITS = (("mm3", "mm3"), ("mL", "mL"), ("kg", "kg"), ("Cel", "degree C"))
LEFT_OUT = {"id", "extension", "modifierExtension", "contained", "implicitRules"}


def rich_resource(resource_type: str, seed: int = 0) -> Json:
    made = _Maker(seed).fields(resource_type, resource_type, 0)
    return {"resourceType": resource_type, "id": f"{resource_type.lower()}-{seed}"[:64], **made}


class _Maker:
    def __init__(self, seed: int) -> None:
        self._seed = seed

    def fields(self, definition: str, path: str, depth: int) -> Json:
        """The elements directly below a path."""
        made: Json = {}
        for element in elements_by_path(definition).values():
            parent, _, name = element.path.rpartition(".")
            if parent != path or name in LEFT_OUT or element.max == "0":
                continue
            chosen, name = self._choice(element, name)
            if (chosen is None and element.content_reference is None) or depth >= DEPTH:
                continue
            values = [self._value(definition, element, chosen, depth, nth) for nth in range(2 if element.is_repeated else 1)]
            values = [value for value in values if value not in ({}, None)]
            if values:
                made[name] = values if element.is_repeated else values[0]
        return made

    def _choice(self, element: Element, name: str) -> tuple[ElementType | None, str]:
        if not element.types:
            return None, name
        chosen = element.types[self._pick(element.path, len(element.types)) if element.is_choice else 0]
        if element.is_choice:
            name = f"{name.removesuffix('[x]')}{chosen.code[0].upper()}{chosen.code[1:]}"
        return chosen, name

    def _value(self, definition: str, element: Element, chosen: ElementType | None, depth: int, nth: int) -> Any:
        if chosen is None:
            return self.fields(definition, str(element.content_reference), depth + 2)
        code = chosen.code
        if code in PRIMITIVES:
            return self._primitive(element, code, nth)
        if code in ("BackboneElement", "Element"):
            return self.fields(definition, element.path, depth + 1)
        if code == "Resource":
            return {"resourceType": "Basic", "id": f"inner-{nth}", "code": {"text": "inner"}}
        if code == "Reference":
            return self._reference(element, chosen, nth)
        if code in ("Quantity", "Age", "Duration", "Distance", "Count"):
            unit, display = UNITS[self._pick(f"{element.path}{nth}", len(UNITS))]
            return {"value": 10.5 + nth, "unit": display, "system": "http://unitsofmeasure.org", "code": unit}
        if code == "Extension":
            return {"url": "http://example.org/extension", "valueString": "extended"}
        return self.fields(code, code, depth + 1)

    def _reference(self, element: Element, chosen: ElementType, nth: int) -> Json:
        targets = chosen.targets or ("Patient",)
        target = targets[self._pick(f"{element.path}{nth}", len(targets))]
        if target == "Resource":
            target = "Patient"
        return {"reference": f"{target}/{target.lower()}-{self._pick(element.path, 5)}", "display": f"a {target}"}

    def _primitive(self, element: Element, code: str, nth: int) -> Any:
        if element.binding_strength == "required" and element.value_set:
            codes = value_set(element.value_set)
            if codes is not None:
                listed = sorted(one for of_system in codes.codes.values() for one in of_system)
                return listed[(self._pick(element.path, len(listed)) + nth) % len(listed)]
        samples = PRIMITIVES[code]
        return samples[(self._pick(element.path, len(samples)) + nth) % len(samples)]

    def _pick(self, said: str, size: int) -> int:
        return int.from_bytes(hashlib.sha256(f"{self._seed} {said}".encode()).digest()[:4], "big") % size
