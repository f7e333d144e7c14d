"""A read model is rebuilt while many read: no request fails, and none gets another answer."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import httpx
import pytest
import uvicorn
from archive_history import append_studies, subject_of
from listening_site import KEEP_ALIVE_S
from ports import free_port
from served_site import Site, served_site

from projections.catalogue import projections
from projections.fhir.projection import SCHEMA
from projections.fhir.vocabulary import study_id
from projections.projection import schema_name
from projections.rebuild import Progress, rebuild
from projections.schemas import beside
from server.app import create_app
from server.services import Services

pytestmark = pytest.mark.slow

READERS = 6
REQUESTS = [
    "/fhir/BodyStructure?patient=Patient/{subject}&_count=1000",
    "/fhir/Observation?subject=Patient/{subject}&component-code=118565006&_count=1000",
    "/fhir/ImagingStudy?patient=Patient/{subject}&modality=CT&_count=1000",
    "/fhir/ImagingStudy/{study}",
    "/fhir/ImagingStudy/{study}/_history",
    "/fhir/Provenance?patient=Patient/{subject}&_count=1000",
    "/dicomweb/studies?PatientID=MRN-7",
    "/dicomweb/studies/1.2.7/series?includefield=all",
    "/dicomweb/studies/1.2.7/metadata",
    "/dicomweb/studies/1.2.7/instances",
]
PATHS = [path.format(subject=subject_of(7), study=study_id("1.2.7")) for path in REQUESTS]


def without_position(answer: bytes) -> bytes:
    """An answer but for the position that it names in its links: the log goes on, since reads are recorded in it too."""
    return re.sub(rb"_asof=\d+", b"", answer)


@asynccontextmanager
async def over_http(services: Services) -> AsyncIterator[str]:
    """The application behind a socket."""
    port = free_port()
    app = create_app(services)
    server = uvicorn.Server(
        uvicorn.Config(app, host="127.0.0.1", port=port, log_level="warning", lifespan="off", timeout_keep_alive=KEEP_ALIVE_S)
    )
    serving = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.01)
    yield f"http://127.0.0.1:{port}"
    server.should_exit = True
    await serving


async def command(site: Site, *arguments: str) -> tuple[int, str]:
    """One command of `anamnesis` in a process of its own, on the site's database."""
    settings = site.services.settings
    assert settings.database_url is not None
    environment = {**os.environ, "ANAMNESIS_DATA_DIR": str(settings.data_dir), "ANAMNESIS_DATABASE_URL": settings.database_url.get_secret_value()}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "server.cli", *arguments, env=environment, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, said.decode()


async def test_no_request_fails_or_gets_another_answer_while_read_models_are_rebuilt(embedded_server: str, tmp_path: Path) -> None:
    async with served_site(embedded_server, tmp_path) as site, over_http(site.services) as url:
        await append_studies(site.services.log, range(40), findings=12)
        await site.caught_up()
        headers = await site.headers("fhir:read", "dicom:read")
        async with httpx.AsyncClient(base_url=url, headers=headers, timeout=60) as client:
            expected: dict[str, bytes] = {}
            for path in PATHS:
                first = await client.get(path)
                assert first.status_code == 200 and len(first.content) > 100, f"{path}: {first.text}"
                expected[path] = without_position(first.content)
            wrong: list[str] = []
            answered = 0
            done = asyncio.Event()

            async def read(start: int) -> None:
                nonlocal answered
                for n in range(start, 10**9):
                    if done.is_set():
                        return
                    path = PATHS[n % len(PATHS)]
                    response = await client.get(path)
                    answered += 1
                    if response.status_code != 200 or without_position(response.content) != expected[path]:
                        wrong.append(f"{path}: {response.status_code} {response.text[:200]}")

            readers = [asyncio.create_task(read(n)) for n in range(READERS)]
            for turn, name in enumerate(("fhir", "dicom", "fhir", "dicom", "ledger")):
                before = answered
                code, said = await command(site, "projections", "rebuild", name)
                assert code == 0, said
                assert answered > before + READERS
                await append_studies(site.services.log, [1000 + turn])  # the live ones go on
            done.set()
            await asyncio.gather(*readers)
        assert wrong == []
        await site.caught_up()
        left = await site.services.pool.fetch("SELECT nspname FROM pg_namespace WHERE nspname ~ '_(old|rebuild|shadow)'")
        assert left == []
        code, said = await command(site, "projections", "verify")
        assert code == 0, said


async def test_what_a_reader_sees_in_its_snapshot_stays_there_while_the_tables_change_places(embedded_server: str, tmp_path: Path) -> None:
    async with served_site(embedded_server, tmp_path) as site:
        await append_studies(site.services.log, range(3))
        await site.caught_up()
        projection = projections()[0]
        query = f"SELECT body FROM {schema_name(projection)}.resource ORDER BY type, id, version"
        switched = asyncio.Event()

        def heard(now: Progress) -> None:
            if now.stage == "switched":
                switched.set()

        async with site.services.pool.acquire() as connection, connection.transaction():
            cursor = await connection.cursor(query)
            first = await cursor.fetch(1)
            rebuilding = asyncio.create_task(rebuild(site.services.log, projection, heard, grace_s=0.0))
            await asyncio.wait_for(switched.wait(), 30)
            rest = await cursor.fetch(10_000)
            assert not rebuilding.done()  # the old tables stay as long as somebody reads them
            assert [row["body"] for row in await connection.fetch(query)] == [row["body"] for row in (*first, *rest)]
        await rebuilding


async def test_a_rebuild_that_dies_leaves_the_live_read_model_and_the_next_one_cleans_up(embedded_server: str, tmp_path: Path) -> None:
    async with served_site(embedded_server, tmp_path) as site:
        await append_studies(site.services.log, range(3))
        await site.caught_up()
        projection, pool = projections()[0], site.services.pool
        started = asyncio.Event()

        def heard(now: Progress) -> None:
            started.set()
            raise asyncpg.PostgresError("the disk is full")

        try:
            await rebuild(site.services.log, projection, heard, grace_s=0.0)
        except asyncpg.PostgresError:
            pass
        assert started.is_set()
        assert await pool.fetchval(f"SELECT count(*) FROM {SCHEMA}.resource") > 0
        await pool.execute(f"CREATE SCHEMA {beside(projection)}")  # as a killed process leaves it
        await pool.execute(f"CREATE SCHEMA {schema_name(projection)}_old_7")
        await rebuild(site.services.log, projection, grace_s=0.0)
        assert await pool.fetch("SELECT nspname FROM pg_namespace WHERE nspname ~ '_(old|rebuild|shadow)'") == []
