"""The notebook of the documentation runs from its first cell to its last, against a server with real images."""

from __future__ import annotations

from pathlib import Path

import nbclient
import nbformat
import pytest
from imaged_site import MadeFinding
from listening_site import ListeningSite

NOTEBOOK = Path(__file__).parents[2] / "docs" / "notebooks" / "cohort.ipynb"


def test_the_notebook_runs(imaged_site: ListeningSite, made_findings: list[MadeFinding], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ANAMNESIS_SERVER", imaged_site.url)
    headers = imaged_site.do(imaged_site.site.headers("cohorts:read", "cohorts:write", "dicom:read"))
    monkeypatch.setenv("ANAMNESIS_TOKEN", headers["Authorization"].split()[1])
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", str(NOTEBOOK.parents[2]))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2, "both plots"
    shown = "".join(output.get("data", {}).get("text/plain", "") + output.get("text", "") for output in outputs)
    assert "20 of 20 instances" in shown and "16-bit signed integer" in shown and "version 1: " in shown


def test_the_notebook_is_kept_without_outputs() -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(notebook)
    assert all(not cell.get("outputs") and cell.get("execution_count") is None for cell in notebook.cells)
