"""A log with a small archive's worth of events to curate, read models over it, and an engine that asks their rows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from archive.store import Store
from domain.clinical_record import ClinicalRecordWritten
from domain.event import Event
from domain.ids import derived_id, record_stream, series_stream, study_stream, subject_stream
from domain.principal import Principal, PrincipalKind, device
from domain.series import InstancesStored, StoredInstance
from domain.study import StudyRegistered
from domain.subject import Demographics, SubjectRegistered
from eventlog.envelope import NewEvent, StreamAppend
from eventlog.log import EventLog
from projections.cohort.postgresql.engine import PostgresEngine
from projections.cohort.projection import CohortProjection
from projections.curation.projection import CurationProjection
from projections.ledger.projection import LedgerProjection
from projections.runner import Runner
from server.cohorts import keeping

ANN, BOB = (Principal(id=f"token:{name}", kind=PrincipalKind.PERSON) for name in ("ann", "bob"))
PROJECT = "liver"
PROJECTIONS = (LedgerProjection(), CohortProjection(), CurationProjection())
MAKERS = ("ACME", "Bolt", "Core")


def subject_id(n: int) -> str:
    return str(derived_id("curated", str(n)))


def study_uid(n: int) -> str:
    return f"1.2.3.{n}"


def series_uid(n: int, m: int = 1) -> str:
    return f"{study_uid(n)}.{m}"


def stored(n: int, m: int = 1, instances: Iterable[int] = (1, 2), *, modality: str = "CT", maker: str = "ACME") -> InstancesStored:
    """Instances of the m-th series of subject n."""
    uids = [f"{series_uid(n, m)}.{k}" for k in instances]
    said = {"00080060": {"vr": "CS", "Value": [modality]}, "00080070": {"vr": "LO", "Value": [maker]}, "00180050": {"vr": "DS", "Value": [n % 4 + 0.5]}}
    return InstancesStored(
        study_uid=study_uid(n),
        series_uid=series_uid(n, m),
        subject_id=subject_id(n),
        modality=modality,
        door="stow",
        instances=[
            StoredInstance(sop_instance_uid=uid, sop_class_uid="1.2.840", transfer_syntax_uid="1.2.1", sha256=hashlib.sha256(uid.encode()).hexdigest(), size=100 + n)
            for uid in uids
        ],
        common=said,
        headers=[{} for _ in uids],
    )  # fmt: skip


def person(n: int) -> list[tuple[str, Event]]:
    """Subject n, with a study and a series: two of three are CT, women and men take turns, makers too."""
    born = Demographics(patient_id=f"P{n}", patient_name=f"PLANTED^{n}", birth_date=f"{1940 + 3 * n}0615")
    return [
        (subject_stream(subject_id(n)), SubjectRegistered(subject_id=subject_id(n), sex="FM"[n % 2], demographics=born)),
        (study_stream(study_uid(n)), StudyRegistered(study_uid=study_uid(n), subject_id=subject_id(n))),
        (series_stream(series_uid(n)), stored(n, modality="MR" if n % 3 == 0 else "CT", maker=MAKERS[n % 3])),
    ]


def consent(n: int, version: int, decision: str) -> tuple[str, Event]:
    """A FHIR Consent of subject n (R5 consent.html)."""
    id_ = f"consent-{n}"
    resource = {"resourceType": "Consent", "id": id_, "status": "active", "decision": decision, "subject": {"reference": f"Patient/{subject_id(n)}"}}
    written = ClinicalRecordWritten(resource_type="Consent", resource_id=id_, subject_id=subject_id(n), record_version=version, resource=resource)
    return record_stream("Consent", id_), written


FEED = [step for n in range(12) for step in person(n)]
"""Twelve subjects, four of them with MR."""


@dataclass
class Curated:
    """What server.cohorts asks for: a log, an archive and an engine."""

    log: EventLog
    store: Store
    _number: int = 0

    @classmethod
    def over(cls, log: EventLog, folder: Path) -> Curated:
        return cls(log, Store(str(folder / "archive")))

    @property
    def cohorts(self) -> PostgresEngine:
        return PostgresEngine(self.log.pool)

    async def happens(self, *steps: tuple[str, Event]) -> int:
        """Appends what happened, under ids that are the same in every log that is told the same; gives the head."""
        appends = []
        for stream, event in steps:
            self._number += 1
            new = NewEvent(event=event, event_id=UUID(int=(7 << 76) | (2 << 62) | self._number))
            appends.append(StreamAppend(stream=stream, events=[new]))
        await self.log.append(appends, principal=device("door"))
        return await self.reads()

    async def reads(self) -> int:
        """The read models come up to the head."""
        return await Runner(self.log, PROJECTIONS).catch_up()

    async def dataset(self, **terms: object) -> str:
        """A new dataset of Ann's project, which Bob may see."""
        if not (await keeping.reading.projects(self.log.pool, [PROJECT])):
            await keeping.create_project(self.log, PROJECT, "Livers", ANN)
            await keeping.admit_member(self.log, PROJECT, BOB.id, keeping.Role.VIEWER, ANN)
        kept = await keeping.create_dataset(self.log, PROJECT, "Livers", "", ANN, keeping.Terms(**terms))  # type: ignore[arg-type]
        await self.reads()
        return kept.id
