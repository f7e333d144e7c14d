"""A search that looks up few is planned once, whatever it asks for; one that may find many, for its values."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from served_site import served_site

from projections.fhir.projection import SCHEMA
from server.fhir.conditions import HasId
from server.fhir.plans import FEW, Plans, Statistics, finds_few, read_statistics
from server.fhir.search import Search

SPECIMENS = 300
"""More than PostgreSQL takes as common."""
DAY = 86_400.0
YEAR = datetime(2024, 1, 1, tzinfo=UTC).timestamp()
KNOWN = Statistics(
    common=frozenset({"blood", "final", "Patient/everybody"}),
    bounds=tuple(YEAR + day * DAY for day in range(101)),  # a hundred days, on each of which equally much begins
    begins=(YEAR + 50 * DAY,),
    dates=100.0 * 24 * FEW / 10,  # a tenth of what is few, each hour
)


@pytest.mark.parametrize(
    ("query", "is_few"),
    [
        ("Observation?identifier=urn:s|S1", True),
        ("Observation?identifier=S1", True),
        ("Observation?_id=one", True),
        ("Observation?patient=Patient/one", True),
        ("Observation?patient=Patient/one&status=final", True),
        ("Observation?subject:Patient.identifier=urn:s|S1&status=final", True),
        ("Patient?_has:Observation:patient:identifier=S1", True),
        ("Observation?code=blood,rare", False),
        ("Observation?code=rare,rarer", True),
        ("Observation?code=urn:kind|blood", False),
        ("Observation?code=urn:kind|", False),
        ("Observation?status=final", False),
        ("Observation?status:not=rare", False),
        ("Observation?patient=Patient/everybody", False),
        ("Observation?patient=Patient/one,Patient/everybody", False),
        ("Observation?code:text=rare", False),
        ("Observation?value-quantity=gt5", False),
        ("Observation?_lastUpdated=2024-01-05", False),
        ("Patient?name=rare", False),
        ("Patient?_has:Observation:patient:status=final", False),
        ("Observation?date=ge2024-01-05T10:00:00Z&date=lt2024-01-05T18:00:00Z", True),
        ("Observation?date=ge2024-01-05T10:00:00Z&date=lt2024-01-05T21:00:00Z", False),
        ("Observation?date=ge2024-02-19T23:00:00Z&date=lt2024-02-20T01:00:00Z", False),  # when much begins at once
        ("Observation?date=2024-01-05T10:00Z", True),
        ("Observation?date=2024-01-05", False),
        ("Observation?date=gt2024-01-05T10:00:00Z", False),
        ("Observation?date=lt2024-01-05T10:00:00Z", False),
        ("Observation?date=ge2030-01-01&date=lt2031-01-01", True),  # behind all that is there
        ("Observation?date=ge2023-12-01&date=lt2024-06-01", False),
    ],
)
def test_what_finds_few(query: str, is_few: bool) -> None:
    kind, _, given = query.partition("?")
    asked = [(name, value) for name, _, value in (one.partition("=") for one in given.split("&"))]
    search, _ = Search.parsed(kind, asked, lenient=False)
    assert any(finds_few(one, KNOWN) for one in search.conditions) == is_few


def specimen(nth: int) -> dict[str, Any]:
    return {
        "resourceType": "Specimen",
        "identifier": [{"system": "urn:s", "value": f"S{nth}"}],
        "type": {"coding": [{"system": "urn:kind", "code": "blood"}]},
        "subject": {"reference": "Group/all"},
        "receivedTime": f"2024-01-01T{nth % 24:02}:{nth % 60:02}:00Z",
    }


async def test_postgresql_says_what_is_common(embedded_server: str, tmp_path: Path) -> None:
    async with served_site(embedded_server, tmp_path) as site:
        headers = {**await site.headers("fhir:read", "fhir:write"), "content-type": "application/fhir+json"}
        entries = [{"resource": specimen(nth), "request": {"method": "POST", "url": "Specimen"}} for nth in range(SPECIMENS)]
        bundle = {"resourceType": "Bundle", "type": "transaction", "entry": entries}
        answer = await site.client.post("/fhir", content=json.dumps(bundle), headers=headers)
        assert answer.status_code == 200, answer.text
        await site.caught_up()
        pool = site.services.searches
        for table in ("token", "reference", "date"):
            await site.services.log.pool.execute(f"ANALYZE {SCHEMA}.{table}")
        known = await read_statistics(pool)
        assert known is not None and known.dates >= SPECIMENS
        assert {"blood", "Group/all"} <= known.common, known.common
        value = next(f"S{nth}" for nth in range(SPECIMENS) if f"S{nth}" not in known.common)

        once = await site.services.log.reading_pool(plan_cache_mode="force_generic_plan")
        try:
            plans = Plans(pool, once)
            rare, _ = Search.parsed("Specimen", [("identifier", f"urn:s|{value}")], lenient=False)
            common, _ = Search.parsed("Specimen", [("type", "urn:kind|blood")], lenient=False)
            assert plans.pool(rare.conditions) is pool
            plans._statistics = known
            assert plans.pool(rare.conditions) is once and plans.pool(common.conditions) is pool
            assert plans.pool(rare.conditions, is_sorted=True) is pool
            position = await site.services.log.head()
            [row] = await rare.statement(position).page(once, "", 5)
            assert json.loads(row["body"])["identifier"][0]["value"] == value
        finally:
            await once.close()


async def test_statistics_that_cannot_be_read_are_asked_for_again(embedded_server: str, tmp_path: Path) -> None:
    async with served_site(embedded_server, tmp_path) as site, asyncpg.create_pool(site.services.log.url, min_size=1, max_size=1) as pool:
        await pool.close()
        plans = Plans(pool, site.services.searches)
        running = asyncio.create_task(plans.run())
        await asyncio.sleep(0.2)
        assert not running.done()
        assert plans.pool([HasId(("one",))]) is pool
        running.cancel()
