"""Which fields there are, how elements are named, and how their values are read."""

from __future__ import annotations

import pytest

from domain.condition import Level
from projections.cohort.elements import MAX_VALUES, MORE, Elements, read
from projections.cohort.errors import FieldUnknown
from projections.cohort.fields import OWN, field_named, own_fields
from projections.cohort.naming import Kind


@pytest.mark.parametrize("name", ["SliceThickness", "00180050", "(0018,0050)", "0018,0050"])
def test_an_element_has_many_names_and_one_key(name: str) -> None:
    field = field_named(name, Level.SERIES)

    assert (field.name, field.key, field.kind, field.unit, field.level) == ("SliceThickness", "00180050", Kind.NUMBER, "mm", Level.SERIES)


@pytest.mark.parametrize("name", ['(0019,"SIEMENS MR HEADER",0C)', '(0019, "SIEMENS MR HEADER", 0c)'])
def test_a_private_element_is_named_by_its_creator_and_typed_by_the_dictionary(name: str) -> None:
    field = field_named(name, Level.SERIES)

    assert (field.key, field.kind, field.identifies) == ('(0019,"SIEMENS MR HEADER",0C)', Kind.NUMBER, False)


def test_an_unknown_private_element_is_text_that_may_identify() -> None:
    field = field_named('(0019,"ACME 1.0",0C)', Level.SERIES)

    assert (field.kind, field.identifies) == (Kind.TEXT, True)


def test_a_path_leads_into_sequences() -> None:
    field = field_named("RequestAttributesSequence.(0040,0009)", Level.FINDING)

    assert (field.name, field.key) == ("RequestAttributesSequence.ScheduledProcedureStepID", "00400275.00400009")


def test_patient_and_study_are_at_home_in_the_study() -> None:
    assert field_named("PatientName.family", Level.SERIES).level == Level.STUDY
    assert field_named("StudyDescription", Level.SERIES).level == Level.STUDY
    assert field_named("ProtocolName", Level.SERIES).level == Level.SERIES


def test_a_field_is_looked_up_in_what_an_entity_belongs_to() -> None:
    assert field_named("sex", Level.FINDING).level == Level.SUBJECT
    assert field_named("bytes", Level.INSTANCE).level == Level.INSTANCE
    assert field_named("bytes", Level.FINDING).level == Level.SERIES


@pytest.mark.parametrize(
    ("name", "level", "said"),
    [
        ("SliceThicknes", Level.SERIES, "SliceThickness"),
        ("lable", Level.FINDING, "label"),
        ("Modality", Level.SUBJECT, "ask whether it has a series"),
        ("label", Level.SERIES, "ask whether it has a finding"),
        ("sex", Level.TAG, "what is tagged"),
        ("PixelData", Level.SERIES, "no field"),
        ("SOPInstanceUID", Level.SERIES, "ask whether it has an instance"),
        ("StudyDescription.family", Level.SERIES, "no field"),
        ("Modality.", Level.SERIES, "no field"),
        ("", Level.SERIES, "no field"),
    ],
)
def test_what_is_not_known_is_refused_with_a_hint(name: str, level: Level, said: str) -> None:
    with pytest.raises(FieldUnknown, match=said):
        field_named(name, level)


@pytest.mark.parametrize("name", ["PatientName", "PatientID", "PatientBirthDate", "AccessionNumber", "ImageComments", "ReferringPhysicianName"])
def test_what_says_who_somebody_is_says_so(name: str) -> None:
    assert field_named(name, Level.SERIES).identifies


@pytest.mark.parametrize("name", ["PatientSex", "PatientAge", "PatientWeight", "StudyDescription", "SeriesDescription", "StationName", "sex", "age_years"])
def test_what_curation_needs_does_not_identify(name: str) -> None:
    assert not field_named(name, Level.SERIES).identifies


@pytest.mark.parametrize("name", ["SOPInstanceUID", "(0008,0018)"])
def test_what_names_an_instance_is_a_field_of_ours(name: str) -> None:
    assert field_named(name, Level.INSTANCE) == OWN[Level.INSTANCE]["sop_instance_uid"]


