"""A site counts cohorts in memory where it can, lets elements become facets, and forgets who is erased there too."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from served_site import PLANTED_MRN, Site, erase, served_site, slice_of

from domain.condition import Level, Query
from projections.cohort.engine import Asked, FacetAsked

READ, WRITE = "cohorts:read", "cohorts:write"
PLANTED = "PLANTEDPROTOCOL"


@pytest_asyncio.fixture
async def site(embedded_server: str, tmp_path: Path) -> AsyncIterator[Site]:
    async with served_site(embedded_server, tmp_path / "data") as site:
        await site.store(slice_of("1.2.3", 1, ProtocolName=PLANTED, VariableFlipAngleFlag="N"))
        await site.store(slice_of("1.2.4", 1, name="Other^John", patient_id="OTHER1", ProtocolName="other", VariableFlipAngleFlag="Y"))
        yield site


async def in_memory(site: Site) -> int:
    """Once the columns hold all that the site holds."""
    assert site.services.columns is not None
    position = await site.caught_up()
    while not site.services.columns.store.is_ready or site.services.columns.store.position < position:
        await asyncio.sleep(0.01)
    return position


async def asked(site: Site, document: str, *scopes: str) -> Any:
    answer = await site.client.post("/graphql", json={"query": document}, headers=await site.headers(*scopes))
    return answer.json()


async def test_columns_answer_where_they_reach_and_the_rows_before_that(site: Site) -> None:
    question = Asked(query=Query(level=Level.SERIES), position=await site.caught_up())
    facets = [FacetAsked(field=field) for field in ("ProtocolName", "VariableFlipAngleFlag", "sex")]
    by_rows = await site.services.cohorts.rows.facets(question, facets)
    await in_memory(site)
    assert (await site.services.cohorts.explain(question)).engine == "columns"
    assert await site.services.cohorts.facets(question, facets) == by_rows
    assert [value.value for value in by_rows[0].values] == [PLANTED, "other"]


async def test_a_site_may_do_without(embedded_server: str, tmp_path: Path) -> None:
    async with served_site(embedded_server, tmp_path / "data", cohort_columns=False) as site:
        position = await site.caught_up()
        question = Asked(query=Query(level=Level.SERIES), position=position)
        assert (await site.services.cohorts.explain(question)).engine == "postgresql"
        assert await site.services.cohorts.position() == position
        answer = await asked(site, "{ columns { state rows } }", READ)
        assert answer["data"]["columns"] == {"state": "off", "rows": 0}


async def test_an_element_becomes_a_facet_that_is_counted_in_memory(site: Site) -> None:
    await in_memory(site)
    added = await asked(site, 'mutation { addFacet(element: "00181315") { element position } }', READ, WRITE)
    assert added["data"]["addFacet"]["element"] == "VariableFlipAngleFlag"
    again = await asked(site, 'mutation { addFacet(element: "VariableFlipAngleFlag") { position } }', READ, WRITE)
    assert again["data"]["addFacet"]["position"] is None
    while True:
        said = await asked(site, "{ columns { state facets { element inMemory } } }", READ)
        if said["data"]["columns"]["facets"] == [{"element": "VariableFlipAngleFlag", "inMemory": True}]:
            break
        await asyncio.sleep(0.01)
    assert said["data"]["columns"]["state"] == "following"
    found = await asked(site, '{ cohort { facets(fields: [{field: "VariableFlipAngleFlag"}]) { values { value count } } } }', READ)
    assert found["data"]["cohort"]["facets"][0]["values"] == [{"value": "N", "count": 1}, {"value": "Y", "count": 1}]
    removed = await asked(site, 'mutation { removeFacet(element: "VariableFlipAngleFlag") { position } }', READ, WRITE)
    assert removed["data"]["removeFacet"]["position"] is not None
    assert (await asked(site, "{ columns { facets { element } } }", READ))["data"]["columns"]["facets"] == []


@pytest.mark.parametrize(
    ("document", "scopes", "code"),
    [
        ('mutation { addFacet(element: "VariableFlipAngleFlag") { position } }', (READ,), "SCOPE_MISSING"),
        ('mutation { addFacet(element: "NoSuchElement") { position } }', (READ, WRITE), "FIELD_UNKNOWN"),
        ('mutation { addFacet(element: "sex") { position } }', (READ, WRITE), "FIELD_REFUSED"),
    ],
)
async def test_what_is_no_element_is_no_facet(site: Site, document: str, scopes: tuple[str, ...], code: str) -> None:
    answer = await asked(site, document, *scopes)
    assert [error["extensions"]["code"] for error in answer["errors"]] == [code]


async def test_metrics_say_what_is_in_memory(site: Site) -> None:
    position = await in_memory(site)
    text = (await site.get("/metrics", "metrics:read")).text
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if line.startswith("anamnesis_columns_"))
    assert float(values['anamnesis_columns_rows{level="series"}']) == 2
    assert float(values["anamnesis_columns_position"]) >= position
    assert float(values["anamnesis_columns_bytes"]) > 0


async def test_who_is_erased_is_in_no_column_and_no_snapshot(site: Site) -> None:
    await in_memory(site)
    columns = site.services.columns
    assert columns is not None
    await columns.write_snapshot()
    folder = site.services.settings.data_dir / "columns"
    assert any(PLANTED.encode() in path.read_bytes() for path in folder.iterdir())
    rows = await site.services.pool.fetch("SELECT subject_id FROM cohort_v1.subject s JOIN cohort_v1.study t ON t.subject = s.id WHERE t.study_uid = '1.2.3'")
    await erase(site, rows[0]["subject_id"])
    position = await in_memory(site)
    assert not any(planted.encode() in path.read_bytes() for path in folder.iterdir() for planted in (PLANTED, PLANTED_MRN))
    [facet] = await site.services.cohorts.facets(Asked(query=Query(level=Level.SERIES), position=position), [FacetAsked(field="ProtocolName")])
    assert [value.value for value in facet.values] == ["other"]
    await columns.write_snapshot()
    assert not any(PLANTED.encode() in path.read_bytes() for path in folder.iterdir())
