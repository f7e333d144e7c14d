"""The embedded PostgreSQL: started when asked for, shared, stopped by its last user, taken up after a kill."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg
import psutil
import pytest

from eventlog.embedded import EmbeddedPostgres

USE_IT = """
import sys, pathlib
from eventlog.embedded import EmbeddedPostgres
print(EmbeddedPostgres(pathlib.Path(sys.argv[1])).url("anamnesis"), flush=True)
sys.stdin.read()
"""


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[EmbeddedPostgres]:
    server = EmbeddedPostgres(tmp_path / "postgresql")
    yield server
    if (pid := server.process_id()) is not None:
        os.kill(pid, signal.SIGQUIT)
        psutil.wait_procs([p for p in [psutil.Process(pid)] if p.is_running()], timeout=10)


def another_user(postgres: EmbeddedPostgres) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", USE_IT, str(postgres.folder)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout is not None and process.stdout.readline().startswith("postgresql://")
    return process


async def answers(url: str) -> bool:
    connection = await asyncpg.connect(url)
    await connection.close()
    return True


@contextmanager
def moved(postgres: EmbeddedPostgres, folder: Path) -> Iterator[EmbeddedPostgres]:
    """The running server's folder at another place."""
    postgres.folder.rename(folder)
    try:
        yield EmbeddedPostgres(folder)
    finally:
        folder.rename(postgres.folder)


async def test_it_starts_is_found_running_and_stops_with_its_last_user(postgres: EmbeddedPostgres) -> None:
    url = postgres.url("anamnesis")
    pid = postgres.process_id()
    assert await answers(url)
    assert EmbeddedPostgres(postgres.folder).url("anamnesis") == url and postgres.process_id() == pid
    postgres.leave()
    assert postgres.process_id() is None


async def test_it_stays_while_another_process_uses_it(postgres: EmbeddedPostgres) -> None:
    url = postgres.url("anamnesis")
    other = another_user(postgres)
    postgres.leave()
    assert await answers(url)
    other.kill()
    other.wait()
    assert await answers(url), "a killed user stops nothing"
    postgres.url("anamnesis")
    postgres.leave()
    assert postgres.process_id() is None, "a killed user is not counted"


async def test_a_killed_database_is_started_again(postgres: EmbeddedPostgres) -> None:
    connection = await asyncpg.connect(postgres.url("anamnesis"))
    await connection.execute("CREATE TABLE kept (n int); INSERT INTO kept VALUES (1)")
    for _ in range(3):
        pid = postgres.process_id()
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        psutil.wait_procs([psutil.Process(pid)] if psutil.pid_exists(pid) else [], timeout=10)
        again = await asyncpg.connect(postgres.url("anamnesis"))
        assert await again.fetchval("SELECT n FROM kept") == 1
        await again.close()


async def test_one_that_is_killed_while_it_is_asked_is_started_again(postgres: EmbeddedPostgres) -> None:
    postgres.url("anamnesis")
    pid = postgres.process_id()
    assert pid is not None
    os.kill(pid, signal.SIGSTOP)
    asked = asyncio.create_task(asyncio.to_thread(postgres.url, "anamnesis"))
    try:
        while not any(one.name() == "psql" for one in psutil.Process().children()):
            await asyncio.sleep(0.01)
        assert not asked.done(), "nobody answers"
    finally:
        os.kill(pid, signal.SIGKILL)
    assert await answers(await asked)
    assert postgres.process_id() not in (None, pid)


async def test_a_killed_database_whose_number_another_postgresql_has_is_started_again(postgres: EmbeddedPostgres, tmp_path: Path) -> None:
    other = EmbeddedPostgres(tmp_path / "other")
    postgres.url("anamnesis")
    killed = postgres.process_id()
    assert killed is not None
    try:
        other.url("anamnesis")
        os.kill(killed, signal.SIGKILL)
        psutil.wait_procs([psutil.Process(killed)] if psutil.pid_exists(killed) else [], timeout=10)
        pid_file = postgres.folder / "postmaster.pid"
        pid_file.write_text(pid_file.read_text().replace(str(killed), str(other.process_id()), 1))
        assert postgres.process_id() is None
        assert await answers(postgres.url("anamnesis"))
        assert postgres.process_id() not in (None, killed, other.process_id())
    finally:
        other.leave()


async def test_one_whose_folder_was_moved_is_found_running(postgres: EmbeddedPostgres, tmp_path: Path) -> None:
    """A second server on the same files would destroy them."""
    postgres.url("anamnesis")
    pid = postgres.process_id()
    with moved(postgres, tmp_path / "moved") as there:
        assert there.process_id() == pid


async def test_one_whose_working_folder_we_may_not_see_is_known_by_its_command(
    postgres: EmbeddedPostgres, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As in a container, where root may not trace what others run."""

    def denied(process: psutil.Process) -> str:
        raise psutil.AccessDenied(process.pid)

    postgres.url("anamnesis")
    pid = postgres.process_id()
    monkeypatch.setattr(psutil.Process, "cwd", denied)
    assert postgres.process_id() == pid
    with moved(postgres, tmp_path / "moved") as there:
        assert there.process_id() == pid
    other = EmbeddedPostgres(tmp_path / "other")
    try:
        other.url("anamnesis")
        (tmp_path / "third").mkdir()
        (tmp_path / "third" / "postmaster.pid").write_text((other.folder / "postmaster.pid").read_text())
        assert EmbeddedPostgres(tmp_path / "third").process_id() is None
    finally:
        other.leave()


async def test_only_its_owner_may_use_the_socket(postgres: EmbeddedPostgres) -> None:
    url = postgres.url("anamnesis")
    socket = Path(url.split("host=")[1]) / ".s.PGSQL.5432"
    assert socket.stat().st_mode & 0o077 == 0
