"""C-STORE in a process of its own, so that receiving and taking in do not wait for one interpreter lock.

The process writes each instance into its own folder of the spool and answers its sender; over a socket pair it then names the
instance to the server, whose intake decides. A line of JSON goes up for each instance (and an empty one when an association
has ended), and the number of a line comes back once it is decided. When the server is gone, the socket ends, and so does the process;
when the process is gone, the server starts another, and what was acknowledged is taken up from the spool.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from functools import partial

import msgspec

from archive.spool import Spool, SpooledInstance
from server.dimse.errors import DimseProcessFailed
from server.dimse.provider import lane
from server.dimse.reception import Receiver
from server.intake import Intake
from server.log_format import log_to_stderr
from server.settings import ServerSettings
from server.verdict import Verdict

START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 10.0
RESTART_S = 0.5
HANDED_DOWN = {
    "data_dir", "dimse_host", "dimse_port", "dimse_lane", "dimse_tls_certificate", "dimse_tls_key", "dimse_tls_ca",
    "ae_title", "allowed_ae_titles", "max_associations",
}  # fmt: skip
"""The settings that the process needs; no secret is among them."""
_logger = logging.getLogger(__name__)


class Started(msgspec.Struct, frozen=True):
    """The first line up: where the process listens, or why it cannot."""

    port: int = 0
    error_number: int = 0


class Handover(msgspec.Struct, frozen=True):
    """An instance that is durable in the spool. ``spooled`` is None when an association has ended, or was refused."""

    number: int = 0
    spooled: SpooledInstance | None = None
    refused: bool = False


class DimseProcess:
    """The server's side: starts the process, keeps it up, and hands what it received to the intake."""

    def __init__(
        self, settings: ServerSettings, intake: Intake, take_up: Callable[[], object], refused: Callable[[], object] = lambda: None
    ) -> None:
        """Called from another thread: ``take_up`` when a process has ended, since what it left is in the spool; ``refused`` when
        somebody was refused an association."""
        self._settings = settings
        self._intake = intake
        self._take_up = take_up
        self._refused = refused
        self._stopping = threading.Event()
        self.port = settings.dimse_port

    def start(self) -> None:
        """Returns when the process listens. Raises OSError when the port is taken, DimseProcessFailed."""
        self._start_process()
        self._thread = threading.Thread(target=self._keep_up, name="dimse", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends every association; what was acknowledged has been handed over, or is in the spool."""
        self._stopping.set()
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_WR)
        self._thread.join(STOP_TIMEOUT_S)
        self._end_process()

    @property
    def process_id(self) -> int:
        return self._process.pid

    def _start_process(self) -> None:
        self._socket, theirs = socket.socketpair()
        with theirs:
            command = [sys.executable, "-m", "server.dimse.own_process", str(theirs.fileno())]
            self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
        self._lines = self._socket.makefile("rb")
        values = self._settings.model_copy(update={"dimse_port": self.port}).model_dump(mode="json", include=HANDED_DOWN)
        self._socket.settimeout(START_TIMEOUT_S)
        try:
            self._socket.sendall(msgspec.json.encode(values) + b"\n")
            line = self._lines.readline()
        except OSError as error:
            line = b""
            _logger.error("the DIMSE process does not answer (%s)", type(error).__name__)
        self._socket.settimeout(None)
        if not line:
            self._end_process()
            raise DimseProcessFailed("the DIMSE process ended before it listened: its own words are above")
        started = msgspec.json.decode(line, type=Started)
        if started.error_number:
            self._end_process()
            raise OSError(started.error_number, os.strerror(started.error_number))
        self.port = started.port

    def _keep_up(self) -> None:
        while True:
            self._receive()
            if self._stopping.is_set():
                return
            _logger.error("the DIMSE process ended; starting another")
            self._end_process()
            self._take_up()
            while not self._stopping.wait(RESTART_S):
                try:
                    self._start_process()
                    break
                except (OSError, DimseProcessFailed) as error:
                    _logger.error("C-STORE cannot be served: %s", error)

    def _receive(self) -> None:
        """Until the process ends."""
        decoder = msgspec.json.Decoder(Handover, dec_hook=_path)
        sender = self._socket
        with contextlib.suppress(OSError):
            for line in self._lines:
                if not line.endswith(b"\n"):
                    return
                handover = decoder.decode(line)
                if handover.refused:
                    self._refused()
                    continue
                if handover.spooled is None:
                    self._intake.hurry()
                    continue
                decided = self._intake.submit(handover.spooled, awaited=False)
                decided.add_done_callback(partial(_answer, sender, handover.number))

    def _end_process(self) -> None:
        self._lines.close()
        self._socket.close()
        try:
            self._process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def _answer(sender: socket.socket, number: int, _: Future[Verdict]) -> None:
    with contextlib.suppress(OSError):  # the process is gone, and whoever waited with it
        sender.sendall(b"%d\n" % number)


def _path(kind: type, value: object) -> object:
    return kind(value)


class HandedOver:
    """The process's side: stands where the intake would stand."""

    def __init__(self, up: socket.socket) -> None:
        self._up = up
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)
        self._undecided: dict[int, Future[None]] = {}

    def submit(self, spooled: SpooledInstance, *, awaited: bool) -> Future[None]:
        """Names the instance to the server; the future ends when it is decided."""
        done: Future[None] = Future()
        number = next(self._numbers)
        self._undecided[number] = done
        self.send(Handover(number, spooled))
        return done

    def hurry(self) -> None:
        self.send(Handover())

    def refused(self) -> None:
        self.send(Handover(refused=True))

    def send(self, message: object) -> None:
        line = msgspec.json.encode(message, enc_hook=str) + b"\n"
        with self._lock, contextlib.suppress(OSError):  # the server is gone, and so are we, soon; the instance is in the spool
            self._up.sendall(line)

    def decided(self, number: int) -> None:
        self._undecided.pop(number).set_result(None)


def main() -> None:
    """Serves until the server closes the socket whose descriptor is the first argument."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the server's to hear
    log_to_stderr()
    for noisy in ("pynetdicom", "pydicom"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    up = socket.socket(fileno=int(sys.argv[1]))
    down = up.makefile("rb")
    settings = ServerSettings(**msgspec.json.decode(down.readline()))
    handed_over = HandedOver(up)
    try:
        served = lane(settings, Receiver(Spool(settings.spool_dir), handed_over, handed_over.refused))
        served.start()
    except OSError as error:
        handed_over.send(Started(error_number=error.errno or errno.EIO))
        return
    handed_over.send(Started(port=served.port))
    for line in down:
        handed_over.decided(int(line))
    served.stop()
    time.sleep(0.1)  # an association that was about to hand over does so
    os._exit(0)  # a thread may still wait for a peer


if __name__ == "__main__":
    main()
