"""kill -9 of server and database while Patients, what is of them, and images of the same numbers come in: a person stays one Patient,
under one key, and a number is taken by a Patient that is there or by none."""

from __future__ import annotations

import asyncio
import json
import os
import random
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import httpx
import pytest
from running_site import Site
from served_site import slice_of

from domain.clinical_record import ClinicalRecordWritten
from domain.ids import subject_stream
from domain.series import InstancesStored
from domain.subject import SubjectJoined
from eventlog.checking import check_log
from eventlog.log import EventLog
from server.settings import ServerSettings

pytestmark = pytest.mark.slow

ROUNDS = int(os.environ.get("ANAMNESIS_TEST_PEOPLE_KILL_ROUNDS", "3"))
ISSUER, SYSTEM = "HOSPITAL-A", "http://hospital-a.example/mrn"
OBSERVATIONS = 10
BOUNDARY = "b"


class Sender(threading.Thread):
    """Sends without end, for one number after the other, and notes which were acknowledged."""

    def __init__(self, url: str, token: str, name: str) -> None:
        super().__init__(daemon=True)
        self.client = httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=20)
        self.name = name
        self.stopping = threading.Event()
        self.acknowledged: set[str] = set()

    def run(self) -> None:
        nth = 0
        while not self.stopping.is_set():
            nth += 1
            try:
                if self.send(f"{nth}"):
                    self.acknowledged.add(f"{nth}")
            except httpx.HTTPError:
                time.sleep(0.05)

    def send(self, number: str) -> bool:
        raise NotImplementedError


class Records(Sender):
    """Of each number a transaction with its Patient, under an id of the sender's, and what is of it."""

    def send(self, number: str) -> bool:
        return self.client.post("/fhir", json=bundle(self.name, number)).status_code == 200


class Images(Sender):
    def send(self, number: str) -> bool:
        file = slice_of(study_of(number), 1, patient_id=number, IssuerOfPatientID=ISSUER)
        body = b"--b\r\nContent-Type: application/dicom\r\n\r\n%s\r\n--b--\r\n" % file
        content_type = f'multipart/related; type="application/dicom"; boundary={BOUNDARY}'
        return self.client.post("/dicomweb/studies", content=body, headers={"Content-Type": content_type}).status_code == 200


def study_of(number: str) -> str:
    return f"2.25.{uuid.uuid5(uuid.NAMESPACE_OID, number).int}"


def bundle(name: str, number: str) -> dict[str, Any]:
    patient = {"resourceType": "Patient", "id": f"{name}-{number}", "identifier": [{"system": SYSTEM, "value": number}]}
    observation = {"resourceType": "Observation", "status": "final", "code": {"text": "x"}, "subject": {"reference": f"Patient/{name}-{number}"}}
    entries = [{"resource": patient, "request": {"method": "PUT", "url": f"Patient/{name}-{number}"}}]
    entries += [{"resource": observation, "request": {"method": "POST", "url": "Observation"}} for _ in range(OBSERVATIONS)]
    return {"resourceType": "Bundle", "type": "transaction", "entry": entries}


@pytest.mark.timeout(900)
async def test_a_person_stays_one_patient(tmp_path: Path) -> None:
    site = Site(tmp_path)
    site.environment["ANAMNESIS_PATIENT_ID_SYSTEMS"] = json.dumps({ISSUER: SYSTEM})
    await asyncio.to_thread(site.run, "init")
    site.start_server()
    rng = random.Random(7)
    try:
        await asyncio.to_thread(site.wait_until_ready)
        token = await asyncio.to_thread(site.token, "fhir:write", "identities:read", "dicom:write")
        senders = [*(Records(site.url, token, name) for name in ("a", "b")), *(Images(site.url, token, name) for name in ("c", "d"))]
        for sender in senders:
            sender.start()
        for nth in range(ROUNDS):
            await asyncio.sleep(rng.uniform(0.5, 2.0))
            await asyncio.to_thread(site.kill, "database" if nth % 3 == 2 else "server")
            await asyncio.to_thread(site.wait_until_ready)
        await asyncio.sleep(1)
        for sender in senders:
            sender.stopping.set()
        for sender in senders:
            await asyncio.to_thread(sender.join, 60)
        await check(site, senders)
    finally:
        await asyncio.to_thread(site.stop)


async def check(site: Site, senders: list[Sender]) -> None:
    log = await EventLog.open(ServerSettings(data_dir=site.folder / "data"))
    try:
        owners: dict[str, str] = {}
        observations: dict[str, int] = {}
        imaged: dict[str, str] = {}
        position = 0
        while events := await log.read(position, 2000, [ClinicalRecordWritten, InstancesStored]):
            position = events[-1].position
            for one in events:
                match one.event:
                    case ClinicalRecordWritten(resource_type="Patient", resource_id=patient_id):
                        assert owners.setdefault(patient_id.partition("-")[2], patient_id) == patient_id
                    case ClinicalRecordWritten(subject_id=subject_id):
                        observations[subject_id] = observations.get(subject_id, 0) + 1
                    case InstancesStored(study_uid=study_uid, subject_id=subject_id):
                        assert imaged.setdefault(study_uid, subject_id) == subject_id
        assert owners and imaged and {owner: OBSERVATIONS for owner in owners.values()} == observations
        for sender in senders[:2]:
            assert {f"{sender.name}-{number}" for number in sender.acknowledged} <= {*owners.values()}
        numbers = {number for sender in senders for number in sender.acknowledged} | owners.keys()
        both = 0
        for number in numbers:
            named = log.vault.subject_id(number, ISSUER, otherwise="")
            joined = [one.event.into_subject_id for one in await log.read_stream(subject_stream(named)) if isinstance(one.event, SubjectJoined)]
            assert joined == ([owners[number]] if number in owners else [])
            if study_of(number) in imaged:
                assert imaged[study_of(number)] == owners.get(number, named)
                both += number in owners
        assert both
        checked = await check_log(log)
        assert checked.holds, checked.discrepancies[:5]
    finally:
        await log.close()
