"""What documents may cost, which ones are persisted, and that no document, however strange, breaks the server."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from cohort_site import ROOT, condition, files, index
from graphql import build_schema, parse
from graphql_client import GRAPHQL_JSON, READ, post
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis_graphql import queries
from listening_site import ListeningSite, listening_site
from served_site import LIVER, Site

from server.errors import SettingRefused
from server.graphql.cost import ENGINE_WORK, LIST, PAGE, Cost, refuse_costly
from server.graphql.errors import GraphqlError
from server.graphql.persisted import REMEMBERED, Persisted, digest
from server.graphql.schema import SDL, build

EXAMPLES = int(os.environ.get("ANAMNESIS_TEST_GRAPHQL_EXAMPLES", "12"))
"""Random documents: each takes seconds to make up."""
SCHEMA = SDL.read_text(encoding="utf-8")
ALLOWED = "query Known { position }\n"
MOST = Cost(values=10**12, depth=50)


@pytest.fixture(scope="module")
def served(embedded_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ListeningSite]:
    folder = tmp_path_factory.mktemp("limits")
    documents = folder / "documents"
    documents.mkdir()
    (documents / "known.graphql").write_text(ALLOWED, encoding="utf-8")
    with listening_site(embedded_server, folder / "data", graphql_persisted_dir=documents) as served:
        served.do(filled(served.site))
        yield served


async def filled(site: Site) -> None:
    await site.store(*files(f"{ROOT}.1"))
    await index(site, f"{ROOT}.1.1", [(LIVER, 1450.0, True)])
    await condition(site, f"{ROOT}.1", "44054006")
    await site.caught_up()


def cost(document: str, **variables: Any) -> Cost:
    return refuse_costly(build()._schema, parse(document), None, variables, MOST)


@pytest.mark.parametrize(
    ("document", "values", "depth"),
    [
        ("{ position }", 1, 1),
        ("{ __schema { types { name fields { name type { name ofType { name } } } } } __typename position }", 1, 1),
        ("{ series(first: 7) { nodes { id seriesUid } } }", 1 + ENGINE_WORK + 7 * 3, 3),
        ("{ series { nodes { id } } }", 1 + ENGINE_WORK + PAGE * 2, 3),
        ("{ series(last: 5) { edges { cursor node { id } } totalCount } }", 1 + ENGINE_WORK + 5 * 4 + 1 + ENGINE_WORK, 4),
        ("query($n: Int = 9) { series(first: $n) { nodes { id } } }", 1 + ENGINE_WORK + 9 * 2, 3),
        ("{ series(first: 3) { nodes { findings(first: 4) { nodes { label } } } } }", 1 + ENGINE_WORK + 3 * (1 + 1 + 4 * 2), 5),
        ("{ series(first: 2) { ...A } } fragment A on SeriesConnection { nodes { ...B } } fragment B on Series { id }", 1 + ENGINE_WORK + 2 * 2, 3),
        ("{ a: series(first: 2) { nodes { id } } b: series(first: 2) { nodes { id } } }", 2 * (1 + ENGINE_WORK + 4), 3),
        ("{ series(first: 2) { nodes { tags { name } } } }", 1 + ENGINE_WORK + 2 * (1 + LIST * 2), 4),
    ],
)
def test_what_a_document_costs_can_be_reckoned_by_hand(document: str, values: int, depth: int) -> None:
    assert cost(document) == (values, depth)


def test_variables_count_as_what_they_are() -> None:
    document = "query($n: Int, $f: [FacetInput!]!) { series(first: $n) { nodes { id } } cohort { facets(fields: $f) { distinct } } }"
    one, ten = (cost(document, n=n, f=[{"field": "sex"}] * n) for n in (1, 10))
    assert ten.values - one.values == 9 * 2 + 9 * ENGINE_WORK


def test_fragments_that_double_at_each_step_are_reckoned_in_no_time_and_refused() -> None:
    steps = 30
    document = "{ subjects { nodes { ...F0 } } }" + "".join(
        f"fragment F{n} on Subject {{ a: studies {{ nodes {{ subject {{ ...F{n + 1} }} }} }} b: studies {{ nodes {{ subject {{ ...F{n + 1} }} }} }} }}"
        for n in range(steps)
    ) + f"fragment F{steps} on Subject {{ id }}"  # fmt: skip
    with pytest.raises(GraphqlError) as refused:
        refuse_costly(build()._schema, parse(document), None, {}, Cost(values=100_000, depth=200))
    assert refused.value.code == "TOO_COSTLY" and refused.value.more["cost"] > 2**steps


def named(served: ListeningSite, text: str | None, sha256: str, method: str = "POST", **more: Any) -> httpx.Response:
    headers = {**served.do(served.site.headers(*READ)), "Accept": GRAPHQL_JSON}
    extensions = {"persistedQuery": {"version": 1, "sha256Hash": sha256}}
    if method == "GET":
        return httpx.get(f"{served.url}/graphql", params={"extensions": json.dumps(extensions), **more}, headers=headers)
    body = {"extensions": extensions, **more, **({} if text is None else {"query": text})}
    return httpx.post(f"{served.url}/graphql", json=body, headers=headers)


def test_a_document_is_sent_once_and_named_from_then_on(served: ListeningSite) -> None:
    text = "query($uid: String!) { seriesByUid(seriesUid: $uid) { instanceCount } }"
    variables = {"uid": f"{ROOT}.1.1"}
    unknown = named(served, None, digest(text), variables=variables)
    assert unknown.json()["errors"][0]["extensions"]["code"] == "PERSISTED_QUERY_NOT_FOUND"
    assert unknown.json()["errors"][0]["message"] == "PersistedQueryNotFound"
    for answer in (
        named(served, text, digest(text), variables=variables),
        named(served, None, digest(text), variables=variables),
        named(served, None, digest(text), "GET", variables=json.dumps(variables)),
    ):
        assert answer.json() == {"data": {"seriesByUid": {"instanceCount": 2}}}
    wrong = named(served, text, digest(text + " "))
    assert wrong.json()["errors"][0]["extensions"]["code"] == "BAD_USER_INPUT"
    for strange in ({"version": 2, "sha256Hash": digest(text)}, {"version": 1}, "x", 1, []):
        answer = httpx.post(f"{served.url}/graphql", json={"extensions": {"persistedQuery": strange}}, headers=served.do(served.site.headers(*READ)))
        assert answer.json()["errors"][0]["extensions"]["code"] == "BAD_USER_INPUT"


def test_documents_of_the_sites_folder_are_known_from_the_start(served: ListeningSite) -> None:
    for text in (ALLOWED, ALLOWED.strip()):
        assert named(served, None, digest(text), "GET").json()["data"]["position"] > 0


def test_get_is_for_named_documents_and_never_for_identities(served: ListeningSite) -> None:
    headers = {**served.do(served.site.headers(*READ, "identities:read")), "Accept": GRAPHQL_JSON}
    answer = httpx.get(f"{served.url}/graphql", params={"query": "{ position }"}, headers=headers)
    assert (answer.status_code, answer.json()["errors"][0]["extensions"]["code"]) == (400, "BAD_USER_INPUT")
    text = '{ series(where: {present: {field: "PatientName"}}) { totalCount } }'
    assert "errors" not in post(served, text, *READ, "identities:read").json()
    extensions = json.dumps({"persistedQuery": {"version": 1, "sha256Hash": digest(text)}})
    httpx.post(f"{served.url}/graphql", json={"query": text, "extensions": json.loads(extensions)}, headers=headers)
    answer = httpx.get(f"{served.url}/graphql", params={"extensions": extensions}, headers=headers)
    assert answer.json()["errors"][0]["extensions"]["code"] == "SCOPE_MISSING"
    assert httpx.get(f"{served.url}/graphql", params={"extensions": "{"}, headers=headers).status_code == 400


def test_only_known_documents_are_answered_where_a_site_says_so(tmp_path: Path) -> None:
    (tmp_path / "a.graphql").write_text(ALLOWED, encoding="utf-8")
    persisted = Persisted(tmp_path, only=True)
    assert persisted.text(ALLOWED, None) == ALLOWED
    for text, extensions in (("{ position }", None), ("{ position }", {"persistedQuery": {"version": 1, "sha256Hash": digest("{ position }")}})):
        with pytest.raises(GraphqlError) as refused:
            persisted.text(text, extensions)
        assert refused.value.code == "PERSISTED_QUERY_ONLY"
    with pytest.raises(SettingRefused):
        Persisted(None, only=True)
    with pytest.raises(SettingRefused):
        Persisted(tmp_path / "nowhere", only=False)


def test_the_oldest_documents_are_forgotten() -> None:
    persisted = Persisted(None, only=False)
    texts = [f"{{ position }} # {n}" for n in range(REMEMBERED + 1)]
    names = [{"persistedQuery": {"version": 1, "sha256Hash": hashlib.sha256(text.encode()).hexdigest()}} for text in texts]
    for text, name in zip(texts, names, strict=True):
        persisted.text(text, name)
    assert persisted.text(None, names[-1]) == texts[-1]
    with pytest.raises(GraphqlError):
        persisted.text(None, names[0])


def test_what_takes_too_long_is_ended(served: ListeningSite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(served.site.services.settings, "graphql_deadline_s", 1e-6)
    answer = post(served, "{ series { nodes { events { type } } } }")
    assert (answer.status_code, answer.json()["errors"][0]["extensions"]["code"]) == (400, "TOO_SLOW")


DEEP = 3000


@pytest.mark.parametrize(
    "query",
    [
        "{" * DEEP,
        "{ series { nodes " * DEEP + "}" * DEEP,
        "{ series(where: " + "{not: " * DEEP + "{all: []}" + "}" * DEEP + ") { totalCount } }",
        "{ series(where: " + "{not: " * 200 + "{all: []}" + "}" * 200 + ") { totalCount } }",
        "{ series(where: " + "{not: " * 19 + "{any: []}" + "}" * 19 + ") { totalCount } }",
        "{ " + " ".join(f"a{n}: position" for n in range(3000)) + " }",
        "query($a: ConditionInput = " + "{not: " * 500 + "{all: []}" + "}" * 500 + ") { series(where: $a) { totalCount } }",
        "{ ...A } fragment A on Query { ...B } fragment B on Query { ...A }",
        '{ series(where: {contains: {field: "SeriesDescription", text: "\\u0000"}}) { totalCount } }',
        '{ series(where: {oneOf: {field: "\\u0000", values: ["\\ud800"]}}) { totalCount } }',
        "{ series(where: {between: {field: \"bytes\", atLeast: 1e308, atMost: 1e400}}) { totalCount } }",
        '{ seriesByUid(seriesUid: "\\u0000") { id } node(id: "%%%") { id } }',
        "{ series(first: 0) { nodes { id } edges { cursor } totalCount pageInfo { hasNextPage startCursor endCursor } } }",
        "{ subjects { nodes { studies(first: 0) { nodes { id } pageInfo { hasNextPage } } findings(first: -1) { totalCount } } } }",
        "{ cohort { facets(fields: []) { distinct } histogram(field: \"KVP\", bins: 0) { low } } }",
        '{ series(where: {followed: {baseline: {all: []}, followUp: {all: []}}}) { totalCount } }',
        '{ a: cohort(level: TAG) { counts { subjects } facets(fields: [{field: "name"}]) { distinct } } b: cohort(level: FACT) { counts { subjects } explain { engine } } }',
        '{ cohort(level: INSTANCE, where: {oneOf: {field: "Modality", values: ["CT"]}}) { counts { instances } facets(fields: [{field: "sop_class_uid"}]) { distinct } } }',
        '{ series(where: {has: {level: TAG, where: {has: {level: SUBJECT}}}}) { totalCount } findings(orderBy: {field: "ImageType"}) { totalCount nodes { id } } }',
        '{ cohort(level: SUBJECT) { facets(fields: [{field: "subject_id", size: 5, subjects: true}, {field: "sex"}]) { distinct } } }',
        '{ series(orderBy: {field: "SeriesDescription", descending: true}) { nodes { id } } studies(orderBy: {field: "age_years"}) { nodes { id } } }',
        '{ series(where: {oneOf: {field: "SeriesNumber", values: [1]}}) { totalCount } }',
        "\ufeff{ position }",
        "",
        "#",
    ],
    ids=range(25),
)
def test_strange_documents_are_refused_by_a_code(served: ListeningSite, query: str, caplog: pytest.LogCaptureFixture) -> None:
    answer = post(served, query)
    assert answer.status_code in (200, 400)
    assert all(error["extensions"]["code"] != "INTERNAL" for error in answer.json().get("errors", ())), answer.text


def test_strange_variables_are_refused_by_a_code(served: ListeningSite) -> None:
    deep: Any = {"all": []}
    for _ in range(400):
        deep = {"not": deep}
    wide = {"any": [{"present": {"field": "Modality"}}] * 2000}
    query = "query($where: ConditionInput) { series(where: $where) { totalCount } }"
    for where, code in ((deep, "TOO_DEEP"), (wide, "TOO_COSTLY"), ([], "GRAPHQL_VALIDATION_FAILED"), ({"not": {}}, "GRAPHQL_VALIDATION_FAILED"), (7, "GRAPHQL_VALIDATION_FAILED")):
        assert post(served, query, where=where).json()["errors"][0]["extensions"]["code"] == code


@settings(max_examples=EXAMPLES, derandomize=EXAMPLES <= 100)
@given(data=st.data())
def test_random_documents_never_break_the_server(served: ListeningSite, data: st.DataObject) -> None:
    scalars = {
        "Long": st.integers(-2, 60).map(_node),
        "Value": st.one_of(st.sampled_from(("CT", "2024-01-31", "")).map(_node), st.floats(-5, 5, width=16).map(_node)),
        "Date": st.dates().map(lambda day: _node(day.isoformat())),
    }
    document = data.draw(queries(build_schema(SCHEMA), custom_scalars=scalars, allow_x00=True))
    answer = post(served, document, *READ, "identities:read")
    assert answer.status_code in (200, 400), answer.text
    assert all(error["extensions"]["code"] != "INTERNAL" for error in answer.json().get("errors", ())), (document, answer.text)


def _node(value: Any) -> Any:
    from graphql import FloatValueNode, IntValueNode, StringValueNode

    if isinstance(value, str):
        return StringValueNode(value=value)
    return IntValueNode(value=str(value)) if isinstance(value, int) else FloatValueNode(value=str(float(value)))


def test_a_client_that_is_not_ours_finds_nothing_broken(served: ListeningSite, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Schemathesis asks for the schema by introspection, and then for whatever it allows."""
    hooks = tmp_path / "scalars.py"
    hooks.write_text(
        "import schemathesis\nfrom hypothesis import strategies as st\nfrom schemathesis.graphql import nodes\n"
        "schemathesis.graphql.scalar('Long', st.integers(0, 60).map(nodes.Int))\n"
        "schemathesis.graphql.scalar('Value', st.sampled_from(('CT', 'M')).map(nodes.String))\n"
        "schemathesis.graphql.scalar('Date', st.dates().map(str).map(nodes.String))\n",
        encoding="utf-8",
    )
    bearer = served.do(served.site.headers(*READ, "cohorts:write", "datasets:export"))["Authorization"]
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{served.url}/graphql", "--header", f"Authorization: {bearer}"]
    command += ["--checks", "not_a_server_error", "--phases", "fuzzing", "--max-examples", "2", "--seed", "1", "--suppress-health-check", "all"]
    with caplog.at_level(logging.ERROR, "server.graphql"):
        done = subprocess.run(command, cwd=tmp_path, env={**os.environ, "SCHEMATHESIS_HOOKS": str(hooks)}, capture_output=True, text=True, timeout=300)
    assert "Loaded specification" in done.stdout and "Fuzzing (in" in done.stdout, done.stdout
    # It takes every refusal within an answer for a failure: what matters is that none is the server's.
    for broken in ("INTERNAL", "[500]", "[502]", "[503]"):
        assert broken not in done.stdout, done.stdout
    assert [record.getMessage() for record in caplog.records if record.name.startswith("server.graphql")] == []
