"""`anamnesis subject` as somebody types it: who may, what it prints, what it refuses and why, and that a look is recorded."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from pydicom.data import get_testdata_file
from running_site import Site

from domain.access import AccessesRecorded
from domain.subject import LegalHoldLifted, LegalHoldPlaced
from eventlog.embedded import EmbeddedPostgres
from eventlog.log import EventLog
from eventlog.settings import LogSettings

pytestmark = pytest.mark.slow

NUMBER, ISSUER, REASON = "MRNCLI4711", "CLINIC", "a court asks for the images"
NOBODY = "8a1f9a52-5d1c-5e0f-8f3e-0d1d5f3b7a11"


class Desk:
    """A site with one person, and two officers at its command line."""

    def __init__(self, folder: Path) -> None:
        self.site = Site(folder)
        self.site.run("init")
        dataset = pydicom.dcmread(get_testdata_file("CT_small.dcm"))
        dataset.PatientID, dataset.IssuerOfPatientID = NUMBER, ISSUER
        dataset.save_as(folder / "slice.dcm")
        self.site.run("ingest", str(folder / "slice.dcm"))
        self.anna, self.bert = self.site.token("subjects:erase"), self.site.token("subjects:erase")
        self.subject = self.run("find", typed=f"{NUMBER}\n{ISSUER}\n").stdout.strip()

    def run(self, *arguments: str, token: str = "", typed: str = "", code: int = 0) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "server.cli", "subject", *arguments]
        environment = {**self.site.environment, "ANAMNESIS_TOKEN": token}
        done = subprocess.run(command, env=environment, input=typed, capture_output=True, text=True)
        assert done.returncode == code, done.stderr
        return done

    async def log(self) -> EventLog:
        return await EventLog.open(LogSettings(data_dir=self.site.folder / "data"))


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    folder = tmp_path_factory.mktemp("desk")
    server = EmbeddedPostgres(folder / "data" / "postgresql")
    desk = Desk(folder)
    server.url("postgres")
    try:
        yield desk
    finally:
        server.leave()


def test_a_person_is_found_by_what_is_piped_in(desk: Desk) -> None:
    assert json.loads(desk.run("find", "--json", typed=f"{NUMBER}\n{ISSUER}\n").stdout) == {"subject_id": desk.subject}
    assert "SubjectUnknown" in desk.run("find", typed=f"{NUMBER}\nELSEWHERE\n", code=2).stderr
    assert "a Patient ID is needed" in desk.run("find", typed="\n", code=2).stderr


def test_holds_are_placed_and_lifted_by_events_and_refuse_by_name(desk: Desk) -> None:
    placed = json.loads(desk.run("hold", desk.subject, "--json", token=desk.anna, typed=REASON).stdout)
    hold = placed["hold_id"]
    refused = desk.run("erase", desk.subject, "--legal-basis", "gdpr-17-1-b", token=desk.anna, code=2).stderr
    assert f"SubjectOnHold: subject {desk.subject} is on legal hold ({hold}): `anamnesis subject release` lifts it" in refused
    shown = json.loads(desk.run("show", desk.subject, "--json").stdout)
    assert [one["reason"] for one in shown["holds"]] == [REASON] and shown["erasure"] == "none"
    assert "no hold other stands" in desk.run("release", desk.subject, "other", token=desk.bert, code=2).stderr
    lifted = json.loads(desk.run("release", desk.subject, hold, "--json", token=desk.bert).stdout)
    assert lifted == {"subject_id": desk.subject, "hold_id": hold, "standing": 0}

    async def kinds() -> list[type]:
        log = await desk.log()
        try:
            return [type(one.event) for one in await log.read(0, types=[LegalHoldPlaced, LegalHoldLifted])]
        finally:
            await log.close()

    assert asyncio.run(kinds()) == [LegalHoldPlaced, LegalHoldLifted]


def test_it_takes_a_legal_basis_and_two_persons_with_the_scope(desk: Desk) -> None:
    assert "--legal-basis" in desk.run("erase", desk.subject, token=desk.anna, code=2).stderr
    assert "gdpr-17-1-b" in desk.run("erase", desk.subject, "--legal-basis", "because", token=desk.anna, code=2).stderr
    basis = ("--legal-basis", "gdpr-17-1-b")
    assert "subjects:erase" in desk.run("erase", desk.subject, *basis, token=desk.site.token("fhir:read"), code=2).stderr
    assert "TokenInvalid" in desk.run("erase", desk.subject, *basis, token="anamnesis_none", code=2).stderr
    options = ("create", "robot", "--scope", "subjects:erase", "--kind", "device", "--json")
    robot = json.loads(desk.site.run("token", *options))["token"]
    assert "token of a person" in desk.run("erase", desk.subject, *basis, token=robot, code=2).stderr
    assert "SubjectUnknown" in desk.run("erase", NOBODY, *basis, token=desk.anna, code=2).stderr

    assert "ErasureNotRequested" in desk.run("confirm", desk.subject, token=desk.bert, code=2).stderr
    asked = json.loads(desk.run("erase", desk.subject, *basis, "--json", token=desk.anna).stdout)
    assert (asked["erasure"], asked["legal_basis"]) == ("requested", "gdpr-17-1-b")
    assert "SamePerson" in desk.run("confirm", desk.subject, token=desk.anna, code=2).stderr
    assert json.loads(desk.run("withdraw", desk.subject, "--json", token=desk.anna).stdout)["erasure"] == "none"
    assert desk.run("erase", desk.subject, *basis, token=desk.anna).stdout.strip().endswith(f"anamnesis subject confirm {desk.subject}")
    done = json.loads(desk.run("confirm", desk.subject, "--json", token=desk.bert).stdout)
    assert (done["erasure"], done["files"], done["studies"]) == ("erased", 1, 1) and "purged_at" in done and "undone" not in done
    [listed] = json.loads(desk.run("erasures", "--json").stdout)
    assert listed["subject_id"] == desk.subject and listed["key_destroyed_at"] == done["key_destroyed_at"]
    for command in (("erase", desk.subject, *basis), ("confirm", desk.subject), ("hold", desk.subject)):
        assert "SubjectIsErased" in desk.run(*command, token=desk.anna, typed=REASON, code=2).stderr


async def test_whoever_looked_is_in_the_log(desk: Desk) -> None:
    await asyncio.to_thread(desk.run, "show", desk.subject)
    log = await desk.log()
    try:
        recorded = [one.event for one in await log.read(0, types=[AccessesRecorded])]
    finally:
        await log.close()
    looks = [access for event in recorded if isinstance(event, AccessesRecorded) for access in event.accesses]
    assert {"anamnesis subject find", "anamnesis subject show"} <= {one.route for one in looks if desk.subject in one.subjects}
