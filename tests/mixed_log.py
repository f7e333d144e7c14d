"""A log of many mixed events, made fast: subjects, studies, instances, indexes, refusals, reviews, a conflict now and then."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from domain.event import Event
from domain.findings import SNOMED_CT, Code, Finding, Laterality, Structure, finding_key
from domain.ids import INTAKE_STREAM, derived_id, series_stream, study_stream, subject_stream
from domain.intake import FileRefused
from domain.principal import Principal, PrincipalKind, device
from domain.review import FindingReviewed, Verdict
from domain.series import (
    IndexingRefused,
    IndexingRequested,
    InstanceConflicted,
    InstancesStored,
    SegmenterRun,
    SeriesIndexed,
    StoredInstance,
    series_digest,
)
from domain.study import StudyRegistered
from domain.subject import Demographics, SubjectDemographicsChanged, SubjectRegistered
from eventlog.envelope import NewEvent, StreamAppend
from eventlog.log import EventLog

GROUP = 400
DOOR, SEGMENTER = device("door"), device("baseline")
READER = Principal(id="token:reader", kind=PrincipalKind.PERSON)
STRUCTURES = (
    Structure(label="body", snomed=Code(SNOMED_CT, "123037004", "Body structure")),
    Structure(label="lung_left", snomed=Code(SNOMED_CT, "39607008", "Lung structure"), laterality=Laterality.LEFT),
    Structure(label="lung_right", snomed=Code(SNOMED_CT, "39607008", "Lung structure"), laterality=Laterality.RIGHT),
)
RUN = SegmenterRun(
    segmenter="baseline", segmenter_version="1.0", software={"SimpleITK": "2.4"}, weights_sha256="0f" * 32, duration_s=1.5
)


def study_uid(n: int) -> str:
    return f"1.2.826.0.1.3680043.9.{n}"


def subject_id(n: int) -> str:
    return str(derived_id("mixed-log-subject", str(n)))


def study_events(n: int, rng: random.Random) -> list[tuple[str, Event, Principal]]:
    """What happens to one study of one series: (stream, event, principal) in order; the same for the same seed."""
    study, series, subject = study_uid(n), f"{study_uid(n)}.1", subject_id(n // 2)
    stored = [
        StoredInstance(
            sop_instance_uid=f"{series}.{i}",
            sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
            transfer_syntax_uid="1.2.840.10008.1.2.1",
            sha256=f"{rng.getrandbits(256):064x}",
            size=1000 + i,
        )
        for i in range(1, rng.randint(2, 4))
    ]
    digest = series_digest({one.sop_instance_uid: one.sha256 for one in stored})
    person = Demographics(patient_id=f"MRN-{n // 2:06d}", patient_name=f"Planted^Person{n // 2}", birth_date="19600101")
    named = {"study_uid": study, "series_uid": series, "subject_id": subject}
    header = {
        "00080020": {"vr": "DA", "Value": [f"20{n % 24:02d}01{n % 28 + 1:02d}"]},
        "0008103E": {"vr": "LO", "Value": [f"series {n}"]},
        "00100010": {"vr": "PN", "Value": [{"Alphabetic": person.patient_name}]},
    }
    own = [{"00200013": {"vr": "IS", "Value": [i]}} for i in range(1, len(stored) + 1)]
    events: list[tuple[str, Event, Principal]] = []
    if n % 2 == 0:
        events.append((subject_stream(subject), SubjectRegistered(subject_id=subject, sex="F", demographics=person), DOOR))
    elif n % 10 == 1:
        changed = SubjectDemographicsChanged(subject_id=subject, sex="M", demographics=person)
        events.append((subject_stream(subject), changed, DOOR))
    events.append((study_stream(study), StudyRegistered(study_uid=study, subject_id=subject), DOOR))
    modality = "MR" if n % 7 == 3 else "CT"
    events.append(
        (series_stream(series), InstancesStored(**named, modality=modality, door="dimse", instances=stored, common=header, headers=own), DOOR)
    )
    requested = IndexingRequested(**named, series_digest=digest, segmenter="baseline", reason="quiet")
    events.append((series_stream(series), requested, SEGMENTER))
    if modality == "MR":
        refused = IndexingRefused(**named, series_digest=digest, segmenter="baseline", reason="not-ct", detail="modality MR")
        events.append((series_stream(series), refused, SEGMENTER))
    else:
        findings = [_finding(structure, rng) for structure in STRUCTURES]
        events.append((series_stream(series), SeriesIndexed(**named, series_digest=digest, run=RUN, findings=findings), SEGMENTER))
        reviewed = FindingReviewed(
            **named,
            finding_key=finding_key(series, "baseline", "lung_left"),
            segmenter="baseline",
            label="lung_left",
            series_digest=digest,
            verdict=Verdict.REJECTED if n % 9 == 0 else Verdict.ACCEPTED,
            comment="seen",
        )
        events.append((series_stream(series), reviewed, READER))
    if n % 25 == 5:
        conflict = InstanceConflicted(
            **named,
            sop_instance_uid=stored[0].sop_instance_uid,
            kept_sha256=stored[0].sha256,
            conflicting_sha256=f"{rng.getrandbits(256):064x}",
            conflicting_size=5,
            door="stow",
        )
        events.append((series_stream(series), conflict, DOOR))
    if n % 40 == 7:
        refused_file = FileRefused(
            reject_id=str(derived_id("mixed-log-reject", str(n))), sha256="ab" * 32, size=9, reason="not-dicom", detail="no preamble", door="stow"
        )
        events.append((INTAKE_STREAM, refused_file, DOOR))
    return events


async def fill(log: EventLog, count: int, seed: int = 1, first: int = 0) -> int:
    """Appends at least ``count`` events of whole studies, numbered from ``first`` on; gives how many studies."""
    rng = random.Random(seed)
    appended = studies = 0
    waiting: list[tuple[str, Event, Principal]] = []
    while appended < count:
        waiting += study_events(first + studies, rng)
        studies += 1
        if len(waiting) >= GROUP or appended + len(waiting) >= count:
            appended += len(waiting)
            for principal, appends in _appends(waiting):
                await log.append(appends, principal=principal)
            waiting = []
    return studies


def _appends(events: Sequence[tuple[str, Event, Principal]]) -> Iterator[tuple[Principal, list[StreamAppend]]]:
    """Runs of the same principal, in order: one append each."""
    run: list[StreamAppend] = []
    who: Principal | None = None
    for stream, event, principal in events:
        if who is not None and principal != who:
            yield who, run
            run = []
        who = principal
        if run and run[-1].stream == stream:
            run[-1] = StreamAppend(stream=stream, events=[*run[-1].events, NewEvent(event=event)])
        else:
            run.append(StreamAppend(stream=stream, events=[NewEvent(event=event)]))
    if who is not None:
        yield who, run


def _finding(structure: Structure, rng: random.Random) -> Finding:
    voxels = rng.randint(1, 10**6)
    return Finding(
        structure=structure,
        volume_mm3=voxels * 0.5,
        voxel_count=voxels,
        mean_hu=round(rng.uniform(-900, 100), 2),
        touches_edge=rng.random() < 0.1,
        centroid_mm=(1.0, 2.0, 3.0),
        bounding_box_mm=((0.0, 0.0, 0.0), (2.0, 4.0, 6.0)),
    )
