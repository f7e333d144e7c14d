"""The auditor's commands, each on one log of 20,000 mixed events, as somebody types them."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mixed_log import STRUCTURES, fill, study_uid, subject_id
from running_site import Site

from domain.findings import finding_key
from eventlog.embedded import EmbeddedPostgres
from eventlog.log import EventLog
from eventlog.settings import LogSettings

pytestmark = pytest.mark.slow

EVENTS = 20_000
NAMES = ("ledger", "fhir", "dicom", "curation", "cohort", "dispatch")
FINDING = finding_key(f"{study_uid(0)}.1", "baseline", STRUCTURES[1].label)


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A data folder whose embedded database stays up between the commands."""
    site = Site(tmp_path_factory.mktemp("auditor"))
    site.run("init")
    settings = LogSettings(data_dir=site.folder / "data")

    async def fill_log() -> int:
        log = await EventLog.open(settings)
        try:
            return await fill(log, EVENTS)
        finally:
            await log.close()

    server = EmbeddedPostgres(settings.data_dir / "postgresql")
    server.url("postgres")
    try:
        assert asyncio.run(fill_log()) > 1000
        for name in NAMES:
            site.run("projections", "rebuild", name)
        yield site
    finally:
        server.leave()


def said(site: Site, *arguments: str, exit_codes: tuple[int, ...] = (0,)) -> Any:
    return json.loads(site.run(*arguments, "--json", exit_codes=exit_codes))


def test_the_log_holds_as_many_events_as_promised(site: Site) -> None:
    rows = said(site, "projections", "status")
    assert {row["name"] for row in rows} == set(NAMES)
    assert all(row["position"] >= EVENTS and row["lag"] == 0 and row["state"] == "live" for row in rows)


def test_the_log_is_sealed_proved_and_checked(site: Site) -> None:
    site.run("audit", "seal")
    note = site.run("audit", "checkpoint")
    size = int(note.splitlines()[1])
    assert size >= EVENTS
    assert note.count("\u2014 ") == 2  # the log's signature, and that of the time
    assert said(site, "audit", "keys", "show")[0]["key"] in site.run("audit", "keys", "show").splitlines()
    assert said(site, "audit", "inclusion", "17")
    assert said(site, "audit", "consistency", str(size), str(size)) is not None
    assert "WRONG" not in site.run("audit", "check")


def test_checkpoints_that_were_kept_are_compared_with_the_log(site: Site, tmp_path: Path) -> None:
    site.run("audit", "seal")
    first, second, forged = tmp_path / "first.txt", tmp_path / "second.txt", tmp_path / "forged.txt"
    first.write_text(site.run("audit", "checkpoint"))
    key = said(site, "audit", "keys", "show")[0]["key"]
    assert "The new key is" in site.run("audit", "keys", "rotate")
    site.run("token", "create", "nobody", "--scope", "metrics:read")
    second.write_text(site.run("audit", "checkpoint"))
    assert "begins as" in site.run("audit", "consistency", str(first), str(second))
    assert "It holds" in site.run("audit", "check", "--checkpoint", str(first), "--key", key)
    lines = first.read_text().split("\n")
    forged.write_text("\n".join([*lines[:2], "A" * 43 + "=", *lines[3:]]))
    assert "do NOT agree" in site.run("audit", "consistency", str(forged), str(second), exit_codes=(1,))
    shown = said(site, "audit", "check", "--checkpoint", str(forged), exit_codes=(1,))
    assert not shown["holds"] and "do not agree" in shown["discrepancies"][0]["what"]
    site.run("audit", "consistency", "no-such-file", exit_codes=(2,))
    site.run("audit", "consistency", "9", "2", exit_codes=(2,))
    site.run("audit", "inclusion", "99999999", exit_codes=(2,))


