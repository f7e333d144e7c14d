"""What a projection is: a name, a version, the event types that it handles, its tables, and how a batch changes them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, TypeVar, runtime_checkable

import asyncpg

from domain.event import Event
from eventlog.envelope import RecordedEvent
from projections.errors import UnknownProjection


class Projection(Protocol):
    """Rebuilding must give the same bytes: no clock, no random ids, no I/O but through the connection that is handed in."""

    @property
    def name(self) -> str: ...

    @property
    def version(self) -> int:
        """A changed projection has a new version, and so a schema of its own that is built beside the old one."""

    @property
    def handles(self) -> frozenset[type[Event]]: ...

    @property
    def statements(self) -> Sequence[str]:
        """DDL, run once, with the projection's own schema as search_path.

        Plain ``CREATE INDEX`` comes last, once a build holds the whole log or meets the first erasure: what ``apply`` looks up
        at other times needs a primary key or a unique index.
        """

    async def apply(self, batch: Sequence[RecordedEvent], connection: asyncpg.Connection) -> None:
        """Changes the tables (search_path is the projection's schema), in the transaction that moves the checkpoint.

        Where the batch begins and ends must not matter.
        """


@runtime_checkable
class BeginsWith(Protocol):
    """A projection whose tables hold something before the first event."""

    async def begin(self, connection: asyncpg.Connection) -> None:
        """Fills the new tables (search_path is their schema), in the transaction that makes them: the same bytes each time."""


@runtime_checkable
class WorksLater(Protocol):
    """A projection that leaves some of what an event asks for to be done in the background: what takes as long as the archive is large.

    What it has made when all is done must be what the log says, however that was mixed with batches of events.
    """

    may_have_work: bool
    """Whether there is anything to be looked for. True of what has just begun."""

    async def work(self, connection: asyncpg.Connection) -> bool:
        """Does one piece, in a transaction in which nobody else writes the tables; False where nothing is left."""

    async def is_done(self, connection: asyncpg.Connection) -> bool:
        """Whether nothing is left."""


P = TypeVar("P", bound=Projection)


def schema_name(projection: Projection) -> str:
    """The PostgreSQL schema of this version's tables, as readers write it in their SQL."""
    return f"{projection.name}_v{projection.version}"


def named(projections: Iterable[P], name: str) -> P:
    """Raises UnknownProjection."""
    known = {projection.name: projection for projection in projections}
    if name not in known:
        raise UnknownProjection(f"there is no projection {name}: {', '.join(known)} exist")
    return known[name]
