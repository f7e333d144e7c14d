"""The resources that a batch touches: their current versions as read, the new ones as made, and their writing in bulk."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from operator import itemgetter

import asyncpg
import msgspec

from eventlog.envelope import RecordedEvent, instant
from projections.fhir.search.indexing import Additions
from projections.fhir.search.rows import add_rows, no_rows
from projections.fhir.search.site import NOTHING, Site
from projections.fhir.vocabulary import Json

Key = tuple[str, str]
_DELETED: Json = {}
_BY_VALUE, _BY_TARGET = itemgetter(0, 1), itemgetter(1, 0)
"""Of search rows: the source and what is compared; of references, the target and the source."""
VERSION_BITS = 20
"""How many versions one event may make, as a power of two."""
VERSIONS_BETWEEN = 100
"""Whose search rows are made before the loop may send more."""

# LIMIT (or OFFSET 0) keeps the planner from looking through the table for each key: it kept a plan made for an empty table, and building
# 30,000 versions took 86 s in place of 5.
_CURRENT = """
SELECT k.type, k.id, r.version, r.body, r.position_from, r.last_updated
FROM unnest($1::text[], $2::text[]) AS k (type, id) CROSS JOIN LATERAL (
    SELECT version, body, position_from, last_updated FROM resource
    WHERE type = k.type AND id = k.id ORDER BY version DESC LIMIT 1
) r
"""
_END = """
UPDATE resource SET position_to = e.until
FROM (
    SELECT r.row_id, k.until FROM unnest($1::text[], $2::text[], $3::int[], $4::bigint[]) AS k (type, id, version, until) CROSS JOIN LATERAL (
        SELECT ctid AS row_id FROM resource WHERE type = k.type AND id = k.id AND version = k.version AND position_to IS NULL OFFSET 0
    ) r
) e
WHERE resource.ctid = e.row_id
"""


class _Version(msgspec.Struct):
    version: int
    body: Json
    position_from: int
    position_to: int | None
    last_updated: object
    is_new: bool
    found_by: Json | None = None
    """What is searched in, where it is not the body."""
    rows: Sequence[tuple[str, tuple[object, ...]]] = ()
    """Rows beside those of what is searched in: their table, and their columns but for the last, the key."""
    site: Site = NOTHING
    """What the site had added to the search parameters when it was made."""


class Versions:
    def __init__(self, connection: asyncpg.Connection, additions: Additions | None = None) -> None:
        self.connection = connection
        self.additions = additions or Additions({})
        self._current: dict[Key, _Version | None] = {}
        self._made: list[tuple[Key, _Version]] = []
        self._ended: dict[tuple[Key, int], int] = {}
        self._rows: dict[str, list[tuple[object, ...]]] = {}

    async def fetch(self, keys: Iterable[Key]) -> None:
        """Reads the current versions of these resources in one query, as far as they are not known."""
        wanted = [key for key in set(keys) if key not in self._current]
        if not wanted:
            return
        self._current.update(dict.fromkeys(wanted))
        rows = await self.connection.fetch(
            _CURRENT,
            [key[0] for key in wanted],
            [key[1] for key in wanted],
        )
        for row in rows:
            self._current[row["type"], row["id"]] = _Version(
                row["version"], msgspec.json.decode(row["body"]), row["position_from"], None, row["last_updated"], False
            )

    async def current(self, resource_type: str, resource_id: str) -> Json | None:
        """The resource as it stands, to be read and not changed."""
        await self.fetch([(resource_type, resource_id)])
        version = self._current[resource_type, resource_id]
        return version.body if version else None

    async def put(self, body: Json, recorded: RecordedEvent) -> int:
        """Makes the next version of a resource, as of this event, and gives its number; an unchanged one stays as it is."""
        key = (body["resourceType"], body["id"])
        if key not in self._current:
            await self.fetch([key])
        before = self._current[key]
        if before is not None and _content(before.body) == _content(body):
            return before.version
        number = before.version + 1 if before else 1
        if before is not None and before.position_from == recorded.position:
            raise AssertionError(f"{key[0]} changes twice in one event")
        body["meta"] = {"versionId": str(number), "lastUpdated": instant(recorded.recorded_at), **_without_version(body.get("meta", {}))}
        made = _Version(number, body, recorded.position, None, recorded.recorded_at, True, site=self.additions.site)
        if before is not None:
            before.position_to = recorded.position
            if not before.is_new:
                self._ended[key, before.version] = recorded.position
        self._current[key] = made
        self._made.append((key, made))
        return number

    def put_numbered(
        self,
        body: Json,
        number: int,
        recorded: RecordedEvent,
        found_by: Json | None = None,
        rows: Sequence[tuple[str, tuple[object, ...]]] = (),
    ) -> None:
        """Makes the version of this number, which the event itself tells: nothing has to be read. ``body`` has its meta.

        ``found_by`` is what a search looks in, where it is more than everybody may see, or less, and ``rows`` are there for the rest.
        """
        self._put_numbered((body["resourceType"], body["id"]), number, body, recorded)
        made = self._made[-1][1]
        made.found_by, made.rows = found_by, rows

    def put_end(self, key: Key, number: int, recorded: RecordedEvent) -> None:
        """Makes the version that says that the resource was deleted. It holds at no position, so that no search has to leave it out."""
        self._put_numbered(key, number, _DELETED, recorded)
        self._made[-1][1].position_to = recorded.position
        self._current[key] = None

    def _put_numbered(self, key: Key, number: int, body: Json, recorded: RecordedEvent) -> None:
        before = self._current.get(key)
        if before is not None:
            before.position_to = recorded.position
        if number > 1 and (before is None or not before.is_new):
            self._ended[key, number - 1] = recorded.position
        made = _Version(number, body, recorded.position, None, recorded.recorded_at, True, site=self.additions.site)
        self._current[key] = made
        self._made.append((key, made))

    def add_row(self, table: str, row: tuple[object, ...]) -> None:
        """A row of a table that is no version and no search row."""
        self._rows.setdefault(table, []).append(row)

    async def write(self) -> None:
        """Writes what was made, in a few statements whatever the batch holds."""
        connection = self.connection
        if self._ended:
            await connection.execute(
                _END,
                [key[0] for key, _ in self._ended],
                [key[1] for key, _ in self._ended],
                [version for _, version in self._ended],
                list(self._ended.values()),
            )
        keys = list(_keys(made.position_from for _, made in self._made))
        rows = [
            (kind, resource_id, made.version, made.position_from, made.position_to, made.last_updated, _text(made.body), key)
            for ((kind, resource_id), made), key in zip(self._made, keys, strict=True)
        ]
        # PostgreSQL takes the versions in while their search rows are worked out.
        copying = asyncio.create_task(_copy(connection, "resource", rows))
        found = no_rows()
        try:
            for nth, ((_, made), key) in enumerate(zip(self._made, keys, strict=True)):
                if nth % VERSIONS_BETWEEN == 0:
                    await asyncio.sleep(0)
                for table, columns in made.rows:
                    found[table].append((*columns, key))
                if made.body is not _DELETED:
                    add_rows(made.found_by or made.body, key, found)
                    added = made.site.plans.get(made.body["resourceType"])
                    if added is not None:
                        add_rows(made.body, key, found, added)
        finally:
            await copying
        for table, of_table in found.items():
            # As their index holds them: neighbours go to one page, and the next is near.
            of_table.sort(key=_BY_TARGET if table == "reference" else _BY_VALUE)
            await _copy(connection, table, of_table)
        for table, more in self._rows.items():
            await _copy(connection, table, more)
        await self.additions.write(connection)


def first_key(position: int) -> int:
    """Of the versions that the event at this position makes."""
    return position << VERSION_BITS


def _keys(positions: Iterable[int]) -> Iterator[int]:
    """Of versions in the order of their making: the position, and which version of its event it is, whatever the batch holds."""
    last, nth = -1, 0
    for position in positions:
        nth = nth + 1 if position == last else 0
        last = position
        yield first_key(position) | nth


_ENCODER = msgspec.json.Encoder(decimal_format="number")


def _text(body: Json) -> str:
    """As it is stored and answered; nothing of what is deleted."""
    return _ENCODER.encode(body).decode("utf-8") if body is not _DELETED else ""


async def _copy(connection: asyncpg.Connection, table: str, rows: list) -> None:  # type: ignore[type-arg]
    if rows:
        await connection.copy_records_to_table(table, records=rows)


def _content(body: Json) -> Json:
    return {**body, "meta": _without_version(body.get("meta", {}))}


def _without_version(meta: Json) -> Json:
    return {key: value for key, value in meta.items() if key not in ("versionId", "lastUpdated")}
