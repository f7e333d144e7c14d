"""Compiles what R5 says of itself (npm hl7.fhir.r5.core and hl7.fhir.r5.expansions 5.0.0, CC0) into the one file that is shipped.

Run by `make definitions`. The same packages give the same bytes: the order is that of names, and no time goes in.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import tarfile
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from projections.fhir.definitions import FILE
from projections.fhir.definitions.structures import (
    Compartment,
    Constraint,
    Element,
    ElementType,
    Operation,
    OperationParameter,
    ParameterComponent,
    SearchParameter,
    TypeDefinition,
    ValueSetCodes,
)

PACKAGES = ("hl7.fhir.r5.core@5.0.0", "hl7.fhir.r5.expansions@5.0.0")
BASE = "http://hl7.org/fhir/StructureDefinition/"
FHIR_TYPE = f"{BASE}structuredefinition-fhir-type"
REGEX = f"{BASE}regex"
EARLIEST = (1980, 1, 1, 0, 0, 0)
"""The time of every entry: the first that a zip file can say."""

Json = dict[str, Any]

PARAMETER = "http://hl7.org/fhir/SearchParameter/"
MENDED = {
    f"{PARAMETER}ImagingStudy-reason": "ImagingStudy.reason.concept",
    f"{PARAMETER}Medication-form": "Medication.doseForm",
    f"{PARAMETER}MedicationKnowledge-packaging-cost": "MedicationKnowledge.cost.cost.ofType(Money)",
    f"{PARAMETER}MedicationKnowledge-packaging-cost-concept": (
        "MedicationKnowledge.cost.cost.ofType(CodeableConcept)"
    ),
    f"{PARAMETER}clinical-date": "CareTeam.period",
    f"{PARAMETER}Device-serial-number": "Device.serialNumber | Device.identifier.where(type.coding.code = 'SNO').value",
}
"""Expressions for the parameters that R5 publishes without one; and what R5 left out of one (see _mended)."""
SWAPPED = f"{PARAMETER}DocumentReference-relationship"
"""A composite whose two components R5 gives each other's expression."""
LOCATION_PERIOD = f"{PARAMETER}Encounter-location-period"
"""A composite of which one component leads past the reference that it is to compare."""
COMPONENT_TYPES = {
    f"{PARAMETER}DeviceDefinition-version": "string",
    f"{PARAMETER}Encounter-period": "date",
    f"{PARAMETER}Ingredient-denominator": "quantity",
    f"{PARAMETER}Ingredient-numerator": "quantity",
    f"{PARAMETER}Observation-value-string": "string",
    f"{PARAMETER}ResearchStudy-actual": "token",
    f"{PARAMETER}ResearchStudy-period": "date",
    f"{PARAMETER}ResearchStudy-state": "token",
    f"{PARAMETER}TestScript-artifact": "uri",
    f"{PARAMETER}TestScript-conformance": "token",
    f"{PARAMETER}TestScript-phase": "token",
}
"""Of the components whose definition R5 names but does not publish: the type that fits the element."""
EXAMPLES = frozenset({"example", "example-constraint", "example-extension", "example-reference", "filter"})
"""Ids of SearchParameters in the package that are examples, or a second one of the same code."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--packages", type=Path, help="a folder with both packages as .tgz; fetched by npm pack unless given")
    parser.add_argument("--output", type=Path, default=FILE)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        packages = arguments.packages or fetch(Path(folder))
        resources = [resource for name in PACKAGES for resource in contents(packages / f"{name.replace('@', '-')}.tgz")]
    write(compile_parts(resources), arguments.output)


def fetch(folder: Path) -> Path:
    subprocess.run(["npm", "pack", "--silent", *PACKAGES], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return folder


def contents(package: Path) -> Iterator[Json]:
    """Every resource of an npm package; of a value set that both packages have, the one with its expansion comes second."""
    with tarfile.open(package) as archive:
        for member in sorted(archive.getmembers(), key=lambda one: one.name):
            name = member.name.rpartition("/")[2]
            if member.name.count("/") == 1 and name.endswith(".json") and name[0].isupper():
                file = archive.extractfile(member)
                assert file is not None
                yield json.load(file)


def compile_parts(resources: list[Json]) -> dict[str, Any]:
    """Name of each part of the file → what it holds."""
    by_kind: dict[str, list[Json]] = {}
    for resource in resources:
        by_kind.setdefault(resource["resourceType"], []).append(resource)
    types = sorted(_types(by_kind["StructureDefinition"]), key=lambda one: one.name)
    parameters = [one for one in by_kind["SearchParameter"] if one["id"] not in EXAMPLES]
    parameter_types = COMPONENT_TYPES | {one["url"]: one["type"] for one in parameters}
    codes = {(base, one["code"]) for one in parameters for base in one["base"]}
    value_sets = dict(_value_sets(by_kind["ValueSet"], _required(types)))
    return {
        "resource_types": [one.name for one in types if one.kind == "resource" and not one.is_abstract],
        "search_parameters": sorted((_search_parameter(one, parameter_types) for one in parameters), key=lambda one: one.url),
        "value_sets": dict(sorted(value_sets.items())),
        "compartments": sorted((_compartment(one, codes) for one in by_kind["CompartmentDefinition"]), key=lambda one: one.code),
        "operations": sorted(map(_operation, by_kind["OperationDefinition"]), key=lambda one: one.url),
        **{f"types/{one.name}": one for one in types},
    }


def write(parts: dict[str, Any], path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name in sorted(parts):
            entry = zipfile.ZipInfo(name, EARLIEST)
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, msgspec.json.encode(parts[name], order="deterministic"))


def _types(definitions: list[Json]) -> Iterator[TypeDefinition]:
    """Those of R5 itself: no profile, no logical model."""
    parents = {one["url"]: one.get("baseDefinition") for one in definitions}
    for one in definitions:
        if one["kind"] == "logical" or one.get("derivation") == "constraint" or "snapshot" not in one:
            continue
        ancestors, parent = [], one.get("baseDefinition")
        while parent is not None:
            ancestors.append(parent.removeprefix(BASE))
            parent = parents.get(parent)
        yield TypeDefinition(
            name=one["type"],
            kind=one["kind"],
            url=one["url"],
            elements=tuple(_element(element) for element in one["snapshot"]["element"]),
            ancestors=tuple(ancestors),
            is_abstract=one["abstract"],
        )


def _element(given: Json) -> Element:
    binding = given.get("binding", {})
    return Element(
        path=given["path"],
        min=given["min"],
        max=given["max"],
        types=tuple(_element_type(one) for one in given.get("type", [])),
        binding_strength=binding.get("strength"),
        value_set=binding.get("valueSet"),
        constraints=tuple(
            Constraint(one["key"], one["severity"], one["human"], one.get("expression", "")) for one in given.get("constraint", [])
        ),
        is_summary=given.get("isSummary", False),
        is_modifier=given["isModifier"],
        content_reference=given["contentReference"].rpartition("#")[2] if "contentReference" in given else None,
        fixed=_beginning(given, "fixed"),
        pattern=_beginning(given, "pattern"),
        max_length=given.get("maxLength"),
    )


def _element_type(given: Json) -> ElementType:
    said = {one["url"]: one.get("valueUrl", one.get("valueString")) for one in given.get("extension", [])}
    return ElementType(
        code=said.get(FHIR_TYPE, given["code"]),
        targets=tuple(sorted(one.removeprefix(BASE) for one in given.get("targetProfile", []))),
        profiles=tuple(given.get("profile", [])),
        regex=said.get(REGEX),
    )


def _beginning(given: Json, name: str) -> Json | None:
    return {key: value for key, value in given.items() if key.startswith(name)} or None


def _search_parameter(given: Json, types: dict[str, str]) -> SearchParameter:
    return SearchParameter(
        code=given["code"],
        type=given["type"],
        url=given["url"],
        base=tuple(given["base"]),
        expression=_mended(given),
        targets=tuple(sorted(given.get("target", []))),
        components=tuple(
            ParameterComponent(one["definition"], types[one["definition"]], one["expression"]) for one in _components(given)
        ),
        comparators=tuple(given.get("comparator", [])),
        modifiers=tuple(given.get("modifier", [])),
        processing_mode=given.get("processingMode", "normal"),
    )


def _mended(given: Json) -> str | None:
    expression, mended = given.get("expression"), MENDED.get(given["url"])
    if given["code"] == "date" and expression and mended:  # of many types, of which one was forgotten
        return f"{expression} | {mended}"
    return mended or expression


def _components(given: Json) -> list[Json]:
    components = given.get("component", [])
    if given["url"] == LOCATION_PERIOD:
        return [{**one, "expression": one["expression"].removesuffix(".reference")} for one in components]
    if given["url"] != SWAPPED:
        return components
    return [
        {**one, "expression": other["expression"]} for one, other in zip(components, reversed(components), strict=True)
    ]


def _required(types: list[TypeDefinition]) -> set[str]:
    """Value sets, without their versions, that some element is bound to by strength required."""
    bound = (element.value_set for one in types for element in one.elements if element.binding_strength == "required")
    return {url.partition("|")[0] for url in bound if url}


def _value_sets(definitions: list[Json], wanted: set[str]) -> Iterator[tuple[str, ValueSetCodes]]:
    for one in definitions:
        concepts = list(_contained(one.get("expansion", {}).get("contains", [])))
        if one["url"] in wanted and concepts:
            codes: dict[str, set[str]] = {}
            for concept in concepts:
                codes.setdefault(concept.get("system", ""), set()).add(concept["code"])
            yield one["url"], ValueSetCodes({system: frozenset(codes[system]) for system in sorted(codes)})


def _contained(concepts: list[Json]) -> Iterator[Json]:
    for one in concepts:
        if "code" in one and not one.get("abstract", False):
            yield one
        yield from _contained(one.get("contains", []))


def _compartment(given: Json, codes: set[tuple[str, str]]) -> Compartment:
    """R5 names one search parameter that there is not (CommunicationRequest.sender): it goes."""
    parameters = {
        one["code"]: tuple(code for code in one["param"] if code == "{def}" or (one["code"], code) in codes)
        for one in given["resource"]
        if one.get("param")
    }
    return Compartment(given["code"], given["url"], parameters)


def _operation(given: Json) -> Operation:
    return Operation(
        code=given["code"],
        url=given["url"],
        kind=given["kind"],
        affects_state=given.get("affectsState", False),
        resources=tuple(given.get("resource", [])),
        on_system=given["system"],
        on_type=given["type"],
        on_instance=given["instance"],
        parameters=tuple(_operation_parameter(one) for one in given.get("parameter", [])),
    )


def _operation_parameter(given: Json) -> OperationParameter:
    return OperationParameter(
        name=given["name"],
        use=given["use"],
        min=given["min"],
        max=given["max"],
        type=given.get("type"),
        search_type=given.get("searchType"),
        targets=tuple(one.removeprefix(BASE) for one in given.get("targetProfile", [])),
        scopes=tuple(given.get("scope", [])),
        parts=tuple(_operation_parameter(one) for one in given.get("part", [])),
    )


if __name__ == "__main__":
    main()
