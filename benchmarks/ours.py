"""Anamnesis as a contender: `anamnesis serve` in a process of its own, with new folders, on a database that the caller gives."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from peers import Peer, free_port, stop, wait_until_answers

START_TIMEOUT_S = 60.0
DICOM = ("dicom:read", "dicom:write")
COMMAND = Path(sys.executable).with_name("anamnesis")


@contextmanager
def anamnesis(
    database_url: str, *, scopes: Sequence[str] = DICOM, prepare: Callable[[Path], None] = lambda folder: None, **settings: str
) -> Iterator[Peer]:
    """A new server, empty but for what ``prepare`` does before it starts with its data folder. ``scopes`` are those of its token.

    ``settings`` are further settings by their names (``dimse_lane="pynetdicom"``).

    Raises PeerUnavailable, CalledProcessError.
    """
    folder = Path(tempfile.mkdtemp(prefix="anamnesis-bench-", dir="/var/tmp"))
    http_port, dicom_port = free_port(), free_port()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ANAMNESIS_")}
    environment |= {
        "ANAMNESIS_DATA_DIR": str(folder / "data"),
        "ANAMNESIS_DATABASE_URL": database_url,
        "ANAMNESIS_HTTP_PORT": str(http_port),
        "ANAMNESIS_DIMSE_PORT": str(dicom_port),
        "TCP_NODELAY": "1",
    }
    environment |= {f"ANAMNESIS_{name.upper()}": value for name, value in settings.items()}
    try:
        with (folder / "log").open("wb") as log:
            subprocess.run([COMMAND, "init"], env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=True)
            token = subprocess.run(
                [COMMAND, "token", "create", "benchmark", *(word for scope in scopes for word in ("--scope", scope))],
                env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=log, check=True, text=True,
            ).stdout.strip()  # fmt: skip
            prepare(folder / "data")
            process = subprocess.Popen(
                [COMMAND, "serve"], env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        try:
            url = f"http://127.0.0.1:{http_port}"
            wait_until_answers(f"{url}/health/ready", process, folder / "log", START_TIMEOUT_S)
            yield Peer("Anamnesis", url, f"{url}/dicomweb", dicom_port, "ANAMNESIS", process.pid, token)
        finally:
            stop(process, 30.0)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
