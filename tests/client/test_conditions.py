"""Conditions as text: each reads back as itself, the server takes what is built, and mistakes are told with their place."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_conditions import CONDITIONS

from anamnesis.client import any_of, field, followed, has
from anamnesis.client.conditions import Condition
from anamnesis.client.errors import AnamnesisError, ConditionUnreadable
from anamnesis.client.language import parse, write
from domain import condition as domain


@given(CONDITIONS)
def test_every_condition_reads_back_as_itself(condition: Condition) -> None:
    assert parse(write(condition)) == condition


@given(CONDITIONS)
def test_the_server_takes_what_is_built_and_writes_it_as_the_client_does(condition: Condition) -> None:
    query = domain.decode(json.dumps({"level": "series", "where": condition.to_json()}).encode())
    assert Condition(json.loads(domain.encode(query))["where"]) == condition


@given(st.text(max_size=60) | st.lists(st.sampled_from(["(", ")", "and", "not", "x", "=", "1", "has", "finding", "followed", "to", "in", ",", "'"]), max_size=12).map(" ".join))
def test_any_text_is_a_condition_or_refused_by_name(text: str) -> None:
    try:
        condition = parse(text)
    except ConditionUnreadable as error:
        refused = error
    else:
        assert parse(write(condition)) == condition
        return
    assert isinstance(refused, AnamnesisError) and 1 <= refused.column <= len(text) + 1


LIVER = (field("label") == "liver") & (field("volume_ml") > 1200) & (field("whole") == True)  # noqa: E712


@pytest.mark.parametrize(
    ("text", "condition"),
    [
        ("Modality = CT", field("Modality") == "CT"),
        ("Modality != CT", ~(field("Modality") == "CT")),
        ("Modality in (CT, MR)", field("Modality").one_of(["CT", "MR"])),
        ("SliceThickness <= 1.5", field("SliceThickness") <= 1.5),
        ("every SliceThickness <= 1.5", field("SliceThickness").every <= 1.5),
        ("age_years from 50 below 70", field("age_years").between(at_least=50, less_than=70)),
        ("study_date >= 2020-01-31", field("study_date") >= "2020-01-31"),
        ("00180050 = '00180050'", field("00180050") == "00180050"),
        ("SeriesNumber = 5 or SeriesNumber = '5'", (field("SeriesNumber") == 5) | (field("SeriesNumber") == "5")),
        ("SeriesDescription resembles \"portal ven\"", field("SeriesDescription").contains("portal ven", tolerant=True)),
        ("verdict = ''", field("verdict") == ""),
        ("not KVP is present", ~field("KVP").present()),
        ("has findings (label = liver and volume_ml > 1200 and whole = true)", has("finding", LIVER)),
        ("HAS AT LEAST 2 study AND NOT has subject (sex = F)", has("study", at_least=2) & ~has("subject", field("sex") == "F")),
        ("a = 1 and b = 2 or c = 3", any_of((field("a") == 1) & (field("b") == 2), field("c") == 3)),
        ("a = 1 and (b = 2 or c = 3)", (field("a") == 1) & any_of(field("b") == 2, field("c") == 3)),
        (
            "followed (Modality = CT) by (Modality = MR) within 30 to 180 days",
            followed(field("Modality") == "CT", field("Modality") == "MR", at_least_days=30, at_most_days=180),
        ),
    ],
)
def test_text_means_what_it_says(text: str, condition: Condition) -> None:
    assert parse(text) == condition


@pytest.mark.parametrize(
    ("text", "column", "said"),
    [
        ("", 1, "the end"),
        ("Modality", 9, "the end"),
        ("Modality = CT and", 18, "the end"),
        ("Modality == CT", 11, "'='"),
        ("Modality = CT SliceThickness < 1", 15, "and, or, or the end is expected"),
        ("Modality = 'CT", 12, "not closed"),
        ("label = to", 9, "quoted"),
        ("has banana (a = 1)", 5, "banana"),
        ("every Modality = CT", 16, "range"),
        ("x from 1 from 2", 10, "twice"),
        ("x < true", 5, "a bound"),
        ("(" * 200 + "a = 1" + ")" * 200, 101, "deep"),
    ],
)
def test_mistakes_are_told_with_their_place(text: str, column: int, said: str) -> None:
    with pytest.raises(ConditionUnreadable, match=said) as caught:
        parse(text)
    assert caught.value.column == column


@pytest.mark.parametrize(
    "mistake",
    [
        lambda: bool(field("a") == 1),
        lambda: 1 < field("a") < 2,
        lambda: (field("a") == 1) and (field("b") == 2),
        lambda: (field("a") == 1) & True,
        lambda: field("a") == None,  # noqa: E711
        lambda: field("a") < True,
        lambda: field("a").every == 1,
        lambda: field("a").between(),
    ],
)
def test_what_python_would_take_for_something_else_is_refused(mistake: Any) -> None:
    with pytest.raises(TypeError):
        mistake()


def test_conditions_show_as_their_text() -> None:
    assert repr((field("Modality") == "CT") & ~(field("Rows") == 512)) == "<Condition Modality = CT and Rows != 512>"
