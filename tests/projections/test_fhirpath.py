"""Compiled FHIRPath against an engine that we did not write, on every search expression of R5."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from fhirpathpy import evaluate as interpreted
from fhirpathpy.engine.nodes import TypeInfo
from fhirpathpy.models import models
from rich_resources import rich_resource

from projections.fhir.definitions import resource_types, search_parameters
from projections.fhir.fhirpath import UnsupportedExpression, compiled, compiled_from, evaluate

NOTHING_IN_R5 = {
    ("EvidenceVariable", "topic"),
    ("Observation", "component-value-canonical"),
    ("Observation", "value-canonical"),
}
"""Parameters whose expressions name elements or types that R5 does not have there."""
_RESOLVE = re.compile(r"\.where\(resolve\(\) is (\w+)\)")


def of_type(expression: str, resource_type: str) -> str:
    """The parts of a union that are about one type: the other engine takes minutes for all of them."""
    if expression.endswith(").first()"):
        return expression
    parts = [part.strip() for part in expression.split("|")]
    return " | ".join(part for part in parts if re.match(rf"\(*({resource_type}|Resource|DomainResource)\b", part))


@pytest.mark.parametrize("resource_type", resource_types())
def test_every_search_parameter_that_has_an_expression_compiles(resource_type: str) -> None:
    for code, parameter in search_parameters(resource_type).items():
        if parameter.expression is None:
            continue
        branches = compiled(parameter.expression, resource_type)
        assert bool(branches) != ((resource_type, code) in NOTHING_IN_R5), code
        for component in parameter.components:
            for branch in branches:
                compiled_from(component.expression, branch)


def expressions(resource_type: str) -> list[str]:
    return sorted({of_type(one.expression, resource_type) for one in search_parameters(resource_type).values() if one.expression} - {""})


def as_text(values: list[Any]) -> list[str]:
    """Of a union, what is there twice counts once (FHIRPath 2.0.0, 6.5)."""
    return sorted({json.dumps(value, sort_keys=True, default=float) for value in values})


@pytest.mark.parametrize("resource_type", resource_types())
def test_compiled_gives_what_another_engine_gives(resource_type: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # Without the ancestors of types, which the engine keeps for the whole process once a module has asked for them: `as uri` in a search
    # parameter means uri, and R5 has another parameter beside it for canonical.
    monkeypatch.setattr(TypeInfo, "model", None)
    resources = [rich_resource(resource_type, seed) for seed in range(2)]
    for expression in expressions(resource_type):
        resolved = _RESOLVE.findall(expression)
        ours = expression if len(resolved) == expression.count("|") + 1 else _RESOLVE.sub("", expression)
        for resource in resources:
            expected = interpreted(resource, as_the_other_writes_it(expression, resource_type), {}, models["r5"])
            if ours is expression and resolved:
                expected = [one for one in expected if one.get("reference", "").startswith(f"{resolved[0]}/")]
            assert as_text(evaluate(ours, resource)) == as_text(expected), expression


def as_the_other_writes_it(expression: str, resource_type: str) -> str:
    """It resolves nothing, takes `as` of one value alone, and does not know that a type is a Resource."""
    expression = re.sub(r"\bResource\.", f"{resource_type}.", _RESOLVE.sub("", expression))
    return re.sub(r"\(?([\w.]+(?:\[\d+\])?[\w.]*) as (\w+)\)?", r"\1.ofType(\2)", expression)


PATIENT: dict[str, Any] = {
    "resourceType": "Patient",
    "deceasedDateTime": "2020",
    "telecom": [{"system": "phone", "value": "1"}, {"system": "email", "value": "a@b"}],
    "extension": [{"url": "http://example.org/one", "valueString": "here"}, {"url": "http://example.org/two", "valueCode": "there"}],
    "contact": [{"name": {"family": "X"}}],
}


@pytest.mark.parametrize(
    ("expression", "resource", "values"),
    [
        ("Patient.deceased.exists() and Patient.deceased != false", PATIENT, [True]),
        ("Patient.deceased.exists() and Patient.deceased != false", {"resourceType": "Patient", "deceasedBoolean": False}, [False]),
        ("Patient.deceased.exists() and Patient.deceased != false", {"resourceType": "Patient"}, [False]),
        ("Patient.telecom.where(system='email').value", PATIENT, ["a@b"]),
        ("Patient.extension('http://example.org/two').value", PATIENT, ["there"]),
        ("Patient.contact.name.family | Person.name", PATIENT, ["X"]),
        ("Patient.telecom[1].value", PATIENT, ["a@b"]),
        ("(Patient.telecom.value).first()", PATIENT, ["1"]),
        ("Observation.value", PATIENT, []),
        ("(Observation.value as Quantity).value", {"resourceType": "Observation", "valueQuantity": {"value": 3}}, [3]),
        ("Bundle.entry[0].resource as Composition", {"resourceType": "Bundle", "entry": [{"resource": {"resourceType": "Patient"}}]}, []),
        (
            "Observation.subject.where(resolve() is Patient)",
            {"resourceType": "Observation", "subject": {"type": "Patient", "identifier": {"value": "7"}}},
            [{"type": "Patient", "identifier": {"value": "7"}}],
        ),
    ],
)
def test_what_it_means(expression: str, resource: dict[str, Any], values: list[Any]) -> None:
    assert evaluate(expression, resource) == values


@pytest.mark.parametrize("odd", [{}, [], "text", 5, None, [None], [[]], {"value": []}])
@pytest.mark.parametrize("resource_type", ["Observation", "Patient", "Bundle"])
def test_what_has_the_wrong_shape_gives_nothing_and_no_failure(resource_type: str, odd: Any) -> None:
    for name in ("component", "telecom", "entry", "subject", "name", "extension", "effectiveTiming"):
        for expression in expressions(resource_type):
            evaluate(expression, {"resourceType": resource_type, name: odd})


@pytest.mark.parametrize("expression", ["Patient.name.", "Patient.name.matches('x')", "Patient name", "", "Patient.name[x]", "Patient.a + 1"])
def test_what_is_not_understood_is_refused(expression: str) -> None:
    with pytest.raises(UnsupportedExpression):
        compiled(expression, "Patient")
