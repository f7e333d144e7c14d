"""`_include` and `_revinclude`, with `:iterate` (R5 search.html#include): what matches refer to, and what refers to them.

As of the same position as the matches themselves.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache

import asyncpg
import msgspec

from projections.fhir.definitions import is_resource_type, resource_types
from projections.fhir.projection import SCHEMA
from projections.fhir.search.parameters import parameters
from projections.fhir.search.site import CURRENT, known_parameters
from server.fhir.access import Access
from server.fhir.as_of import Given
from server.fhir.conditions import Condition
from server.fhir.outcome import FhirError
from server.fhir.parameters import OWN_BASE, here, known_parameter, reference_numbers, supported, target_types
from server.fhir.within import Clause

NAMES = ("_include", "_revinclude")
MAX_INCLUDED = 10_000
"""Resources beside the matches of one page; what would include more is refused."""
MAX_ROUNDS = 8
"""Of `:iterate`."""

_HELD = "r.position_from <= $1 AND (r.position_to IS NULL OR r.position_to > $1)"
_COLUMNS = "r.type, r.id, r.version, r.body, r.position_to, r.last_updated, r.key"
# By LATERAL: looked up by index, whatever size the tables had when the statement was planned.
_REFERRED = f"""
    SELECT DISTINCT s.target FROM unnest($1::bigint[]) AS k (key)
    CROSS JOIN LATERAL (SELECT target, source FROM {SCHEMA}.reference WHERE key = k.key OFFSET 0) s
    WHERE s.source = ANY($2::int[])
"""
_VERSIONS = f"""
    SELECT {_COLUMNS} FROM unnest($2::text[], $3::text[]) AS k (type, id) CROSS JOIN LATERAL (
        SELECT * FROM {SCHEMA}.resource r WHERE r.type = k.type AND r.id = k.id AND {_HELD} AND {{reach}} OFFSET 0
    ) r ORDER BY r.key LIMIT $4
"""
_REFERRING = f"""
    SELECT {_COLUMNS} FROM (
        SELECT DISTINCT s.key FROM unnest($2::text[]) AS t (target)
        CROSS JOIN LATERAL (SELECT key, source FROM {SCHEMA}.reference WHERE target = t.target OFFSET 0) s
        WHERE s.source = ANY($3::int[])
    ) s CROSS JOIN LATERAL (
        SELECT * FROM {SCHEMA}.resource r WHERE r.key = s.key AND r.type = $4 AND {_HELD} AND {{reach}} OFFSET 0
    ) r ORDER BY r.key LIMIT $5
