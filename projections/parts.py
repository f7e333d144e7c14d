"""A batch cut where an erasure stands: what comes before it is written before it is purged, what comes after it afterwards."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from domain.subject import SubjectErased
from eventlog.envelope import RecordedEvent


def cut_at_erasures(batch: Sequence[RecordedEvent]) -> Iterator[tuple[Sequence[RecordedEvent], RecordedEvent | None]]:
    """Parts of the batch, each with the erasure that ends it; the last one has none."""
    start = 0
    for n, recorded in enumerate(batch):
        if isinstance(recorded.event, SubjectErased):
            yield batch[start:n], recorded
            start = n + 1
    yield batch[start:], None
