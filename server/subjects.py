"""Subjects over HTTP, and what the command line does by the same functions: legal holds, and erasure by two persons."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Annotated
from uuid import UUID, uuid4

import msgspec
from fastapi import APIRouter, Depends, Request, Response

from domain import subject
from domain.errors import (
    LegalHoldUnknown,
    PersonNeeded,
    SamePerson,
    SubjectIsErased,
    SubjectUnknown,
)
from domain.event import Event
from domain.ids import SubjectId, subject_stream
from domain.principal import Principal
from domain.subject import (
    ErasureConfirmed,
    ErasureRequested,
    LegalBasis,
    LegalHoldLifted,
    LegalHoldPlaced,
    Subject,
    SubjectErased,
)
from eventlog.aggregate import execute
from eventlog.log import EventLog
from server.auth.principals import Authenticated, requires
from server.plain_json import body_of, json_answer, log_of, refusals

Eraser = Annotated[Authenticated, Depends(requires("subjects:erase"))]
router = APIRouter(prefix="/subjects", tags=["Subjects"])

_STATUS: dict[type[Exception], int] = {
    SubjectUnknown: 404,
    LegalHoldUnknown: 404,
    SubjectIsErased: 410,
    SamePerson: 403,
    PersonNeeded: 403,
}


class Hold(msgspec.Struct, frozen=True, kw_only=True):
    hold_id: str
    reason: str
    placed_by: str
    placed_at: datetime


class ErasureStatus(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """``erasure``: none, requested, confirmed, started, erased. ``undone``: what the database did not let us do, in words."""

    subject_id: str
    erasure: str
    holds: Sequence[Hold] = ()
    legal_basis: str | None = None
    requested_by: str | None = None
    requested_at: datetime | None = None
    confirmed_by: str | None = None
    confirmed_at: datetime | None = None
    key_destroyed_at: datetime | None = None
    purged_at: datetime | None = None
    studies: int = 0
    series: int = 0
    files: int = 0
    bytes: int = 0
    undone: Sequence[str] = ()


class ErasureWanted(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    legal_basis: LegalBasis


class HoldWanted(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    reason: str


async def status_of(log: EventLog, subject_id: SubjectId) -> ErasureStatus:
    """Raises SubjectUnknown."""
    recorded = await log.read_stream(subject_stream(subject_id))
    state = Subject()
    holds: dict[str, Hold] = {}
    found = ErasureStatus(subject_id=subject_id, erasure=state.erasure.value)
    replace = msgspec.structs.replace
    for one in recorded:
        state = subject.evolve(state, one.event)
        match one.event:
            case LegalHoldPlaced() as event:
                holds[event.hold_id] = Hold(
                    hold_id=event.hold_id, reason=event.reason, placed_by=one.principal.id, placed_at=one.recorded_at
                )
            case LegalHoldLifted() as event:
                holds.pop(event.hold_id, None)
            case ErasureRequested() as event:
                found = replace(found, legal_basis=event.legal_basis.value, requested_by=event.requested_by, requested_at=one.recorded_at)
            case ErasureConfirmed():
                found = replace(found, confirmed_by=one.principal.id, confirmed_at=one.recorded_at)
            case SubjectErased() as event:
                counts = {"studies": len(event.study_uids), "series": len(event.series_uids)}
                found = replace(found, files=event.files, bytes=event.bytes, **counts)
            case subject.ErasureWithdrawn():
                found = ErasureStatus(subject_id=subject_id, erasure=state.erasure.value)
    if not state.is_known:
        raise SubjectUnknown(f"there is no subject {subject_id}: `anamnesis subject find` gives the id of a person")
    row = await log.pool.fetchrow("SELECT destroyed_at, purged_at, undone FROM subject_key WHERE subject_id = $1", subject_id)
    if row is not None:
        found = replace(found, key_destroyed_at=row["destroyed_at"], purged_at=row["purged_at"], undone=row["undone"] or ())
    return replace(found, erasure=state.erasure.value, holds=list(holds.values()))


async def erasures(log: EventLog) -> list[ErasureStatus]:
    """Every subject whose erasure was ever asked for, in the order of the first request."""
    rows = await log.pool.fetch(
        "SELECT stream, min(position) AS first FROM event WHERE type = 'ErasureRequested' GROUP BY stream ORDER BY first"
    )
    return [await status_of(log, SubjectId(row["stream"].removeprefix("subject-"))) for row in rows]


async def request_erasure(log: EventLog, subject_id: SubjectId, basis: LegalBasis, by: Principal) -> None:
    """Raises what `domain.subject.request_erasure` raises."""
    await _decide(log, subject_id, lambda state: subject.request_erasure(state, subject_id, basis, by), by)


async def confirm_erasure(log: EventLog, subject_id: SubjectId, by: Principal) -> None:
    """A server, or `anamnesis subject confirm`, carries it out. Raises what `domain.subject.confirm_erasure` raises."""
    await _decide(log, subject_id, lambda state: subject.confirm_erasure(state, subject_id, by), by)


async def withdraw_erasure(log: EventLog, subject_id: SubjectId, by: Principal) -> None:
    """Raises what `domain.subject.withdraw_erasure` raises."""
    await _decide(log, subject_id, lambda state: subject.withdraw_erasure(state, subject_id), by)


async def place_hold(log: EventLog, subject_id: SubjectId, reason: str, by: Principal) -> str:
    """Gives the hold's id. Raises what `domain.subject.place_hold` raises."""
    hold_id = uuid4().hex[:12]
    await _decide(log, subject_id, lambda state: subject.place_hold(state, subject_id, hold_id, reason), by)
    return hold_id


