"""`anamnesis dataset export`: made by a server, fetched into a folder, taken up again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from frozen_dataset import freeze, store_small_cases
from listening_site import ListeningSite, listening_site

from server.cli.dataset_export import Layout as Offered
from server.datasets.plan import Layout

SCOPES = ("cohorts:read", "datasets:export")


@pytest.fixture
def listening(embedded_server: str, tmp_path: Path) -> Iterator[ListeningSite]:
    with listening_site(embedded_server, tmp_path / "site") as listening:
        yield listening


def run(listening: ListeningSite, *arguments: str, code: int = 0) -> str:
    token = listening.do(listening.site.headers(*SCOPES))["Authorization"].removeprefix("Bearer ")
    environment = {**os.environ, "ANAMNESIS_TOKEN": token, "ANAMNESIS_SERVER": listening.url, "PYTHONWARNINGS": "ignore"}
    done = subprocess.run([sys.executable, "-m", "server.cli", "dataset", "export", *arguments], env=environment, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    return done.stderr if code else done.stdout


def test_a_dataset_is_exported_into_a_folder(listening: ListeningSite, tmp_path: Path) -> None:
    listening.do(store_small_cases(listening.site))
    listening.do(freeze(listening.site, members=[listening.do(listening.site.principal(*SCOPES)).id]))
    folder = tmp_path / "out"
    wanted = ("Livers & <others>", str(folder), "--layout", "csv", "--layout", "bids", "--purpose")
    refused = run(listening, *wanted, "education", code=2)
    assert "meant for research" in refused and not folder.exists()
    made = json.loads(run(listening, *wanted, "research", "--json"))
    assert subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=folder).returncode == 0
    assert len([path for path in folder.rglob("*") if path.is_file()]) == made["files"]
    (folder / "tables" / "series.csv").unlink()
    (folder / "croissant.json").write_text("damaged")
    again = json.loads(run(listening, *wanted, "research", "--json", "--export-id", made["export_id"]))
    assert again == made and subprocess.run(["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=folder).returncode == 0


def test_every_layout_is_offered() -> None:
    assert [*Offered] == [*Layout]
