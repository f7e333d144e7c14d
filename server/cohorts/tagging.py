"""Setting and removing tags: on one thing, or on everything that a question finds, in few appends under one correlation id."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any
from uuid import UUID

import msgspec
from tenacity import AsyncRetrying, retry_if_exception_type, stop_after_attempt, wait_random_exponential

from domain import tag
from domain.condition import Level, Query
from domain.errors import SubjectIsErased
from domain.event import Event
from domain.ids import Position
from domain.principal import Principal
from domain.project import Role
from domain.tag import TagLevel, Tags, TagTarget, on_project, tag_stream
from eventlog.envelope import NewEvent, RecordedEvent, StreamAppend, new_event_id
from eventlog.errors import SubjectKeyDestroyed, VersionConflict
from eventlog.log import EventLog
from projections.cohort.engine import Asked
from server.cohorts.access import require_role
from server.cohorts.errors import TargetUnknown, TooManyAtOnce
from server.cohorts.questions import BATCH, ROWS, Curating, latest

MOST = 100_000
"""Things that one request tags."""
_AT_ONCE = 500
_ATTEMPTS = 20
_PARENTS = f"""(SELECT p.subject_id FROM {ROWS}.subject p WHERE p.id = v.subject LIMIT 1) AS subject_id,
               (SELECT t.study_uid FROM {ROWS}.study t WHERE t.id = v.study LIMIT 1) AS study_uid"""
_TARGETS = {
    TagLevel.SUBJECT: f"SELECT v.id, v.subject_id AS key, v.subject_id FROM {ROWS}.subject v",
    TagLevel.STUDY: f"SELECT v.id, v.study_uid AS key, v.study_uid, (SELECT p.subject_id FROM {ROWS}.subject p WHERE p.id = v.subject LIMIT 1)"
    f" AS subject_id FROM {ROWS}.study v",
    TagLevel.SERIES: f"SELECT v.id, v.series_uid AS key, v.series_uid, {_PARENTS} FROM {ROWS}.series v",
    TagLevel.INSTANCE: "SELECT i.id, i.sop_instance_uid AS key, i.sop_instance_uid, v.series_uid, v.subject_id, v.study_uid FROM"
    f" {ROWS}.instance i JOIN LATERAL (SELECT v.series_uid, {_PARENTS} FROM {ROWS}.series v WHERE v.id = i.series LIMIT 1) v ON true",
}
_KEYS = {TagLevel.SUBJECT: "subject_id", TagLevel.STUDY: "study_uid", TagLevel.SERIES: "series_uid", TagLevel.INSTANCE: "sop_instance_uid"}


class Tagged(msgspec.Struct, frozen=True, kw_only=True):
    """``found``: things that were meant; ``changed``: those of which something new was said. ``position``: of the last event, if any."""

    found: int
    changed: int
    position: Position | None
    correlation_id: UUID


async def set_tag(services: Curating, project_id: str, level: TagLevel, keys: Sequence[str], name: str, value: str, by: Principal) -> Tagged:
    """On things of a level, by the ids that people know (a project's tag needs none).

    Raises ProjectUnknown, NotAMember, TagRefused, TargetUnknown, TooManyAtOnce, SubjectIsErased.
    """
    targets = await _named(services.log, project_id, level, keys)
    return await _say(services, project_id, _one(targets), lambda state, target: tag.set_tag(state, project_id, target, name, value), by)


async def remove_tag(services: Curating, project_id: str, level: TagLevel, keys: Sequence[str], name: str, by: Principal) -> Tagged:
    """Raises ProjectUnknown, NotAMember, TagUnknown, TargetUnknown, TooManyAtOnce."""
    targets = await _named(services.log, project_id, level, keys)
    return await _say(services, project_id, _one(targets), lambda state, target: tag.remove_tag(state, project_id, target, name), by)


async def set_tag_of_all(services: Curating, project_id: str, query: Query, name: str, value: str, by: Principal) -> Tagged:
    """On everything that a question finds now, at its own level.

    Raises ProjectUnknown, NotAMember, TagRefused, TargetUnknown, TooManyAtOnce, and what the engine raises.
    """
    return await _say(services, project_id, _found(services, query), lambda state, target: tag.set_tag(state, project_id, target, name, value), by)


async def remove_tag_of_all(services: Curating, project_id: str, query: Query, name: str, by: Principal) -> Tagged:
    """From everything that a question finds now and that has it. Raises what `set_tag_of_all` raises, but TagRefused."""

    def decide(state: Tags, target: TagTarget) -> list[Event]:
        return tag.remove_tag(state, project_id, target, name) if name in state.standing else []

    return await _say(services, project_id, _found(services, query), decide, by)


async def _say(
    services: Curating,
    project_id: str,
    batches: AsyncIterator[Sequence[TagTarget]],
    decide: Callable[[Tags, TagTarget], list[Event]],
    by: Principal,
) -> Tagged:
    await require_role(services.log, project_id, by, Role.CURATOR)
    correlation_id = new_event_id()
    found = changed = 0
    position: Position | None = None
    async for targets in batches:
        found += len(targets)
        if found > MOST:
            raise TooManyAtOnce(f"one request tags at most {MOST} things: what came before is tagged; narrow the question for the rest")
        said, at = await _append(services.log, project_id, targets, decide, by, correlation_id)
        changed += said
        position = at or position
    return Tagged(found=found, changed=changed, position=position, correlation_id=correlation_id)


async def _append(
    log: EventLog,
    project_id: str,
    targets: Sequence[TagTarget],
    decide: Callable[[Tags, TagTarget], list[Event]],
    by: Principal,
    correlation_id: UUID,
) -> tuple[int, Position | None]:
    """In one append, decided again when somebody was faster. Gives of how many something was said, and where."""
    streams = {tag_stream(project_id, target): target for target in targets}
    async for attempt in AsyncRetrying(
        retry=retry_if_exception_type(VersionConflict),
        stop=stop_after_attempt(_ATTEMPTS),
        wait=wait_random_exponential(multiplier=0.002, max=0.1),
        reraise=True,
    ):
        with attempt:
            recorded = await _streams(log, list(streams))
            appends = []
            for stream, target in streams.items():
                state, version = Tags(), 0
                for one in recorded[stream]:
                    state, version = tag.evolve(state, one.event), one.version
                events = decide(state, target)
                if events:
                    appends.append(StreamAppend(stream=stream, events=[NewEvent(event=e) for e in events], expected_version=version))
            if not appends:
                return 0, None
            try:
                appended = await log.append(appends, principal=by, correlation_id=correlation_id)
            except SubjectKeyDestroyed as error:
                raise SubjectIsErased(str(error)) from None
            return len(appends), appended.last
    raise AssertionError("unreachable: the last attempt raises")


async def _streams(log: EventLog, streams: Sequence[str]) -> Mapping[str, list[RecordedEvent]]:
    found: dict[str, list[RecordedEvent]] = defaultdict(list)
    async with log.pool.acquire() as connection:
        rows = await connection.fetch("SELECT * FROM event WHERE stream = ANY($1) ORDER BY stream, version", list(streams))
        for one in await log.recorded(rows, connection):
            found[one.stream].append(one)
    return found


async def _one(targets: Sequence[TagTarget]) -> AsyncIterator[Sequence[TagTarget]]:
    for start in range(0, len(targets), _AT_ONCE):
        yield targets[start : start + _AT_ONCE]


async def _named(log: EventLog, project_id: str, level: TagLevel, keys: Sequence[str]) -> list[TagTarget]:
    if level is TagLevel.PROJECT:
        return [on_project(project_id)]
    wanted = list(dict.fromkeys(keys))
    if len(wanted) > MOST:
        raise TooManyAtOnce(f"one request tags at most {MOST} things")
    column = "i.sop_instance_uid" if level is TagLevel.INSTANCE else f"v.{_KEYS[level]}"
    standing = f"{column.partition('.')[0]}.position_to IS NULL"
    rows = await log.pool.fetch(f"{_TARGETS[level]} WHERE {column} = ANY($1) AND {standing} ORDER BY 1", wanted)
    known = {row["key"] for row in rows}
    missing = [key for key in wanted if key not in known]
    if missing:
        raise TargetUnknown(f"{len(missing)} of {len(wanted)} things of level {level} are not in the archive, the first of them {missing[0][:80]}")
    return [_target(level, row) for row in rows]


async def _found(services: Curating, query: Query) -> AsyncIterator[Sequence[TagTarget]]:
    try:
        level = TagLevel(query.level.value)
    except ValueError:
        raise TargetUnknown(f"a {query.level} cannot be tagged: tag its series or its subject") from None
    asked = Asked(query=query, position=await latest(services))
    alias = "i" if level is TagLevel.INSTANCE else "v"
    async for ids in services.cohorts.members(asked, Level(level.value)):
        for start in range(0, len(ids), min(_AT_ONCE, BATCH)):
            some = list(ids[start : start + _AT_ONCE])
            rows = await services.log.pool.fetch(
                f"{_TARGETS[level]} WHERE {alias}.id = ANY($1) AND {alias}.position_to IS NULL ORDER BY 1", some
            )
            yield [_target(level, row) for row in rows]


def _target(level: TagLevel, row: Mapping[str, Any]) -> TagTarget:
    return TagTarget(level=level, **{name: row[name] for name in ("subject_id", "study_uid", "series_uid", "sop_instance_uid") if name in row})
