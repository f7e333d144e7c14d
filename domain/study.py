"""A study: registered with its first instance, and of one subject; a second subject under the same UID is a dispute, not a merge."""

from __future__ import annotations

import msgspec

from domain.event import Event, event


@event
class StudyRegistered(Event, frozen=True, kw_only=True):
    study_uid: str
    subject_id: str


@event
class StudySubjectDisputed(Event, frozen=True, kw_only=True):
    """Instances of this study name another subject than the one it was registered for. Both stand until a person decides."""

    study_uid: str
    registered_subject_id: str
    disputed_subject_id: str


@event
class StudyErased(Event, frozen=True, kw_only=True):
    """This study went with its erased subject. What it holds of others follows again in the same append."""

    study_uid: str
    subject_id: str


class Study(msgspec.Struct, frozen=True, kw_only=True):
    subject_id: str | None = None
    disputed: frozenset[str] = frozenset()


def evolve(state: Study, happened: Event) -> Study:
    match happened:
        case StudyRegistered():
            return msgspec.structs.replace(state, subject_id=happened.subject_id)
        case StudySubjectDisputed():
            return msgspec.structs.replace(state, disputed=state.disputed | {happened.disputed_subject_id})
        case StudyErased():
            return Study()
    return state


def register_study(state: Study, study_uid: str, subject_id: str) -> list[Event]:
    """Registers a study once; says so when it comes again under another subject."""
    if state.subject_id is None:
        return [StudyRegistered(study_uid=study_uid, subject_id=subject_id)]
    if state.subject_id == subject_id or subject_id in state.disputed:
        return []
    return [
        StudySubjectDisputed(study_uid=study_uid, registered_subject_id=state.subject_id, disputed_subject_id=subject_id)
    ]
