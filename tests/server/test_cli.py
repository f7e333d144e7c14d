"""The command line as people call it: init, token, events, db, projections, and errors in one line."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest

from domain.principal import Principal, PrincipalKind
from domain.subject import Demographics, SubjectRegistered
from eventlog.envelope import NewEvent, StreamAppend
from eventlog.log import EventLog
from eventlog.settings import LogSettings

pytestmark = pytest.mark.slow


class Shell:
    """`anamnesis …` with settings of its own."""

    def __init__(self, folder: Path, database_url: str | None) -> None:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("ANAMNESIS_")}
        self.folder = folder
        self.environment = kept | {"ANAMNESIS_DATA_DIR": str(folder), "COLUMNS": "200"}
        if database_url is not None:
            self.environment["ANAMNESIS_DATABASE_URL"] = database_url

    def run(self, *arguments: str, code: int = 0, **variables: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            [sys.executable, "-m", "server.cli", *arguments],
            env=self.environment | variables, capture_output=True, text=True, timeout=120,
        )
        assert done.returncode == code, done.stderr
        return done


@pytest.fixture
def shell(database_url: str, tmp_path: Path) -> Shell:
    shell = Shell(tmp_path / "data", database_url)
    shell.run("init")
    return shell


def test_init_makes_a_key_that_its_owner_alone_may_read_and_keeps_it(shell: Shell) -> None:
    key = shell.folder / "keys" / "kek"
    assert key.stat().st_mode & 0o777 == 0o600
    assert key.parent.stat().st_mode & 0o777 == 0o700
    assert shell.folder.stat().st_mode & 0o777 == 0o700
    made = key.read_text()
    again = shell.run("init")
    assert key.read_text() == made
    assert made.strip() not in again.stdout + again.stderr


def test_init_says_what_to_do_next(shell: Shell) -> None:
    assert "anamnesis serve" in shell.run("init").stdout


def test_a_token_is_made_listed_and_revoked(shell: Shell) -> None:
    made = json.loads(shell.run("token", "create", "viewer", "--scope", "dicom:read", "--expires", "30m", "--json").stdout)
    listed = shell.run("token", "list").stdout
    assert made["token_id"] in listed and "viewer" in listed and "dicom:read" in listed
    assert made["token"] not in listed
    assert "revoked" in shell.run("token", "revoke", made["token_id"]).stdout
    assert made["token_id"] in shell.run("token", "revoke", made["token_id"], code=2).stderr


def test_a_new_token_alone_is_on_standard_output(shell: Shell) -> None:
    """So that TOKEN=$(anamnesis token create …) works."""
    output = shell.run("token", "create", "me", "--scope", "admin").stdout
    assert output.startswith("anamnesis_") and len(output.split()) == 1


@pytest.mark.parametrize("arguments", [("--scope", "nothing"), ("--scope", "admin", "--expires", "soon"), ("--scope", "admin", "--expires", "0d")])
def test_a_senseless_token_is_refused_in_one_line(shell: Shell, arguments: tuple[str, ...]) -> None:
    refused = shell.run("token", "create", "x", *arguments, code=2)
    assert len(refused.stderr.splitlines()) == 1
    assert refused.stdout == ""


async def test_events_are_shown_with_positions_and_who_is_meant_only_on_request(shell: Shell) -> None:
    log = await EventLog.open(LogSettings(data_dir=shell.folder, database_url=shell.environment["ANAMNESIS_DATABASE_URL"]))
    subject = log.vault.subject_id("MRN1", "", otherwise="1.2")
    event = SubjectRegistered(subject_id=subject, demographics=Demographics(patient_id="MRN1", patient_name="Doe^Jane"))
    appends = [StreamAppend(stream=f"subject-{subject}", events=[NewEvent(event=event)])]
    await log.append(appends, principal=Principal(id="gateway", kind=PrincipalKind.DEVICE))
    await log.close()
    table = shell.run("events").stdout
    assert "SubjectRegistered" in table and "gateway" in table and "Doe" not in table
    [line] = shell.run("events", f"subject-{subject}", "--json").stdout.splitlines()
    assert json.loads(line)["position"] == 1
    assert "Doe" not in line and "MRN1" not in line
    assert "Doe^Jane" in shell.run("events", "--json", "--open").stdout
    reads = [json.loads(line) for line in shell.run("events", "--after", "1", "--json").stdout.splitlines()]
    assert [one["type"] for one in reads] == ["AccessesRecorded"] * 2  # of the two that showed the subject's event, and not of this one
    assert all(one["event"]["accesses"][0]["subjects"] == [subject] for one in reads)
    assert reads[0]["event"]["accesses"][0]["principal"]["id"] == f"console:uid-{os.getuid()}"
    assert shell.run("events", "--after", "3", "--json").stdout == ""


def test_db_status_knows_an_empty_database_and_upgrade_mends_it(database_url: str, tmp_path: Path) -> None:
    shell = Shell(tmp_path / "data", database_url)
    assert "empty" in shell.run("db", "status", code=1).stdout
    shell.run("db", "upgrade")
    shell.run("db", "upgrade")
    assert "empty" not in shell.run("db", "status").stdout


def test_a_command_before_init_says_what_to_do(database_url: str, tmp_path: Path) -> None:
    refused = Shell(tmp_path / "data", database_url).run("token", "list", code=2)
    assert len(refused.stderr.splitlines()) == 1
    assert "anamnesis init" in refused.stderr or "db upgrade" in refused.stderr


def test_projections_are_rebuilt_and_their_state_is_shown(shell: Shell) -> None:
    assert "rebuilt" in shell.run("projections", "rebuild", "dicom").stdout
    assert "dicom" in shell.run("projections", "status").stdout
    assert "nothing" in shell.run("projections", "rebuild", "nothing", code=2).stderr


async def test_a_paused_projection_is_an_exit_code_until_it_is_resumed(shell: Shell) -> None:
    shell.run("projections", "rebuild", "dicom")
    connection = await asyncpg.connect(shell.environment["ANAMNESIS_DATABASE_URL"])
    await connection.execute("UPDATE projection_checkpoint SET state = 'paused', problem = 'KeyError at or after position 1' WHERE name = 'dicom'")
    await connection.close()
    assert "KeyError" in shell.run("projections", "status", code=1).stdout
    shell.run("projections", "resume", "dicom")
    shell.run("projections", "status")


@pytest.mark.parametrize(
    ("variables", "named"),
    [
        ({"ANAMNESIS_HTTP_PORT": "many"}, "ANAMNESIS_HTTP_PORT"),
        ({"ANAMNESIS_ALLOWED_AE_TITLES": "MODALITY1"}, "allowed_ae_titles"),
        ({"ANAMNESIS_HTTP_HOST": "0.0.0.0"}, "ALLOW_PLAIN_TEXT_BEYOND_LOOPBACK"),
        ({"ANAMNESIS_DIMSE_HOST": "0.0.0.0"}, "dimse_host"),
        ({"ANAMNESIS_TLS_KEY": "/k.pem"}, "tls_certificate"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_a_bad_setting_ends_serve_with_one_line_that_names_it(tmp_path: Path, variables: dict[str, str], named: str) -> None:
    refused = Shell(tmp_path / "data", None).run("serve", code=2, **variables)
    [line] = refused.stderr.splitlines()
    assert named in line
    assert not (tmp_path / "data").exists()


def test_settings_are_shown_without_secrets_and_misspelled_ones_are_named(shell: Shell) -> None:
    shown = shell.run("settings", ANAMNESIS_KEY_ENCRYPTION_KEY="c2VjcmV0", ANAMNESIS_HTPT_PORT="1").stdout
    assert "c2VjcmV0" not in shown and shell.environment["ANAMNESIS_DATABASE_URL"] not in shown
    assert "ANAMNESIS_HTTP_PORT" in shown and "ANAMNESIS_HTPT_PORT" in shown


def test_debug_shows_where_an_error_came_from(shell: Shell) -> None:
    assert "Traceback" in shell.run("--debug", "token", "create", "x", "--scope", "nothing", code=1).stderr


def test_version_and_help_need_no_settings(shell: Shell) -> None:
    assert shell.run("--version", ANAMNESIS_HTTP_PORT="x").stdout.startswith("anamnesis ")
    assert "worker" in shell.run("--help", ANAMNESIS_HTTP_PORT="x").stdout
