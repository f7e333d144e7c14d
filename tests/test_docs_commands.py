"""The commands in the documentation work, in the order in which the pages tell them.

A fenced block after the line ``<!-- run -->`` is run. The pages follow one another in one shell, with a home of their own, in an
empty directory; only the ports differ from what is written.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from ports import free_port

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
PAGES = ("start.md", "ingest.md", "search.md", "fhir.md", "dicomweb.md", "cohorts.md", "datasets.md", "audit.md", "operate.md", "erasure.md")
BLOCK = re.compile(r"^<!-- run -->\n```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TIMEOUT_S = 600
"""The pages take two minutes on two cores that have nothing else to do."""


def missing(what: str) -> None:
    """A part that cannot be had: in continuous integration a failure, elsewhere a skip that says so."""
    if os.environ.get("CI", "") not in ("", "false", "0"):
        pytest.fail(what)
    pytest.skip(what)


def blocks(page: str) -> list[str]:
    return BLOCK.findall((ROOT / "docs" / page).read_text(encoding="utf-8"))


@pytest.mark.parametrize("page", PAGES)
def test_pages_have_commands_to_run(page: str) -> None:
    assert blocks(page)


@pytest.mark.timeout(TIMEOUT_S + 60)
def test_commands_of_the_documentation_work(tmp_path: Path) -> None:
    for tool in ("/usr/bin/storescu", "curl"):
        if shutil.which(tool) is None:
            missing(f"{tool} is not installed: apt-get install dcmtk curl")
    http_port, dicom_port = free_port(), free_port()
    script = "".join(f"echo '== {page}'\n{block}" for page in PAGES for block in blocks(page))
    script = script.replace(":8080", f":{http_port}").replace(" 11112", f" {dicom_port}")
    script = f"set -euo pipefail\ntrap 'kill $(jobs -p) 2>/dev/null; wait' EXIT\n{script}"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ANAMNESIS_")}
    environment |= {
        "HOME": str(tmp_path),
        "PATH": f"{Path(sys.executable).parent}:{environment.get('PATH', '/usr/bin:/bin')}",
        "ANAMNESIS_HTTP_PORT": str(http_port),
        "ANAMNESIS_DIMSE_PORT": str(dicom_port),
    }
    log = tmp_path / "output"
    with log.open("wb") as output:
        shell = subprocess.Popen(
            ["bash", "-c", script], cwd=tmp_path, env=environment, start_new_session=True,
            stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT,
        )  # fmt: skip
        try:
            code = shell.wait(TIMEOUT_S)
        finally:
            if shell.poll() is None:
                os.killpg(shell.pid, signal.SIGKILL)
    assert code == 0, log.read_text(errors="replace")[-4000:]
