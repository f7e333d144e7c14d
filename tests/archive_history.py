"""The events of a small archive: subjects with a study of one series each, stored, requested and indexed."""

from __future__ import annotations

from collections.abc import Iterable

from domain.event import Event
from domain.findings import SNOMED_CT, Code, Finding, Laterality, Structure
from domain.principal import device
from domain.series import IndexingRequested, InstancesStored, SegmenterRun, SeriesIndexed, StoredInstance, split_headers
from domain.study import StudyRegistered
from domain.subject import Demographics, SubjectRegistered
from eventlog.envelope import NewEvent, StreamAppend
from eventlog.log import EventLog

RUN = SegmenterRun(segmenter="baseline", segmenter_version="1.0", software={"numpy": "2.0"}, weights_sha256="ef" * 32, duration_s=1.5)


def subject_of(number: int) -> str:
    return f"8a1f9a52-0000-8000-8000-{number:012d}"


def study_of(number: int, findings: int = 4) -> list[Event]:
    study_uid, subject_id = f"1.2.{number}", subject_of(number)
    of_series = {"study_uid": study_uid, "series_uid": f"{study_uid}.1", "subject_id": subject_id}
    person = Demographics(patient_id=f"MRN-{number}", patient_name=f"DOE^JANE{number}", birth_date="19700102")
    common, headers = split_headers(
        [
            {
                "00080020": {"vr": "DA", "Value": ["20240131"]},
                "00100010": {"vr": "PN", "Value": [{"Alphabetic": person.patient_name}]},
                "00100020": {"vr": "LO", "Value": [person.patient_id]},
                "00200013": {"vr": "IS", "Value": [n]},
            }
            for n in (1, 2)
        ]
    )
    stored = [
        StoredInstance(
            sop_instance_uid=f"{study_uid}.1.{n}",
            sop_class_uid="1.2.840.10008.5.1.4.1.1.2",
            transfer_syntax_uid="1.2.840.10008.1.2.1",
            sha256=f"{number * 10 + n:064x}",
            size=10,
        )
        for n in (1, 2)
    ]
    return [
        SubjectRegistered(subject_id=subject_id, sex="F", demographics=person),
        StudyRegistered(study_uid=study_uid, subject_id=subject_id),
        InstancesStored(**of_series, modality="CT", door="ingest", instances=stored, common=common, headers=headers),
        IndexingRequested(**of_series, series_digest="ab" * 32, segmenter="baseline", reason="quiet"),
        SeriesIndexed(**of_series, series_digest="ab" * 32, run=RUN, findings=[_finding(n) for n in range(findings)]),
    ]


def _finding(number: int) -> Finding:
    side = (None, Laterality.LEFT, Laterality.RIGHT)[number % 3]
    structure = Structure(label=f"structure_{number}", snomed=Code(SNOMED_CT, f"{1000 + number}", f"Structure {number}"), laterality=side)
    return Finding(
        structure=structure,
        volume_mm3=10.5 + number,
        voxel_count=10 + number,
        mean_hu=1.5,
        touches_edge=False,
        centroid_mm=(0.0, 0.0, 0.0),
        bounding_box_mm=((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    )


async def append_studies(log: EventLog, numbers: Iterable[int], findings: int = 4) -> int:
    """Each study in a stream of its own; gives the position of the last event."""
    appends = [
        StreamAppend(stream=f"study-1.2.{number}", events=[NewEvent(event=event) for event in study_of(number, findings)])
        for number in numbers
    ]
    return (await log.append(appends, principal=device("test"))).last
