"""Orthanc 1.12 as the peer: from Debian trixie in a chroot, with its index in SQLite or in PostgreSQL, set up as its manual
advises for speed, and with durable writes of files.

The chroot is made once (debootstrap, half a minute, 0.5 GB) in ANAMNESIS_BENCH_CACHE, or ~/.cache/anamnesis-bench. That takes
root, and so does running what is in it. Files live inside the chroot, on the same disk as everything else here.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import unquote, urlsplit

SUITE = "trixie"
MIRROR = os.environ.get("ANAMNESIS_BENCH_MIRROR")  # else debootstrap takes its own
PACKAGES = ["orthanc", "orthanc-dicomweb", "orthanc-postgresql"]
START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 60.0

Index = Literal["sqlite", "postgresql"]


class PeerUnavailable(RuntimeError):
    """The peer cannot be installed or does not start; the message says what is missing."""


@dataclass(frozen=True)
class Peer:
    """A running server to measure. Ports are on 127.0.0.1; ``token`` is a bearer token where it wants one."""

    name: str
    http_url: str
    dicomweb_url: str
    dicom_port: int
    ae_title: str
    process_id: int
    token: str | None = None

    @property
    def headers(self) -> dict[str, str]:
        """What every HTTP request to it carries."""
        return {"Authorization": f"Bearer {self.token}"} if self.token else {}


@contextmanager
def orthanc(index: Index, database_url: str | None = None) -> Iterator[Peer]:
    """A new, empty Orthanc. With ``postgresql``, ``database_url`` is an empty database that it can reach over TCP.

    Raises PeerUnavailable.
    """
    root = installed()
    http_port, dicom_port = free_port(), free_port()
    folder = Path(tempfile.mkdtemp(prefix="orthanc-", dir=root / "var" / "tmp"))
    inside = Path("/") / folder.relative_to(root)
    configuration = _configuration(inside, http_port, dicom_port)
    if index == "postgresql":
        configuration["PostgreSQL"] = _postgresql(database_url)
    (folder / "orthanc.json").write_text(json.dumps(configuration))
    try:
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen(
                ["chroot", str(root), "/usr/sbin/Orthanc", str(inside / "orthanc.json")],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8", "TCP_NODELAY": "1"},
            )
        try:
            url = f"http://127.0.0.1:{http_port}"
            wait_until_answers(f"{url}/system", process, folder / "log", START_TIMEOUT_S)
            yield Peer(f"Orthanc ({index})", url, f"{url}/dicom-web", dicom_port, "ORTHANC", process.pid)
        finally:
            stop(process, STOP_TIMEOUT_S)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def installed() -> Path:
    """The chroot with Orthanc in it, made if it is not there. Raises PeerUnavailable."""
    if os.geteuid() != 0:
        raise PeerUnavailable("Orthanc runs in a chroot, which takes root: run the benchmark as root")
    cache = Path(os.environ.get("ANAMNESIS_BENCH_CACHE", "~/.cache/anamnesis-bench")).expanduser()
    root = cache / SUITE
    if (root / "usr" / "sbin" / "Orthanc").exists() and (root / "usr" / "share" / "orthanc" / "plugins").exists():
        return root
    if shutil.which("debootstrap") is None:
        raise PeerUnavailable("debootstrap is missing: apt-get install debootstrap")
    print(f"installing Orthanc from Debian {SUITE} into {root} (once)", flush=True)
    shutil.rmtree(root, ignore_errors=True)
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "install.log").open("wb") as log:
        try:
            _run(["debootstrap", "--variant=minbase", SUITE, str(root), *([MIRROR] if MIRROR else [])], log)
            policy = root / "usr" / "sbin" / "policy-rc.d"
            policy.write_text("#!/bin/sh\nexit 101\n")  # no package may start a service in here
            policy.chmod(0o755)
            _run(["chroot", str(root), "apt-get", "install", "-y", "--no-install-recommends", *PACKAGES], log)
        except subprocess.CalledProcessError as error:
            raise PeerUnavailable(f"Orthanc cannot be installed: see {cache / 'install.log'}") from error
    return root


def wait_until_answers(url: str, process: subprocess.Popen[bytes], log: Path, timeout_s: float) -> None:
    """Returns once ``url`` answers with success. Raises PeerUnavailable when the process ends or takes too long."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise PeerUnavailable(f"the server ended with {process.returncode}:\n{_tail(log)}")
        try:
            with urllib.request.urlopen(url, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.05)
    raise PeerUnavailable(f"{url} does not answer within {timeout_s:.0f} s:\n{_tail(log)}")


def stop(process: subprocess.Popen[bytes], timeout_s: float) -> None:
    """Ends a process as an operator would, and makes sure of it."""
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(timeout_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def free_port() -> int:
    """A TCP port on 127.0.0.1 that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _configuration(inside: Path, http_port: int, dicom_port: int) -> dict[str, Any]:
    return {
        "Name": "benchmark",
        "StorageDirectory": str(inside / "storage"),
        "IndexDirectory": str(inside / "index"),
        "StorageCompression": False,
        "SyncStorageArea": True,
        "Plugins": ["/usr/share/orthanc/plugins"],
        "HttpPort": http_port,
        "HttpThreadsCount": 50,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "KeepAlive": True,
        "TcpNoDelay": True,
        "DicomAet": "ORTHANC",
        "DicomPort": dicom_port,
        "DicomThreadsCount": 4,
        "DicomAlwaysAllowStore": True,
        "DicomAlwaysAllowEcho": True,
        "DicomCheckCalledAet": False,
        "DicomWeb": {
            "Enable": True,
            "Root": "/dicom-web/",
            "StudiesMetadata": "Full",
            "SeriesMetadata": "Full",
            "EnableMetadataCache": True,
        },
    }


def _postgresql(database_url: str | None) -> dict[str, Any]:
    parts = urlsplit(database_url or "")
    if not parts.hostname or not parts.path.strip("/"):
        raise PeerUnavailable(
            "Orthanc needs a PostgreSQL on a TCP port for its index: set ANAMNESIS_BENCH_DATABASE_URL"
        )
    return {
        "EnableIndex": True,
        "EnableStorage": False,
        "Host": parts.hostname,
        "Port": parts.port or 5432,
        "Database": parts.path.strip("/"),
        "Username": unquote(parts.username or "postgres"),
        "Password": unquote(parts.password or ""),
    }


def _run(command: list[str], log: Any) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
    subprocess.run(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, check=True)


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-2000:] if log.exists() else "(no log)"
