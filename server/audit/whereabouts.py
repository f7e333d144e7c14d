"""Where in the log something is: any id, as a person would paste it, to the positions of the events that touched it.

What was not known yet at the position that is asked as of is not found, so that an answer is what it would have been then.

No step looks at more than what is asked for: each is one look-up in an index, and as many positions as the page holds.
"""

from __future__ import annotations

from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from domain.ids import record_stream
from projections.dicom import DicomProjection
from projections.fhir.projection import SCHEMA as FHIR
from projections.fhir.projection import TYPES
from projections.fhir.vocabulary import FINDING_SYSTEM, LOG_ENTRY_EXTENSION, POSITION_SYSTEM, SERIES_INDEX_SYSTEM
from projections.ledger.projection import SCHEMA as LEDGER
from projections.ledger.tags import tag
from projections.projection import schema_name
from server.errors import NothingKnown

DICOM = schema_name(DicomProjection())
_TAGGED = ("study", "series", "subject", "finding", "instance", "dataset")
_TAGS_THAT_EXIST = f"""
    SELECT t.tag FROM unnest($1::text[]) WITH ORDINALITY AS t (tag, nth)
    WHERE EXISTS (SELECT FROM {LEDGER}.touched f WHERE f.tag = t.tag AND f.position <= $2) ORDER BY t.nth
"""
_RESOURCES = f"""
    SELECT r.body FROM unnest($1::text[]) AS t (type),
    LATERAL (SELECT body FROM {FHIR}.resource r WHERE r.type = t.type AND r.id = $2 AND r.position_from <= $3
             ORDER BY r.version DESC LIMIT 1) r
"""


def _among(column: str, parameter: str) -> str:
    """Of the entries with this value, those of the page. The value and the position are compared as one row, in the order of the
    index on both: with an equality instead PostgreSQL may walk the whole table by position, if it thinks the value a frequent one
    (at a million entries 270 ms for a page, and 0.9 ms so)."""
    return f"""(SELECT position FROM {LEDGER}.entry WHERE {column} IS NOT NULL
         AND ({column}, position) > ({parameter}, $1) AND ({column}, position) <= ({parameter}, $2) ORDER BY {column}, position LIMIT $3)"""


_PAGE = f"""
    SELECT DISTINCT position FROM (
        (SELECT f.position FROM unnest($4::text[]) AS t (tag),
         LATERAL (SELECT position FROM {LEDGER}.touched
                  WHERE tag = t.tag AND position > $1 AND position <= $2 ORDER BY position LIMIT $3) f)
        UNION ALL {_among("principal_id", "$5")}
        UNION ALL {_among("on_behalf_of", "$5")}
        UNION ALL {_among("causation_id", "$6")}
        UNION ALL {_among("correlation_id", "$7")}
        UNION ALL (SELECT position FROM public.event WHERE stream = $8 AND position > $1 AND position <= $2 ORDER BY version LIMIT $3)
        UNION ALL SELECT position FROM unnest($9::bigint[]) AS p (position) WHERE position > $1 AND position <= $2
    ) found ORDER BY position LIMIT $3
"""
_IS_PRINCIPAL = f"""
    SELECT EXISTS (SELECT FROM (SELECT principal_id FROM {LEDGER}.entry WHERE (principal_id, position) >= ($1, 0)
                                AND (principal_id, position) <= ($1, $2) ORDER BY principal_id, position LIMIT 1) one)
        OR EXISTS (SELECT FROM (SELECT on_behalf_of FROM {LEDGER}.entry WHERE on_behalf_of IS NOT NULL
                                AND (on_behalf_of, position) >= ($1, 0) AND (on_behalf_of, position) <= ($1, $2)
                                ORDER BY on_behalf_of, position LIMIT 1) one)
"""


class Whereabouts(msgspec.Struct, kw_only=True):
    """What an id is, and how its events are found. ``kinds``: study, series, …, event, principal, resource."""

    kinds: list[str] = []
    tags: list[str] = []
    principal: str | None = None
    event: UUID | None = None
    correlation: UUID | None = None
    stream: str | None = None
    positions: list[int] = []

    async def page(self, pool: asyncpg.Pool, after: int, until: int, limit: int) -> list[int]:
        """At most ``limit`` positions beyond ``after`` and up to ``until``, in order."""
        rows = await pool.fetch(
            _PAGE, after, until, limit, self.tags, self.principal, self.event, self.correlation, self.stream, self.positions
        )
        return [row["position"] for row in rows]


