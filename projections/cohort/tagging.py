"""Tags: what somebody put on a subject, study, series, instance or project."""

from __future__ import annotations

from domain.tag import TagRemoved, TagSet
from projections.cohort.batch import Batch


def tag(event: TagSet | TagRemoved, position: int, batch: Batch) -> None:
    """Of what is not stored (any more) there is none."""
    target = batch.target(event)
    if target is None:
        return
    key = (str(event.level), target, event.project_id, event.name)
    if isinstance(event, TagRemoved):
        batch.tags.end(key, position)
        return
    texts = {"level": str(event.level), "project": event.project_id, "name": event.name, "value": event.value}
    batch.tags.put(key, {**texts, "target": target}, position, 0)
    for name, value in texts.items():
        batch.dictionary.add(f"tag.{name}", [value])
