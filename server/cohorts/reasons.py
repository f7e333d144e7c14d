"""Why something entered a cohort, left it or changed: the events between two positions that are about it, or what it belongs to."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from datetime import datetime

import msgspec

from domain.access import AccessesRecorded
from domain.condition import Level
from domain.signature import EventSigned
from eventlog.envelope import RecordedEvent
from eventlog.log import EventLog
from projections.ledger.projection import SCHEMA
from projections.ledger.tags import tags_of
from server.audit.timeline import events_at

MOST = 20
"""Events that are shown of one thing, the latest ones."""
_BESIDE = [AccessesRecorded.__name__, EventSigned.__name__]
"""Types that change nothing of what they are about."""
_ABOUT = f"""
    SELECT w.tag, t.position FROM unnest($1::text[]) AS w (tag) CROSS JOIN LATERAL (
        SELECT t.position FROM {SCHEMA}.touched t JOIN {SCHEMA}.entry e ON e.position = t.position
        WHERE t.tag = w.tag AND t.position > $2 AND t.position <= $3 AND e.type <> ALL ($4::text[]) ORDER BY t.position DESC LIMIT $5) t
"""
_FINER = {Level.SUBJECT: (), Level.STUDY: ("study",), Level.SERIES: ("study", "series"), Level.FINDING: ("study", "series", "finding")}
"""Kinds of tags that tell a thing of the level from its neighbours."""


class About(msgspec.Struct, frozen=True, kw_only=True):
    """A thing, and what it belongs to, by the ids that people know; those below its level are empty."""

    level: Level
    subject_id: str
    study_uid: str = ""
    series_uid: str = ""
    finding_key: str = ""

    @property
    def tags(self) -> Mapping[str, str]:
        """Kind → tag of the ledger."""
        ids = {"subject": self.subject_id, "study": self.study_uid, "series": self.series_uid, "finding": self.finding_key}
        return {kind: f"{kind}:{id_}" for kind, id_ in ids.items() if id_}


class Reason(msgspec.Struct, frozen=True, kw_only=True):
    """An event that is about the thing, or about what it belongs to and about no neighbour of it."""

    position: int
    type: str
    recorded_at: datetime
    principal_id: str


async def reasons(log: EventLog, things: Sequence[About], since: int, until: int) -> list[list[Reason]]:
    """For each of these things the events in (since, until], in order; of many, the latest."""
    wanted = sorted({tag for thing in things for tag in thing.tags.values()})
    # More than are shown: some may turn out to be about neighbours.
    rows = await log.pool.fetch(_ABOUT, wanted, since, until, _BESIDE, 5 * MOST)
    at: dict[str, set[int]] = defaultdict(set)
    for row in rows:
        at[row["tag"]].add(row["position"])
    events: dict[int, RecordedEvent] = {one.position: one for one in await events_at(log, sorted({row["position"] for row in rows}))}
    touched = {position: tags_of(one.event) for position, one in events.items()}
    found = []
    for thing in things:
        positions = sorted(set().union(*(at[tag] for tag in thing.tags.values())))
        its = [position for position in positions if _is_about(touched[position], thing)]
        found.append(
            [
                Reason(position=p, type=events[p].type, recorded_at=events[p].recorded_at, principal_id=events[p].principal.id)
                for p in its[-MOST:]
            ]
        )
    return found


def _is_about(touched: frozenset[str], thing: About) -> bool:
    """Not about a neighbour alone: another study of the subject, another series of the study."""
    for kind in _FINER.get(thing.level, ()):
        named = {tag for tag in touched if tag.startswith(f"{kind}:")}
        if named and thing.tags[kind] not in named:
            return False
    return True
