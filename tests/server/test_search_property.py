"""A search in SQL finds what a plain look at every resource finds: for random resources and searches, now and as of a position.

The look is made of an independent FHIRPath engine and of what R5 says of each type of parameter, in the plainest Python.
"""

from __future__ import annotations

import asyncio
import unicodedata
from collections.abc import Callable, Iterator, Sequence
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

from domain.ids import Position
from domain.principal import device
from domain.study import StudyRegistered
from eventlog.envelope import RecordedEvent
from projections import schemas
from projections.fhir.projection import SCHEMA, FhirProjection
from projections.fhir.versions import Versions
from server.fhir.plans import Statistics, finds_few
from server.fhir.search import Search

pytestmark = pytest.mark.slow

Json = dict[str, Any]
UCUM = "http://unitsofmeasure.org"
IN_ML = {"mm3": 0.001, "mL": 1.0, "L": 1000.0}
SYSTEM = "http://example.org/codes"

codes = st.sampled_from(["a", "b", "A"])
names = st.sampled_from(["Müller", "MULLER", "Muller-Lüd", "O'Neil", "Å", "x_y%", "two  words"])
dates = st.sampled_from(["2024", "2024-02", "2024-02-29", "2024-02-29T10:00:00Z", "2024-02-29T12:30:00.5+02:00", "2023-12-31"])
numbers = st.sampled_from([0, 1, 1.5, 1000, 1499.5, 0.001, -2])
concepts = st.builds(
    lambda code, system: {"coding": [{"code": code, **({"system": system} if system else {})}]}, codes, st.sampled_from([SYSTEM, None])
)
quantities = st.builds(
    lambda value, unit: {"value": value, "unit": unit, "code": unit, "system": UCUM}, numbers, st.sampled_from(sorted(IN_ML))
)
patients = st.fixed_dictionaries(
    {"resourceType": st.just("Patient")},
    optional={
        "name": st.lists(st.fixed_dictionaries({"family": names}, optional={"given": st.lists(names, max_size=2)}), max_size=2),
        "birthDate": st.sampled_from(["1970", "2024-02", "2024-02-29"]),
        "active": st.booleans(),
        "deceasedBoolean": st.booleans(),
        "generalPractitioner": st.lists(st.sampled_from([{"reference": "Patient/p0"}, {"reference": "Practitioner/p1"}]), max_size=1),
    },
)
observations = st.fixed_dictionaries(
    {"resourceType": st.just("Observation"), "status": st.sampled_from(["final", "preliminary"])},
    optional={
        "code": concepts,
        "subject": st.sampled_from([{"reference": f"{kind}/p{n}"} for kind in ("Patient", "Group") for n in range(3)]),
        "valueQuantity": quantities,
        "effectiveDateTime": dates,
        "component": st.lists(st.fixed_dictionaries({"code": concepts}, optional={"valueQuantity": quantities}), max_size=2),
    },
)
histories = st.lists(
    st.tuples(st.integers(0, 2), st.one_of(patients, observations)), min_size=1, max_size=8
)
prefixes = st.sampled_from(["", "eq", "ne", "gt", "lt", "ge", "le", "sa", "eb"])
tokens = st.sampled_from(["a", "b", f"{SYSTEM}|a", "|a", f"{SYSTEM}|", "a,b"])
numeric = st.sampled_from(["1", "1.5", "1000", "1.0e3", "0.001", "-2", "1500"])
units = st.sampled_from(["", f"|{UCUM}|mm3", f"|{UCUM}|mL", f"|{UCUM}|L", "||mL"])
of_observation = st.one_of(
    st.tuples(st.sampled_from(["code", "code:not", "combo-code", "component-code"]), tokens),
    st.tuples(st.just("status"), st.sampled_from(["final", "preliminary", "other"])),
    st.tuples(st.just("date"), st.builds(str.__add__, prefixes, dates.map(lambda one: one.replace("+", "%2B").replace("%2B", "+")))),
    st.tuples(st.sampled_from(["value-quantity", "combo-value-quantity"]), st.builds("{}{}{}".format, prefixes, numeric, units)),
    st.tuples(st.sampled_from(["component-code-value-quantity"]), st.builds("{}${}{}{}".format, codes, prefixes, numeric, units)),
    st.tuples(st.sampled_from(["subject", "patient", "subject:Group"]), st.sampled_from(["p0", "p1", "Patient/p0", "Group/p1", "p9"])),
    st.tuples(st.sampled_from(["code:missing", "patient:missing", "value-quantity:missing", "date:missing"]), st.sampled_from(["true", "false"])),
    st.tuples(st.sampled_from(["patient.family", "subject:Patient.family:exact", "patient.name:contains"]), names),
    st.tuples(st.just("patient.birthdate"), st.builds(str.__add__, prefixes, dates)),
)
of_patient = st.one_of(
    st.tuples(st.sampled_from(["family", "name", "given", "family:exact", "name:contains", "family:contains"]), names),
    st.tuples(st.just("birthdate"), st.builds(str.__add__, prefixes, dates)),
    st.tuples(st.sampled_from(["active", "deceased"]), st.sampled_from(["true", "false"])),
    st.tuples(st.sampled_from(["family:missing", "general-practitioner:missing"]), st.sampled_from(["true", "false"])),
    st.tuples(st.just("_has:Observation:patient:code"), tokens),
    st.tuples(st.just("_has:Observation:subject:status"), st.sampled_from(["final", "preliminary"])),
    st.tuples(st.just("_id"), st.sampled_from(["p0", "p0,p2", "p9"])),
)
def _between(code: str) -> st.SearchStrategy[list[tuple[str, str]]]:
    """From and until, as two parameters."""
    return st.tuples(st.sampled_from(["ge", "gt", "sa"]), dates, st.sampled_from(["le", "lt", "eb"]), dates).map(
        lambda asked: [(code, asked[0] + asked[1]), (code, asked[2] + asked[3])]
    )


