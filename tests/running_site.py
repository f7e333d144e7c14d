"""A server and a worker as processes over an embedded database, as somebody who runs Anamnesis has them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
from ports import free_port

from eventlog.embedded import EmbeddedPostgres

PATIENCE_S = 60.0


class Site:
    """A server and a worker as processes, over an embedded database, all of which can be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.dimse_port, self.http_port = free_port(), free_port()
        self.environment = {
            **{k: v for k, v in os.environ.items() if not k.startswith("ANAMNESIS_")},
            "ANAMNESIS_DATA_DIR": str(folder / "data"),
            "ANAMNESIS_HTTP_PORT": str(self.http_port),
            "ANAMNESIS_DIMSE_PORT": str(self.dimse_port),
            "ANAMNESIS_QUIET_SECONDS": "1",
            "ANAMNESIS_SEAL_EVERY_S": "0.5",
            "PYTHONWARNINGS": "ignore",
        }
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def run(self, *arguments: str, exit_codes: tuple[int, ...] = (0,)) -> str:
        """One command of `anamnesis` to its end; gives what it printed."""
        command = [sys.executable, "-m", "server.cli", *arguments]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True)
        assert done.returncode in exit_codes, done.stderr
        return done.stdout

    def token(self, *scopes: str) -> str:
        options = [option for scope in scopes for option in ("--scope", scope)]
        return str(json.loads(self.run("token", "create", "test", *options, "--json"))["token"])

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            with suppress(httpx.TransportError):
                if httpx.get(f"{self.url}/health/ready").status_code == 200:
                    return
            assert time.monotonic() < deadline, (self.folder / "server.log").read_text()
            time.sleep(0.1)

    def wait_until_projected(self, position: int) -> None:
        """Waits until every read model that the server keeps holds this position."""
        deadline = time.monotonic() + PATIENCE_S
        while True:
            rows = json.loads(self.run("projections", "status", "--json"))
            if all(row["position"] >= position for row in rows):
                return
            assert time.monotonic() < deadline, rows
            time.sleep(0.2)

    def start(self, name: str, *arguments: str) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            command = [sys.executable, "-m", "server.cli", *arguments]
            self.processes[name] = subprocess.Popen(command, env=self.environment, stdout=log, stderr=log)

    def start_server(self) -> None:
        self.start("server", "serve")

    def start_worker(self) -> None:
        self.start("worker", "worker", "run")

    def kill(self, victim: str) -> None:
        if victim == "database":
            pid = EmbeddedPostgres(self.folder / "data" / "postgresql").process_id()
            if pid is not None:
                os.kill(pid, signal.SIGKILL)
            return
        process = self.processes[victim]
        for child in psutil.Process(process.pid).children(recursive=True) if psutil.pid_exists(process.pid) else []:
            with suppress(psutil.NoSuchProcess):  # it ended between being listed and being killed
                if "postgres" not in child.name():
                    child.kill()
        process.kill()
        process.wait()
        {"server": self.start_server, "worker": self.start_worker}[victim]()

    def stop(self) -> None:
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
