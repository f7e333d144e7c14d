"""The ledger: one entry an event of whatever type, and what it touched."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

import asyncpg

from domain.event import EVENT_TYPES, Event
from eventlog.envelope import RecordedEvent
from projections.ledger.tables import ENTRY_COLUMNS, STATEMENTS
from projections.ledger.tags import tags_of

NAME, VERSION = "ledger", 1
SCHEMA = f"{NAME}_v{VERSION}"


class LedgerProjection:
    name: str = NAME
    version: int = VERSION
    statements: Sequence[str] = STATEMENTS

    @property
    def handles(self) -> frozenset[type[Event]]:
        """Every event type there is: an auditor is shown all of the log."""
        return frozenset(EVENT_TYPES.values())

    async def apply(self, batch: Sequence[RecordedEvent], connection: asyncpg.Connection) -> None:
        latest: datetime | None = await connection.fetchval("SELECT latest_at FROM entry ORDER BY position DESC LIMIT 1")
        entries = []
        for recorded in batch:
            latest = recorded.recorded_at if latest is None else max(latest, recorded.recorded_at)
            entries.append(_entry(recorded, latest))
        await connection.copy_records_to_table("entry", records=entries, columns=ENTRY_COLUMNS)
        touched = [(one, recorded.position) for recorded in batch for one in sorted(tags_of(recorded.event))]
        if touched:
            await connection.copy_records_to_table("touched", records=touched)


def _entry(recorded: RecordedEvent, latest: datetime) -> tuple[object, ...]:
    return (
        recorded.position,
        recorded.event_id,
        recorded.stream,
        recorded.version,
        recorded.type,
        recorded.occurred_at,
        recorded.recorded_at,
        latest,
        recorded.principal.id,
        recorded.principal.kind.value,
        recorded.principal.on_behalf_of,
        recorded.correlation_id,
        recorded.causation_id,
    )
