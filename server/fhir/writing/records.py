"""Clinical records as they stand in the log: the last event of a stream tells its state."""

from __future__ import annotations

from collections.abc import Sequence

from domain import clinical_record
from domain.clinical_record import ClinicalRecord
from domain.ids import record_stream
from eventlog.log import EventLog

Key = tuple[str, str]
"""Type and id of a resource."""


async def load_records(log: EventLog, keys: Sequence[Key]) -> dict[Key, tuple[ClinicalRecord, int]]:
    """The state of each and the version of its stream (0: it has no event), in one look whatever their history."""
    found = {key: (ClinicalRecord(), 0) for key in keys}
    by_stream = {record_stream(*key): key for key in keys}
    for recorded in await log.read_last(list(by_stream)):
        state = clinical_record.evolve(ClinicalRecord(), recorded.event)
        found[by_stream[recorded.stream]] = (state, recorded.version)
    return found
