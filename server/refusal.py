"""What never gets as far as the spool: kept in the rejects folder, and said in the log with its reason."""

from __future__ import annotations

import asyncio
from pathlib import Path

from archive.rejects import Rejects
from domain.ids import INTAKE_STREAM
from domain.intake import FileRefused
from domain.principal import Principal
from eventlog.envelope import NewEvent, StreamAppend
from eventlog.log import EventLog
from server.intake import Verdict


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
) -> Verdict:
    """Copies the bytes at ``path``, which stays as it is. Durable on return. Raises LogUnavailable."""
    kept = await asyncio.to_thread(rejects.keep, path, reason=reason, detail=detail, door=door)
    event = FileRefused(
        reject_id=kept.reject_id,
        sha256=kept.sha256,
        size=kept.size,
        reason=reason,
        detail=detail,
        door=door,
        sop_instance_uid=sop_instance_uid or None,
    )
    append = StreamAppend(stream=INTAKE_STREAM, events=[NewEvent(event=event)])
    appended = await log.append([append], principal=principal)
    return Verdict(
        outcome="refused",
        reason=reason,
        detail=detail,
        sop_class_uid=sop_class_uid,
        sop_instance_uid=sop_instance_uid,
        position=appended.last,
    )
