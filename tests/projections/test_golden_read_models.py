"""A log written by any release can be projected, and a projection that makes other rows of it has a new version."""

from __future__ import annotations

import json

import pytest
from golden.write_read_models import READ_MODELS, digests
from golden_log import golden_log, names

from eventlog.log import EventLog
from projections.catalogue import all_projections
from projections.checkpoint import statuses
from projections.projection import schema_name
from projections.verification import verify

HOW = (
    "other rows of the same events need a new version of the projection (a version that no release has had may keep its number: take"
    " its digests out of tests/golden/read_models.json). Then run `python tests/golden/write_read_models.py`"
)


@pytest.mark.parametrize("name", names())
async def test_a_golden_log_gives_the_rows_that_this_version_is_known_for(event_log: EventLog, name: str) -> None:
    expected = json.loads(READ_MODELS.read_text())[name]
    made = await digests(event_log, name)
    for status in await statuses(event_log.pool):
        assert (status.state, status.lag, status.problem) == ("live", 0, None)
    assert await event_log.head() == len(golden_log(name).events)
    for schema, tables in made.items():
        assert schema in expected, f"nothing is written down of {schema}: {HOW}"
        assert tables == expected[schema], f"{schema} holds other rows: {HOW}"


@pytest.mark.parametrize("name", names())
async def test_a_rebuild_of_a_golden_log_equals_it(event_log: EventLog, name: str) -> None:
    await digests(event_log, name)
    for projection in all_projections():
        verdict = await verify(event_log, projection)
        assert verdict.is_equal, [table.table for table in verdict.tables if not table.is_equal]


@pytest.mark.parametrize("name", names())
async def test_everything_known_of_the_log_became_a_resource_or_an_entry(event_log: EventLog, name: str) -> None:
    await digests(event_log, name)
    schemas = {projection.name: schema_name(projection) for projection in all_projections()}
    entries = await event_log.pool.fetchval(f"SELECT count(*) FROM {schemas['ledger']}.entry")
    assert entries == len(golden_log(name).events)
    kinds = {row["type"] for row in await event_log.pool.fetch(f"SELECT DISTINCT type FROM {schemas['fhir']}.resource")}
    assert {"Patient", "ImagingStudy", "ImagingSelection", "BodyStructure", "Observation", "Device", "Provenance"} <= kinds
