"""GraphQL over HTTP: pages, conditions, facets, things and what belongs to them, as of positions, of a site that was filled by its doors."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from cohort_site import ACCEPTED, DIABETES, FOUND, HEADERS, PERSONS, ROOT, SNOMED, filled, review, subject_of
from graphql_client import GRAPHQL_JSON, READ, ask, post, refusal
from listening_site import ListeningSite, listening_site

from domain.access import AccessesRecorded

KNOWING = ("cohorts:read", "identities:read")


@pytest.fixture(scope="module")
def served(embedded_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ListeningSite]:
    with listening_site(embedded_server, tmp_path_factory.mktemp("graphql")) as served:
        served.do(filled(served.site))
        yield served


def uids(served: ListeningSite, where: dict[str, Any] | None, *scopes: str) -> list[str]:
    """The last part of the UIDs of the series that meet a condition."""
    data = ask(served, "query($where: ConditionInput) { series(where: $where, first: 100) { nodes { seriesUid } } }", *scopes, where=where)
    return sorted(one["seriesUid"].removeprefix(f"{ROOT}.") for one in data["series"]["nodes"])


def test_everything_is_counted_and_listed_without_a_condition(served: ListeningSite) -> None:
    data = ask(served, "{ series { position totalCount counts { subjects studies series findings instances } nodes { seriesUid } } position }")
    assert data["series"]["counts"] == {"subjects": 4, "studies": 5, "series": 7, "findings": 7, "instances": 14}
    assert data["series"]["totalCount"] == len(data["series"]["nodes"]) == 7
    assert data["series"]["position"] == data["position"]


@pytest.mark.parametrize(
    ("where", "found"),
    [
        ({"oneOf": {"field": "Modality", "values": ["CT"]}}, 7),
        ({"oneOf": {"field": "ManufacturerModelName", "values": ["Flash", "Revolution"]}}, ["2.1", "3.1", "5.1", "5.2"]),
        ({"between": {"field": "SliceThickness", "atMost": 1.5, "moreThan": 1.0}}, ["2.1", "3.1", "5.1", "5.2"]),
        ({"between": {"field": "study_date", "atLeast": "2024-07-01"}}, ["2.1"]),
        ({"contains": {"field": "SeriesDescription", "text": "PORTAL"}}, ["1.1", "2.1", "4.1", "5.1"]),
        ({"not": {"contains": {"field": "SeriesDescription", "text": "portal"}}}, ["1.2", "3.1", "5.2"]),
        ({"present": {"field": "KVP"}}, []),
        ({"has": {"level": "FINDING", "where": {"oneOf": {"field": "label", "values": ["lung_left"]}}}}, ["1.1", "3.1"]),
        ({"not": {"has": {"level": "FINDING"}}}, ["1.2"]),
        ({"has": {"level": "FINDING", "atLeast": 2}}, ["1.1"]),
        ({"all": [{"oneOf": {"field": "sex", "values": ["F"]}}, {"between": {"field": "age_years", "atLeast": 60}}]}, ["1.1", "1.2", "2.1", "5.1", "5.2"]),
        ({"any": [{"oneOf": {"field": "series_uid", "values": [f"{ROOT}.3.1"]}}, {"any": []}]}, ["3.1"]),
        ({"series": {"modality": ["CT"], "sliceThicknessMm": {"atMost": 1.0}, "description": "portal"}}, ["1.1", "4.1"]),
        ({"series": {"hasFinding": [{"label": ["liver"], "whole": True}], "hasNoFinding": [{"label": ["lung_left"]}]}}, ["2.1", "4.1", "5.1"]),
        ({"finding": {"label": ["liver"], "volumeMl": {"moreThan": 1400}}}, ["1.1", "4.1"]),
        ({"finding": {"verdict": ["accepted"]}}, ["1.1", "4.1", "5.1"]),
        ({"study": {"ageYears": {"atLeast": 60, "lessThan": 66}}}, ["1.1", "1.2", "2.1"]),
        ({"subject": {"sex": ["F"], "hasFact": [{"resourceType": ["Condition"], "system": SNOMED, "code": [DIABETES]}]}}, ["1.1", "1.2", "2.1", "4.1"]),
        ({"subject": {"hasNoFact": [{"resourceType": ["Condition"]}]}}, ["3.1"]),
    ],
)
def test_conditions_mean_what_they_say(served: ListeningSite, where: dict[str, Any], found: list[str] | int) -> None:
    answer = uids(served, where)
    assert len(answer) == found if isinstance(found, int) else answer == found


def test_subjects_with_a_baseline_and_a_follow_up_are_found(served: ListeningSite) -> None:
    query = "query($where: ConditionInput) { subjects(where: $where) { nodes { subjectId } } }"
    thin = {"has": {"level": "SERIES", "where": {"series": {"sliceThicknessMm": {"atMost": 1.5}}}}}
    anna = served.do(subject_of(served.site, f"{ROOT}.1"))
    found = ask(served, query, where={"followed": {"baseline": thin, "followUp": thin, "atLeastDays": 150, "atMostDays": 200}})
    assert found["subjects"]["nodes"] == [{"subjectId": anna}]
    none = ask(served, query, where={"followed": {"baseline": thin, "followUp": thin, "atLeastDays": 200}})
    assert none["subjects"]["nodes"] == []


def test_a_facets_own_ticks_do_not_narrow_what_it_counts(served: ListeningSite) -> None:
    query = """query($ticked: [TickInput!]) { cohort(level: SERIES, ticked: $ticked) { counts { series subjects }
        facets(fields: [{field: "ManufacturerModelName", subjects: true}, {field: "sex"}]) { field distinct missing values { value count subjects } } } }"""
    cohort = ask(served, query, ticked=[{"field": "ManufacturerModelName", "values": ["Flash"]}])["cohort"]
    assert cohort["counts"] == {"series": 2, "subjects": 2}
    models, sex = cohort["facets"]
    assert models["values"] == [
        {"value": "Force", "count": 3, "subjects": 2},
        {"value": "Flash", "count": 2, "subjects": 2},
        {"value": "Revolution", "count": 2, "subjects": 1},
    ]
    assert (models["distinct"], models["missing"]) == (3, 0)
    assert sex["values"] == [{"value": "F", "count": 1, "subjects": None}, {"value": "M", "count": 1, "subjects": None}]


def test_a_histogram_and_an_explanation_and_the_query_as_it_is_saved(served: ListeningSite) -> None:
    query = """query($where: ConditionInput) { cohort(where: $where) { query explain { engine steps { what rows milliseconds } }
        histogram(field: "SliceThickness", bins: 4) { low high missing bins { low high count } } } }"""
    cohort = ask(served, query, where={"series": {"modality": ["CT"]}})["cohort"]
    assert cohort["query"] == '{"level":"series","where":{"is":"all","of":[{"field":"Modality","is":"one-of","values":["CT"]}]}}'
    histogram = cohort["histogram"]
    assert (histogram["low"], histogram["high"], histogram["missing"]) == (1.0, 5.0, 0)
    assert [one["count"] for one in histogram["bins"]] == [6, 0, 0, 1]
    assert cohort["explain"]["engine"] in ("columns", "postgresql")
    assert cohort["explain"]["steps"]


def test_pages_go_forwards_and_backwards_over_everything_once(served: ListeningSite) -> None:
    page = """query($first: Int, $after: String, $last: Int, $before: String) {
        series(first: $first, after: $after, last: $last, before: $before, orderBy: {field: "SliceThickness", descending: true}) {
            edges { cursor node { seriesUid sliceThicknessMm } } pageInfo { hasNextPage hasPreviousPage startCursor endCursor } } }"""
    everything = [one["node"] for one in ask(served, page, first=100)["series"]["edges"]]
    thickness = [one["sliceThicknessMm"] for one in everything]
    assert thickness == sorted(thickness, reverse=True) and len(everything) == 7
    seen, after = [], None
    while True:
        found = ask(served, page, first=3, after=after)["series"]
        seen += [one["node"] for one in found["edges"]]
        assert found["pageInfo"]["hasPreviousPage"] == (after is not None)
        after = found["pageInfo"]["endCursor"]
        if not found["pageInfo"]["hasNextPage"]:
            break
    assert seen == everything
    seen, before = [], None
    while True:
        found = ask(served, page, last=3, before=before)["series"]
        seen = [one["node"] for one in found["edges"]] + seen
        before = found["pageInfo"]["startCursor"]
        if not found["pageInfo"]["hasPreviousPage"]:
            break
    assert seen == everything


def test_pages_that_follow_are_of_the_position_of_the_first(served: ListeningSite) -> None:
    page = """query($after: String) { findings(first: 2, after: $after, where: {finding: {verdict: ["unreviewed"]}}) {
        position totalCount nodes { findingKey verdict since } pageInfo { endCursor hasNextPage } } }"""
    first = ask(served, page)["findings"]
    rest = [first]
    served.do(review(served.site, f"{ROOT}.2.1", "liver", "rejected"))
    now = served.do(served.site.caught_up())
    while rest[-1]["pageInfo"]["hasNextPage"]:
        rest.append(ask(served, page, after=rest[-1]["pageInfo"]["endCursor"])["findings"])
    assert {one["position"] for one in rest} == {first["position"]}
    assert sum(len(one["nodes"]) for one in rest) == first["totalCount"] == 4
    assert ask(served, page)["findings"]["totalCount"] == 3
    as_of = "query($asOf: AsOfInput) { findings(asOf: $asOf, where: {finding: {verdict: [\"unreviewed\"]}}) { totalCount position } }"
    assert ask(served, as_of, asOf={"position": first["position"]})["findings"] == {"totalCount": 4, "position": first["position"]}
    assert ask(served, as_of, asOf={"position": now})["findings"]["totalCount"] == 3
    assert ask(served, as_of, asOf={"instant": "2001-01"})["findings"]["totalCount"] == 0
    assert ask(served, as_of, asOf={"instant": "2999-01-01T00:00:00Z"})["findings"]["totalCount"] == 3


def test_things_lead_to_what_they_belong_to_and_what_belongs_to_them(served: ListeningSite) -> None:
    query = """query($uid: String!) { seriesByUid(seriesUid: $uid) {
        id first since modality manufacturer description sliceThicknessMm instanceCount frameCount bytes indexing imagingSelection
        element(name: "00081090") { tag name values unit } elements(names: ["SliceThickness", "KVP"]) { name unit values }
        study { studyUid studyDate ageYears imagingStudy series { totalCount nodes { seriesUid } } }
        subject { subjectId sex patient studies { nodes { studyUid } } facts { nodes { resourceType resource system code status date } } }
        findings { totalCount nodes { label volumeMl whole verdict structure laterality observation bodyStructure series { seriesUid } } }
        instances { nodes { sopInstanceUid bytes frameCount sha256 series { seriesUid } } }
        tags { name } events { position type recordedAt } } }"""
    series = ask(served, query, uid=f"{ROOT}.1.1")["seriesByUid"]
    anna = served.do(subject_of(served.site, f"{ROOT}.1"))
    assert (series["modality"], series["manufacturer"], series["sliceThicknessMm"], series["instanceCount"]) == ("CT", "ACME", 1.0, 2)
    assert series["element"] == {"tag": "00081090", "name": "ManufacturerModelName", "values": ["Force"], "unit": ""}
    assert series["elements"] == [{"name": "SliceThickness", "unit": "mm", "values": [1.0]}]
    assert series["study"]["studyDate"] == "2024-01-31" and 63 < series["study"]["ageYears"] < 64
    assert series["study"]["series"]["totalCount"] == 2
    assert series["subject"]["subjectId"] == anna and series["subject"]["patient"] == f"Patient/{anna}"
    assert {one["studyUid"] for one in series["subject"]["studies"]["nodes"]} == {f"{ROOT}.1", f"{ROOT}.2"}
    [fact] = series["subject"]["facts"]["nodes"]
    assert (fact["system"], fact["code"], fact["status"], fact["date"]) == (SNOMED, DIABETES, "active", "2020-01-01")
    assert {(one["label"], one["volumeMl"], one["whole"], one["verdict"]) for one in series["findings"]["nodes"]} == {
        ("liver", 1450.0, True, "accepted"),
        ("lung_left", 900.0, False, "unreviewed"),
    }
    assert sorted(one["sopInstanceUid"] for one in series["instances"]["nodes"]) == [f"{ROOT}.1.1.1", f"{ROOT}.1.1.2"]
    assert all(len(one["sha256"]) == 64 for one in series["instances"]["nodes"])
    types = [one["type"] for one in series["events"]]
    assert types[0] == "InstancesStored" and "SeriesIndexed" in types
    assert series["first"] == series["events"][0]["position"] and series["since"] == series["events"][-1]["position"]
    for path in (series["study"]["imagingStudy"], series["subject"]["patient"], fact["resource"], series["imagingSelection"], *(series["findings"]["nodes"][0][name] for name in ("observation", "bodyStructure"))):
        assert served.do(served.site.get(f"/fhir/{path}", "fhir:read")).status_code == 200, path


def test_a_global_id_leads_back_to_each_thing(served: ListeningSite) -> None:
    listing = "{ subjects { nodes { id } } studies { nodes { id } } findings { nodes { id } } series { nodes { id instances { nodes { id } } subject { facts { nodes { id } } } } } }"
    data = ask(served, listing)
    ids = {one["id"] for kind in ("subjects", "studies", "series", "findings") for one in data[kind]["nodes"]}
    ids |= {one["id"] for series in data["series"]["nodes"] for one in (*series["instances"]["nodes"], *series["subject"]["facts"]["nodes"])}
    assert len(ids) == 4 + 5 + 7 + 7 + 14 + 3
    for one in ids:
        found = ask(served, "query($id: ID!) { node(id: $id) { __typename id first events { position } } }", id=one)["node"]
        assert found["id"] == one and found["events"][0]["position"] == found["first"]
    for strange in ("", "x", "c2VyaWVzOjE", "c2VyaWVzOi0x", "ä"):
        assert ask(served, "query($id: ID!) { node(id: $id) { id } }", id=strange)["node"] is None


def test_what_belongs_to_a_thing_comes_in_pages_and_under_conditions(served: ListeningSite) -> None:
    query = """query($uid: String!, $asOf: AsOfInput, $after: String) { study(studyUid: $uid, asOf: $asOf) {
        findings(first: 1, after: $after) { position totalCount nodes { label } pageInfo { hasNextPage endCursor } } } }"""
    first = ask(served, query, uid=f"{ROOT}.1")["study"]["findings"]
    # That somebody asked is an event, too: the rest of the page is of the position that the first part was of.
    second = ask(served, query, uid=f"{ROOT}.1", asOf={"position": first["position"]}, after=first["pageInfo"]["endCursor"])["study"]["findings"]
    assert (first["totalCount"], first["pageInfo"]["hasNextPage"], second["pageInfo"]["hasNextPage"]) == (2, True, False)
    assert {first["nodes"][0]["label"], second["nodes"][0]["label"]} == {"liver", "lung_left"}
    whole = """{ studies { nodes { studyUid findings(where: {finding: {whole: true}}) { totalCount counts { findings series } nodes { label whole } } } } }"""
    found = {one["studyUid"]: one["findings"] for one in ask(served, whole)["studies"]["nodes"]}
    for study in HEADERS:
        wanted = sorted(structure.label for uid, those in FOUND.items() if uid.rsplit(".", 1)[0] == study for structure, _, is_whole in those if is_whole)
        assert sorted(one["label"] for one in found[study]["nodes"]) == wanted
        assert found[study]["totalCount"] == found[study]["counts"]["findings"] == len(wanted)


def test_fields_can_be_looked_up(served: ListeningSite) -> None:
    found = ask(served, '{ fields(level: SERIES, like: "slice") { name level kind unit identifies description } }')["fields"]
    by_name = {one["name"]: one for one in found}
    assert by_name["slice_spacing_mm"]["unit"] == "mm" and by_name["slice_spacing_mm"]["kind"] == "NUMBER"
    assert by_name["SliceThickness"]["level"] == "SERIES"
    assert all("slice" in name.casefold() for name in by_name)
    [patient] = ask(served, '{ fields(level: SERIES, like: "PatientBirthDate", first: 1) { name level identifies } }')["fields"]
    assert patient == {"name": "PatientBirthDate", "level": "STUDY", "identifies": True}


IDENTIFYING = [
    '{ series(where: {oneOf: {field: "PatientName", values: ["Sample^Anna"]}}) { nodes { seriesUid } } }',
    '{ series(where: {not: {all: [{contains: {field: "PatientID", text: "MRN"}}]}}) { totalCount } }',
    '{ subjects(where: {has: {level: STUDY, where: {present: {field: "00100030"}}}}) { totalCount } }',
    '{ series(orderBy: {field: "PatientName"}) { nodes { seriesUid } } }',
    '{ series(ticked: [{field: "AccessionNumber", values: ["1"]}]) { totalCount } }',
    '{ cohort { facets(fields: [{field: "PatientName"}]) { values { value } } } }',
    '{ cohort { histogram(field: "PatientBirthDate") { low } } }',
    '{ studies { nodes { element(name: "PatientName") { values } } } }',
    '{ studies { nodes { elements(names: ["StudyDate", "00100020"]) { values } } } }',
    "{ subjects { nodes { born } } }",
    '{ subjects { nodes { studies(where: {oneOf: {field: "PatientName.family", values: ["Sample"]}}) { totalCount } } } }',
    '{ subjects(where: {followed: {baseline: {present: {field: "PatientName"}}, followUp: {all: []}}}) { totalCount } }',
]


@pytest.mark.parametrize("query", IDENTIFYING)
def test_what_identifies_is_for_those_alone_who_may_see_it(served: ListeningSite, query: str) -> None:
    answer = post(served, query)
    error = answer.json()["errors"][0]
    assert (error["extensions"]["code"], error["extensions"]["scope"]) == ("SCOPE_MISSING", "identities:read")
    for secret in ("Anna", "MRN-A", "1960"):
        assert secret not in answer.text
    assert "errors" not in post(served, query, *KNOWING).json()


def test_who_may_see_identities_finds_persons_by_them(served: ListeningSite) -> None:
    assert uids(served, {"oneOf": {"field": "PatientID", "values": ["MRN-A"]}}, *KNOWING) == ["1.1", "1.2", "2.1"]
    data = ask(served, '{ studies(first: 1) { nodes { element(name: "PatientName") { values } subject { born } } } }', *KNOWING)
    assert data["studies"]["nodes"][0] == {"element": {"values": [PERSONS[f"{ROOT}.1"][0]]}, "subject": {"born": "1960-05-01"}}


@pytest.mark.parametrize(
    ("query", "code", "says"),
    [
        ("{ series {", "GRAPHQL_PARSE_FAILED", "Syntax"),
        ("{ seriess { totalCount } }", "GRAPHQL_VALIDATION_FAILED", "series"),
        ('{ series(where: {oneOf: {field: "SliceThicknes", values: [1]}}) { totalCount } }', "FIELD_UNKNOWN", "SliceThickness"),
        ('{ series(where: {not: {oneOf: {field: "label", values: ["liver"]}}}) { totalCount } }', "FIELD_UNKNOWN", "finding"),
        ('{ series(where: {between: {field: "Modality", atMost: "CT"}}) { totalCount } }', "FIELD_REFUSED", ""),
        ('{ cohort { histogram(field: "SeriesDescription") { low } } }', "FIELD_REFUSED", ""),
        ('{ series(where: {between: {field: "SliceThickness"}}) { totalCount } }', "BAD_USER_INPUT", "bound"),
        ('{ series(where: {oneOf: {field: "Modality", values: []}}) { totalCount } }', "BAD_USER_INPUT", "value"),
        ("{ series(where: {}) { totalCount } }", "GRAPHQL_VALIDATION_FAILED", ""),
        ("{ series(first: 5, last: 5) { totalCount } }", "BAD_USER_INPUT", "first"),
        ("{ series(first: 1001) { totalCount } }", "BAD_USER_INPUT", "1000"),
        ('{ series(after: "x") { totalCount } }', "CURSOR_INVALID", "first page"),
        ("{ series(asOf: {position: 99999999}) { totalCount } }", "POSITION_UNKNOWN", "position"),
        ('{ series(asOf: {instant: "soon"}) { totalCount } }', "POSITION_UNKNOWN", "YYYY"),
        ("{ series(first: 1000) { nodes { findings(first: 1000) { nodes { label } } } } }", "TOO_COSTLY", "first"),
        ("{ series { nodes { " + "study { series { nodes { " * 6 + "id" + " } } }" * 6 + " } } }", "TOO_DEEP", "deep"),
        ("subscription { cohortMatches { position } }", "BAD_USER_INPUT", "WebSocket"),
        ("query A { position } query B { position }", "BAD_USER_INPUT", "operationName"),
    ],
)
def test_each_mistake_has_a_code_and_says_what_to_do(served: ListeningSite, query: str, code: str, says: str) -> None:
    error = refusal(served, query)
    assert error["code"] == code, error
    assert says in error["message"]


def test_a_mistake_in_a_condition_says_where_it_is(served: ListeningSite) -> None:
    where = {"all": [{"present": {"field": "Modality"}}, {"has": {"level": "FINDING", "where": {"not": {"present": {"field": "Modalitty"}}}}}]}
    error = refusal(served, "query($where: ConditionInput) { series(where: $where) { totalCount } }", where=where)
    assert error["at"] == "$.where.of[1].where.of"


def test_a_cursor_is_good_for_its_question_alone(served: ListeningSite) -> None:
    cursor = ask(served, "{ series(first: 1) { pageInfo { endCursor } } }")["series"]["pageInfo"]["endCursor"]
    assert "1.2.826" not in cursor
    query = "query($after: String) { %s { nodes { id } } }"
    assert len(ask(served, query % "series(after: $after)", after=cursor)["series"]["nodes"]) == 6
    for other in ('series(after: $after, orderBy: {field: "KVP"})', 'series(after: $after, where: {series: {modality: ["CT"]}})', "studies(after: $after)"):
        assert refusal(served, query % other, after=cursor)["code"] == "CURSOR_INVALID"
    turned = ("A" if cursor[9] != "A" else "B").join((cursor[:9], cursor[10:]))
    assert refusal(served, query % "series(after: $after)", after=turned)["code"] == "CURSOR_INVALID"


def test_what_is_in_the_answer_of_whom_is_recorded(served: ListeningSite) -> None:
    dora = served.do(subject_of(served.site, f"{ROOT}.5"))
    scopes = ("cohorts:read", "metrics:read")  # a principal of its own
    ask(served, '{ series(where: {series: {model: ["Revolution"]}}) { nodes { seriesUid } } }', *scopes)
    ask(served, '{ cohort { facets(fields: [{field: "BodyPartExamined"}]) { distinct } } }', *scopes)
    [listed, counted] = served.do(accesses(served, *scopes))
    assert (listed.route, listed.action, listed.subjects) == ("/graphql", "search", (dora,))
    assert listed.parameters == ("ManufacturerModelName",)
    assert (counted.subjects, counted.parameters) == ((), ("BodyPartExamined",))


async def accesses(served: ListeningSite, *scopes: str) -> list[Any]:
    """To GraphQL, by the principal with these scopes."""
    principal = (await served.site.principal(*scopes)).id
    await served.site.caught_up()
    events = [one.event for one in await served.site.services.log.read(0, 10_000, [AccessesRecorded])]
    found = [one for event in events if isinstance(event, AccessesRecorded) for one in event.accesses]
    return [one for one in found if one.principal.id == principal and one.route == "/graphql"]


def test_a_refused_reader_is_recorded_and_gets_nothing(served: ListeningSite) -> None:
    answer = post(served, "{ position }", "fhir:read", "dicom:read")
    assert answer.status_code == 403
    assert 'scope="cohorts:read"' in answer.headers["www-authenticate"]
    anna = served.do(subject_of(served.site, f"{ROOT}.1"))
    headers = served.do(served.site.headers("cohorts:read", "patient/*.rs", patient=anna))
    answer = httpx.post(f"{served.url}/graphql", json={"query": "{ position }"}, headers=headers)
    assert answer.status_code == 403, answer.text


def test_a_request_is_answered_as_graphql_over_http_says(served: ListeningSite) -> None:
    for accept, media_type, status in ((GRAPHQL_JSON, GRAPHQL_JSON, 400), ("*/*", "application/json", 200), ("application/json", "application/json", 200)):
        good, bad = post(served, "{ position }", accept=accept), post(served, "{ nothing }", accept=accept)
        assert good.status_code == 200 and bad.status_code == status
        assert good.headers["content-type"].startswith(media_type) and good.headers["cache-control"] == "no-store"
        assert "data" not in bad.json()
    assert post(served, "{ position }", accept="text/plain").status_code == 406
    headers = served.do(served.site.headers(*READ))
    assert httpx.post(f"{served.url}/graphql", content=b"query=1", headers=headers).status_code == 415
    for body in (b"", b"[", b"[]", b'{"query": 1}', b'{"query": "{position}", "variables": []}', b"[" * 100_000):
        answer = httpx.post(f"{served.url}/graphql", content=body, headers={**headers, "Content-Type": "application/json"})
        assert answer.status_code == 400, body[:40]
    large = b'{"query": "' + b" " * (2 * 1024 * 1024) + b'"}'
    assert httpx.post(f"{served.url}/graphql", content=large, headers={**headers, "Content-Type": "application/json"}).status_code == 413
    partly = post(served, '{ position subjects { nodes { born } } }')
    assert partly.status_code == 200 and partly.json()["errors"][0]["path"][0] == "subjects"


async def statements(served: ListeningSite, query: str, **variables: Any) -> list[str]:
    """What the server says to PostgreSQL for an answer."""
    said: list[str] = []
    pools = (served.site.services.pool, served.site.services.searches)
    for pool in pools:  # every connection that there may be
        for connection in await asyncio.gather(*(pool.acquire() for _ in range(pool.get_max_size()))):
            await pool.release(connection)
    logged = [holder._con for pool in pools for holder in pool._holders]

    def log(record: Any) -> None:
        if "pg_advisory" not in record.query and "RESET" not in record.query:
            said.append(record.query)

    for connection in logged:
        connection.add_query_logger(log)
    try:
        headers = await served.site.headers(*READ)
        answer = await served.site.client.post("/graphql", json={"query": query, "variables": variables}, headers=headers)
        assert "errors" not in answer.json(), answer.text
    finally:
        for connection in logged:
            connection.remove_query_logger(log)
    return said


def test_more_things_take_no_more_statements(served: ListeningSite) -> None:
    query = """query($first: Int!) { series(first: $first) { nodes { seriesUid element(name: "KVP") { values } tags { name } events { type }
        study { studyUid subject { subjectId facts { nodes { code } } } series { nodes { instanceCount } } }
        findings(first: 5) { totalCount nodes { label subject { sex } tags { name } } } instances { nodes { sopInstanceUid } }
        matching: findings(where: {finding: {whole: true}}) { nodes { label series { study { studyDate } } } } } } }"""
    served.do(statements(served, query, first=7))  # pseudonyms are remembered
    few, many = (served.do(statements(served, query, first=first)) for first in (1, 7))
    assert 8 <= len(many) <= len(few) + 1, "\n".join(many)


def test_only_the_elements_that_are_asked_for_are_read(served: ListeningSite) -> None:
    [none] = [one for one in served.do(statements(served, "{ series { nodes { seriesUid } } }")) if "series_uid" in one]
    [some] = [one for one in served.do(statements(served, "{ series { nodes { seriesUid modality } } }")) if "series_uid" in one]
    assert "elements" not in none and "jsonb_each" in some


def test_accepted_series_are_those_that_were_accepted(served: ListeningSite) -> None:
    assert [f"{ROOT}.{one}" for one in uids(served, {"finding": {"verdict": ["accepted"]}})] == list(ACCEPTED)