async def lift_hold(log: EventLog, subject_id: SubjectId, hold_id: str, by: Principal) -> None:
    """Raises what `domain.subject.lift_hold` raises."""
    await _decide(log, subject_id, lambda state: subject.lift_hold(state, subject_id, hold_id), by)


async def _decide(log: EventLog, subject_id: SubjectId, decide: Callable[[Subject], list[Event]], by: Principal) -> None:
    await execute(log, subject_stream(subject_id), Subject(), subject.evolve, decide, principal=by)


@router.get("/erasures")
async def get_erasures(request: Request, eraser: Eraser) -> Response:
    """Every erasure that was asked for, and how far it is."""
    return json_answer(await erasures(log_of(request)))


@router.get("/{subject_id}/erasure")
async def get_erasure(request: Request, eraser: Eraser, subject_id: UUID) -> Response:
    """How far the erasure of a subject is, and which holds stand."""
    return await _answer(request, subject_id)


@router.post("/{subject_id}/erasure")
async def post_erasure(request: Request, eraser: Eraser, subject_id: UUID) -> Response:
    """Asks for the erasure of a subject: ``{"legal_basis": "gdpr-17-1-b"}``."""
    wanted = await body_of(request, ErasureWanted)
    with refusals(_STATUS):
        await request_erasure(log_of(request), _id(subject_id), wanted.legal_basis, eraser.principal)
    return await _answer(request, subject_id, 201)


@router.delete("/{subject_id}/erasure")
async def delete_erasure(request: Request, eraser: Eraser, subject_id: UUID) -> Response:
    """Withdraws what was asked for, until it begins to be carried out."""
    with refusals(_STATUS):
        await withdraw_erasure(log_of(request), _id(subject_id), eraser.principal)
    return await _answer(request, subject_id)


@router.post("/{subject_id}/erasure/confirmation")
async def post_confirmation(request: Request, eraser: Eraser, subject_id: UUID) -> Response:
    """Another person agrees; the server then carries it out, and GET says how far it is."""
    with refusals(_STATUS):
        await confirm_erasure(log_of(request), _id(subject_id), eraser.principal)
    return await _answer(request, subject_id, 202)


@router.post("/{subject_id}/holds")
async def post_hold(request: Request, eraser: Eraser, subject_id: UUID) -> Response:
    """Places a legal hold: ``{"reason": "…"}``, which is kept sealed."""
    wanted = await body_of(request, HoldWanted)
    with refusals(_STATUS):
        hold_id = await place_hold(log_of(request), _id(subject_id), wanted.reason, eraser.principal)
    return json_answer({"hold_id": hold_id}, 201)


@router.delete("/{subject_id}/holds/{hold_id}")
async def delete_hold(request: Request, eraser: Eraser, subject_id: UUID, hold_id: str) -> Response:
    """Lifts a legal hold."""
    with refusals(_STATUS):
        await lift_hold(log_of(request), _id(subject_id), hold_id, eraser.principal)
    return Response(status_code=204)


async def _answer(request: Request, subject_id: UUID, status: int = 200) -> Response:
    with refusals(_STATUS):
        return json_answer(await status_of(log_of(request), _id(subject_id)), status)


def _id(subject_id: UUID) -> SubjectId:
    return SubjectId(str(subject_id))