def test_every_field_of_ours_is_described() -> None:
    for level in Level:
        assert all(field.description and field_named(field.name, level) == field for field in own_fields(level))
        assert set(OWN[level]) <= {field.name for field in own_fields(level)}


def _kept(*headers: dict[str, object]) -> dict[str, list[object]]:
    elements = Elements()
    for header in headers:
        for element, values in read(header):
            elements.add(element, values)
    return elements.kept()


def test_values_are_read_by_the_dictionary() -> None:
    header = {
        "00080020": {"vr": "DA", "Value": ["20240229"]},
        "00080030": {"vr": "TM", "Value": ["101112.345"]},
        "0008002A": {"vr": "DT", "Value": ["20240229101112+0100"]},
        "00080060": {"vr": "CS", "Value": ["CT "]},
        "00101010": {"vr": "AS", "Value": ["006M"]},
        "00180050": {"vr": "DS", "Value": ["1.50"]},
        "00200013": {"vr": "IS", "Value": [7]},
        "00100010": {"vr": "PN", "Value": [{"Alphabetic": "Doe^Jane^Q^^", "Ideographic": "山田"}]},
        "0020000E": {"vr": "UI", "Value": ["1.2.3\0"]},
        "7FE00010": {"vr": "OW"},
        "00091001": {"vr": "LO", "Value": ["without a creator"]},
    }

    assert _kept(header) == {
        "00080020": ["2024-02-29"],
        "00080030": ["10:11:12"],
        "0008002A": ["2024-02-29"],
        "00080060": ["CT"],
        "00101010": [0.5],
        "00180050": [1.5],
        "00200013": [7],
        "00100010": ["Doe^Jane^Q"],
        "00100010.family": ["Doe"],
        "00100010.given": ["Jane"],
        "00100010.middle": ["Q"],
        "00100010.ideographic": ["山田"],
        "0020000E": ["1.2.3"],
    }


@pytest.mark.parametrize(
    ("tag", "vr", "value"),
    [("00180050", "DS", "thin"), ("00180050", "DS", "inf"), ("00080020", "DA", "20230229"), ("00080030", "TM", "25"), ("00101010", "AS", "old")],
)
def test_what_is_not_what_its_vr_says_is_no_value(tag: str, vr: str, value: str) -> None:
    assert _kept({tag: {"vr": vr, "Value": [value]}}) == {}


def test_private_elements_are_found_whatever_block_they_are_in() -> None:
    first = {"00190010": {"vr": "LO", "Value": ["SIEMENS MR HEADER"]}, "0019100C": {"vr": "IS", "Value": ["800"]}}
    second = {"00190012": {"vr": "LO", "Value": ["SIEMENS MR HEADER"]}, "0019120C": {"vr": "UN", "Value": ["1000"]}}

    assert _kept(first, second) == {'(0019,"SIEMENS MR HEADER",0C)': [800, 1000]}


def test_items_of_sequences_are_read_by_their_path() -> None:
    items = [{"00400009": {"vr": "SH", "Value": ["A"]}}, {"00400009": {"vr": "SH", "Value": ["B"]}}]

    assert _kept({"00400275": {"vr": "SQ", "Value": items}}) == {"00400275.00400009": ["A", "B"]}


def test_of_too_many_values_the_extremes_stay() -> None:
    headers = [{"00201041": {"vr": "DS", "Value": [number]}} for number in [*range(MAX_VALUES), 500, -7, 300]]

    kept = _kept(*headers)

    assert kept["00201041"] == [*range(MAX_VALUES), -7, 500]
    assert kept[MORE] == ["00201041"]


def test_values_are_the_same_wherever_a_row_was_kept_in_between() -> None:
    headers = [{"00201041": {"vr": "DS", "Value": [(number * 37) % 300]}} for number in range(250)]
    in_parts = Elements()
    for header in headers:
        in_parts = Elements(in_parts.kept())
        for element, values in read(header):
            in_parts.add(element, values)

    assert in_parts.kept() == _kept(*headers)
