"""What auditors ask over HTTP: the timeline of anything, and the lineage of a finding, as of any position or instant."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response

from domain.ids import Position
from eventlog.log import EventLog
from projections.checkpoint import reached
from projections.ledger.projection import LedgerProjection
from server.as_of import HEADER, AsOfInvalid, known_position, written
from server.audit.lineage import lineage
from server.audit.reads import saw_subjects
from server.audit.timeline import DEFAULT_LIMIT, MAX_LIMIT, timeline
from server.auth.principals import Authenticated
from server.errors import NothingKnown, ScopeMissing
from server.plain_json import json_answer, refusals
from server.read_models import reads
from server.services import Services

Auditor = Annotated[Authenticated, Depends(reads("audit:read", "ledger"))]
AsOfText = Annotated[str | None, Query(alias="as_of")]
router = APIRouter(prefix="/audit", tags=["Audit"])
_STATUS: dict[type[Exception], int] = {NothingKnown: 404, AsOfInvalid: 400}


@router.get("/timeline/{wanted:path}")
async def get_timeline(
    request: Request,
    auditor: Auditor,
    wanted: str,
    as_of: AsOfText = None,
    after: Annotated[int, Query(ge=0, lt=2**62)] = 0,
    limit: Annotated[int, Query(ge=1, le=MAX_LIMIT)] = DEFAULT_LIMIT,
    identities: bool = False,
) -> Response:
    """Every event that touched what the id names. ``identities`` takes the scope identities:read."""
    if identities and not auditor.may("identities:read"):
        raise ScopeMissing("identities:read")
    services: Services = request.app.state.services
    with refusals(_STATUS):
        position = await asked_position(services.log, written(request.query_params.multi_items(), "as_of"))
        found = await timeline(services.log, wanted, as_of=position, after=after, limit=limit, identities=identities)
    saw_subjects(request, found.subjects)
    return json_answer(found, headers={HEADER: str(position)})


@router.get("/lineage/{finding}")
async def get_lineage(request: Request, auditor: Auditor, finding: str, as_of: AsOfText = None) -> Response:
    """Where a finding comes from, back to the received bytes."""
    services: Services = request.app.state.services
    with refusals(_STATUS):
        position = await asked_position(services.log, written(request.query_params.multi_items(), "as_of"))
        found = await lineage(services.log, finding, as_of=position)
    saw_subjects(request, [found.subject_id])
    return json_answer(found, headers={HEADER: str(position)})


async def asked_position(log: EventLog, as_of: str | None) -> Position:
    """As of which an auditor's question is answered: what was asked for, or how far the ledger has come.

    Raises AsOfInvalid, ProjectionBehind.
    """
    ledger = LedgerProjection()
    if as_of is None:
        return await reached(log.pool, ledger.name, ledger.version)
    return await known_position(log.pool, ledger, as_of)
