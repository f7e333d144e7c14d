"""The validator: what is right has no issue, and each kind of fault gives its own, at the element that has it."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from typing import Any

import msgspec
import pytest
from fhirpathpy import evaluate
from fhirpathpy.models import models
from golden.write_examples import EXAMPLES, FOLDER
from hypothesis import given, settings
from hypothesis import strategies as st
from mixed_log import fill

from eventlog.log import EventLog
from projections.fhir import guide
from projections.fhir.definitions import type_definition, type_names
from projections.fhir.projection import FhirProjection
from projections.fhir.vocabulary import LOG_ENTRY_EXTENSION
from projections.projection import schema_name
from projections.runner import Runner
from server.fhir.validation.conformance import unmet_rules
from server.fhir.validation.expressions import Context, NotEvaluated, holds, parsed
from server.fhir.validation.invariants import _NATIVE, broken
from server.fhir.validation.issues import MOST, Issue, operation_outcome
from server.fhir.validation.profiles import compiled, profile
from server.fhir.validation.validator import issues_of
from server.fhir.validation.walk import DEEPEST, Held, Scope, Walk

Json = dict[str, Any]
CATEGORY = "http://terminology.hl7.org/CodeSystem/observation-category"
MODEL = models["r5"]
CLINICAL = "http://terminology.hl7.org/CodeSystem/condition-clinical"
UCUM = "http://unitsofmeasure.org"
ABSENT = {"url": "http://hl7.org/fhir/StructureDefinition/data-absent-reason", "valueCode": "unknown"}
DIV = '<div xmlns="http://www.w3.org/1999/xhtml">{}</div>'


def observation() -> Json:
    return {
        "resourceType": "Observation",
        "id": "o1",
        "meta": {"tag": [{"system": "urn:example:tag", "code": "a"}]},
        "language": "de-AT",
        "text": {"status": "generated", "div": DIV.format("<p>Heart&nbsp;rate <b>72</b></p>")},
        "contained": [
            {"resourceType": "Patient", "id": "p", "gender": "female", "birthDate": "1970-02-28"},
            {"resourceType": "Provenance", "id": "v", "target": [{"reference": "#"}], "agent": [{"who": {"display": "somebody"}}]},
        ],
        "extension": [{"url": "urn:example:nested", "extension": [{"url": "deep", "valueDecimal": 1.5}]}],
        "identifier": [{"system": "urn:example", "value": "1", "period": {"start": "2024-01", "end": "2024-01-31T10:00:00Z"}}],
        "status": "final",
        "_status": {"id": "of-the-status"},
        "category": [{"coding": [{"system": CATEGORY, "code": "vital-signs"}]}],
        "code": {"coding": [{"system": "http://loinc.org", "code": "8867-4", "display": "Heart rate"}]},
        "subject": {"reference": "#p"},
        "focus": [{"reference": "https://example.org/fhir/Device/1/_history/2"}],
        "effectiveDateTime": "2024-02-29T23:59:59.5+01:00",
        "issued": "2024-03-01T00:00:00Z",
        "bodySite": {"text": "wrist"},
        "performer": [{"type": "Practitioner", "identifier": {"value": "x"}}, {"reference": "#p"}],
        "component": [
            {
                "code": {"text": "rate"},
                "valueQuantity": {"value": 72, "unit": "/min", "system": UCUM, "code": "/min"},
                "referenceRange": [{"low": {"value": 60}, "high": {"value": 100}}],
            },
            {"code": {"text": "rhythm"}, "valueString": "regular", "_valueString": {"extension": [{"url": "urn:x", "valueBoolean": True}]}},
        ],
    }


def bundle() -> Json:
    """A transaction whose entries refer to each other."""
    return {
        "resourceType": "Bundle",
        "type": "transaction",
        "entry": [
            {
                "fullUrl": "urn:uuid:5f1a8b1e-0c50-4c1f-8f2c-0a3f0d1f6a11",
                "resource": {
                    "resourceType": "Patient",
                    "active": True,
                    "name": [{"given": ["A", None], "_given": [None, {"extension": [ABSENT]}]}],
                },
                "request": {"method": "POST", "url": "Patient"},
            },
            {
                "fullUrl": "urn:uuid:5f1a8b1e-0c50-4c1f-8f2c-0a3f0d1f6a12",
                "resource": {
                    "resourceType": "Condition",
                    "clinicalStatus": {"coding": [{"system": CLINICAL, "code": "active"}]},
                    "subject": {"reference": "urn:uuid:5f1a8b1e-0c50-4c1f-8f2c-0a3f0d1f6a11"},
                },
                "request": {"method": "POST", "url": "Condition"},
            },
        ],
    }


GOOD: dict[str, Callable[[], Json]] = {"observation": observation, "bundle": bundle}


@pytest.mark.parametrize("name", GOOD)
def test_what_is_right_has_no_issue(name: str) -> None:
    assert issues_of(GOOD[name]()) == []
    (said,) = operation_outcome([])["issue"]
    assert (said["severity"], said["code"]) == ("information", "informational")


TAKE_OUT = object()
FAULTS: list[tuple[str, str, object, str, str, str]] = [
    # structure
    ("observation", "colour", "red", "error", "structure", "Observation.colour"),
    ("observation", "not a name", "red", "error", "structure", "Observation.`not a name`"),
    ("observation", "status", TAKE_OUT, "error", "invariant", "Observation.status"),  # of which only the id is left
    ("observation", "component.0.code", TAKE_OUT, "error", "required", "Observation.component[0].code"),
    ("observation", "component.0.valueQuantity", {}, "error", "invariant", "Observation.component[0].value.ofType(Quantity)"),
    ("observation", "component.0.valueBoolean", True, "error", "structure", "Observation.component[0].value.ofType(boolean)"),
    ("observation", "component.0.valueMoney", {"value": 1}, "error", "structure", "Observation.component[0].valueMoney"),
    ("observation", "component", {"code": {"text": "x"}}, "error", "structure", "Observation.component"),
    ("observation", "component", [], "error", "structure", "Observation.component"),
    ("observation", "subject", [{"reference": "#p"}], "error", "structure", "Observation.subject"),
    ("observation", "subject", "Patient/1", "error", "structure", "Observation.subject"),
    ("observation", "code", None, "error", "invariant", "Observation.code"),
    ("observation", "identifier.0.period._start", "x", "error", "structure", "Observation.identifier[0].period.start"),
    ("observation", "contained.0.resourceType", "Patent", "error", "structure", "Observation.contained[0].resourceType"),
    ("bundle", "entry.0.resource.resourceType", TAKE_OUT, "error", "structure", "Bundle.entry[0].resource.resourceType"),
    (
        "bundle", "entry.0.resource.name.0", {"given": ["A", "B"], "_given": [{"id": "a"}]}, "error", "structure",
        "Bundle.entry[0].resource.name[0].given",
    ),
    # primitives
    ("observation", "effectiveDateTime", "2023-02-29", "error", "value", "Observation.effective.ofType(dateTime)"),
    ("observation", "effectiveDateTime", "2024-02-28T10:00:00", "error", "value", "Observation.effective.ofType(dateTime)"),
    ("observation", "issued", "2024-02-28", "error", "value", "Observation.issued"),
    ("observation", "id", "a b", "error", "value", "Observation.id"),
    ("observation", "component.0.valueQuantity.value", "72", "error", "structure", "Observation.component[0].value.ofType(Quantity).value"),
    ("observation", "component.1.valueString", "", "error", "value", "Observation.component[1].value.ofType(string)"),
    ("observation", "component.1.valueString", "a\0b", "error", "value", "Observation.component[1].value.ofType(string)"),
    ("observation", "contained.0.active", "true", "error", "structure", "Observation.contained[0].active"),
    ("bundle", "entry.0.resource.multipleBirthInteger", 2**31, "error", "value", "Bundle.entry[0].resource.multipleBirth.ofType(integer)"),
    (
        "bundle", "entry.0.resource.multipleBirthInteger", 1.0, "error", "structure",
        "Bundle.entry[0].resource.multipleBirth.ofType(integer)",
    ),
    ("bundle", "entry.0.resource.telecom", [{"rank": 0}], "error", "value", "Bundle.entry[0].resource.telecom[0].rank"),
    # bindings
    ("observation", "contained.0.gender", "F", "error", "code-invalid", "Observation.contained[0].gender"),
    ("observation", "language", "not_a_language", "error", "code-invalid", "Observation.language"),
    (
        "bundle", "entry.1.resource.clinicalStatus.coding.0.system", "urn:x", "error", "code-invalid",
        "Bundle.entry[1].resource.clinicalStatus",
    ),
    ("bundle", "entry.1.resource.clinicalStatus", {"text": "active"}, "error", "code-invalid", "Bundle.entry[1].resource.clinicalStatus"),
    # references
    ("observation", "subject.reference", "Encounter/1", "error", "structure", "Observation.subject"),
    ("observation", "performer.0.type", "Location", "error", "structure", "Observation.performer[0]"),
    ("observation", "focus.0.type", "Patient", "error", "value", "Observation.focus[0].type"),
    ("observation", "focus.0", {"reference": "#"}, "error", "invariant", "Observation.focus[0]"),
    ("observation", "focus.0", {"reference": "#nobody"}, "error", "invariant", "Observation.focus[0]"),
    ("observation", "contained.1.target.0.reference", "Patient/1", "error", "invariant", "Observation.contained[1]"),
    (
        "bundle", "entry.1.resource.subject.reference", "urn:uuid:5f1a8b1e-0c50-4c1f-8f2c-0a3f0d1f6a12", "error",
        "structure", "Bundle.entry[1].resource.subject",
    ),
    # invariants
    ("observation", "contained.0.meta", {"versionId": "1"}, "error", "invariant", "Observation.contained[0]"),
    ("observation", "extension.0.valueString", "both", "error", "invariant", "Observation.extension[0]"),
    ("observation", "bodyStructure", {"reference": "BodyStructure/1"}, "error", "invariant", "Observation"),
    ("observation", "component.0.valueQuantity.system", TAKE_OUT, "error", "invariant", "Observation.component[0].value.ofType(Quantity)"),
    ("observation", "identifier.0.period.start", "2024-03", "error", "invariant", "Observation.identifier[0].period"),
    ("observation", "identifier.0.value", TAKE_OUT, "warning", "invariant", "Observation.identifier[0]"),
    (
        "observation", "component.0.referenceRange.0", {"age": {"low": {"value": 1}}}, "error", "invariant",
        "Observation.component[0].referenceRange[0]",
    ),
    ("observation", "text.div", DIV.format("<script>x</script>"), "error", "invariant", "Observation.text.`div`"),
    ("observation", "text.div", DIV.format(" "), "error", "invariant", "Observation.text.`div`"),
    ("observation", "text.div", "<div>", "error", "invariant", "Observation.text.`div`"),
    ("bundle", "total", 2, "error", "invariant", "Bundle"),
    ("bundle", "entry.0.request", TAKE_OUT, "error", "invariant", "Bundle"),
    ("bundle", "entry.1.resource.abatementString", "gone", "error", "invariant", "Bundle.entry[1].resource"),
]


@pytest.mark.parametrize("fault", FAULTS, ids=[f"{one[1]}-{nth}" for nth, one in enumerate(FAULTS)])
def test_each_fault_gives_its_issue_alone(fault: tuple[str, str, object, str, str, str]) -> None:
    name, where, instead, severity, code, expression = fault
    resource = changed(GOOD[name](), where, instead)
    (issue,) = issues_of(resource)
    assert (issue.severity, issue.code, issue.expression) == (severity, code, expression)
    if code != "required" and instead not in (TAKE_OUT, None, []) and "valueBoolean" not in where:  # there, the engine sees the other value
        assert evaluate(resource, expression, model=MODEL), "the expression leads to the element"


def changed(resource: Json, where: str, instead: object) -> Json:
    *parents, last = [int(step) if step.isdigit() else step for step in where.split(".")]
    parent: Any = resource
    for step in parents:
        parent = parent[step]
    if instead is TAKE_OUT:
        del parent[last]
    else:
        parent[last] = instead
    return resource


def test_no_text_of_an_issue_holds_a_value_of_the_resource() -> None:
    secret = "Elisabeth-of-Nowhere"
    resource = observation() | {"language": secret, "issued": secret, "status": secret, "bodyStructure": {"reference": f"{secret}/1"}}
    issues = issues_of(resource)
    assert len(issues) >= 3
    assert secret not in json.dumps(operation_outcome(issues))


async def test_all_that_a_log_gives_is_valid_and_conforms_to_its_profile(event_log: EventLog) -> None:
    await fill(event_log, 300)
    projection = FhirProjection()
    await Runner(event_log, [projection]).catch_up()
    rows = await event_log.pool.fetch(f"SELECT body FROM {schema_name(projection)}.resource WHERE body <> '' AND position_from > 0")
    made = [msgspec.json.decode(row["body"]) for row in rows]
    wrong = {(one["resourceType"], issue) for one in made for issue in issues_of(one, _profiles_of(one))}
    assert len(made) > 600 and wrong == set()


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_of_the_guide_conform(name: str) -> None:
    example = _example(name)
    assert issues_of(example, _profiles_of(example)) == []


CHANGES: list[tuple[str, str, object, str, str]] = [
    ("pseudonymous-patient", "name", [{"family": "Somebody"}], "structure", "Patient.name[0]"),
    ("pseudonymous-patient", "meta.security.0.code", "NOAUTH", "required", "Patient.meta.security"),
    ("series-selection", "code.coding.0.code", "121191", "value", "ImagingSelection.code"),
    ("finding-measurement", "status", "cancelled", "code-invalid", "Observation.status"),
    ("finding-measurement", "focus", TAKE_OUT, "required", "Observation.focus"),
    ("finding-measurement", "focus.0.reference", "Patient/1", "structure", "Observation.focus[0]"),
    ("finding-measurement", "component.0.valueQuantity.code", "mL", "value", "Observation.component[0].value.ofType(Quantity)"),
    ("log-provenance", "extension.1.valueIdentifier.system", "urn:x", "invariant", ""),
]
"""Example, where in it, what is put there instead, and the issue that comes of it."""


@pytest.mark.parametrize(("example", "where", "instead", "code", "expression"), CHANGES, ids=[f"{one[0]}-{one[1]}" for one in CHANGES])
def test_what_does_not_conform_is_said_with_where(example: str, where: str, instead: object, code: str, expression: str) -> None:
    resource = _example(example)
    asked = _profiles_of(resource)
    found = issues_of(changed(resource, where, instead), asked)
    assert code in {one.code for one in found if "profile" in one.text and one.severity == "error"}
    assert not expression or expression in {one.expression for one in found}


def test_a_slice_that_is_missing_and_a_value_that_is_in_none() -> None:
    measurement = _example("finding-measurement")
    (url,) = _profiles_of(measurement)
    other = copy.deepcopy(measurement)
    other["component"][3]["code"]["coding"][0]["code"] = "something-else"
    said = {(one.code, one.expression) for one in issues_of(other, [url])}
    assert said == {("structure", "Observation.component[3]"), ("required", "Observation.component")}
    del measurement["component"][2]
    assert {one.code for one in issues_of(measurement, [url])} == {"required"}


def test_a_profile_that_is_claimed_is_checked_and_one_that_nobody_knows_is_said() -> None:
    measurement = _example("finding-measurement")
    measurement["meta"]["profile"] = [guide.profile_url("finding-measurement"), "https://example.org/StructureDefinition/other"]
    (issue,) = issues_of(measurement)
    assert (issue.severity, issue.code, issue.expression) == ("warning", "not-found", "Observation.meta.profile[1]")
    del measurement["device"]
    assert ("required", "Observation.device") in {(one.code, one.expression) for one in issues_of(measurement)}


def test_a_profile_of_another_type_is_refused() -> None:
    (issue,) = issues_of(observation(), [guide.profile_url("curated-study")])
    assert (issue.code, issue.expression) == ("invalid", "Observation")


def test_a_structure_definition_may_be_any() -> None:
    """Choices by type, extensions by their URL, fixed values, and a snapshot where there is no differential."""
    elements = [
        {"id": "Patient.deceased[x]", "slicing": {"discriminator": [{"type": "type", "path": "$this"}], "rules": "closed"}},
        {"id": "Patient.deceased[x]:deceasedBoolean", "max": "1", "type": [{"code": "boolean"}], "fixedBoolean": False},
        {"id": "Patient.extension:entry", "min": 1, "type": [{"code": "Extension", "profile": [LOG_ENTRY_EXTENSION]}]},
        {"path": "Patient.name.family", "min": 1},
        {"id": "Patient.contact", "constraint": [{"key": "x-1", "severity": "warning", "human": "!", "expression": "name.exists()"}]},
    ]
    for part in ("differential", "snapshot"):
        made = compiled({"url": "urn:x", "type": "Patient", part: {"element": elements}})
        patient: Json = {"resourceType": "Patient", "deceasedDateTime": "2024", "name": [{"given": ["A"]}], "contact": [{"gender": "male"}]}
        said = [(one.code, one.expression) for one in unmet_rules(made, _held(patient))]
        assert said == [
            ("structure", "Patient.deceased.ofType(dateTime)"),
            ("required", "Patient.extension"),
            ("required", "Patient.name[0].family"),
            ("invariant", "Patient.contact[0]"),
        ]
        patient["deceasedBoolean"] = True
        del patient["deceasedDateTime"]
        assert ("value", "Patient.deceased.ofType(boolean)") in [(one.code, one.expression) for one in unmet_rules(made, _held(patient))]


def test_every_profile_of_the_guide_is_understood() -> None:
    for one in guide.ids("StructureDefinition"):
        known = profile(guide.profile_url(one))
        assert known is not None
        assert all(parsed(constraint.expression) is not None for constraint in known.rule.constraints)


def test_every_invariant_of_r5_can_be_parsed() -> None:
    elements = [element for name in sorted(type_names()) for element in type_definition(name).elements]
    wrong = {one.key for element in elements for one in element.constraints if parsed(one.expression) is None}
    assert wrong == set()


QUANTITIES = st.fixed_dictionaries({}, optional={"value": st.integers(0, 3), "code": st.just("mm"), "system": st.just(UCUM)})
OPERANDS: dict[str, st.SearchStrategy[Any]] = {
    "Coding": st.fixed_dictionaries({"id": st.just("x")}, optional={"code": st.just("a"), "display": st.just("b")}),
    "Reference": st.fixed_dictionaries(
        {"id": st.just("x")}, optional={"reference": st.just("Patient/1"), "display": st.just("b"), "identifier": st.just({"value": "1"})}
    ),
    "Quantity": QUANTITIES,
    "Identifier": st.fixed_dictionaries({"id": st.just("x")}, optional={"value": st.just("1")}),
    "ContactPoint": st.fixed_dictionaries({"id": st.just("x")}, optional={"value": st.just("1"), "system": st.just("phone")}),
    "Attachment": st.fixed_dictionaries({"id": st.just("x")}, optional={"data": st.just("YQ=="), "contentType": st.just("text/plain")}),
}
BEYOND_THE_ENGINE = ("lowBoundary", "htmlChecks")
TOO_LONG = {"sdf-24", "sdf-25"}


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_what_is_decided_in_python_is_decided_as_the_engine_does(data: st.DataObject) -> None:
    for name, operands in OPERANDS.items():
        value = data.draw(operands, label=name)
        context = Context({"resourceType": "Basic"}, {"resourceType": "Basic"})
        for one in type_definition(name).elements[0].constraints:
            if one.expression in _NATIVE:
                assert _NATIVE[one.expression](value) is holds(one.expression, value, name, context), one.key


ELEMENT = st.fixed_dictionaries(
    {"path": st.sampled_from(["A.b", "A.b.concept", "A.b.reference", "A.c.reference", "A.b.reference.reference"])},
    optional={
        "type": st.lists(
            st.fixed_dictionaries(
                {"code": st.sampled_from(["CodeableConcept", "CodeableReference", "Reference"])},
                optional={"targetProfile": st.just(["urn:x"])},
            ),
            max_size=2,
        ),
        "binding": st.just({"strength": "example"}),
    },
)


@given(st.lists(ELEMENT, max_size=5))
@settings(max_examples=100, deadline=None)
def test_what_takes_the_engine_too_long_is_decided_as_it_does(elements: list[Json]) -> None:
    context = Context({"resourceType": "StructureDefinition"}, {"resourceType": "StructureDefinition"})
    (snapshot,) = (one for one in type_definition("StructureDefinition").elements if one.path == "StructureDefinition.snapshot")
    compared = [one for one in snapshot.constraints if one.expression in _NATIVE]
    assert {one.key for one in compared} == TOO_LONG
    for one in compared:
        value = {"element": elements}
        assert _NATIVE[one.expression](value) is holds(one.expression, value, "StructureDefinition.snapshot", context), one.key


def test_each_decision_in_python_is_of_an_invariant_that_r5_has() -> None:
    elements = [element for name in sorted(type_names()) for element in type_definition(name).elements]
    known = {one.expression: one.key for element in elements for one in element.constraints}
    compared = {one.expression for name in OPERANDS for one in type_definition(name).elements[0].constraints}
    assert set(_NATIVE) <= set(known)
    rest = {known[one] for one in _NATIVE if one not in compared and not any(word in one for word in BEYOND_THE_ENGINE)}
    assert rest == TOO_LONG


def test_what_the_engine_cannot_evaluate_is_said_and_nothing_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    context = Context({"resourceType": "Basic"}, {"resourceType": "Basic"})
    for expression in ("name.unknownFunction()", "name.where(", "-(1 | 2)"):
        with pytest.raises(NotEvaluated):
            holds(expression, {"resourceType": "Basic", "name": 1}, "Basic", context)
    assert holds("id.trace('id').exists()", {"id": "secret"}, "Basic", context) is True
    assert "secret" not in "".join(capsys.readouterr())


def test_an_invariant_may_begin_with_the_name_of_its_type() -> None:
    complete = {"resourceType": "CodeSystem", "status": "active", "content": "complete"}
    assert issues_of(complete) == []
    assert ["csd-4" in one.text for one in issues_of({**complete, "content": "supplement"})] == [True]
    ingredient = {"substance": {"code": {"reference": {"reference": "SubstanceDefinition/a"}}}, "allergenicIndicator": True}
    text = "Ingredient.where(allergenicIndicator=true).count() + Ingredient.substance.code.reference.count() < 2"
    assert holds(text, ingredient, "Ingredient", Context(ingredient, ingredient)) is False


def test_nesting_and_the_number_of_issues_have_an_end() -> None:
    extension: Json = {"url": "urn:x", "valueBoolean": True}
    for _ in range(DEEPEST + 5):
        extension = {"url": "urn:x", "extension": [extension]}
    (issue,) = issues_of({"resourceType": "Basic", "code": {"text": "x"}, "extension": [extension]})
    assert issue.code == "too-costly"
    many = issues_of({"resourceType": "Patient", **{f"x{number}": 1 for number in range(2 * MOST)}})
    assert len(many) == MOST and many[-1].code == "informational"


def test_invariants_that_take_too_long_are_left_and_that_is_said() -> None:
    walk = Walk()
    walk.resource(observation())
    (issue,) = broken(walk.met, until=0)
    assert (issue.severity, issue.code) == ("information", "too-costly")


LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8)
JSON = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3), max_leaves=8
)

OTHER_NAMES = ("contained", "extension", "id", "reference", "resourceType", "valueString")


@given(JSON)
@settings(max_examples=100, deadline=None)
def test_any_json_is_answered(tree: Any) -> None:
    _is_said_well(issues_of(tree))


@given(st.sampled_from([*GOOD, *EXAMPLES]), st.data())
@settings(max_examples=300, deadline=None)
def test_whatever_is_changed_in_a_valid_resource_is_answered(name: str, data: st.DataObject) -> None:
    resource = GOOD[name]() if name in GOOD else _example(name)
    asked = _profiles_of(resource)
    for _ in range(data.draw(st.integers(1, 3))):
        _mutate(resource, data)
    _is_said_well(issues_of(resource, asked))


def _mutate(tree: Any, data: st.DataObject) -> None:
    """Somewhere in it: a value replaced, taken out, doubled, or a property under another one's name."""
    while True:
        keys = list(tree) if isinstance(tree, dict) else range(len(tree))
        key = data.draw(st.sampled_from(list(keys)))
        below = tree[key]
        if isinstance(below, dict | list) and below and data.draw(st.booleans()):
            tree = below
            continue
        what = data.draw(st.sampled_from(["replace", "remove", "wrap", "rename"]))
        if what == "remove" and len(keys) > 1:
            del tree[key]
        elif what == "wrap":
            tree[key] = [below, below]
        elif what == "rename" and isinstance(tree, dict):
            tree[data.draw(st.sampled_from([*OTHER_NAMES, f"_{key}"]))] = below
        else:
            tree[key] = data.draw(JSON)
        return


def _is_said_well(issues: list[Issue]) -> None:
    for one in issues:
        assert one.severity in ("error", "warning", "information") and one.text and one.expression


def _example(name: str) -> Json:
    return msgspec.json.decode((FOLDER / f"{name}.json").read_bytes())


def _profiles_of(resource: Json) -> list[str]:
    url = guide.profile_of(resource)
    return [] if url is None else [url]


def _held(resource: Json) -> Held:
    return Held(resource, resource["resourceType"], (None, resource["resourceType"], None), Scope(resource))
