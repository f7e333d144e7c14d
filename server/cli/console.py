"""Who reads at the command line without a token, and the record of it: a user of this machine, by number, since names are of persons."""

from __future__ import annotations

import os
from collections.abc import Iterable

from domain.access import AccessesRecorded, Action
from domain.event import Event
from domain.principal import Principal, PrincipalKind
from eventlog.log import EventLog
from server.settings import ServerSettings

MAX_SUBJECTS = 1_000
"""In one record of a read, which becomes one AuditEvent."""


def console() -> Principal:
    """The user who runs this process."""
    return Principal(id=f"console:uid-{os.getuid()}", kind=PrincipalKind.PERSON)


async def record_read(
    log: EventLog, action: Action, command: str, *, subjects: Iterable[str] = (), things: Iterable[str] = (), by: Principal | None = None
) -> None:
    """Before anything is shown: what cannot be recorded is not read. Raises LogUnavailable."""
    from server.audit.recorder import append_accesses, one_access

    if ServerSettings().audit_reads:
        whom = sorted(set(subjects))
        for first in range(0, max(1, len(whom)), MAX_SUBJECTS):
            some = whom[first : first + MAX_SUBJECTS]
            await append_accesses(log, one_access(by or console(), action, route=f"anamnesis {command}", things=things, subjects=some))


def subjects_of(events: Iterable[Event]) -> set[str]:
    """Those that events are about. A record of accesses says who looked at somebody, and nothing else of them."""
    about = (event for event in events if not isinstance(event, AccessesRecorded))
    return {tag.removeprefix("subject:") for event in about for tag in event.scope() if tag.startswith("subject:")}