async def find(pool: asyncpg.Pool, text: str, until: int) -> Whereabouts:
    """Raises NothingKnown when no event up to the position ``until`` touched anything of this name."""
    text = text.strip()
    found = Whereabouts()
    if not text or "\0" in text:
        raise NothingKnown("an id is a UID, a UUID, a principal, or Type/id: none of these is empty")
    resource_type, slash, resource_id = text.rpartition("/")
    if not slash:
        await _add_tags(pool, found, [tag(kind, text) for kind in _TAGGED], until)
        await _add_instance(pool, found, text, until)
        await _add_principal(pool, found, text, until)
        await _add_event(pool, found, text, until)
    await _add_resources(pool, found, [resource_type] if slash else list(TYPES), resource_id, until)
    if resource_type == "Patient":  # the one resource of an erased subject that its id still tells
        await _add_tags(pool, found, [tag("subject", resource_id)], until)
    if slash:
        await _add_record(pool, found, resource_type, resource_id, until)
    if not found.kinds:
        raise NothingKnown("nothing of this id is in the log (as far as the read models have come): check how it is written")
    return found


async def _add_tags(pool: asyncpg.Pool, found: Whereabouts, tags: list[str], until: int) -> None:
    for row in await pool.fetch(_TAGS_THAT_EXIST, tags, until):
        _note(found, row["tag"].split(":", 1)[0])
        if row["tag"] not in found.tags:
            found.tags.append(row["tag"])


async def _add_instance(pool: asyncpg.Pool, found: Whereabouts, uid: str, until: int) -> None:
    for row in await pool.fetch(f"SELECT position FROM {DICOM}.instance WHERE sop_instance_uid = $1 AND position <= $2", uid, until):
        _note(found, "instance")
        found.positions.append(row["position"])


async def _add_principal(pool: asyncpg.Pool, found: Whereabouts, text: str, until: int) -> None:
    if await pool.fetchval(_IS_PRINCIPAL, text, until):
        _note(found, "principal")
        found.principal = text
    await _add_tags(pool, found, [tag("principal", text)], until)


async def _add_event(pool: asyncpg.Pool, found: Whereabouts, text: str, until: int) -> None:
    """An event, what it caused, and what was said of it; or all events of one correlation."""
    try:
        wanted = UUID(text)
    except ValueError:
        return
    position = await pool.fetchval(f"SELECT position FROM {LEDGER}.entry WHERE event_id = $1 AND position <= $2", wanted, until)
    if position is not None:
        _note(found, "event")
        found.event = wanted
        found.positions.append(position)
        found.tags.append(tag("event", str(wanted)))
    correlates = f"SELECT EXISTS (SELECT FROM {LEDGER}.entry WHERE correlation_id = $1 AND position <= $2)"
    if await pool.fetchval(correlates, wanted, until):
        _note(found, "correlation")
        found.correlation = wanted


async def _add_resources(pool: asyncpg.Pool, found: Whereabouts, types: list[str], resource_id: str, until: int) -> None:
    for row in await pool.fetch(_RESOURCES, types, resource_id, until):
        body = msgspec.json.decode(row["body"])
        kind = body["resourceType"]
        if kind not in found.kinds:
            found.kinds.append(kind)
        if kind == "Provenance":
            await _add_event(pool, found, resource_id, until)
        elif kind == "AuditEvent":
            found.positions += _position_in(body)
        else:
            await _add_tags(pool, found, _tags_of_resource(body), until)


def _tags_of_resource(body: dict[str, Any]) -> list[str]:
    """What a resource stands for: its identifiers hold what its id was derived from."""
    identifiers = {one.get("system"): str(one.get("value", "")) for one in body.get("identifier", [])}
    match body["resourceType"]:
        case "Patient":
            return [tag("subject", body["id"])]
        case "Device":
            return [tag("device", body["id"])]
        case "ImagingStudy":
            return [tag("study", uid.removeprefix("urn:oid:")) for uid in identifiers.values()]
        case "ImagingSelection":
            return [tag("series", uid.removeprefix("urn:oid:")) for uid in identifiers.values()]
    if SERIES_INDEX_SYSTEM in identifiers:
        return [tag("series", identifiers[SERIES_INDEX_SYSTEM])]
    return [tag("finding", identifiers[FINDING_SYSTEM])] if FINDING_SYSTEM in identifiers else []


def _position_in(body: dict[str, Any]) -> list[int]:
    said = [one["valueIdentifier"] for one in body.get("extension", []) if one.get("url") == LOG_ENTRY_EXTENSION]
    return [int(one["value"]) for one in said if one["system"] == POSITION_SYSTEM]


async def _add_record(pool: asyncpg.Pool, found: Whereabouts, resource_type: str, resource_id: str, until: int) -> None:
    """A resource that came from outside has a stream of its own."""
    stream = record_stream(resource_type, resource_id)
    if await pool.fetchval("SELECT EXISTS (SELECT FROM event WHERE stream = $1 AND position <= $2)", stream, until):
        _note(found, "record")
        found.stream = stream


def _note(found: Whereabouts, kind: str) -> None:
    if kind not in found.kinds:
        found.kinds.append(kind)
