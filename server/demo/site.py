"""A whole site in a temporary folder: `anamnesis serve --with-worker` as a process of its own, and a client of its FHIR."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx

from domain.ids import series_stream
from domain.series import IndexingFailed, IndexingRefused, SeriesIndexed
from eventlog.envelope import RecordedEvent
from eventlog.log import EventLog
from projections.checkpoint import reached
from projections.fhir.projection import FhirProjection
from projections.fhir.vocabulary import study_id
from server.settings import ServerSettings

START_TIMEOUT_S = 90.0
SCOPES = ("fhir:read", "dicom:read")


class SiteFailed(Exception):
    """Raised when the server does not start or stops; the message says where its log is."""


class DemoSite:
    """Use it as an asynchronous context manager."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._http_port, self._dimse_port = _free_port(), _free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self._log_file = folder / "server.log"
        self.token = ""
        self.url = f"http://127.0.0.1:{self._http_port}"
        self.dimse_address = ("127.0.0.1", self._dimse_port)
        self.client = httpx.AsyncClient(base_url=self.url, timeout=60)
        self.log: EventLog
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith("ANAMNESIS_")},
            "ANAMNESIS_DATA_DIR": str(folder),
            "ANAMNESIS_HTTP_PORT": str(self._http_port),
            "ANAMNESIS_DIMSE_PORT": str(self._dimse_port),
            "ANAMNESIS_QUIET_SECONDS": "2",
            "PYTHONWARNINGS": "ignore",
        }

    async def __aenter__(self) -> DemoSite:
        self._folder.mkdir(parents=True)
        await asyncio.to_thread(self._run, "init")
        with self._log_file.open("wb") as log:
            command = [sys.executable, "-m", "server.cli", "serve", "--with-worker"]
            self._process = subprocess.Popen(command, env=self._environment, stdout=log, stderr=log)  # noqa: ASYNC220
        try:
            await self._until_ready()
            made = await asyncio.to_thread(self._run, "token", "create", "demo", "--json", *(f"--scope={s}" for s in SCOPES))
            self.token = json.loads(made)["token"]
            self.client.headers["Authorization"] = f"Bearer {self.token}"
            self.log = await EventLog.open(ServerSettings(data_dir=self._folder, database_url=None))
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.log.close()
        await self._stop()

    async def wait(self) -> None:
        """Until the server stops."""
        assert self._process is not None
        await asyncio.to_thread(self._process.wait)

    async def get(self, path: str, **parameters: str) -> dict[str, Any]:
        """A FHIR answer. Raises SiteFailed."""
        answer = await self.client.get(f"/fhir/{path}", params=parameters)
        if answer.status_code != 200:
            raise SiteFailed(f"GET /fhir/{path} was answered {answer.status_code}")
        body: dict[str, Any] = answer.json()
        return body

    async def resources(self, path: str, **parameters: str) -> list[dict[str, Any]]:
        """The resources of a search's first page."""
        bundle = await self.get(path, **parameters)
        return [entry["resource"] for entry in bundle.get("entry", [])]

    async def events_of(self, series_uid: str) -> list[RecordedEvent]:
        return await self.log.read_stream(series_stream(series_uid))

    async def indexing_outcomes(self, series: list[str]) -> dict[str, str]:
        """Series that are done, and can be read by FHIR → "indexed", or the reason why not."""
        self._check_alive()
        outcomes: dict[str, str] = {}
        readable = await reached(self.log.pool, FhirProjection.name, FhirProjection.version)
        for uid in series:
            for recorded in await self.events_of(uid):
                if recorded.position > readable:
                    break
                match recorded.event:
                    case SeriesIndexed():
                        outcomes[uid] = "indexed"
                    case IndexingRefused(reason=reason, detail=detail):
                        outcomes[uid] = f"{reason}: {detail}"
                    case IndexingFailed(error=error):
                        outcomes[uid] = f"failed: {error}"
        return outcomes

    async def study_of(self, series_uid: str) -> dict[str, Any]:
        (first, *_) = await self.events_of(series_uid)
        return await self.get(f"ImagingStudy/{study_id(first.event.study_uid)}")  # type: ignore[attr-defined]

    async def provenance_of(self, target: str) -> dict[str, Any]:
        return (await self.resources("Provenance", target=target))[0]

    async def _until_ready(self) -> None:
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            self._check_alive()
            try:
                if (await self.client.get("/health/ready")).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(0.1)
        raise SiteFailed(f"the server was not ready after {START_TIMEOUT_S:.0f} s:\n{self._last_lines()}")

    def _check_alive(self) -> None:
        if self._process is not None and self._process.poll() is not None:
            raise SiteFailed(f"the server stopped:\n{self._last_lines()}")

    def _last_lines(self) -> str:
        return "\n".join(self._log_file.read_text("utf-8", "replace").splitlines()[-15:])

    async def _stop(self) -> None:
        await self.client.aclose()
        if self._process is not None and self._process.poll() is None:
            self._process.terminate()
            try:
                await asyncio.to_thread(self._process.wait, 30)
            except subprocess.TimeoutExpired:
                self._process.kill()

    def _run(self, *arguments: str) -> str:
        command = [sys.executable, "-m", "server.cli", *arguments]
        done = subprocess.run(command, env=self._environment, capture_output=True, text=True)
        if done.returncode != 0:
            raise SiteFailed(f"`anamnesis {arguments[0]}` failed: {done.stderr.strip()[-500:]}")
        return done.stdout


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