searches = st.one_of(
    st.tuples(st.just("Observation"), _between("date")),
    st.tuples(st.just("Patient"), _between("birthdate")),
    st.tuples(st.just("Observation"), st.lists(of_observation, min_size=1, max_size=2)),
    st.tuples(st.just("Patient"), st.lists(of_patient, min_size=1, max_size=2)),
)


# The plain look

PATHS = {
    ("Observation", "code"): "code",
    ("Observation", "combo-code"): "code | Observation.component.code",
    ("Observation", "component-code"): "component.code",
    ("Observation", "status"): "status",
    ("Observation", "date"): "effective",
    ("Observation", "value-quantity"): "value.ofType(Quantity)",
    ("Observation", "combo-value-quantity"): "value.ofType(Quantity) | Observation.component.value.ofType(Quantity)",
    ("Observation", "subject"): "subject",
    ("Observation", "patient"): "subject",
    ("Patient", "family"): "name.family",
    ("Patient", "given"): "name.given",
    ("Patient", "name"): "name.family | Patient.name.given",
    ("Patient", "birthdate"): "birthDate",
    ("Patient", "active"): "active",
    ("Patient", "deceased"): "deceased.exists() and Patient.deceased != false",
    ("Patient", "general-practitioner"): "generalPractitioner",
}


def values(resource: Json, code: str) -> list[Any]:
    kind = resource["resourceType"]
    found = evaluate(resource, f"{kind}.{PATHS[kind, code]}", {}, models["r5"])
    return [one for one in found if code != "patient" or str(one.get("reference")).startswith("Patient/")]


def plain(text: str) -> str:
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    return " ".join("".join(one for one in decomposed if not unicodedata.combining(one)).split())


def span(text: str) -> tuple[datetime, datetime]:
    if "T" in text:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00"))
        return moment, moment + (timedelta(microseconds=1) if "." in text else timedelta(seconds=1))
    year, month, day = (*map(int, text.split("-")), 0, 0)[:3]
    low = datetime(year, month or 1, day or 1, tzinfo=UTC)
    if day:
        return low, low + timedelta(days=1)
    return low, datetime(year + (month in (0, 12)), 1 if month in (0, 12) else month + 1, 1, tzinfo=UTC)


def prefixed(text: str) -> tuple[str, str]:
    return (text[:2], text[2:]) if text[:1].isalpha() else ("eq", text)


def compares(prefix: str, low: Any, high: Any, a: Any, b: Any, exact: Any = None) -> bool:
    """A stored [low, high] with what is asked for, [a, b]; ``exact`` is the number that was written."""
    least, most = (a, b) if exact is None else (exact, exact)
    inside = low >= a and high <= b
    number = exact is not None
    return {
        "eq": inside,
        "ne": not inside,
        "gt": high > most,
        "lt": low < least,
        "ge": high >= most if number else high > most or inside,
        "le": low <= least if number else low < least or inside,
        "sa": low > most if number else low >= most,
        "eb": high < least if number else high <= least,
    }[prefix]


