"""`anamnesis cohort` against a served site: what it prints is what the files say, and mistakes are one line and an exit code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pydicom
import pytest
from imaged_site import MadeFinding, files_by_series, make_findings, store_files
from listening_site import ListeningSite, listening_site
from typer.testing import CliRunner

from anamnesis.client import errors
from server.cli.cohort import app

LIVER = "Modality = CT and has finding (label = liver and volume_ml > 1200 and whole = true and verdict = accepted)"


@pytest.fixture(scope="module")
def sources(dicom_data: Path) -> dict[str, list[Path]]:
    return files_by_series(dicom_data)


@pytest.fixture(scope="module")
def site(external_server: str, tmp_path_factory: pytest.TempPathFactory, sources: dict[str, list[Path]]) -> Iterator[ListeningSite]:
    few = {uid: files[:3] for uid, files in sources.items()}
    with listening_site(external_server, tmp_path_factory.mktemp("site")) as listening:
        listening.do(store_files(listening.site, few))
        yield listening


@pytest.fixture(scope="module")
def made(site: ListeningSite, sources: dict[str, list[Path]]) -> list[MadeFinding]:
    return site.do(make_findings(site.site, sources))


Run = Callable[..., str]


@pytest.fixture(scope="module")
def environment(site: ListeningSite) -> dict[str, str]:
    token = site.do(site.site.headers("cohorts:read", "cohorts:write"))["Authorization"].split()[1]
    return {"ANAMNESIS_SERVER": site.url, "ANAMNESIS_TOKEN": token, "COLUMNS": "160"}


@pytest.fixture
def run(environment: dict[str, str], made: list[MadeFinding]) -> Run:
    """What a command prints; in this process, since most of a new one is its start."""

    def in_process(*arguments: str) -> str:
        done = CliRunner().invoke(app, arguments, env=environment)
        if done.exception is not None:
            raise done.exception
        return done.stdout

    return in_process


def test_count_says_how_many_and_as_of_when(run: Run, made: list[MadeFinding], sources: dict[str, list[Path]]) -> None:
    counted = json.loads(run("count", "--json"))
    assert counted["series"] == len(sources) and counted["findings"] == len(made)
    assert json.loads(run("count", "--as-of", str(counted["position"]), "--json")) == counted
    assert json.loads(run("count", "--as-of", "1", "--json"))["series"] == 0
    shown = run("count", "--where", LIVER)
    assert "as of position" in shown and "│ series    │ 1 " in shown


def test_list_shows_what_meets_a_condition(run: Run, made: list[MadeFinding]) -> None:
    (one,) = [json.loads(line) for line in run("list", "--where", LIVER, "--json").splitlines()]
    (expected,) = [finding.series_uid for finding in made if finding.volume_ml == 1432.5]
    assert one["series_uid"] == expected and one["modality"] == "CT"
    assert expected in run("list", "--where", LIVER, "--element", "Rows") and "512" in run("list", "--where", LIVER, "--element", "Rows")
    listed = [json.loads(line) for line in run("list", "--level", "finding", "--order-by", "volume_ml", "--descending", "--limit", "3", "--json").splitlines()]
    assert [row["volume_ml"] for row in listed] == sorted((finding.volume_ml for finding in made), reverse=True)[:3]


def test_facets_have_bars_and_histograms_bins(run: Run, sources: dict[str, list[Path]], made: list[MadeFinding]) -> None:
    modalities = Counter(pydicom.dcmread(files[0], stop_before_pixels=True).Modality for files in sources.values())
    found = json.loads(run("facets", "Modality", "--json"))["Modality"]
    assert {one["value"]: one["count"] for one in found["values"]} == modalities
    shown = run("facets", "Modality", "Manufacturer", "--subjects")
    assert "Modality" in shown and "Manufacturer" in shown and "█" in shown and "subjects" in shown
    spread = json.loads(run("histogram", "volume_ml", "--level", "finding", "--bins", "4", "--json"))
    assert sum(one["count"] for one in spread["bins"]) == len(made)
    assert "█" in run("histogram", "volume_ml", "--level", "finding")


def test_a_question_comes_from_a_file_too(run: Run, tmp_path: Path) -> None:
    file = tmp_path / "query.json"
    file.write_text(json.dumps({"level": "finding", "where": {"is": "one-of", "field": "label", "values": ["liver"]}}))
    assert json.loads(run("count", "--query", str(file), "--json"))["findings"] == 4
    assert json.loads(run("explain", "--query", str(file), "--json"))["where"] == "label = liver"
    assert "answered by" in run("explain", "--where", LIVER)


def test_a_question_is_kept_and_says_what_changed(run: Run, site: ListeningSite, made: list[MadeFinding]) -> None:
    before = json.loads(run("count", "--json"))["position"]
    kept = run("save", "livers of CTs", "--where", LIVER).strip()
    (shown,) = [json.loads(line) for line in run("saved", "--json").splitlines()]
    assert (shown["cohort_id"], shown["title"], shown["version"]) == (kept, "livers of CTs", 1)
    assert "Modality = CT" in run("saved")
    assert json.loads(run("count", "--saved", "livers of CTs", "--json"))["series"] == 1
    (entered,) = json.loads(run("changes", "--saved", kept, "--since", "0", "--until", str(before), "--json"))["entered"]
    assert entered["series_uid"] in {finding.series_uid for finding in made} and "FindingReviewed" in {why["type"] for why in entered["reasons"]}
    assert "entered" in run("changes", "--where", LIVER, "--since", "0")
    assert json.loads(run("save", "livers of CTs", "--where", "Modality = MR", "--replaces", kept, "--json"))["version"] == 2


def test_an_element_is_counted_in_memory_from_when_it_is_added(run: Run) -> None:
    name = run("add-facet", "(0018,1020)").strip()
    assert name == "SoftwareVersions"
    assert {one["element"]: one["in_memory"] for one in json.loads(run("columns", "--json"))["facets"]} == {name: True}
    assert "in memory" in run("columns")
    assert run("remove-facet", name).strip() == name
    assert json.loads(run("columns", "--json"))["facets"] == []


def test_fields_are_found_by_a_part_of_their_names(run: Run) -> None:
    found = json.loads(run("fields", "volume_ml", "--level", "finding", "--json"))
    assert [(one["name"], one["level"], one["unit"]) for one in found] == [("volume_ml", "finding", "mL")]
    assert "SliceThickness" in run("fields", "slicethick")


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (["histogram", "Modality"], "FieldRefused"),
        (["count", "--level", "banana"], "QuestionRefused"),
        (["count", "--query", "{folder}/broken.json"], "QuestionRefused"),
        (["count", "--where", "a = 1", "--saved", "b"], "QuestionRefused"),
        (["count", "--saved", "nothing of this name"], "NotFound"),
        (["count", "--server", "http://192.0.2.1:8080"], "PlainTextRefused"),
        (["count", "--token-file", "{folder}/wrong"], "TokenRefused"),
    ],
)
def test_mistakes_are_named(run: Run, arguments: list[str], error: str, tmp_path: Path) -> None:
    (tmp_path / "broken.json").write_text("[1]")
    (tmp_path / "wrong").write_text("nobody")
    with pytest.raises(getattr(errors, error)):
        run(*(one.format(folder=tmp_path) for one in arguments))


@pytest.mark.parametrize(
    ("where", "said"), [("Modality == CT", "ConditionUnreadable: a value is expected, not '=' (column 11)"), ("nonsense = 1", "FieldUnknown: ")]
)
def test_mistakes_are_one_line_and_exit_code_2(environment: dict[str, str], made: Any, where: str, said: str) -> None:
    command = [sys.executable, "-m", "server.cli", "cohort", "count", "--where", where]
    done = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith(f"anamnesis: {said}") and len(done.stderr.splitlines()) == 1
