"""Who looked at what: reads, searches, exports, logins and refusals, many in one event (no commit a read).

What was asked is kept by names and identifiers alone: a search by a person's name leaves the parameter's name in the log
and never its value. Whose data were in the answer is said by pseudonym.
"""

from __future__ import annotations

from datetime import datetime
from enum import StrEnum

import msgspec

from domain.event import Event, event
from domain.ids import StreamName
from domain.principal import Principal


class Action(StrEnum):
    """What was done to the data. ``login``: a token was used for the first time in a while."""

    READ = "read"
    VREAD = "vread"
    HISTORY = "history"
    SEARCH = "search"
    QUERY = "query"
    RETRIEVE = "retrieve"
    RENDER = "render"
    AUDIT = "audit"
    EXPORT = "export"
    LOGIN = "login"
    OTHER = "other"


class Outcome(StrEnum):
    """How it ended. ``refused``: the principal was not known, or may not do it."""

    SUCCESS = "success"
    REFUSED = "refused"
    NOT_FOUND = "not-found"
    FAILED = "failed"


class Access(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one principal did between two instants, ``count`` times in the same way.

    ``route`` is the route's template. ``things`` are what was named: ``Patient/8a1f…``, ``study:1.2.3``, ``series:1.2.3.4``.
    ``parameters`` are names of search parameters. ``subjects`` are those whose data were in the answers.
    """

    first_at: datetime
    last_at: datetime
    count: int
    principal: Principal
    action: Action
    outcome: Outcome
    route: str = ""
    resource_type: str = ""
    things: tuple[str, ...] = ()
    parameters: tuple[str, ...] = ()
    subjects: tuple[str, ...] = ()


@event
class AccessesRecorded(Event, frozen=True, kw_only=True):
    """Accesses of some seconds at one server. ``lost`` were not recorded: the log did not take them for too long."""

    accesses: tuple[Access, ...]
    lost: int = 0

    def scope(self) -> frozenset[str]:
        return frozenset(f"subject:{subject_id}" for access in self.accesses for subject_id in access.subjects)


def access_stream(site: str) -> StreamName:
    """Where a site records who read."""
    return StreamName(f"access-{site}")
