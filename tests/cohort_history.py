"""Random histories for cohorts: what random_history tells, with richer headers, clinical records, what clients say of persons, and tags."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from hypothesis import strategies as st
from random_history import WHAT, History, Step, series_uid, study_uid, subject_id

from domain.clinical_record import ClinicalRecordDeleted, ClinicalRecordWritten
from domain.event import Event
from domain.ids import record_stream
from domain.principal import device
from domain.project import own_subject_id
from domain.series import InstancesStored, join_header, split_headers
from domain.subject import SubjectErased
from domain.tag import TagLevel, TagRemoved, TagSet, TagTarget, tag_stream
from eventlog.envelope import NewEvent, StreamAppend
from eventlog.log import EventLog

DOOR = device("door")
SNOMED, LOINC, UCUM = "http://snomed.info/sct", "http://loinc.org", "http://unitsofmeasure.org"
FURTHER = ("store", "patient", "unpatient", "record", "record", "unrecord", "tag", "tag", "untag")
TAG_NAMES, TAG_VALUES = ("quality", "train"), ("good", "Größer als", "good enough", "")
PROJECTS = ("alpha", "beta")
DESCRIPTIONS = ("Abdomen nativ", "ABDOMEN VENÖS", "Thorax", "Thorax Lunge 1,5", "")

steps = st.builds(Step, st.sampled_from((*WHAT, *FURTHER)), st.integers(1, 3), st.integers(1, 2), st.integers(0, 11))
histories = st.lists(st.lists(steps, min_size=1, max_size=8), min_size=2, max_size=6)
"""Groups of steps: the events of a group are appended at once."""


class CohortHistory(History):
    def __init__(self) -> None:
        super().__init__()
        self._records: dict[tuple[str, str], int] = {}
        self._tags: set[tuple[str, str, str]] = set()

    def _happens(self, step: Step) -> Iterator[tuple[str, Event]]:
        person = step.study % 2
        if step.what not in FURTHER or step.what == "store":
            yield from super()._happens(step)
        elif person not in self._erased:
            yield from self._further(step, subject_id(person))

    def _further(self, step: Step, person: str) -> Iterator[tuple[str, Event]]:
        how = step.how
        match step.what:
            case "patient":
                said: dict[str, Any] = {"resourceType": "Patient", "id": person}
                if how % 3:
                    said["gender"] = ("male", "female", "unknown")[how % 3]
                if how % 2:
                    said["birthDate"] = ("1955-06-30", "1970", "1970-01")[how % 3]
                yield self._written("Patient", person, person, said)
            case "unpatient" if self._records.get(("Patient", person)):
                yield self._deleted("Patient", person, person)
            case "record":
                kind, name = _record(how)
                name = f"{name}-{step.study}"
                yield self._written(kind["resourceType"], name, person, {**kind, "id": name, "subject": {"reference": f"Patient/{person}"}})
            case "unrecord":
                kind, name = _record(how)
                if self._records.get((kind["resourceType"], f"{name}-{step.study}")):
                    yield self._deleted(kind["resourceType"], f"{name}-{step.study}", person)
            case "tag" | "untag":
                yield from self._tagged(step, person)

    def _written(self, kind: str, name: str, person: str, resource: dict[str, Any]) -> tuple[str, Event]:
        version = self._records[kind, name] = self._records.get((kind, name), 0) + 1
        written = ClinicalRecordWritten(resource_type=kind, resource_id=name, subject_id=person, record_version=version, resource=resource)
        return record_stream(kind, name), written

    def _deleted(self, kind: str, name: str, person: str) -> tuple[str, Event]:
        self._records[kind, name] += 1
        deleted = ClinicalRecordDeleted(resource_type=kind, resource_id=name, subject_id=person, record_version=self._records[kind, name])
        return record_stream(kind, name), deleted

    def _tagged(self, step: Step, person: str) -> Iterator[tuple[str, Event]]:
        how, series = step.how, series_uid(step.study, step.series)
        level = (TagLevel.SUBJECT, TagLevel.STUDY, TagLevel.SERIES, TagLevel.INSTANCE, TagLevel.PROJECT)[how % 5]
        project, name = PROJECTS[how % 2], TAG_NAMES[how // 2 % 2]
        target = TagTarget(
            level=level,
            subject_id=own_subject_id(project) if level == TagLevel.PROJECT else person,
            study_uid=study_uid(step.study) if level in (TagLevel.STUDY, TagLevel.SERIES, TagLevel.INSTANCE) else "",
            series_uid=series if level in (TagLevel.SERIES, TagLevel.INSTANCE) else "",
            sop_instance_uid=f"{series}.1" if level == TagLevel.INSTANCE else "",
        )
        stream = tag_stream(project, target)
        said = {"project_id": project, "name": name, **msgspec.structs.asdict(target)}
        if step.what == "tag":
            self._tags.add((stream, project, name))
            yield stream, TagSet(**said, value=TAG_VALUES[(how + step.series) % 4])
        elif (stream, project, name) in self._tags:
            self._tags.remove((stream, project, name))
            yield stream, TagRemoved(**said)

    def _stored(self, step: Step, of_series: dict[str, str]) -> InstancesStored:
        """With what tells series apart: geometry, thickness, text, ages, a sequence, a private element."""
        event = super()._stored(step, of_series)
        headers = [join_header(event.common, own) for own in event.headers]
        first = int(event.instances[0].sop_instance_uid.rsplit(".", 1)[1])
        for n, header in enumerate(headers, first):
            header |= _further_header(step, n)
        common, own = split_headers(headers)
        return msgspec.structs.replace(event, common=common, headers=own)


def _further_header(step: Step, instance: int) -> dict[str, Any]:
    how = step.how
    gap = 2.5 if how % 4 else 2.0
    header: dict[str, Any] = {
        "00200032": {"vr": "DS", "Value": [0, 0, instance * gap]},
        "00200037": {"vr": "DS", "Value": [1, 0, 0, 0, 1, 0]},
        "00180050": {"vr": "DS", "Value": [(1.5, 5, "thin", 0.75)[how % 4]]},
        "00181030": {"vr": "LO", "Value": [DESCRIPTIONS[how % 5]]},
        "00080008": {"vr": "CS", "Value": ["ORIGINAL", "PRIMARY", ("AXIAL", "MPR")[how % 2]]},
    }
    if how % 3 == 0:
        header["00101010"] = {"vr": "AS", "Value": [("045Y", "006M", "junk")[how % 4 % 3]]}
        header["00400275"] = {"vr": "SQ", "Value": [{"00400009": {"vr": "SH", "Value": [f"STEP{how}"]}}]}
    if how % 3 == 1:
        header |= {"00190010": {"vr": "LO", "Value": ["SIEMENS MR HEADER"]}, "0019100C": {"vr": "IS", "Value": [how * 100]}}
    if how % 3 == 2:
        header["00080030"] = {"vr": "TM", "Value": [f"0{how % 9}3000.5"]}
        del header["00200037"]
    return header


def _record(how: int) -> tuple[dict[str, Any], str]:
    """A resource, and the name of the record that it is a version of."""
    if how % 3 == 0:
        condition = {
            "resourceType": "Condition",
            "clinicalStatus": {"coding": [{"code": ("active", "resolved")[how % 2]}]},
            "code": {"coding": [{"system": SNOMED, "code": ("44054006", "73211009")[how % 2]}, {"system": "http://hl7.org/fhir/sid/icd-10", "code": "E11"}]},
            "onsetDateTime": ("2019-05", "2020-02-03T10:00:00Z")[how % 2],
        }
        return condition, "condition"
    if how % 3 == 1:
        quantity = ({"value": 126, "unit": "mg/dL", "system": UCUM, "code": "mg/dL"}, {"value": 1.26, "system": UCUM, "code": "g/L"}, {"value": 7, "unit": "points"})
        observation = {
            "resourceType": "Observation",
            "status": "final",
            "code": {"coding": [{"system": LOINC, "code": "2345-7"}]},
            "valueQuantity": quantity[how // 3 % 3],
            "effectiveDateTime": f"202{how % 4}-01-01",
        }
        return observation, "observation"
    return {"resourceType": "Consent", "status": "active", "decision": ("permit", "deny")[how % 2], "category": [{"coding": [{"system": LOINC, "code": "59284-0"}]}]}, "consent"


async def append(log: EventLog, history: Sequence[Sequence[Step]], *, destroy_keys: bool = False) -> list[Event]:
    """Appends what the steps make; gives the events in order. ``destroy_keys``: of who is erased, before the event that says so."""
    made: list[Event] = []
    teller = CohortHistory()
    for group in history:
        events = list(teller.events(group))
        for stream, event in events:
            if destroy_keys and isinstance(event, SubjectErased):
                async with log.pool.acquire() as connection:
                    await log.vault.destroy(event.subject_id, connection)
            await log.append([StreamAppend(stream=stream, events=[NewEvent(event=event)])], principal=DOOR)
        made += [event for _, event in events]
    return made
