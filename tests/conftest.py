"""What all tests share: databases of their own (embedded, and the machine's PostgreSQL), an open log, the DICOM data."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio
from hypothesis import HealthCheck, settings
from pydantic import SecretStr

from eventlog.embedded import EmbeddedPostgres
from eventlog.log import EventLog
from eventlog.schema import migrate
from eventlog.settings import LogSettings
from eventlog.vault import make_key_encryption_key

settings.register_profile("anamnesis", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("anamnesis")  # no test asserts a time

EXTERNAL_URL = os.environ.get("ANAMNESIS_TEST_DATABASE_URL", "postgresql://postgres@127.0.0.1:5432/postgres")
IN_CI = os.environ.get("CI", "") not in ("", "false", "0")


def missing(what: str) -> None:
    """A part that cannot be had: in continuous integration a failure, elsewhere a skip that says so."""
    if IN_CI:
        pytest.fail(what)
    pytest.skip(what)


def with_node_modules(folder: Path) -> Path:
    """The folder, with what its package-lock.json pins in it."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        missing("Node and npm are not installed: apt-get install nodejs npm")
    if not (folder / "node_modules").is_dir():
        command = ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        if subprocess.run(command, cwd=folder, timeout=300).returncode:
            missing(f"npm could not fetch what {folder.name}/package-lock.json pins")
    return folder


@pytest.fixture(scope="session")
def dicom_data() -> Path:
    """The folder of real DICOM files."""
    folder = Path(os.environ.get("ANAMNESIS_TEST_DATA", Path(__file__).parents[2] / "shared" / "data" / "dicom" / "dev"))
    if not folder.is_dir():
        missing(f"the DICOM test data are not at {folder}: set ANAMNESIS_TEST_DATA")
    return folder


@pytest.fixture(scope="session")
def embedded_server() -> Iterator[str]:
    """URL of the embedded PostgreSQL's maintenance database, started for the session."""
    with tempfile.TemporaryDirectory(prefix="anamnesis-test-") as folder:
        server = EmbeddedPostgres(Path(folder) / "postgresql")
        yield server.url("postgres")
        server.leave()


@pytest.fixture(scope="session")
def external_server() -> str:
    """URL of a PostgreSQL that is not ours."""

    async def answers() -> None:
        await (await asyncpg.connect(EXTERNAL_URL, timeout=5)).close()

    try:
        with ThreadPoolExecutor(1) as outside:  # a fixture asked for by an async one is inside its loop
            outside.submit(asyncio.run, answers()).result()
    except (OSError, asyncpg.PostgresError) as error:
        missing(f"no PostgreSQL answers at ANAMNESIS_TEST_DATABASE_URL ({type(error).__name__})")
    return EXTERNAL_URL


def _sibling(url: str, name: str) -> str:
    head, _, query = url.partition("?")
    return f"{head.rsplit('/', 1)[0]}/{name}" + (f"?{query}" if query else "")


async def _execute(url: str, statement: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(statement)
    finally:
        await connection.close()


async def fresh_database(server: str) -> str:
    """A migrated database of its own on this server; gives its URL."""
    name = f"anamnesis_test_{uuid.uuid4().hex[:12]}"
    await _execute(server, f'CREATE DATABASE "{name}"')
    return _sibling(server, name)


async def drop_database(server: str, url: str) -> None:
    name = url.partition("?")[0].rsplit("/", 1)[1]
    await _execute(server, f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)')


@pytest_asyncio.fixture
async def database_url(embedded_server: str) -> AsyncIterator[str]:
    """A new, empty database on the embedded server (not migrated)."""
    url = await fresh_database(embedded_server)
    yield url
    await drop_database(embedded_server, url)


@pytest_asyncio.fixture
async def log_settings(database_url: str, tmp_path: Path) -> LogSettings:
    """Settings of a migrated database with a key-encryption key."""
    settings = LogSettings(data_dir=tmp_path / "data", database_url=SecretStr(database_url))
    make_key_encryption_key(settings)
    await migrate(settings)
    return settings


@pytest_asyncio.fixture
async def event_log(log_settings: LogSettings) -> AsyncIterator[EventLog]:
    """An open, empty log."""
    log = await EventLog.open(log_settings)
    yield log
    await log.close()


@pytest_asyncio.fixture(params=["embedded", "external"])
async def any_log(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[EventLog]:
    """An open, empty log on each kind of PostgreSQL: the contract tests of the log run on both."""
    server: str = request.getfixturevalue(f"{request.param}_server")
    url = await fresh_database(server)
    settings = LogSettings(data_dir=tmp_path / "data", database_url=SecretStr(url))
    make_key_encryption_key(settings)
    await migrate(settings)
    log = await EventLog.open(settings)
    yield log
    await log.close()
    await drop_database(server, url)
