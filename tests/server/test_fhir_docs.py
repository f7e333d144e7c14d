"""docs/fhir.md against the code: what can be searched by, and what cannot, has its place there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from projections.fhir import guide
from projections.fhir.definitions import resource_types, search_parameters
from projections.fhir.projection import CURATED
from server.fhir.comparisons import PREFIXES
from server.fhir.parameters import MODIFIERS, supported

PAGE = (Path(__file__).parents[2] / "docs" / "fhir.md").read_text("utf-8")


def table(head: str) -> list[list[str]]:
    """The cells of the table whose first line begins so."""
    lines = PAGE.split(f"\n{head}", 1)[1].split("\n\n", 1)[0].splitlines()[2:]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def quoted(text: str) -> set[str]:
    return set(re.findall(r"`([^`]+)`", text))


@pytest.mark.parametrize("resource_type", CURATED)
def test_the_page_says_what_each_resource_is(resource_type: str) -> None:
    assert resource_type in {row[0] for row in table("| resource | what it is |")}


def test_the_page_says_the_modifiers_of_each_type_of_parameter() -> None:
    said = {row[0]: {one.removeprefix(":") for one in quoted(row[2])} for row in table("| type | value | modifiers")}
    assert said == {kind: set(modifiers) - {"missing"} | ({"Type"} if kind == "reference" else set()) for kind, modifiers in MODIFIERS.items()}


def test_the_page_says_the_prefixes() -> None:
    assert quoted(PAGE.split("\nPrefixes are", 1)[1].split("(", 1)[0]) == set(PREFIXES)


def test_the_page_lists_the_parameters_of_the_guide() -> None:
    said = {(code, row[1]) for row in table("| of our guide | on |") for code in quoted(row[0])}
    assert said == {(one.code, base) for one in guide.search_parameters() for base in one.base if base != "Resource"}


def test_every_parameter_of_r5_is_served_but_those_that_the_page_names() -> None:
    refused = {code for row in table("| not there, and refused |") for code in quoted(row[0])}
    for resource_type in resource_types():
        left_out = set(search_parameters(resource_type)) - set(supported(resource_type)) - {"_has", "_type"}
        assert left_out <= refused, resource_type
