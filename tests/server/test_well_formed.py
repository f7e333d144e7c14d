"""What is taken for well-formed at a glance, fhir.resources takes too, nothing of it is empty, and it can be indexed."""

from __future__ import annotations

import copy
from decimal import Decimal
from functools import cache
from typing import Any

import msgspec
import pytest
from fhir.resources import get_fhir_model_class
from hypothesis import given, settings
from hypothesis import strategies as st
from rich_resources import rich_resource

from projections.fhir.definitions import elements_by_path, resource_types
from projections.fhir.search.rows import add_rows, no_rows
from server.fhir.outcome import FhirError
from server.fhir.writing import incoming
from server.fhir.writing.well_formed import is_well_formed

Json = dict[str, Any]
_DECODER = msgspec.json.Decoder(float_hook=Decimal)
COMMON = {"Patient", "Observation", "Condition", "Encounter", "ServiceRequest", "DiagnosticReport", "ImagingStudy", "AuditEvent"}
TYPES = sorted({*COMMON, *resource_types()[::4]})
"""fhir.resources takes long to make the models of all."""
ODD = st.sampled_from(
    [
        None, "", " ", "\n", "x", "a b", " a", "é", "\x1f", "\x85", "2024-02-29", "2023-02-29", "2023-04-31", "2024-13", "2024-1", "0999", "24:00:00",
        "2024-01-31T23:59:60Z", "2024-01-31T10:11Z", "2024-01-31T10:11:12", "2024-01-31T10:11:12.1234567Z", "2024-01-31T10:11:12+14:00",
        "10:11:12", True, False, 0, 1, -1, 2**31, -(2**31), 2**31 - 1, 2**64, 10**40, Decimal("1.50"), Decimal("1E+999"), Decimal("-0"), [], {}, [None],
        [[]], ["x"], [1], {"x": 1}, {"value": 1}, {"reference": "Patient/x"}, [{"reference": "Patient/x"}], {"extension": [{"url": "x"}]},
        {"extension": []}, [{"url": "x", "valueString": "y"}], [{"url": "x", "valueString": "y", "valueCode": "z"}], {"coding": [{"code": "c"}]},
    ]
)  # fmt: skip


@cache
def plain(resource_type: str, seed: int) -> Json:
    """What of a rich resource is taken: what it has to have, and of the rest each element with which it is well-formed still."""
    rich = _DECODER.decode(msgspec.json.encode(rich_resource(resource_type, seed)))
    elements = elements_by_path(resource_type)
    needed = {name for one in elements.values() if one.path.count(".") == 1 and one.min for name in one.json_names}
    made = {name: value for name, value in rich.items() if name in needed or name in ("resourceType", "id")}
    for name, value in rich.items():
        if is_well_formed({**made, name: value}):
            made[name] = value
    return made


def check(resource: Json) -> bool:
    if not is_well_formed(resource):
        return False
    get_fhir_model_class(resource["resourceType"]).model_validate(copy.deepcopy(resource))
    assert not list(incoming._empty(resource, ""))
    add_rows({**resource, "id": "x"}, 1, no_rows())
    return True


def test_of_most_types_much_is_taken() -> None:
    taken = [kind for kind in TYPES if check(plain(kind, 0))]
    assert len(taken) > 0.7 * len(TYPES)
    assert {*taken} >= COMMON
    assert sum(len(plain(kind, 0)) for kind in taken) > 8 * len(taken)


def _places(node: Any, so_far: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where something stands in a resource: keys and numbers that lead to it."""
    inner = list(node.items()) if isinstance(node, dict) else list(enumerate(node)) if isinstance(node, list) else []
    return [so_far, *(place for key, value in inner for place in _places(value, (*so_far, key)))]


@settings(max_examples=800, deadline=None)
@given(st.data())
def test_what_is_taken_is_taken_by_fhir_resources(data: st.DataObject) -> None:
    resource = copy.deepcopy(plain(data.draw(st.sampled_from(TYPES)), data.draw(st.integers(0, 2))))
    for _ in range(data.draw(st.integers(0, 3))):
        *way, last = data.draw(st.sampled_from(_places(resource)[1:] or [("language",)]))
        node: Any = resource
        for key in way:
            node = node[key]
        match data.draw(st.sampled_from(("replace", "delete", "add", "rename"))):
            case "replace":
                node[last] = copy.deepcopy(data.draw(ODD))
            case "delete":
                del node[last]
            case "add" if isinstance(node, dict):
                names = ["extension", "id", "_status", "fhir_comments", "valueCode", "text", "contained", "resourceType", "url", "language"]
                node[data.draw(st.sampled_from(names))] = copy.deepcopy(data.draw(ODD))
            case "rename" if isinstance(node, dict):
                node[f"_{last}"] = node.pop(last)
    if isinstance(resource.get("resourceType"), str) and resource["resourceType"] in resource_types():
        check(resource)


@pytest.mark.parametrize(
    "change",
    [
        {"status": "two words "}, {"status": None}, {"status": ""}, {"category": []}, {"category": {}}, {"category": [{}]}, {"subject": {}}, {"colour": "red"},
        {"valueString": "x", "valueBoolean": True}, {"effectiveDateTime": "2023-02-30"}, {"_status": {"id": "x"}}, {"contained": [{"resourceType": "Basic"}]},
        {"valueQuantity": {"value": "1"}}, {"valueQuantity": {"value": True}}, {"valueInteger": 2**31}, {"component": [{"valueString": "x"}]},
    ],
)  # fmt: skip
def test_what_is_not_plain_is_left_to_be_judged(change: Json) -> None:
    resource = {"resourceType": "Observation", "status": "final", "code": {"text": "x"}}
    assert is_well_formed(resource)
    assert not is_well_formed({**resource, **change})


def test_what_is_well_formed_and_cannot_be_indexed_is_refused() -> None:
    quantity = {"value": Decimal("1.5"), "system": "http://unitsofmeasure.org", "code": "10*99999"}
    resource = {"resourceType": "Observation", "status": "final", "code": {"text": "x"}, "valueQuantity": quantity}
    assert is_well_formed(resource)
    with pytest.raises(FhirError):
        incoming.checked(resource)


def test_what_is_refused_is_refused_as_before() -> None:
    with pytest.raises(incoming.Refused) as refused:
        incoming.checked({"resourceType": "Observation", "code": {"text": "x"}, "colour": "red"})
    assert {one["expression"][0] for one in refused.value.issues} == {"Observation.colour"}
    extension = [{"url": incoming.LOG_ENTRY_EXTENSION, "valueIdentifier": {"value": "1"}}]
    with pytest.raises(FhirError, match="only this server"):
        incoming.checked({"resourceType": "Basic", "code": {"text": "x"}, "extension": extension})
