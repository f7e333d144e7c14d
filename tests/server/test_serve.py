"""`anamnesis serve` as a process: it answers on every port, mends its parts, and ends in order."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import psutil
import pytest
from ports import free_port
from pynetdicom import AE

pytestmark = pytest.mark.slow

DEADLINE_S = 90.0


def wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def runs(pid: int) -> bool:
    """Whether this process does; one that is dead and not yet reaped does not."""
    return psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE


class Server:
    """The process, over an embedded database of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.http, self.dimse = free_port(), free_port()
        kept = {k: v for k, v in os.environ.items() if not k.startswith("ANAMNESIS_")}
        self.environment = kept | {
            "ANAMNESIS_DATA_DIR": str(folder),
            "ANAMNESIS_HTTP_PORT": str(self.http),
            "ANAMNESIS_DIMSE_PORT": str(self.dimse),
            "ANAMNESIS_HTPT_PORT": "1",
        }
        self.anamnesis("init")
        self.output = folder.with_suffix(".out")
        with self.output.open("w") as output:
            command = [sys.executable, "-m", "server.cli", "serve"]
            self.process = subprocess.Popen(command, env=self.environment, stdout=output, stderr=subprocess.STDOUT)

    def anamnesis(self, *arguments: str) -> str:
        command = [sys.executable, "-m", "server.cli", *arguments]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def get(self, path: str, token: str = "") -> int:
        """The status, 0 while nobody answers."""
        try:
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            return httpx.get(f"http://127.0.0.1:{self.http}{path}", headers=headers, timeout=10).status_code
        except httpx.HTTPError:
            return 0

    def wait_ready(self) -> None:
        wait_until(lambda: self.get("/health/ready") == 200, "the server is not ready: " + self.output.read_text())

    def database_process(self) -> int | None:
        file = self.folder / "postgresql" / "postmaster.pid"
        return int(file.read_text().split()[0]) if file.exists() else None


@pytest.fixture
def folder() -> Iterator[Path]:
    """Not below pytest's own: that one is closed to others, so PostgreSQL (as root: another user) could be shut out of it."""
    with tempfile.TemporaryDirectory(prefix="anamnesis-serve-") as folder:
        yield Path(folder)


@pytest.fixture
def server(folder: Path) -> Iterator[Server]:
    server = Server(folder / "data")
    yield server
    if server.process.poll() is None:
        server.process.terminate()
    server.process.wait(DEADLINE_S)


def test_it_answers_http_and_dimse_with_a_token_made_beside_it(server: Server) -> None:
    server.wait_ready()
    token = server.anamnesis("token", "create", "me", "--scope", "admin").strip()
    for path in ("/fhir/Patient", "/fhir/metadata", "/dicomweb/studies", "/metrics"):
        assert server.get(path) == 401
        assert server.get(path, token) in (200, 204), path
    entity = AE("TEST")
    entity.add_requested_context("1.2.840.10008.1.1")
    association = entity.associate("127.0.0.1", server.dimse)
    assert association.is_established
    assert association.send_c_echo().Status == 0
    association.release()
    output = server.output.read_text()
    assert "ANAMNESIS_HTPT_PORT is not a setting" in output
    assert token not in output


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_in_order_and_takes_its_database_with_it(server: Server, number: signal.Signals) -> None:
    server.wait_ready()
    database = server.database_process()
    assert database is not None
    server.process.send_signal(number)
    assert server.process.wait(DEADLINE_S) == 0
    assert "Traceback" not in server.output.read_text()
    wait_until(lambda: not runs(database), "the database still runs")


def test_a_database_that_was_killed_is_started_again(server: Server) -> None:
    server.wait_ready()
    database = server.database_process()
    assert database is not None
    os.kill(database, signal.SIGKILL)
    wait_until(lambda: server.database_process() not in (None, database), "the database was not started again")
    server.wait_ready()
    assert server.process.poll() is None


def test_no_process_outlives_a_server_that_was_killed(server: Server) -> None:
    server.wait_ready()
    children, database = psutil.Process(server.process.pid).children(), server.database_process()
    assert database is not None
    assert any("server.projecting" in child.cmdline() for child in children)
    server.process.kill()
    server.process.wait()
    try:
        ours = [child.pid for child in children if child.pid != database]
        wait_until(lambda: not any(runs(pid) for pid in ours), "a process goes on")
    finally:
        os.kill(database, signal.SIGKILL)  # it would wait for the next server


def test_a_port_that_is_taken_ends_it_with_a_word_and_leaves_no_database(folder: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        first = Server.__new__(Server)
        first.folder, first.http, first.dimse = folder / "data", free_port(), taken.getsockname()[1]
        kept = {k: v for k, v in os.environ.items() if not k.startswith("ANAMNESIS_")}
        first.environment = kept | {
            "ANAMNESIS_DATA_DIR": str(first.folder), "ANAMNESIS_HTTP_PORT": str(first.http), "ANAMNESIS_DIMSE_PORT": str(first.dimse),
        }
        first.anamnesis("init")
        command = [sys.executable, "-m", "server.cli", "serve"]
        done = subprocess.run(command, env=first.environment, capture_output=True, text=True, timeout=DEADLINE_S)
        assert done.returncode == 1
        assert "Traceback" not in done.stderr
        assert "in use" in done.stderr
        assert first.database_process() is None
