"""Subscriptions over WebSocket, by a client that is not ours, and whatever else is asked there."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from cohort_site import ROOT, filled, review
from graphql_client import ask
from listening_site import ListeningSite, listening_site
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Subprotocol

from domain.access import AccessesRecorded
from server.auth.tokens import revoke_token

FOLLOW = """subscription($since: Long) { cohortMatches(level: SERIES, where: {finding: {verdict: ["accepted"]}}, since: $since) {
    since position totalCount enteredCount leftCount entered { id ... on Series { seriesUid findings { nodes { verdict } } } } } }"""


@pytest.fixture(scope="module")
def served(embedded_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ListeningSite]:
    with listening_site(embedded_server, tmp_path_factory.mktemp("sockets")) as served:
        served.do(filled(served.site))
        yield served


@contextmanager
def opened(served: ListeningSite, payload: dict[str, Any] | None) -> Iterator[ClientConnection]:
    """A connection whose connection_init carries this."""
    with connect(f"{served.url.replace('http', 'ws')}/graphql", subprotocols=[Subprotocol("graphql-transport-ws")]) as socket:
        socket.send(json.dumps({"type": "connection_init", **({} if payload is None else {"payload": payload})}))
        yield socket


@contextmanager
def conversing(served: ListeningSite, *scopes: str) -> Iterator[ClientConnection]:
    with opened(served, served.do(served.site.headers(*(scopes or ("cohorts:read",))))) as socket:
        assert heard(socket)["type"] == "connection_ack"
        yield socket


def heard(socket: ClientConnection) -> dict[str, Any]:
    message: dict[str, Any] = json.loads(socket.recv(timeout=60))
    return message


def subscribe(socket: ClientConnection, id: str, query: str, **variables: Any) -> None:
    socket.send(json.dumps({"id": id, "type": "subscribe", "payload": {"query": query, "variables": variables}}))


def test_what_enters_and_leaves_a_cohort_is_told_as_it_happens(served: ListeningSite) -> None:
    with conversing(served) as socket:
        subscribe(socket, "1", FOLLOW)
        served.do(served.site.caught_up())
        subscribe(socket, "2", "{ position }")
        assert heard(socket)["payload"]["data"]["position"] > 0
        assert heard(socket) == {"id": "2", "type": "complete"}
        served.do(review(served.site, f"{ROOT}.2.1", "liver", "accepted"))
        matches = heard(socket)["payload"]["data"]["cohortMatches"]
        assert (matches["totalCount"], matches["enteredCount"], matches["leftCount"]) == (4, 1, 0)
        [entered] = matches["entered"]
        assert entered["seriesUid"] == f"{ROOT}.2.1"
        assert entered["findings"]["nodes"] == [{"verdict": "accepted"}]
        served.do(review(served.site, f"{ROOT}.2.1", "liver", "rejected"))
        left = heard(socket)["payload"]["data"]["cohortMatches"]
        assert (left["totalCount"], left["enteredCount"], left["leftCount"], left["entered"]) == (3, 0, 1, [])
        assert left["since"] >= matches["position"]
        socket.send(json.dumps({"id": "1", "type": "complete"}))


def test_a_broken_connection_goes_on_where_it_was(served: ListeningSite) -> None:
    before = ask(served, "{ position }")["position"]
    served.do(review(served.site, f"{ROOT}.3.1", "lung_left", "accepted"))
    served.do(served.site.caught_up())
    with conversing(served) as socket:
        subscribe(socket, "1", FOLLOW, since=before)
        matches = heard(socket)["payload"]["data"]["cohortMatches"]
    assert [one["seriesUid"] for one in matches["entered"]] == [f"{ROOT}.3.1"]
    assert matches["since"] == before


def test_a_saved_cohort_is_followed_by_those_who_see_it(served: ListeningSite) -> None:
    save = "mutation($of: QuestionInput!) { saveCohort(title: \"rejected\", of: $of) { cohort { cohortId } } }"
    of = {"level": "SERIES", "where": {"finding": {"verdict": ["rejected"], "label": ["lung_left"]}}}
    owner = ("cohorts:read", "cohorts:write")
    cohort_id = ask(served, save, *owner, of=of)["saveCohort"]["cohort"]["cohortId"]
    query = "subscription($cohort: String!) { cohortMatches(cohortId: $cohort, since: 1) { entered { ... on Series { seriesUid } } } }"
    with conversing(served, *owner) as socket:
        subscribe(socket, "1", query, cohort=cohort_id)
        served.do(review(served.site, f"{ROOT}.1.1", "lung_left", "rejected"))
        assert {"seriesUid": f"{ROOT}.1.1"} in heard(socket)["payload"]["data"]["cohortMatches"]["entered"]
    with conversing(served) as socket:
        subscribe(socket, "1", query, cohort=cohort_id)
        assert heard(socket)["payload"]["errors"][0]["extensions"]["code"] == "REFUSED"


def test_whose_data_were_told_is_recorded(served: ListeningSite) -> None:
    scopes = ("cohorts:read", "metrics:read")
    with conversing(served, *scopes) as socket:
        subscribe(socket, "1", '{ series(where: {series: {model: ["Revolution"]}}) { nodes { subject { subjectId } } } }')
        subject = heard(socket)["payload"]["data"]["series"]["nodes"][0]["subject"]["subjectId"]

    async def recorded() -> list[Any]:
        principal = (await served.site.principal(*scopes)).id
        await served.site.caught_up()
        events = [one.event for one in await served.site.services.log.read(0, 10_000, [AccessesRecorded])]
        return [one for event in events if isinstance(event, AccessesRecorded) for one in event.accesses if one.principal.id == principal]

    [access] = [one for one in served.do(recorded()) if one.route == "/graphql"]
    assert (access.action, access.subjects, access.parameters) == ("search", (subject,), ("ManufacturerModelName",))


@pytest.mark.parametrize("payload", [None, {}, {"Authorization": "Bearer x"}, {"Authorization": "Basic eDp5"}, {"Authorization": 1}])
def test_without_a_good_token_the_door_is_shut(served: ListeningSite, payload: dict[str, Any] | None) -> None:
    with opened(served, payload) as socket, pytest.raises(ConnectionClosed) as closed:
        heard(socket)
    assert closed.value.rcvd is not None and closed.value.rcvd.code == 4403


def test_another_scope_is_not_enough(served: ListeningSite) -> None:
    with opened(served, served.do(served.site.headers("fhir:read"))) as socket, pytest.raises(ConnectionClosed) as closed:
        heard(socket)
    assert closed.value.rcvd is not None and closed.value.rcvd.code == 4403


def test_mistakes_have_the_codes_that_they_have_over_http(served: ListeningSite) -> None:
    with conversing(served) as socket:
        for number, (query, code) in enumerate(
            [
                ('subscription { cohortMatches(where: {present: {field: "PatientName"}}) { position } }', "SCOPE_MISSING"),
                ('subscription { cohortMatches(where: {present: {field: "Nothing"}}) { position } }', "FIELD_UNKNOWN"),
                ("subscription { cohortMatches(since: 99999999) { position } }", "POSITION_UNKNOWN"),
                ("{ series(first: 1000) { nodes { findings(first: 1000) { nodes { label } } } } }", "TOO_COSTLY"),
                ("{ nothing }", "GRAPHQL_VALIDATION_FAILED"),
            ]
        ):
            subscribe(socket, str(number), query)
            told = heard(socket)
            errors = told["payload"] if told["type"] == "error" else told["payload"]["errors"]
            assert errors[0]["extensions"]["code"] == code, told
            if told["type"] == "next":
                assert heard(socket)["type"] == "complete"


def test_a_revoked_token_is_told_no_more(served: ListeningSite) -> None:
    scopes = ("cohorts:read", "dicom:read")
    with conversing(served, *scopes) as socket:
        subscribe(socket, "1", FOLLOW, since=0)
        assert heard(socket)["payload"]["data"]["cohortMatches"]["enteredCount"] > 0
        principal = served.do(served.site.principal(*scopes))
        assert served.do(revoke_token(served.site.services.pool, principal.id.removeprefix("token:")))
        del served.site.tokens[frozenset(scopes), None]
        served.site.services.verifiers.tokens._known.clear()  # else it is good for some seconds more
        served.do(review(served.site, f"{ROOT}.5.2", "liver", "accepted"))
        told = heard(socket)
        assert told["payload"]["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED", told
