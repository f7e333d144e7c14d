"""What a site adds to the search parameters finds what a plain look finds, whenever it was added: before, between or after the resources.

The same events in other batches, with the background's work done in other pieces, give the same rows.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from conftest import drop_database, fresh_database
from fhirpathpy import evaluate
from fhirpathpy.models import models
from hypothesis import given, settings
from hypothesis import strategies as st

from domain.clinical_record import ClinicalRecordDeleted, ClinicalRecordWritten
from domain.event import Event
from domain.ids import Position
from domain.principal import device
from eventlog.envelope import RecordedEvent
from projections import schemas
from projections.digest import table_digest, tables
from projections.fhir.projection import SCHEMA, FhirProjection
from projections.fhir.search import indexing
from projections.fhir.search.site import CURRENT, Added, Known, site_of
from server.fhir.outcome import FhirError
from server.fhir.search import Search

pytestmark = pytest.mark.slow

Json = dict[str, Any]
EXPRESSIONS = {
    "token": ["Observation.bodySite", "Observation.interpretation"],  # the rows of the first are there: the guide has it, too
    "string": ["Observation.note.text", "Observation.component.value.ofType(string)", "Observation.value.ofType(string) | Observation.note.text"],
    "quantity": ["Observation.component.value.ofType(Quantity)", "Observation.referenceRange.where(text = 'normal').low"],
    "reference": ["Observation.note.author.ofType(Reference)", "Observation.performer.where(resolve() is Organization)"],
}
ASKED = {"token": ["a", "b", "en"], "string": ["one", "two"], "quantity": ["gt1", "2", "le3"], "reference": ["Organization/o", "Patient/p"]}

words = st.sampled_from(["one", "two words", "ONE more"])
concepts = st.sampled_from(["a", "b"]).map(lambda code: {"coding": [{"code": code}]})
amounts = st.sampled_from([1, 2, 3.5]).map(lambda value: {"value": value})
references = st.sampled_from(["Organization/o", "Patient/p"]).map(lambda reference: {"reference": reference})
observations = st.fixed_dictionaries(
    {"resourceType": st.just("Observation"), "status": st.just("final")},
    optional={
        "language": st.just("en"),
        "bodySite": concepts,
        "interpretation": st.lists(concepts, min_size=1, max_size=2),
        "note": st.lists(st.fixed_dictionaries({"text": words}, optional={"authorReference": references}), max_size=2),
        "valueString": words,
        "performer": st.lists(references, max_size=2),
        "referenceRange": st.lists(st.fixed_dictionaries({"text": st.sampled_from(["normal", "other"]), "low": amounts}), max_size=2),
        "component": st.lists(
            st.one_of(
                st.fixed_dictionaries({"valueCodeableConcept": concepts}),
                st.fixed_dictionaries({"valueQuantity": amounts}),
                st.fixed_dictionaries({"valueString": words}),
            ),
            max_size=2,
        ),
    },
)
def definitions(chosen: tuple[str, str]) -> st.SearchStrategy[Json]:
    """Now in force and now not, under one code or another."""
    return st.fixed_dictionaries(
        {
            "resourceType": st.just("SearchParameter"),
            "url": st.just("http://example.org/mine"),
            "code": st.sampled_from(["mine", "mine", "other"]),
            "base": st.just(["Observation"]),
            "type": st.just(chosen[0]),
            "expression": st.just(chosen[1]),
            "status": st.sampled_from(["active", "active", "retired"]),
        }
    )


def writes(chosen: list[tuple[str, str]]) -> st.SearchStrategy[tuple[str, int, Json | None]]:
    """Type, which one, and what it becomes; None deletes it."""
    defined = st.one_of(*map(definitions, chosen))
    return st.one_of(
        st.tuples(st.just("Observation"), st.integers(0, 3), st.one_of(observations, observations, st.none())),
        st.tuples(st.just("SearchParameter"), st.integers(0, 1), st.one_of(defined, defined, st.none())),
    )


every = [(kind, one) for kind, of_kind in EXPRESSIONS.items() for one in of_kind]
histories = st.lists(st.sampled_from(every), min_size=1, max_size=2).flatmap(lambda chosen: st.lists(writes(chosen), min_size=4, max_size=20))
cuts = st.lists(st.tuples(st.integers(1, 5), st.integers(0, 3)), min_size=1, max_size=6)
"""How long each batch is, and how many pieces are done in the background after it."""


def events_of(history: Sequence[tuple[str, int, Json | None]]) -> list[RecordedEvent]:
    versions: dict[tuple[str, int], int] = {}
    there: dict[tuple[str, int], bool] = {}
    made: list[RecordedEvent] = []
    for kind, nth, content in history:
        if content is None and not there.get((kind, nth)):
            continue
        versions[kind, nth] = versions.get((kind, nth), 0) + 1
        there[kind, nth] = content is not None
        of = {"resource_type": kind, "resource_id": f"r{nth}", "subject_id": f"own-{kind}-{nth}", "record_version": versions[kind, nth]}
        made.append(_recorded(len(made) + 1, ClinicalRecordDeleted(**of) if content is None else ClinicalRecordWritten(**of, resource=content)))
    return made


def _recorded(position: int, event: Event) -> RecordedEvent:
    moment = datetime(2024, 1, 1, tzinfo=UTC) + timedelta(days=position)
    return RecordedEvent(
        position=Position(position),
        event_id=UUID(int=position),
        stream="record-1",  # type: ignore[arg-type]
        version=position,
        type=type(event).__name__,
        schema_version=1,
        occurred_at=moment,
        recorded_at=moment,
        principal=device("test"),
        correlation_id=UUID(int=0),
        causation_id=None,
        origin="test",
        event=event,
        digest=b"",
    )


@pytest.fixture(scope="module")
def database(embedded_server: str) -> Iterator[str]:
    url = asyncio.run(fresh_database(embedded_server))
    yield url
    asyncio.run(drop_database(embedded_server, url))


async def built(connection: asyncpg.Connection, events: Sequence[RecordedEvent], how: Sequence[tuple[int, int]]) -> None:
    """The read model of these events, in batches and pieces of these sizes, with all work done in the end."""
    projection = FhirProjection()
    await connection.execute(f"DROP SCHEMA IF EXISTS {SCHEMA} CASCADE")
    async with connection.transaction():
        await schemas.create(connection, projection, SCHEMA)
        await schemas.complete(connection, projection, SCHEMA)
    await connection.execute(f"SET search_path = {SCHEMA}")
    at, nth = 0, 0
    while at < len(events):
        length, pieces = how[nth % len(how)]
        async with connection.transaction():
            await projection.apply(events[at : at + length], connection)
        for _ in range(pieces):
            async with connection.transaction():
                await projection.work(connection)
        at, nth = at + length, nth + 1
    while await projection.work(connection):
        pass
    assert await projection.is_done(connection)


async def digests(connection: asyncpg.Connection) -> dict[str, str]:
    async with connection.transaction():
        return {table: await table_digest(connection, SCHEMA, table) for table in await tables(connection, SCHEMA)}


@settings(max_examples=80)
@given(history=histories, how=cuts, otherwise=cuts)
def test_it_finds_what_a_plain_look_finds_and_comes_out_the_same(
    database: str, history: list[tuple[str, int, Json | None]], how: list[tuple[int, int]], otherwise: list[tuple[int, int]]
) -> None:
    events = events_of(history)

    async def check() -> None:
        async with asyncpg.create_pool(database, min_size=1, max_size=1, reset=_keep) as pool:
            async with pool.acquire() as connection:
                await built(connection, events, how)
                first = await digests(connection)
                await built(connection, events, otherwise)
                assert await digests(connection) == first
                rows = [Added(*row) for row in await connection.fetch("SELECT * FROM search_parameter")]
            CURRENT.set(Known(site=site_of(rows)))
            standing = [_standing(events[:position]) for position in range(len(events) + 1)]
            definitions_there = {one.id: standing[-1]["SearchParameter", one.id] for one in rows if not one.problem}
            for kind, of_kind in ASKED.items():
                for code, asked in ((code, one) for code in ("mine", "other") for one in of_kind):
                    defined = [one for one in definitions_there.values() if one["code"] == code]
                    if not defined or defined[0]["type"] != kind:
                        continue
                    search, _ = Search.parsed("Observation", [(code, asked)], lenient=False)
                    for position, there in enumerate(standing):
                        found = await search.statement(position).page(pool, "", 100)
                        expected = [key[1] for key, one in there.items() if key[0] == "Observation" and _matches(one, defined[0], asked)]
                        assert sorted(row["id"] for row in found) == sorted(expected), (defined, asked, position)
            if not any(one["code"] == "mine" for one in definitions_there.values()):
                with pytest.raises(FhirError):
                    Search.parsed("Observation", [("mine", "a")], lenient=False)

    before = indexing.VERSIONS_A_PIECE
    indexing.VERSIONS_A_PIECE = 2
    try:
        asyncio.run(check())
    finally:
        indexing.VERSIONS_A_PIECE = before


@pytest.mark.parametrize("how", [[(20, 9)], [(1, 1)], [(1, 0)], [(2, 1)], [(3, 2), (1, 0)]])
def test_what_comes_and_goes_and_comes_again_is_indexed_once(database: str, how: list[tuple[int, int]]) -> None:
    kind, expression = "string", "Observation.note.text"
    active = {"resourceType": "SearchParameter", "url": "http://example.org/mine", "code": "mine", "base": ["Observation"], "type": kind}
    active |= {"expression": expression, "status": "active"}
    seen = {"resourceType": "Observation", "status": "final", "note": [{"text": "one"}]}
    history: list[tuple[str, int, Json | None]] = [("Observation", nth, seen) for nth in range(3)]
    for status in ("active", "retired", "active", "retired", "active"):
        history += [("SearchParameter", 0, {**active, "status": status}), ("Observation", 3, seen)]

    async def check() -> None:
        connection = await asyncpg.connect(database)
        await built(connection, events_of(history), how)
        number = next(iter(site_of([Added(*row) for row in await connection.fetch("SELECT * FROM search_parameter")]).sources["Observation"])).number
        keys = [row["key"] for row in await connection.fetch("SELECT key FROM string WHERE source = $1 ORDER BY key", number)]
        versions = [row["key"] for row in await connection.fetch("SELECT key FROM resource WHERE type = 'Observation' ORDER BY key")]
        assert keys == versions
        await connection.close()

    before = indexing.VERSIONS_A_PIECE
    indexing.VERSIONS_A_PIECE = 2
    try:
        asyncio.run(check())
    finally:
        indexing.VERSIONS_A_PIECE = before


async def _keep(connection: asyncpg.Connection) -> None:
    """The search_path stays that of the read model."""


def _standing(events: Sequence[RecordedEvent]) -> dict[tuple[str, str], Json]:
    there: dict[tuple[str, str], Json] = {}
    for recorded in events:
        event = recorded.event
        assert isinstance(event, ClinicalRecordWritten | ClinicalRecordDeleted)
        there.pop((event.resource_type, event.resource_id), None)
        if isinstance(event, ClinicalRecordWritten):
            there[event.resource_type, event.resource_id] = event.resource
    return there


def _matches(resource: Json, definition: Json, asked: str) -> bool:
    expression = definition["expression"].replace(".where(resolve() is Organization)", ".where(reference.startsWith('Organization/'))")
    found = evaluate(resource, expression, {}, models["r5"])
    match definition["type"]:
        case "token":
            return any(one == asked if isinstance(one, str) else any(coding["code"] == asked for coding in one["coding"]) for one in found)
        case "string":
            return any(one.lower().startswith(asked) for one in found)
        case "reference":
            return any(one["reference"] == asked for one in found)
    prefix, number = (asked[:2], float(asked[2:])) if asked[0].isalpha() else ("eq", float(asked))
    tests = {"gt": float.__gt__, "le": float.__le__, "eq": lambda value, number: abs(value - number) <= 0.5}
    return any(tests[prefix](float(one["value"]), number) for one in found)
