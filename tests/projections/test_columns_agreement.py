"""Columns that follow the rows answer what a loop over the events answers, and so what PostgreSQL answers."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from cohort_agreement import EXAMPLES, long_histories, run, seeds
from hypothesis import HealthCheck, given, settings
from random_history import Step

from eventlog.log import EventLog
from projections.cohort.engine import Engine
from projections.cohort.postgresql import PostgresEngine
from projections.cohort.projection import NAME, VERSION, CohortProjection
from projections.columns.engine import ColumnsEngine
from projections.columns.follower import Follower
from projections.runner import Runner


@asynccontextmanager
async def columns(log: EventLog) -> AsyncIterator[Engine]:
    """The columns follow while the rows are made, in a few batches."""
    runner = Runner(log, [CohortProjection()], batch=7)
    await runner.prepare()
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(2) as threads:
        follower = Follower(log, Path(folder), NAME, VERSION, CohortProjection.handles)
        following = asyncio.create_task(follower.run())
        try:
            head = await runner.catch_up()
            while not follower.store.is_ready or follower.store.position < head:
                await asyncio.sleep(0.01)
            async with await log.reading_pool(plan_cache_mode="force_custom_plan") as pool:
                yield ColumnsEngine(follower.store, threads, PostgresEngine(pool))
        finally:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
            await follower.close()


@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
@given(history=long_histories, seed=seeds)
def test_columns_and_a_loop_over_the_events_agree(
    embedded_server: str, tmp_path_factory: pytest.TempPathFactory, history: list[list[Step]], seed: int
) -> None:
    run(embedded_server, tmp_path_factory.mktemp("log"), history, seed, columns)
