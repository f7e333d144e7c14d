"""R5's definitions as they are shipped: whole, typed, and the same bytes for the same content."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import msgspec
import pytest

from projections.fhir import definitions as r5

ROOT = Path(__file__).parents[2]


def test_there_is_every_resource_type_and_no_abstract_one() -> None:
    assert {"Patient", "ImagingSelection", "MolecularSequence", "Bundle", "Parameters"} <= set(r5.resource_types())
    assert not {"Resource", "DomainResource", "CanonicalResource", "vitalsigns"} & set(r5.resource_types())
    assert list(r5.resource_types()) == sorted(r5.resource_types())
    assert r5.is_resource_type("Patient") and not r5.is_resource_type("HumanName")


def test_every_type_can_be_read_and_every_type_that_an_element_names_is_there() -> None:
    for name in r5.type_names():
        definition = r5.type_definition(name)
        assert definition.elements[0].path == name
        for element in definition.elements:
            assert {one.code for one in element.types} <= r5.type_names(), element.path
            if element.content_reference is not None:
                assert element.content_reference in r5.elements_by_path(name)


def test_an_element_says_what_a_validator_asks() -> None:
    subject = r5.elements_by_path("Observation")["Observation.subject"]
    assert (subject.min, subject.max, subject.is_repeated, subject.is_summary) == (0, "1", False, True)
    assert "Patient" in subject.types[0].targets
    status = r5.elements_by_path("Observation")["Observation.status"]
    assert status.is_modifier and status.min == 1 and status.binding_strength == "required"
    assert r5.elements_by_path("Observation")["Observation.value[x]"].is_choice
    (obs_7,) = [one for one in r5.elements_by_path("Observation")["Observation"].constraints if one.key == "obs-7"]
    assert obs_7.severity == "error" and "component" in obs_7.expression
    assert r5.elements_by_path("Bundle")["Bundle.entry.link"].content_reference == "Bundle.link"
    assert r5.elements_by_path("id")["id.value"].types[0].regex == r"[A-Za-z0-9\-\.]{1,64}"


def test_required_value_sets_hold_their_codes() -> None:
    statuses = r5.value_set("http://hl7.org/fhir/ValueSet/observation-status|5.0.0")
    assert statuses is not None
    assert statuses.holds("final") and statuses.holds("final", "http://hl7.org/fhir/observation-status")
    assert not statuses.holds("finished") and not statuses.holds("final", "http://example.org")
    required = {
        element.value_set.partition("|")[0]
        for name in r5.type_names()
        for element in r5.type_definition(name).elements
        if element.binding_strength == "required" and element.value_set
    }
    assert {url.rpartition("/")[2] for url in required if r5.value_set(url) is None} == {"mimetypes", "all-languages", "ucum-units", "color-codes", ""}


def test_search_parameters_are_those_of_the_type_and_of_what_it_is_derived_from() -> None:
    of_patient = r5.search_parameters("Patient")
    assert {"birthdate", "general-practitioner", "_id", "_lastUpdated", "_text"} <= set(of_patient)
    assert "birthdate" not in r5.search_parameters("Bundle")
    assert of_patient["general-practitioner"].targets == ("Organization", "Practitioner", "PractitionerRole")
    composite = r5.search_parameters("Observation")["code-value-quantity"]
    assert [one.expression for one in composite.components] == ["code", "value.ofType(Quantity)"]
    for resource_type in r5.resource_types():
        for code, one in r5.search_parameters(resource_type).items():
            assert one.expression or one.code.startswith("_"), f"{resource_type}?{code}"
            assert (one.type == "composite") == bool(one.components)
            assert {part.type for part in one.components} <= {"number", "date", "string", "token", "reference", "quantity", "uri", "special"}


def test_compartments_name_parameters_that_exist() -> None:
    assert set(r5.compartments()) == {"Device", "Encounter", "Patient", "Practitioner", "RelatedPerson"}
    patient = r5.compartment("Patient")
    assert patient is not None and patient.parameters["Observation"] == ("subject", "performer")
    for one in r5.compartments().values():
        for resource_type, codes in one.parameters.items():
            assert set(codes) - {"{def}"} <= set(r5.search_parameters(resource_type)), resource_type


def test_operations_say_where_they_are_called() -> None:
    (everything,) = [one for one in r5.operations() if one.code == "everything" and one.resources == ("Patient",)]
    assert (everything.on_system, everything.on_type, everything.on_instance) == (False, True, True)
    assert everything.parameters[0].name == "start" and everything.parameters[0].type == "date"


def test_what_a_type_has_is_read_once_and_only_that() -> None:
    assert r5.type_definition("Patient") is r5.type_definition("Patient")
    script = "import projections.fhir.definitions as r5; r5.search_parameters('Patient'); print(r5.type_definition.cache_info().currsize)"
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True).stdout == "1\n"


def test_the_file_is_small_and_says_nothing_of_when_or_where_it_was_made() -> None:
    assert r5.FILE.stat().st_size < 3_000_000
    with zipfile.ZipFile(r5.FILE) as archive:
        entries = archive.infolist()
        assert [one.filename for one in entries] == sorted(one.filename for one in entries)
        assert {one.date_time for one in entries} == {(1980, 1, 1, 0, 0, 0)}
        assert {one.extra for one in entries} == {b""}
        text = archive.read("types/Observation")
    assert msgspec.json.encode(r5.type_definition("Observation"), order="deterministic") == text


@pytest.mark.parametrize("name", ["Nobody", "patient", ""])
def test_a_type_that_is_not_there_is_a_key_error(name: str) -> None:
    with pytest.raises(KeyError):
        r5.type_definition(name)
