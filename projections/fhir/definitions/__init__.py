"""R5's own definitions, as `make definitions` compiles them from the npm package hl7.fhir.r5.core 5.0.0 into one file.

Each part is read when it is first asked for, and kept: a server that never validates never decodes the elements of a type.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import msgspec

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

__all__ = [
    "FHIR_VERSION",
    "Compartment",
    "Constraint",
    "Element",
    "ElementType",
    "Operation",
    "OperationParameter",
    "ParameterComponent",
    "SearchParameter",
    "TypeDefinition",
    "ValueSetCodes",
    "compartment",
    "compartments",
    "defined_parameters",
    "elements_by_path",
    "is_resource_type",
    "operations",
    "resource_types",
    "search_parameters",
    "type_definition",
    "type_names",
    "value_set",
]

FHIR_VERSION = "5.0.0"
FILE = Path(__file__).with_name("r5.zip")

T = TypeVar("T")


@cache
def resource_types() -> tuple[str, ...]:
    """The types that a server may hold, in order of their names; neither abstract ones nor profiles."""
    return tuple(_part("resource_types", list[str]))


def is_resource_type(name: str) -> bool:
    return name in _resource_type_set()


@cache
def type_names() -> frozenset[str]:
    """Every type that has elements: resources, data types and primitives, abstract ones too."""
    with zipfile.ZipFile(FILE) as archive:
        return frozenset(name.removeprefix("types/") for name in archive.namelist() if name.startswith("types/"))


@cache
def type_definition(name: str) -> TypeDefinition:
    """A resource, data type or primitive by its name (``Patient``, ``HumanName``, ``date``). Raises KeyError."""
    return _part(f"types/{name}", TypeDefinition)


@cache
def elements_by_path(name: str) -> Mapping[str, Element]:
    """The elements of a type by path, as ``Observation.value[x]``; the first is the type itself. Raises KeyError."""
    return MappingProxyType({element.path: element for element in type_definition(name).elements})


@cache
def search_parameters(resource_type: str) -> Mapping[str, SearchParameter]:
    """The parameters of a resource type by code, those of Resource and DomainResource among them."""
    bases = {resource_type, *type_definition(resource_type).ancestors}
    return MappingProxyType({one.code: one for one in defined_parameters().values() if bases.intersection(one.base)})


@cache
def defined_parameters() -> Mapping[str, SearchParameter]:
    """Every search parameter of R5 by its canonical URL."""
    parameters: list[SearchParameter] = _part("search_parameters", list[SearchParameter])
    return MappingProxyType({one.url: one for one in parameters})


@cache
def value_set(url: str) -> ValueSetCodes | None:
    """The codes of a value set that some element requires; None where they cannot be listed (languages, MIME types, UCUM)."""
    return _value_sets().get(url.partition("|")[0])


@cache
def compartments() -> Mapping[str, Compartment]:
    """Compartment definitions by the type that they are named for: Patient, Encounter, Device, …"""
    known: list[Compartment] = _part("compartments", list[Compartment])
    return MappingProxyType({one.code: one for one in known})


def compartment(code: str) -> Compartment | None:
    return compartments().get(code)


@cache
def operations() -> tuple[Operation, ...]:
    """Every operation that R5 defines."""
    return tuple(_part("operations", list[Operation]))


@cache
def _resource_type_set() -> frozenset[str]:
    return frozenset(resource_types())


@cache
def _value_sets() -> dict[str, ValueSetCodes]:
    return _part("value_sets", dict[str, ValueSetCodes])


def _part(name: str, kind: type[T] | Any) -> T:
    with zipfile.ZipFile(FILE) as archive:
        return msgspec.json.decode(archive.read(name), type=kind)