def is_token(found: Any, asked: str) -> bool:
    if isinstance(found, bool):
        return asked == str(found).lower()
    if isinstance(found, str):
        return asked == found
    system, bar, code = asked.rpartition("|")
    return any(
        (not code or one.get("code") == code) and (not bar or one.get("system", "") == system) for one in found.get("coding", ())
    )


def is_quantity(found: Json, asked: str) -> bool:
    number, *rest = asked.split("|")
    prefix, digits = prefixed(number)
    mantissa, _, exponent = digits.partition("e")
    open_by = 0.5 * 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))
    asked_value, value, factor, own = float(digits), float(found["value"]), 1.0, 1.0
    if rest and rest[0]:
        factor, own = IN_ML[rest[1]], IN_ML[found["code"]]
    elif rest and found["code"] != rest[1]:
        return False

    def rounded(one: float) -> float:
        return float(f"{one:.9g}")

    low = rounded(value * own)
    bounds = (rounded((asked_value - open_by) * factor), rounded((asked_value + open_by) * factor))
    return compares(prefix, low, low, *bounds, rounded(asked_value * factor))


def matches(resource: Json, name: str, asked: str, standing: dict[tuple[str, str], Json]) -> bool:
    if name.startswith("_has:"):
        _, other, link, rest = name.split(":", 3)
        mine = f"{resource['resourceType']}/{resource['id']}"
        return any(
            any(one.get("reference") == mine for one in values(it, link)) and matches(it, rest, asked, standing)
            for (kind, _), it in standing.items()
            if kind == other
        )
    head, chain, rest = name.partition(".")
    code, _, modifier = head.partition(":")
    if chain:
        targets = [one["reference"].partition("/") for one in values(resource, code)]
        there = [standing.get((kind, resource_id)) for kind, _, resource_id in targets if kind == "Patient"]
        return any(matches(it, rest, asked, standing) for it in there if it is not None)
    if code == "_id":
        return resource["id"] in asked.split(",")
    found = values(resource, code) if code != "component-code-value-quantity" else resource.get("component", [])
    if modifier == "missing":
        return (not found) == (asked == "true")
    return _any(found, code, modifier, asked) != (modifier == "not")


def _any(found: list[Any], code: str, modifier: str, asked: str) -> bool:
    alternatives = asked.split(",")
    if code in ("code", "combo-code", "component-code", "status", "active", "deceased"):
        return any(is_token(one, text) for one in found for text in alternatives)
    if code in ("date", "birthdate"):
        prefix, text = prefixed(asked)
        return any(compares(prefix, *span(one), *span(text)) for one in found)
    if code.endswith("value-quantity") and code.startswith("component"):
        of_code, _, amount = asked.partition("$")
        return any(is_token(one["code"], of_code) and is_quantity(one["valueQuantity"], amount) for one in found if "valueQuantity" in one)
    if code.endswith("value-quantity"):
        return any(is_quantity(one, asked) for one in found)
    if code in ("subject", "patient"):
        kinds = [modifier] if modifier else KINDS[code]  # a reference of another type than the modifier's is none that it asks for
        wanted = [one for one in ([asked] if "/" in asked else [f"{kind}/{asked}" for kind in kinds]) if one.partition("/")[0] in kinds]
        return any(one["reference"] in wanted for one in found)
    tests: dict[str, Callable[[str], bool]] = {
        "": lambda text: plain(text).startswith(plain(asked)),
        "exact": lambda text: text == asked,
        "contains": lambda text: plain(asked) in plain(text),
    }
    return any(tests[modifier](text) for text in found)


KINDS = {"subject": ("Patient", "Group"), "patient": ("Patient",)}


# Both, and the comparison


def recorded(position: int) -> RecordedEvent:
    """Whatever event; what the projection keeps of it is when it was."""
    moment = datetime(2024, 1, 1, tzinfo=UTC) + timedelta(days=position)
    return RecordedEvent(
        position=Position(position),
        event_id=UUID(int=position),
        stream="study-1",  # type: ignore[arg-type]
        version=position,
        type="StudyRegistered",
        schema_version=1,
        occurred_at=moment,
        recorded_at=moment,
        principal=device("test"),
        correlation_id=UUID(int=0),
        causation_id=None,
        origin="test",
        event=StudyRegistered(study_uid="1.2", subject_id="s"),
        digest=b"",
    )


