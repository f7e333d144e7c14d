"""PostgreSQL answers what a loop over the events answers: members, counts, facets, histograms and pages, at any position."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from cohort_agreement import EXAMPLES, long_histories, run, seeds
from hypothesis import HealthCheck, Phase, given, settings
from random_history import Step

from eventlog.log import EventLog
from projections.cohort.engine import Engine
from projections.cohort.postgresql import PostgresEngine
from projections.cohort.projection import CohortProjection
from projections.runner import Runner


@asynccontextmanager
async def postgresql(log: EventLog) -> AsyncIterator[Engine]:
    await Runner(log, [CohortProjection()]).catch_up()
    async with await log.reading_pool(plan_cache_mode="force_custom_plan") as pool:
        yield PostgresEngine(pool)


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), phases=[Phase.explicit, Phase.reuse, Phase.generate])
@given(history=long_histories, seed=seeds)
def test_postgresql_and_a_loop_over_the_events_agree(
    embedded_server: str, tmp_path_factory: pytest.TempPathFactory, history: list[list[Step]], seed: int
) -> None:
    run(embedded_server, tmp_path_factory.mktemp("log"), history, seed, postgresql)
