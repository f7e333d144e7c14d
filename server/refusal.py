"""What is refused: kept in the rejects folder, and said in the log with its reason. Of an erased subject nothing is kept."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from uuid import UUID

from archive.identity import patient_number
from archive.rejects import RejectedFile, Rejects
from domain import subject
from domain.ids import INTAKE_STREAM, SubjectId, derived_id, subject_stream
from domain.intake import FileRefused
from domain.principal import Principal
from domain.subject import Subject
from eventlog.aggregate import load
from eventlog.envelope import NewEvent, StreamAppend, new_event_id
from eventlog.log import EventLog
from eventlog.vault import Vault
from server.verdict import Verdict

SUBJECT_ERASED = "subject-erased"
_UID = re.compile(r"[0-9.]{1,64}")
"""PS3.5, 9.1. Whatever else a sender writes where a UID belongs may be a name, and is not kept in the clear."""
_ERASED_DETAIL = "the subject was erased: nothing of it is taken in, and no copy was kept"


async def refuse(
    log: EventLog,
    rejects: Rejects,
    path: Path,
    *,
    reason: str,
    detail: str,
    door: str,
    principal: Principal,
    sop_class_uid: str = "",
    sop_instance_uid: str = "",
    once: bool = False,
) -> Verdict:
    """Copies the bytes at ``path``, which stays as it is. Durable on return. ``once``: the same refusal again is nothing new.

    Raises LogUnavailable.
    """
    kept = await _keep(log, rejects, path, reason=reason, detail=detail, door=door)
    erased = kept.reason == SUBJECT_ERASED
    event = FileRefused(
        reject_id=kept.reject_id,
        sha256=kept.sha256,
        size=kept.size,
        reason=kept.reason,
        detail=kept.detail,
        door=door,
        sop_instance_uid=sop_instance_uid if not erased and _UID.fullmatch(sop_instance_uid) else None,
    )
    event_id: UUID = derived_id("refused", kept.reject_id, door, kept.detail) if once else new_event_id()
    append = StreamAppend(stream=INTAKE_STREAM, events=[NewEvent(event=event, event_id=event_id)])
    appended = await log.append([append], principal=principal)
    return Verdict(
        outcome="refused",
        reason=kept.reason,
        detail=kept.detail,
        sop_class_uid=sop_class_uid,
        sop_instance_uid=sop_instance_uid,
        position=appended.last,
    )


def subject_of_file(vault: Vault, path: Path) -> SubjectId | None:
    """Whose these bytes are; None where they do not say. Raises FileNotFoundError."""
    number = patient_number(path)
    return vault.subject_id(number.patient_id, number.issuer, otherwise=number.study_uid) if number is not None else None


async def is_going(log: EventLog, subject_id: str) -> bool:
    """Whether this subject is erased, or about to be: nothing of it may be written to the disk any more."""
    return (await load_subject(log, subject_id))[0].is_going


async def load_subject(log: EventLog, subject_id: str) -> tuple[Subject, SubjectId]:
    """The subject, and its id: another's where a client wrote its number into that one's Patient."""
    state, _ = await load(log, subject_stream(subject_id), Subject(), subject.evolve)
    return await load_subject(log, state.joined_into) if state.joined_into else (state, SubjectId(subject_id))


async def _keep(log: EventLog, rejects: Rejects, path: Path, *, reason: str, detail: str, door: str) -> RejectedFile:
    if reason == SUBJECT_ERASED:
        return await asyncio.to_thread(_named_only, rejects, path, door)
    of = await asyncio.to_thread(subject_of_file, log.vault, path)
    if of is not None and await is_going(log, of):
        return await asyncio.to_thread(_named_only, rejects, path, door)
    kept = await asyncio.to_thread(rejects.keep, path, reason=reason, detail=detail, door=door)
    if of is not None and await is_going(log, of):  # it began while the copy was made, and may have looked here before
        await asyncio.to_thread(rejects.remove, kept.reject_id)
        return await asyncio.to_thread(_named_only, rejects, path, door)
    return kept


def _named_only(rejects: Rejects, path: Path, door: str) -> RejectedFile:
    return rejects.name(path, reason=SUBJECT_ERASED, detail=_ERASED_DETAIL, door=door)