async def fill(connection: asyncpg.Connection, history: Sequence[tuple[int, Json]]) -> list[dict[tuple[str, str], Json]]:
    """Writes each resource at a position of its own; gives what stands at each."""
    standing: list[dict[tuple[str, str], Json]] = [{}]
    async with connection.transaction():
        await connection.execute(f"SET LOCAL search_path = {SCHEMA}")
        for table in await connection.fetch("SELECT tablename FROM pg_tables WHERE schemaname = $1", SCHEMA):
            await connection.execute(f"TRUNCATE {table['tablename']}")
        versions = Versions(connection)
        for position, (number, content) in enumerate(history, 1):
            body = {**content, "id": f"p{number}"}
            await versions.put(dict(body), recorded(position))
            standing.append({**standing[-1], (body["resourceType"], body["id"]): body})
        await versions.write()
    return standing


@pytest.fixture(scope="module")
def database(embedded_server: str) -> Iterator[str]:
    url = asyncio.run(fresh_database(embedded_server))

    async def prepare() -> None:
        connection = await asyncpg.connect(url)
        async with connection.transaction():
            await schemas.create(connection, FhirProjection(), SCHEMA)
            await schemas.complete(connection, FhirProjection(), SCHEMA)
        await connection.close()

    asyncio.run(prepare())
    yield url
    asyncio.run(drop_database(embedded_server, url))


NOTHING_IS_COMMON = Statistics(frozenset(), (0.0, 4e9), (), 1.0)


@settings(max_examples=60)
@given(history=histories, asked=st.lists(searches, min_size=5, max_size=25))
def test_sql_finds_what_a_look_at_every_resource_finds(
    database: str, history: list[tuple[int, Json]], asked: list[tuple[str, list[tuple[str, str]]]]
) -> None:
    async def check() -> None:
        async with (
            asyncpg.create_pool(database, min_size=1, max_size=1) as pool,
            asyncpg.create_pool(database, min_size=1, max_size=1, server_settings={"plan_cache_mode": "force_generic_plan"}) as planned_once,
        ):
            async with pool.acquire() as connection:
                standing = await fill(connection, history)
            for position, there in enumerate(standing):
                for kind, conditions in asked:
                    search, _ = Search.parsed(kind, conditions, lenient=False)
                    statement = search.statement(position)
                    found = await _pages(statement, pool)
                    expected = {
                        resource_id
                        for (of_kind, resource_id), resource in there.items()
                        if of_kind == kind and all(matches(resource, name, value, there) for name, value in conditions)
                    }
                    assert sorted(found) == sorted(expected), (kind, conditions, position, there)
                    assert await statement.count(pool) == len(expected)
                    if any(finds_few(one, NOTHING_IS_COMMON) for one in search.conditions):
                        assert await _pages(statement, planned_once) == found

    asyncio.run(check())


@settings(max_examples=25)
@given(history=histories, sort=st.sampled_from(["family", "-family", "birthdate", "-birthdate", "active,-family", "-_id", "_lastUpdated"]))
def test_sorted_pages_hold_each_match_once_and_in_order(database: str, history: list[tuple[int, Json]], sort: str) -> None:
    async def check() -> None:
        async with asyncpg.create_pool(database, min_size=1, max_size=1) as pool:
            async with pool.acquire() as connection:
                there = (await fill(connection, history))[-1]
            search, _ = Search.parsed("Patient", [("_sort", sort)], lenient=False)
            found = await _pages(search.statement(len(history)), pool)
            assert sorted(found) == sorted(resource_id for kind, resource_id in there if kind == "Patient")
            code = sort.split(",")[0].lstrip("-")
            if code in ("family", "birthdate"):
                best = max if sort.startswith("-") else min
                keys = [[plain(one) if code == "family" else span(one)[0] for one in values(there["Patient", i], code)] for i in found]
                ordered = [best(one) for one in keys if one]
                assert ordered == sorted(ordered, reverse=best is max)
                assert [bool(one) for one in keys] == sorted((bool(one) for one in keys), reverse=True)

    asyncio.run(check())


async def _pages(statement: Any, pool: asyncpg.Pool) -> list[str]:
    """All pages of two, by the mark of each."""
    found: list[str] = []
    after = ""
    while rows := await statement.page(pool, after, 2):
        found += [row["id"] for row in rows]
        after = statement.mark(rows[-1])
    return found
