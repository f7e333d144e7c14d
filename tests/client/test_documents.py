"""What the client asks in GraphQL is what the server's schema says: every document and its variables, whatever the condition."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import graphql
import pytest
from graphql.execution.values import get_variable_values
from hypothesis import given
from random_conditions import CONDITIONS

from anamnesis.client import columns, kept, question
from anamnesis.client.asking import Ask, Steps
from anamnesis.client.conditions import Condition
from anamnesis.client.question import Question
from anamnesis.client.records import RECORDS

SCHEMA = graphql.build_schema((Path(__file__).parents[2] / "server" / "graphql" / "schema.graphql").read_text(encoding="utf-8"))


def problems(steps: Steps[Any]) -> list[str]:
    """Of the first request that the steps make."""
    ask: Ask = next(steps)
    document = graphql.parse(ask.body["query"])
    found = graphql.validate(SCHEMA, document)
    if not found:
        (operation,) = (node for node in document.definitions if isinstance(node, graphql.OperationDefinitionNode))
        variables = get_variable_values(SCHEMA, operation.variable_definitions or [], ask.body["variables"])
        found = variables if isinstance(variables, list) else []
    return [error.message for error in found]


def asked_every_way(of: Question) -> list[Steps[Any]]:
    asked: list[Steps[Any]] = [of.position(), of.pinned(), of.counts(), of.count(), of.explain(), of.query(), of.records(), of.page(3, "after")]
    asked += [kept.save_cohort(of, "title", "words", "id"), kept.changes(of, 1, "2026", 3), kept.freeze("id", of)]
    return [*asked, of.facets(["Modality", "kvp"], size=3, subjects=True), of.histogram("kvp", 5)]


@pytest.mark.parametrize("level", RECORDS)
def test_every_question_fits_the_schema(level: str) -> None:
    of = Question(level=level, as_of="2026-11-20", order=("kvp", True), elements=("KVP", "00180050") if level in ("study", "series") else ())
    for steps in (*asked_every_way(of), *asked_every_way(of.with_ticks("Modality", ["CT"])), question.fields(level, "kv", 3), question.position()):
        assert problems(steps) == []


def test_every_question_about_what_is_kept_fits_the_schema() -> None:
    terms = kept.terms_input("CC-BY-4.0", ["research", "clinical-trial"], license_text="", use_note="", consents=True)
    for steps in (
        columns.columns(),
        columns.add_facet("KVP"),
        columns.remove_facet("KVP"),
        kept.projects(),
        kept.create_project("project", "title"),
        kept.saved_cohorts(),
        kept.saved_cohort("a"),
        kept.share_cohort("id", "project"),
        kept.datasets(),
        kept.dataset("a"),
        kept.create_dataset("project", "title", "words", terms),
        kept.versions("id"),
        kept.split("id", 1, {"train": 0.8, "test": 0.2}, "7", ["sex"]),
        kept.members("id", 1),
    ):
        assert problems(steps) == []


@given(CONDITIONS)
def test_every_condition_fits_the_schema(condition: Condition) -> None:
    assert problems(Question(level="series", where=condition, as_of=5).counts()) == []