@pytest.mark.parametrize("asked", [("--study", study_uid(0)), ("--subject", subject_id(3)), ("--series", f"{study_uid(9)}.1"), ("--since", "2020-01-01")])
def test_bundles_are_written_and_verified_here_and_by_their_own_program(site: Site, tmp_path: Path, asked: tuple[str, str]) -> None:
    bundle = tmp_path / "bundle"
    exported = said(site, "audit", "export", str(bundle), *asked)
    assert exported["size"] == exported["whole"] + exported["without_data"] + exported["withheld"]
    result = said(site, "audit", "verify", str(bundle))
    assert result["holds"] and result["disclosed"] == exported["whole"] > 0
    alone = subprocess.run([sys.executable, "-I", str(bundle / "verify.py")], capture_output=True, text=True, cwd=tmp_path)
    assert alone.returncode == 0 and "It holds" in alone.stdout, alone.stdout + alone.stderr
    lines = (bundle / "events.ndjson").read_bytes().splitlines(keepends=True)
    n = next(n for n, line in enumerate(lines) if b'"data"' in line)
    lines[n] = lines[n].replace(b'"origin":"local"', b'"origin":"elsewhere"')
    (bundle / "events.ndjson").write_bytes(b"".join(lines))
    assert "does NOT hold" in site.run("audit", "verify", str(bundle), exit_codes=(1,))


@pytest.mark.parametrize("what", [study_uid(0), f"{study_uid(0)}.1", subject_id(0), FINDING, f"BodyStructure/{FINDING}"])
def test_a_timeline_of_any_id(site: Site, what: str) -> None:
    shown = site.run("audit", "show", what, "--json")
    assert "SeriesIndexed" in shown
    assert "Planted" not in shown
    assert "SeriesIndexed" in site.run("audit", "show", what)


def test_a_timeline_of_nothing_is_an_error(site: Site) -> None:
    site.run("audit", "show", "1.2.3.4.5", exit_codes=(2,))


def test_the_lineage_of_a_finding_reaches_the_bytes(site: Site) -> None:
    lineage = site.run("audit", "lineage", FINDING, "--json")
    assert '"baseline"' in lineage and "0f" * 32 in lineage
    site.run("audit", "lineage", FINDING)


@pytest.mark.parametrize("name", NAMES)
def test_read_models_say_what_the_log_says(site: Site, name: str) -> None:
    site.run("projections", "verify", name)


def test_a_read_model_that_was_changed_by_hand_is_found(site: Site) -> None:
    import asyncpg

    server = EmbeddedPostgres(site.folder / "data" / "postgresql")

    async def change(statement: str) -> None:
        connection = await asyncpg.connect(server.url("anamnesis"))
        await connection.execute(statement)
        await connection.close()

    asyncio.run(change("UPDATE ledger_v1.entry SET principal_id = 'token:nobody' WHERE position = 77"))
    try:
        assert "77" in site.run("projections", "verify", "ledger", exit_codes=(1,))
    finally:
        site.run("projections", "rebuild", "ledger")
        server.leave()
    site.run("projections", "verify", "ledger")


def test_one_event_changed_by_hand_is_found_and_named(site: Site) -> None:
    import asyncpg

    server = EmbeddedPostgres(site.folder / "data" / "postgresql")

    async def change(statement: str) -> None:
        connection = await asyncpg.connect(server.url("anamnesis"))
        await connection.execute("ALTER TABLE event DISABLE TRIGGER event_is_immutable")
        await connection.execute(statement)
        await connection.execute("ALTER TABLE event ENABLE TRIGGER event_is_immutable")
        await connection.close()

    site.run("audit", "seal")
    asyncio.run(change("UPDATE event SET principal = replace(principal, 'door', 'd00r') WHERE position = 12345"))
    try:
        shown = site.run("audit", "check", exit_codes=(1,))
        assert "12345" in shown.replace(",", "")
    finally:
        asyncio.run(change("UPDATE event SET principal = replace(principal, 'd00r', 'door') WHERE position = 12345"))
        server.leave()
    site.run("audit", "check")
