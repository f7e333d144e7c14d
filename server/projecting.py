"""The read models are kept up in a process of their own: a request does not wait while they are written, and they do not wait for requests.

Over a socket pair the server says which position somebody waits for (``fhir 4711``), and the process says which one a read model has
reached, in the same words. When the server is gone, the socket ends, and so does the process; when the process is gone, the server
starts another, which goes on where the checkpoints are. Which of several servers' processes leads is told by a lease, as always.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import signal
import socket
import sys

import msgspec
from uvicorn.loops.auto import auto_loop_factory

from eventlog.errors import LogUnavailable
from eventlog.log import EventLog
from eventlog.settings import LogSettings
from projections.catalogue import projections
from projections.fhir.search.rows import compile_all
from projections.fhir.search.units import unit
from projections.runner import Runner
from server.log_format import log_to_stderr

RESTART_S = 0.5
START_TIMEOUT_S = 20.0
STARTED = "started"
"""In place of a read model's name, as the first word up."""
STOP_TIMEOUT_S = 10.0
SECRETS = ("database_url", "migration_url", "key_encryption_key", "previous_key_encryption_key")
GC_THRESHOLDS = (20_000, 20, 20)
"""What a batch leaves is mostly freed without the garbage collector, which would look through R5's definitions each time."""
_logger = logging.getLogger(__name__)


class ProjectingProcess:
    """The server's side: starts the process, keeps it up, and tells its runner what the process has reached."""

    def __init__(self, log: EventLog, runner: Runner) -> None:
        self._settings = _handed_down(log)
        self._runner = runner
        self._process: asyncio.subprocess.Process | None = None
        self._up: asyncio.StreamWriter | None = None
        self._started = asyncio.Event()

    async def started(self) -> None:
        """Returns when the first process is at work, or has not come to it for too long: requests then wait for what they need."""
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                await self._started.wait()
        except TimeoutError:
            _logger.error("the process that keeps read models has not started yet")

    @property
    def process_id(self) -> int | None:
        return self._process.pid if self._process is not None else None

    async def run(self) -> None:
        """Until cancelled."""
        self._runner.tell_wanted = self._ask
        try:
            while True:
                try:
                    await self._run_once()
                    _logger.error("the process that keeps read models ended; starting another")
                except OSError as error:
                    _logger.error("read models cannot be kept up: %s", error)
                await asyncio.sleep(RESTART_S)
        finally:
            await self._end()

    async def _run_once(self) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-m", "server.projecting", str(theirs.fileno())]
            self._process = await asyncio.create_subprocess_exec(
                *command, pass_fds=[theirs.fileno()], stdin=asyncio.subprocess.DEVNULL
            )
        lines, self._up = await asyncio.open_unix_connection(sock=ours)
        self._up.write(self._settings + b"\n")
        for name, position in list(self._runner.wanted.items()):
            self._ask(name, position)
        with contextlib.suppress(ConnectionError):
            while (line := await lines.readline()).endswith(b"\n"):
                self._started.set()
                self._runner.hear(*_said(line))
        await self._end()

    def _ask(self, name: str, position: int) -> None:
        if self._up is not None and not self._up.is_closing():
            self._up.write(_words(name, position))

    async def _end(self) -> None:
        """Lets the process end by itself."""
        process, up = self._process, self._up
        self._process = self._up = None
        if up is not None:
            up.close()
        if process is None:
            return
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()


def _handed_down(log: EventLog) -> bytes:
    """The settings of the log, secrets and all: they pass through the socket alone. The embedded database is the server's to start
    and to stop, and a database by its URL to the process."""
    settings = log.settings
    values = settings.model_dump(mode="json", include=set(LogSettings.model_fields))
    for name in SECRETS:
        secret = getattr(settings, name)
        values[name] = secret.get_secret_value() if secret is not None else None
    values["database_url"] = log.url
    return msgspec.json.encode(values)


def _words(name: str, position: int) -> bytes:
    return f"{name} {position}\n".encode("ascii")


def _said(line: bytes) -> tuple[str, int]:
    name, position = line.decode("ascii").split()
    return name, int(position)


async def _keep(up: socket.socket) -> None:
    """Until the server closes the socket."""
    lines, writer = await asyncio.open_unix_connection(sock=up)
    try:
        log = await EventLog.open(LogSettings(**msgspec.json.decode(await lines.readline())))
    except LogUnavailable as error:
        _logger.error("%s", error)
        return
    try:
        runner = Runner(log, projections())
        runner.tell_reached = lambda name, position: writer.write(_words(name, position))
        keeping = asyncio.create_task(runner.run())
        writer.write(_words(STARTED, 0))
        settling = asyncio.get_running_loop().run_in_executor(None, _settle)
        with contextlib.suppress(ConnectionError):
            while (line := await lines.readline()).endswith(b"\n"):
                runner.want(*_said(line))
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
        settling.cancel()
    finally:
        await log.close()


def _settle() -> None:
    """What the first batches would have to wait for, and what is there for good."""
    compile_all()
    unit("kg")
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)


def main() -> None:
    """Keeps the read models until the server closes the socket whose descriptor is the first argument."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the server's to hear
    log_to_stderr()
    with asyncio.Runner(loop_factory=auto_loop_factory()) as loop:
        loop.run(_keep(socket.socket(fileno=int(sys.argv[1]))))
        os._exit(0)  # without what a thread may still compile


if __name__ == "__main__":
    main()
