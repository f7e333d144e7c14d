"""Reviews of findings and signatures over HTTP, and what the command line does by the same functions."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

import msgspec
from fastapi import APIRouter, Depends, Request, Response

from domain import review
from domain.errors import (
    AlreadySigned,
    FindingUnknown,
    NotSignable,
    ReviewIsObsolete,
    SignerUnknown,
)
from domain.ids import Position, StreamName
from domain.principal import Principal
from domain.review import ReviewFinding, SeriesFindings, Verdict
from domain.signature import Meaning
from eventlog.aggregate import execute
from eventlog.envelope import new_event_id
from eventlog.log import EventLog
from projections.ledger.projection import SCHEMA
from server import signing
from server.auth.principals import Authenticated, requires
from server.errors import PassphraseTooShort, PassphraseWrong, SignerLocked
from server.plain_json import body_of, json_answer, log_of, refusals

Reviewer = Annotated[Authenticated, Depends(requires("reviews:write"))]
router = APIRouter(tags=["Reviews"])

_STATUS: dict[type[Exception], int] = {
    FindingUnknown: 404,
    SignerUnknown: 409,
    ReviewIsObsolete: 409,
    AlreadySigned: 409,
    NotSignable: 403,
    PassphraseWrong: 401,
    SignerLocked: 429,
    PassphraseTooShort: 422,
}


class SignatureWanted(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The signer authenticates again by the passphrase, and states the meaning."""

    meaning: Meaning
    passphrase: str


class ReviewWanted(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    finding: str
    verdict: Verdict
    comment: str = ""
    series_digest: str | None = None
    signature: SignatureWanted | None = None


class Enrollment(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    printed_name: str
    passphrase: str


class Done(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The event that stands for the act, and the position of the last event that it led to."""

    event_id: str
    position: Position
    signed_by_key: str | None = None


async def review_finding(
    log: EventLog, principal: Principal, command: ReviewFinding, signature: SignatureWanted | None = None
) -> Done:
    """Reviews a finding, and signs the review where that is wanted: the signer is authenticated before anything is recorded.

    Raises FindingUnknown, ReviewIsObsolete, and what signing raises.
    """
    signer = await signing.unlock(log.pool, principal, signature.passphrase) if signature else None
    event_id = new_event_id()
    done = await execute(
        log,
        await stream_of_finding(log, command.finding_key),
        SeriesFindings(),
        review.evolve,
        lambda state: review.review_finding(state, command),
        principal=principal,
        event_ids=[event_id],
    )
    assert done.position is not None
    if signature is None or signer is None:
        return Done(event_id=str(event_id), position=done.position)
    return await _signed(log, principal, event_id, signature.meaning, signer)


async def sign_event(log: EventLog, principal: Principal, event_id: UUID, signature: SignatureWanted) -> Done:
    """Signs an event of the log. Raises what signing raises, and NotSignable where there is no such event."""
    signer = await signing.unlock(log.pool, principal, signature.passphrase)
    return await _signed(log, principal, event_id, signature.meaning, signer)


async def _signed(log: EventLog, principal: Principal, event_id: UUID, meaning: Meaning, signer: signing.UnlockedSigner) -> Done:
    recorded = await signing.event_by_id(log, event_id)
    if recorded is None:
        raise NotSignable(f"there is no event {event_id}")
    position = await signing.sign(log, recorded, meaning, signer, principal)
    return Done(event_id=str(event_id), position=position, signed_by_key=signer.key_id)


async def stream_of_finding(log: EventLog, finding_key: str) -> StreamName:
    """The stream of the series in which the finding is, by the ledger of what each event is about. Raises FindingUnknown."""
    stream = await log.pool.fetchval(
        f"SELECT e.stream FROM {SCHEMA}.touched t JOIN {SCHEMA}.entry e ON e.position = t.position WHERE t.tag = $1"
        " ORDER BY t.position LIMIT 1",
        f"finding:{finding_key}",
    )
    if stream is None:
        raise FindingUnknown(f"no standing index holds a finding {finding_key}")
    return StreamName(stream)


@router.post("/reviews")
async def post_review(request: Request, reviewer: Reviewer) -> Response:
    wanted = await body_of(request, ReviewWanted)
    command = ReviewFinding(
        finding_key=wanted.finding, verdict=wanted.verdict, comment=wanted.comment, series_digest=wanted.series_digest
    )
    with refusals(_STATUS):
        return json_answer(await review_finding(log_of(request), reviewer.principal, command, wanted.signature), 201)


@router.post("/events/{event_id}/signature")
async def post_signature(request: Request, reviewer: Reviewer, event_id: UUID) -> Response:
    wanted = await body_of(request, SignatureWanted)
    with refusals(_STATUS):
        return json_answer(await sign_event(log_of(request), reviewer.principal, event_id, wanted), 201)


@router.post("/signers")
async def post_signer(request: Request, reviewer: Reviewer) -> Response:
    """Enrolls whoever asks, or gives a new key in place of the old one."""
    wanted = await body_of(request, Enrollment)
    with refusals(_STATUS):
        key_id = await signing.enroll(log_of(request), reviewer.principal, wanted.printed_name, wanted.passphrase)
    return json_answer({"key_id": key_id, "principal": reviewer.principal.id}, 201)


@router.delete("/signers")
async def delete_signer(request: Request, reviewer: Reviewer) -> Response:
    """Ends the key of whoever asks."""
    with refusals(_STATUS):
        await signing.revoke(log_of(request), reviewer.principal.id, by=reviewer.principal)
    return Response(status_code=204)
