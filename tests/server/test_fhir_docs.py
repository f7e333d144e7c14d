"""docs/fhir.md against the code: every resource and every search parameter has its place there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from projections.fhir.projection import CURATED
from server.fhir.parameters import supported

PAGE = (Path(__file__).parents[2] / "docs" / "fhir.md").read_text("utf-8")


@pytest.mark.parametrize("resource_type", CURATED)
def test_the_page_lists_just_the_parameters_that_are_served(resource_type: str) -> None:
    (row,) = re.findall(rf"^\| {resource_type} \| (`[^|]+) \|$", PAGE, re.MULTILINE)
    assert set(re.findall(r"`([^`]+)`", row)) == set(supported(resource_type)) - {"_id", "_lastUpdated"}
