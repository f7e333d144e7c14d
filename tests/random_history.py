"""Random histories of a small archive: two subjects, three studies of two series each, and all that may befall them.

A history is a list of steps, each of a few integers and words, so that a failing one shrinks to something that can be read.
What cannot happen yet (an index of a series that nobody sent) is left out when the steps become events.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from hypothesis import strategies as st

from domain.access import Access, AccessesRecorded, Action, Outcome, access_stream
from domain.event import Event
from domain.findings import SNOMED_CT, Code, Finding, Structure, finding_key
from domain.ids import INTAKE_STREAM, derived_id, series_stream, study_stream, subject_stream
from domain.intake import FileRefused
from domain.principal import Principal, PrincipalKind
from domain.review import FindingReviewed, Verdict
from domain.series import (
    IndexingRefused,
    IndexingRequested,
    InstanceConflicted,
    InstancesStored,
    SegmenterRun,
    SeriesIndexed,
    StoredInstance,
    split_headers,
)
from domain.study import StudyRegistered, StudySubjectDisputed
from domain.subject import Demographics, SubjectDemographicsChanged, SubjectErased, SubjectRegistered

LABELS = ("liver", "lung_left", "spleen")
CODES = {"liver": "10200004", "lung_left": "39607008", "spleen": "78961009"}
NAMES = ("Doe^Jane", "DOE^JANE", "Müller^Jörg", "")
READER = Principal(id="token:reader", kind=PrincipalKind.PERSON)
_CT, _SEG = "1.2.840.10008.5.1.4.1.1.2", "1.2.840.10008.5.1.4.1.1.66.4"
_DIGEST = "ab" * 32
_AT = datetime(2026, 1, 1, tzinfo=UTC)


def subject_id(number: int) -> str:
    return str(derived_id("random-history", str(number)))


def study_uid(number: int) -> str:
    return f"1.2.{number}"


def series_uid(study: int, series: int) -> str:
    return f"{study_uid(study)}.{series}"


def key_of(study: int, series: int, label: str) -> str:
    return finding_key(series_uid(study, series), "baseline", label)


class Step(msgspec.Struct, frozen=True):
    """What happens, to which study and series (the subject is the study's), and how."""

    what: str
    study: int
    series: int
    how: int

    def __repr__(self) -> str:
        return f"{self.what}({self.study}.{self.series}, {self.how})"


WHAT = ("person", "study", "store", "store", "store", "request", "index", "index", "review", "refuse", "conflict", "dispute", "access", "reject", "erase")

steps = st.builds(Step, st.sampled_from(WHAT), st.integers(1, 3), st.integers(1, 2), st.integers(0, 11))
histories = st.lists(st.lists(steps, min_size=1, max_size=6), min_size=2, max_size=5)
"""Groups of steps: the events of a group are appended at once."""


class History:
    """Makes events of steps, remembering what there is already."""

    def __init__(self) -> None:
        self._persons: set[int] = set()
        self._erased: set[int] = set()
        self._instances: defaultdict[str, list[StoredInstance]] = defaultdict(list)
        self._indexed: defaultdict[str, set[str]] = defaultdict(set)

    def events(self, group: Sequence[Step]) -> Iterator[tuple[str, Event]]:
        """(stream, event) of each step that can happen."""
        for step in group:
            yield from self._happens(step)

    def _happens(self, step: Step) -> Iterator[tuple[str, Event]]:
        person = step.study % 2
        study, series, how = study_uid(step.study), series_uid(step.study, step.series), step.how
        of_series = {"study_uid": study, "series_uid": series, "subject_id": subject_id(person)}
        if person in self._erased:
            return
        match step.what:
            case "person":
                kind = SubjectDemographicsChanged if person in self._persons else SubjectRegistered
                self._persons.add(person)
                known = Demographics(patient_id=f"MRN-{person}{how % 2}", patient_name=NAMES[how % 4], birth_date="19700102")
                yield subject_stream(subject_id(person)), kind(subject_id=subject_id(person), sex="FM"[how % 2], demographics=known)
            case "erase" if person in self._persons:
                self._erased.add(person)
                studies = [number for number in (1, 2, 3) if number % 2 == person]
                erased = SubjectErased(
                    subject_id=subject_id(person),
                    study_uids=[study_uid(number) for number in studies],
                    series_uids=[series_uid(number, n) for number in studies for n in (1, 2)],
                    files=0,
                    bytes=0,
                )
                yield subject_stream(subject_id(person)), erased
            case "study":
                yield study_stream(study), StudyRegistered(study_uid=study, subject_id=subject_id(person))
            case "store":
                yield series_stream(series), self._stored(step, of_series)
            case "dispute":
                disputed = StudySubjectDisputed(
                    study_uid=study, registered_subject_id=subject_id(person), disputed_subject_id=subject_id(1 - person)
                )
                yield study_stream(study), disputed
            case "access":
                yield access_stream("test"), AccessesRecorded(accesses=(_access(person, how),))
            case "reject":
                rejected = FileRefused(
                    reject_id=f"reject-{step.study}{how}", sha256=_DIGEST, size=9, reason="not-dicom", detail="no preamble", door="stow"
                )
                yield INTAKE_STREAM, rejected
            case _ if self._instances[series]:
                yield from ((series_stream(series), event) for event in self._of_series(step, of_series))

    def _stored(self, step: Step, of_series: dict[str, str]) -> InstancesStored:
        series, how = of_series["series_uid"], step.how
        modality = "SEG" if step.series == 2 and how % 3 == 0 else "CT"
        known = self._instances[series]
        new = [
            StoredInstance(
                sop_instance_uid=f"{series}.{n}",
                sop_class_uid=_SEG if modality == "SEG" else _CT,
                transfer_syntax_uid="1.2.840.10008.1.2.1",
                sha256=f"{derived_id('bytes', series, str(n)).int:064x}",
                size=1000 + n,
            )
            for n in range(len(known) + 1, len(known) + 2 + how % 2)
        ]
        known += new
        # Some elements come with the first instances and some with later ones, which fill what was empty.
        said: dict[str, Any] = {"00080060": {"vr": "CS", "Value": [modality]}}
        optional = {
            "00080020": ("DA", f"2024030{how % 5 + 1}"),
            "00100010": ("PN", {"Alphabetic": NAMES[how % 3]}),
            "00100020": ("LO", f"MRN-{how % 2}"),
            "00081030": ("LO", "CT CHEST" if how % 2 else "CT ABDOMEN"),
            "0008103E": ("LO", f"axial {how}"),
            "00200011": ("IS", how % 4),
            "00120062": ("CS", "NO"),
        }
        for bit, (tag, (vr, value)) in enumerate(optional.items()):
            if (how * 37 + step.study) >> bit & 1:
                said[tag] = {"vr": vr, "Value": [value]}
        headers = [{**said, "00200013": {"vr": "IS", "Value": [len(known) - n]}} for n in range(len(new))]
        common, own = split_headers(headers)
        return InstancesStored(**of_series, modality=modality, door="stow", instances=new, common=common, headers=own)

    def _of_series(self, step: Step, of_series: dict[str, str]) -> Iterator[Event]:
        series, how = of_series["series_uid"], step.how
        match step.what:
            case "request":
                yield IndexingRequested(**of_series, series_digest=_DIGEST, segmenter="baseline", reason="quiet")
            case "index":
                labels = [label for n, label in enumerate(LABELS) if how >> n & 1]
                self._indexed[series] = set(labels)
                run = SegmenterRun(segmenter="baseline", segmenter_version="1.0", software={"numpy": str(how % 2)}, duration_s=1.0)
                yield SeriesIndexed(**of_series, series_digest=_DIGEST, run=run, findings=[_finding(label, how) for label in labels])
            case "review" if LABELS[how % 3] in self._indexed[series]:
                label = LABELS[how % 3]
                yield FindingReviewed(
                    **of_series,
                    finding_key=finding_key(series, "baseline", label),
                    segmenter="baseline",
                    label=label,
                    series_digest=_DIGEST,
                    verdict=Verdict.REJECTED if how % 2 else Verdict.ACCEPTED,
                )
            case "refuse":
                yield IndexingRefused(**of_series, series_digest=_DIGEST, segmenter="baseline", reason="not-ct", detail="MR")
            case "conflict":
                (first, *_) = self._instances[series]
                yield InstanceConflicted(
                    **of_series,
                    sop_instance_uid=first.sop_instance_uid,
                    kept_sha256=first.sha256,
                    conflicting_sha256=_DIGEST,
                    conflicting_size=5,
                    door="stow",
                )


def _finding(label: str, how: int) -> Finding:
    return Finding(
        structure=Structure(label=label, snomed=Code(SNOMED_CT, CODES[label], label)),
        volume_mm3=10.0 + how,
        voxel_count=10,
        mean_hu=1.5,
        touches_edge=False,
        centroid_mm=(0.0, 0.0, 0.0),
        bounding_box_mm=((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    )


def _access(person: int, how: int) -> Access:
    return Access(
        first_at=_AT,
        last_at=_AT,
        count=how + 1,
        principal=READER,
        action=(Action.READ, Action.SEARCH)[how % 2],
        outcome=Outcome.SUCCESS,
        route="/fhir/{resource_type}",
        resource_type="Patient",
        subjects=(subject_id(person),),
    )
