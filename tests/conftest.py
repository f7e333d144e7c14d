"""What all tests share: databases of their own (embedded, and the machine's PostgreSQL), an open log, the DICOM data."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import tempfile
from collections.abc import AsyncIterator, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import asyncpg
import fasteners
import pytest
import pytest_asyncio
from databases import Ready, drop_database, fresh_database, keep_templates
from hypothesis import HealthCheck, settings
from pydantic import SecretStr

from eventlog.embedded import EmbeddedPostgres
from eventlog.log import EventLog
from eventlog.schema import migrate
from eventlog.settings import LogSettings
from eventlog.vault import make_key_encryption_key

settings.register_profile("anamnesis", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("anamnesis")  # no test asserts a time

PROCESSES_AT_MOST = 6

EXTERNAL_URL = os.environ.get("ANAMNESIS_TEST_DATABASE_URL", "postgresql://postgres@127.0.0.1:5432/postgres")
IN_CI = os.environ.get("CI", "") not in ("", "false", "0")


def pytest_xdist_auto_num_workers() -> int:
    """One more than there are cores: tests wait for databases, sockets and other processes."""
    return min(len(os.sched_getaffinity(0)) + 1, PROCESSES_AT_MOST)


class _AtOnce:
    """Failures by name as they come, between the dots: the whole story is at the end, minutes later."""

    def __init__(self, config: pytest.Config) -> None:
        self._plugins = config.pluginmanager

    @pytest.hookimpl(trylast=True)
    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            terminal = self._plugins.getplugin("terminalreporter")
            terminal.write_line(f"\nfailed in {report.when}: {report.nodeid}", red=True)


def pytest_configure(config: pytest.Config) -> None:
    if getattr(config.option, "tx", None):  # of several processes, this one gives out the tests
        config.pluginmanager.register(_AtOnce(config))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Several processes end together when what takes long does not begin last."""
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def missing(what: str) -> None:
    """A part that cannot be had: in continuous integration a failure, elsewhere a skip that says so."""
    if IN_CI:
        pytest.fail(what)
    pytest.skip(what)


def with_node_modules(folder: Path) -> Path:
    """The folder, with what its package-lock.json pins in it."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        missing("Node and npm are not installed: apt-get install nodejs npm")
    with fasteners.InterProcessLock(folder / "node_modules.lock"):  # of a run's processes, one fetches and the others wait
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


def _run(work: Coroutine[Any, Any, None]) -> None:
    """To its end; a fixture that an async one asks for is inside that one's loop."""
    with ThreadPoolExecutor(1) as outside:
        outside.submit(asyncio.run, work).result()


@pytest.fixture(scope="session")
def embedded_server() -> Iterator[str]:
    """URL of the maintenance database of an embedded PostgreSQL, started for the session (or for this one of its processes)."""
    with tempfile.TemporaryDirectory(prefix="anamnesis-test-") as folder:
        server = EmbeddedPostgres(Path(folder) / "postgresql")
        url = server.url("postgres")
        _run(keep_templates(url))
        yield url
        server.leave()


@pytest.fixture(scope="session")
def external_server() -> str:
    """URL of a PostgreSQL that is not ours."""

    async def answers() -> None:
        await (await asyncpg.connect(EXTERNAL_URL, timeout=5)).close()

    try:
        _run(answers())
    except (OSError, asyncpg.PostgresError) as error:
        missing(f"no PostgreSQL answers at ANAMNESIS_TEST_DATABASE_URL ({type(error).__name__})")
    return EXTERNAL_URL


@pytest_asyncio.fixture
async def database_url(request: pytest.FixtureRequest, embedded_server: str) -> AsyncIterator[str]:
    """A new database on the embedded server: an empty one, or the migrated one of ``log_settings`` for a test that has those too."""
    url = await fresh_database(embedded_server, Ready.MIGRATED if "log_settings" in request.fixturenames else Ready.EMPTY)
    yield url
    await drop_database(embedded_server, url)


@pytest.fixture
def log_settings(database_url: str, tmp_path: Path) -> LogSettings:
    """Settings of a migrated database with a key-encryption key."""
    settings = LogSettings(data_dir=tmp_path / "data", database_url=SecretStr(database_url))
    make_key_encryption_key(settings)
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
