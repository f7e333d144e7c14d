"""What the log knows of a subject: its studies and series, its files by digest, and what lies among them of others.

Read models may be behind or rebuilt; so the log itself is searched for the subject's id, which is in the clear in every event.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec

from domain.clinical_record import ClinicalRecordWritten
from domain.event import Event
from domain.ids import SubjectId, derived_id, series_stream, study_stream, subject_stream
from domain.series import DicomJson, InstanceConflicted, InstancesStored, SeriesErased
from domain.study import StudyErased, StudyRegistered, StudySubjectDisputed
from domain.subject import SubjectDemographicsChanged, SubjectErased, SubjectRegistered
from domain.tag import TagRemoved, TagSet
from eventlog.envelope import NewEvent, RecordedEvent, StreamAppend
from eventlog.log import EventLog

_STREAMS = "SELECT DISTINCT stream FROM event WHERE stream LIKE $2 AND position($1::bytea IN data) > 0 ORDER BY stream"
_NAMES = ("00100010", "00100020", "00101000", "00101001", "00101005", "00080050")
"""Patient's name and birth name, Patient ID and other ones, other names, accession number."""
LEAST_CHARACTERS = 4
"""Shorter texts are found in any file."""
_ENCODINGS = ("utf-8", "latin-1", "utf-16-le", "utf-16-be", "shift_jis", "euc_jp", "iso2022_jp", "euc_kr", "gb18030", "iso8859-5", "iso8859-7")


class Holdings(msgspec.Struct, kw_only=True):
    """``known_as``: its id, and those of numbers that were joined into it. ``files``: digest → bytes. ``of_others``: what is to be said again of the same series, since it goes with them.

    ``tags_of_others``: stream → its version, and the tags that others have there on what goes with the subject's.
    """

    subject_id: SubjectId
    known_as: list[SubjectId]
    study_versions: dict[str, int]
    series_versions: dict[str, int]
    study_of: dict[str, str]
    files: dict[str, int]
    of_others: list[RecordedEvent]
    tags_of_others: dict[str, tuple[int, list[RecordedEvent]]] = msgspec.field(default_factory=dict)

    def erased(self) -> SubjectErased:
        return SubjectErased(
            subject_id=self.subject_id,
            study_uids=sorted(self.study_versions),
            series_uids=sorted(self.series_versions),
            files=len(self.files),
            bytes=sum(self.files.values()),
        )


async def find_holdings(log: EventLog, subject_id: SubjectId) -> Holdings:
    """Everything, before its erasure or after it."""
    joined = await _streams(log, f'"into_subject_id":"{subject_id}"', "subject-%")
    known_as = [subject_id, *(SubjectId(stream.removeprefix("subject-")) for stream in joined)]
    found = Holdings(
        subject_id=subject_id, known_as=known_as, study_versions={}, series_versions={}, study_of={}, files={}, of_others=[]
    )
    series = await _streams(log, f'subject_id":"{subject_id}"', "series-%")
    studies = set(await _streams(log, f'subject_id":"{subject_id}"', "study-%"))
    for stream in series:
        studies.update(study_stream(uid) for uid in _studies_in(await log.read_stream(stream), subject_id))
    shared = False
    for stream in sorted(studies):
        recorded = await log.read_stream(stream)
        found.study_versions[stream.removeprefix("study-")] = recorded[-1].version if recorded else 0
        shared = shared or any(_names_another(one.event, subject_id) for one in recorded)
    if shared:  # series of others in the same studies: their rows go too, and come again
        for uid in found.study_versions:
            series += await _streams(log, f'"study_uid":"{uid}"', "series-%")
    for stream in sorted(set(series)):
        await _take_series(log, stream, found)
    for uid in found.study_versions if shared else ():
        for stream in await _streams(log, f'"study_uid":"{uid}"', "tag-%"):
            await _take_tags(log, stream, found)
    return found


async def identities(log: EventLog, holdings: Holdings) -> list[bytes]:
    """What names the person in files, in the encodings that DICOM knows; for as long as the key exists. Written nowhere."""
    texts: set[str] = set()
    for one in await log.read_stream(subject_stream(holdings.subject_id)):
        if isinstance(one.event, SubjectRegistered | SubjectDemographicsChanged):
            person = one.event.demographics
            texts.update((person.patient_id, *person.patient_name.split("=")))
        elif isinstance(one.event, ClinicalRecordWritten):
            texts.update(_texts_of_patient(one.event.resource))
    for uid in holdings.series_versions:
        for one in await log.read_stream(series_stream(uid)):
            if isinstance(one.event, InstancesStored) and one.event.subject_id == holdings.subject_id:
                for header in (one.event.common, *one.event.headers):
                    texts.update(_texts(header))
    wanted = {text.strip() for text in texts if len(text.strip()) >= LEAST_CHARACTERS}
    return sorted({encoded for text in wanted for encoded in _encoded(text)})