"""


class Include(msgspec.Struct, frozen=True, kw_only=True):
    source_type: str
    """Type whose references are followed."""
    numbers: tuple[int, ...]
    target_type: str | None
    is_reverse: bool
    is_iterated: bool


def includes(resource_type: str, given: Given, *, lenient: bool) -> tuple[list[Include], list[str]]:
    """What is asked for, and the names that were left out because ``lenient`` handling was preferred. Raises FhirError (400)."""
    found: list[Include] = []
    ignored: list[str] = []
    for name, value in given:
        base, _, modifier = name.partition(":")
        if base not in NAMES:
            continue
        try:
            found.append(_include(name, base == "_revinclude", modifier, value))
        except FhirError as error:
            if not lenient or error.status != 400:
                raise
            ignored.append(name)
    return found, ignored


def may_include(resource_type: str) -> list[str]:
    """What `_include` takes of a search of this type (R5 CapabilityStatement.rest.resource.searchInclude)."""
    own = [f"{resource_type}:{code}" for code, kind in supported(resource_type).items() if kind == "reference"]
    return [f"{resource_type}:*", *own] if own else []


def may_be_included(resource_type: str) -> list[str]:
    """What `_revinclude` takes of it: the references that name this type as one that they may lead to. A reference that may lead to any
    type is taken too, and left out here: there are 82 of these."""
    known = CURRENT.get()
    added = [
        f"{kind}:{code}"
        for kind, of_type in known.site.parameters.items()
        for code, one in of_type.items()
        if one.type == "reference" and resource_type in target_types(one) and (kind, code) not in known.indexing
    ]
    return sorted([*_referring_parameters().get(resource_type, ()), *added])


async def included(
    pool: asyncpg.Pool, access: Access, matches: Sequence[asyncpg.Record], asked: Sequence[Include], position: int
) -> list[asyncpg.Record]:
    """The resources within reach that belong beside these matches, each once, none that is a match itself. Raises FhirError (400)."""
    known = {(row["type"], row["id"]) for row in matches}
    found: list[asyncpg.Record] = []
    latest = list(matches)
    for nth in range(MAX_ROUNDS):
        fresh: dict[tuple[str, str], asyncpg.Record] = {}
        for one in asked:
            if nth == 0 or one.is_iterated:
                for row in await (_referring if one.is_reverse else _referred)(pool, access, latest, one, position):
                    if (row["type"], row["id"]) not in known:
                        fresh.setdefault((row["type"], row["id"]), row)
        known.update(fresh)
        found += fresh.values()
        latest = list(fresh.values())
        if len(found) > MAX_INCLUDED:
            raise FhirError(400, "too-costly", f"this page would include more than {MAX_INCLUDED} resources: ask for fewer by _count", "http._include")
        if not latest:
            break
    return found


async def _referred(
    pool: asyncpg.Pool, access: Access, rows: Sequence[asyncpg.Record], one: Include, position: int
) -> list[asyncpg.Record]:
    keys = [row["key"] for row in rows if row["type"] == one.source_type]
    if not keys:
        return []
    own = f"{OWN_BASE.get()}/"
    targets = [row["target"].removeprefix(own if own != "/" else "").split("/") for row in await pool.fetch(_REFERRED, keys, list(one.numbers))]
    here = sorted({(kind, rest[0]) for kind, *rest in targets if len(rest) == 1 and one.target_type in (None, kind)})
    reach = access.reach("r", sorted({kind for kind, _ in here}))
    clause = Clause([position, [kind for kind, _ in here], [resource_id for _, resource_id in here], MAX_INCLUDED + 1], "$1")
    return list(await pool.fetch(_VERSIONS.format(reach=_sql(reach, clause)), *clause.arguments))


async def _referring(
    pool: asyncpg.Pool, access: Access, rows: Sequence[asyncpg.Record], one: Include, position: int
) -> list[asyncpg.Record]:
    targets = [way for row in rows if one.target_type in (None, row["type"]) for way in here(f"{row['type']}/{row['id']}")]
    if not targets:
        return []
    # To ask what refers to something is a search; to ask what something refers to is many reads.
    reach = access.condition("s", one.source_type)
    clause = Clause([position, targets, list(one.numbers), one.source_type, MAX_INCLUDED + 1], "$1")
    return list(await pool.fetch(_REFERRING.format(reach=_sql(reach, clause)), *clause.arguments))


def _sql(reach: Condition | None, clause: Clause) -> str:
    return "TRUE" if reach is None else reach.sql("r", clause)


def _include(name: str, is_reverse: bool, modifier: str, value: str) -> Include:
    """`Type:parameter`, `Type:parameter:target`, `Type:*`."""
    source_type, _, rest = value.partition(":")
    code, _, target = rest.partition(":")
    if modifier not in ("", "iterate"):
        raise FhirError(400, "not-supported", f"{name}: the one modifier is :iterate", f"http.{name}")
    if not is_resource_type(source_type) or not code or (target and not is_resource_type(target)):
        raise FhirError(400, "value", f"{name} takes Type:parameter, Type:parameter:TargetType or Type:*", f"http.{name}")
    known = known_parameters(source_type)
    if code == "*":
        every = [known_parameter(source_type, code) for code, one in known.items() if one.type == "reference"]
        numbers = {number for one in every if one is not None for number in reference_numbers(one)}
    elif (one := known_parameter(source_type, code)) is not None and one.type == "reference":
        numbers = set(reference_numbers(one))
        narrowed = {look.target for look in one.looks}
        if not target and len(narrowed) == 1:
            target = next(iter(narrowed)) or ""
    else:
        names = ", ".join(sorted(code for code, one in known.items() if one.type == "reference"))
        raise FhirError(400, "not-supported", f"{name}: {source_type} has no reference {code}; there are {names}", f"http.{name}")
    return Include(
        source_type=source_type,
        numbers=tuple(sorted(numbers)),
        target_type=target or None,
        is_reverse=is_reverse,
        is_iterated=modifier == "iterate",
    )


@cache
def _referring_parameters() -> Mapping[str, Sequence[str]]:
    """Type → the reference parameters of R5 and the guide that may lead to it."""
    found: dict[str, list[str]] = {}
    for source_type in resource_types():
        for code, one in parameters(source_type).items():
            for target in target_types(one) if one.type == "reference" else ():
                found.setdefault(target, []).append(f"{source_type}:{code}")
    return found