def appends(holdings: Holdings, erased: SubjectErased, subject_version: int) -> list[StreamAppend]:
    """The erasure in the subject's stream, the end of each study and series in theirs, and what others have there, again."""
    subject_id = holdings.subject_id

    def said(event: Event, *key: str) -> NewEvent:
        return NewEvent(event=event, event_id=derived_id("erased", subject_id, type(event).__name__, *key))

    made = [StreamAppend(stream=subject_stream(subject_id), events=[said(erased)], expected_version=subject_version)]
    for study_uid, version in holdings.study_versions.items():
        events = [said(StudyErased(study_uid=study_uid, subject_id=subject_id), study_uid)]
        others = _subjects_of(holdings, study_uid)
        for n, other in enumerate(others):
            again: Event
            if n == 0:
                again = StudyRegistered(study_uid=study_uid, subject_id=other)
            else:
                again = StudySubjectDisputed(study_uid=study_uid, registered_subject_id=others[0], disputed_subject_id=other)
            events.append(said(again, study_uid, other))
        made.append(StreamAppend(stream=study_stream(study_uid), events=events, expected_version=version))
    for series_uid, version in holdings.series_versions.items():
        gone = SeriesErased(study_uid=holdings.study_of[series_uid], series_uid=series_uid, subject_id=subject_id)
        events = [said(gone, series_uid)]
        for one in holdings.of_others:
            if one.stream == series_stream(series_uid):
                events.append(_again(subject_id, one))
        made.append(StreamAppend(stream=series_stream(series_uid), events=events, expected_version=version))
    for stream, (version, tags) in holdings.tags_of_others.items():  # last: by now there is again what they are on
        events = [_again(subject_id, one) for one in tags]
        made.append(StreamAppend(stream=stream, events=events, expected_version=version))
    return made


def _again(subject_id: SubjectId, one: RecordedEvent) -> NewEvent:
    """What was said of others, with the erasure of this subject."""
    id_ = derived_id("said-again", subject_id, str(one.event_id))
    return NewEvent(event=one.event, event_id=id_, causation_id=one.event_id, occurred_at=one.occurred_at)


async def _streams(log: EventLog, needle: str, like: str) -> list[str]:
    rows = await log.pool.fetch(_STREAMS, needle.encode("utf-8"), like)
    return [row["stream"] for row in rows]


def _studies_in(recorded: Sequence[RecordedEvent], subject_id: str) -> Iterator[str]:
    for one in recorded:
        event = one.event
        if isinstance(event, InstancesStored | InstanceConflicted) and event.subject_id == subject_id:
            yield event.study_uid


def _names_another(event: Event, subject_id: str) -> bool:
    match event:
        case StudyRegistered():
            return event.subject_id != subject_id
        case StudySubjectDisputed():
            return True
    return False


async def _take_series(log: EventLog, stream: str, found: Holdings) -> None:
    recorded = await log.read_stream(stream)
    uid = stream.removeprefix("series-")
    found.series_versions[uid] = recorded[-1].version
    kept: list[RecordedEvent] = []
    ours: dict[str, int] = {}
    others = {one.event.subject_id for one in recorded if isinstance(one.event, InstancesStored)} - {found.subject_id}
    for one in recorded:
        match one.event:
            case SeriesErased():
                kept.clear()
            case InstancesStored() as event:
                found.study_of[uid] = event.study_uid
                if event.subject_id == found.subject_id:
                    ours.update({i.sha256: i.size for i in event.instances})
                else:
                    kept.append(one)
            case InstanceConflicted() as event:
                if event.subject_id == found.subject_id or (not event.subject_id and not others):
                    ours[event.conflicting_sha256] = event.conflicting_size
                else:
                    kept.append(one)
    of_others = {i.sha256 for one in kept if isinstance(one.event, InstancesStored) for i in one.event.instances}
    found.files.update({sha256: size for sha256, size in ours.items() if sha256 not in of_others})
    found.of_others += kept


async def _take_tags(log: EventLog, stream: str, found: Holdings) -> None:
    """Of a stream of tags, those that stand, where they are of somebody else who is there."""
    recorded = await log.read_stream(stream)
    standing: dict[str, RecordedEvent] = {}
    for one in recorded:
        match one.event:
            case TagSet() as event if event.subject_id != found.subject_id:
                standing[event.name] = one
            case TagRemoved() as event:
                standing.pop(event.name, None)
    others = {one.event.subject_id for one in standing.values() if isinstance(one.event, TagSet)}
    gone = {other for other in others if await log.vault.is_destroyed(other, log.pool)}
    tags = [one for one in standing.values() if isinstance(one.event, TagSet) and one.event.subject_id not in gone]
    if tags:
        found.tags_of_others[stream] = recorded[-1].version, tags


def _subjects_of(holdings: Holdings, study_uid: str) -> list[str]:
    """Whose instances stay in a study, in the order in which they came."""
    stay = [one.event for one in holdings.of_others if isinstance(one.event, InstancesStored)]
    return list(dict.fromkeys(event.subject_id for event in stay if event.study_uid == study_uid))


def _texts(header: DicomJson) -> Iterator[str]:
    for tag in _NAMES:
        for value in header.get(tag, {}).get("Value") or ():
            yield from (str(group) for group in value.values()) if isinstance(value, dict) else (str(value or ""),)


def _texts_of_patient(resource: dict[str, Any]) -> Iterator[str]:
    """Its numbers, and its names as DICOM writes them (family, given)."""
    for identifier in resource.get("identifier", ()):
        yield identifier.get("value", "")
    for name in resource.get("name", ()):
        if name.get("family") and name.get("given"):
            yield f"{name['family']}^{name['given'][0]}"


def _encoded(text: str) -> Iterator[bytes]:
    for encoding in _ENCODINGS:
        try:
            yield text.encode(encoding)
        except UnicodeEncodeError:
            continue
