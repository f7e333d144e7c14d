"""The rows for what a site adds to the search parameters: those that are missing are made in the background, those of what it took away
are removed. What there is to do stands in ``search_pending``, is done in pieces, and can be taken up again wherever it ended.

Which rows there are in the end follows from the log alone: whatever was made when, they are those of every version that is there.
"""

from __future__ import annotations

from decimal import Decimal

import asyncpg
import msgspec

from projections.fhir.search.rows import add_rows, no_rows, plan_of, rows_of
from projections.fhir.search.site import ACTIVE, NOTHING, Added, Site, Unusable, site_of, usable
from projections.fhir.vocabulary import Json

VERSIONS_A_PIECE = 500
BEFORE_ALL = -1
"""Less than any version's key."""

STATEMENTS = (
    """
    CREATE TABLE search_parameter (
        id         text   COLLATE "C" PRIMARY KEY,
        position   bigint NOT NULL,
        definition text   NOT NULL,
        problem    text   NOT NULL
    )
    """,
    # A source of a type whose versions below until_key are looked through, and have been up to done_key: rows that may be there are
    # removed, and made where they are wanted. Later versions have had theirs from the beginning. What is done is no longer here.
    """
    CREATE TABLE search_pending (
        type      text    COLLATE "C" NOT NULL,
        number    integer NOT NULL,
        places    text    NOT NULL,
        is_wanted boolean NOT NULL,
        has_rows  boolean NOT NULL,
        until_key bigint  NOT NULL,
        done_key  bigint  NOT NULL,
        PRIMARY KEY (type, number)
    )
    """,
)

_ADDED = "SELECT id, position, definition, problem FROM search_parameter ORDER BY id"
_NEXT = "SELECT * FROM search_pending ORDER BY type, until_key, done_key, number LIMIT 1"
_ALIKE = """
    SELECT number, places FROM search_pending
    WHERE type = $1 AND until_key = $2 AND done_key = $3 AND is_wanted = $4 AND has_rows = $5 ORDER BY number
"""
_VERSIONS = "SELECT key, body FROM resource WHERE type = $1 AND key > $2 AND key < $3 ORDER BY key LIMIT $4"
_REMOVE = """
DELETE FROM {table} WHERE ctid = ANY(ARRAY(
    SELECT s.row_id FROM unnest($1::bigint[]) AS k (key)
    CROSS JOIN LATERAL (SELECT ctid AS row_id FROM {table} WHERE key = k.key AND source = ANY($2::int[]) OFFSET 0) s
))
"""
_DECODER = msgspec.json.Decoder(float_hook=Decimal)


class Additions:
    """What the site has added, as events change it; ``site`` is what counts for versions that are made now."""

    def __init__(self, rows: dict[str, Added]) -> None:
        self._rows = rows
        self._pending: dict[tuple[str, int], tuple[object, ...]] = {}
        self._changed: set[str] = set()
        self.site = site_of(list(rows.values())) if rows else NOTHING

    @classmethod
    async def read(cls, connection: asyncpg.Connection) -> Additions:
        return cls({row["id"]: Added(*row) for row in await connection.fetch(_ADDED)})

    @property
    def have_changed(self) -> bool:
        return bool(self._changed)

    def take(self, resource_id: str, resource: Json, position: int, first_key: int) -> None:
        """A SearchParameter was written, or deleted (without content). ``first_key``: of the versions that its event makes."""
        before = self._rows.pop(resource_id, None)
        if resource.get("status") == ACTIVE:
            try:
                definition, problem = usable(resource, self._rows.values()), ""
            except Unusable as refused:
                definition, problem = None, str(refused)
            text = "" if definition is None else msgspec.json.encode(definition).decode("utf-8")
            self._rows[resource_id] = Added(resource_id, position, text, problem)
        elif before is None:
            return
        self._changed.add(resource_id)
        was, self.site = self.site, site_of(list(self._rows.values()))
        self._compare(was, first_key)

    def _compare(self, was: Site, first_key: int) -> None:
        for kind in sorted({*was.sources, *self.site.sources}):
            old = {one.number: one for one in was.sources.get(kind, ())}
            new = {one.number: one for one in self.site.sources.get(kind, ())}
            for number in old.keys() ^ new.keys():
                is_wanted = number in new
                places = msgspec.json.encode(rows_of(new[number] if is_wanted else old[number])).decode("ascii")
                has_rows = not is_wanted or (kind, number) in self._pending
                self._pending[kind, number] = (kind, number, places, is_wanted, has_rows, first_key, BEFORE_ALL)

    async def write(self, connection: asyncpg.Connection) -> None:
        if not self._changed:
            return
        changed = sorted(self._changed)
        await connection.execute("DELETE FROM search_parameter WHERE id = ANY($1)", changed)
        kept = [msgspec.structs.astuple(self._rows[one]) for one in changed if one in self._rows]
        await connection.executemany("INSERT INTO search_parameter VALUES ($1, $2, $3, $4)", kept)
        await connection.executemany(
            "INSERT INTO search_pending VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (type, number) DO UPDATE SET"
            " is_wanted = excluded.is_wanted, has_rows = TRUE, until_key = excluded.until_key, done_key = excluded.done_key",
            [self._pending[one] for one in sorted(self._pending)],
        )


async def is_done(connection: asyncpg.Connection) -> bool:
    """Whether every row is there, and none that should not be."""
    return not await connection.fetchval("SELECT EXISTS (SELECT FROM search_pending)")


async def work(connection: asyncpg.Connection) -> bool:
    """Does one piece of what there is to do; False where there is nothing. Within a transaction that nobody else writes the tables in."""
    row = await connection.fetchrow(_NEXT)
    if row is None:
        return False
    kind, until, done, is_wanted = row["type"], row["until_key"], row["done_key"], row["is_wanted"]
    alike = await connection.fetch(_ALIKE, kind, until, done, is_wanted, row["has_rows"])
    versions = await connection.fetch(_VERSIONS, kind, done, until, VERSIONS_A_PIECE)
    if row["has_rows"]:
        await _remove(connection, [version["key"] for version in versions], [one["places"] for one in alike])
    numbers = [one["number"] for one in alike]
    if is_wanted:
        await _make(connection, kind, numbers, versions)
    if len(versions) < VERSIONS_A_PIECE:
        await connection.execute("DELETE FROM search_pending WHERE type = $1 AND number = ANY($2)", kind, numbers)
    else:
        last = versions[-1]["key"]
        await connection.execute("UPDATE search_pending SET done_key = $3 WHERE type = $1 AND number = ANY($2)", kind, numbers, last)
    return True


async def _remove(connection: asyncpg.Connection, keys: list[int], places: list[str]) -> None:
    by_table: dict[str, list[int]] = {}
    for text in places:
        for table, number in msgspec.json.decode(text, type=list[tuple[str, int]]):
            by_table.setdefault(table, []).append(number)
    for table, numbers in sorted(by_table.items()):
        await connection.execute(_REMOVE.format(table=table), keys, numbers)


async def _make(connection: asyncpg.Connection, kind: str, numbers: list[int], versions: list[asyncpg.Record]) -> None:
    site = (await Additions.read(connection)).site
    plan = plan_of(one for one in site.sources.get(kind, ()) if one.number in numbers)
    found = no_rows()
    for version in versions:
        if version["body"]:  # a deletion has none
            add_rows(_DECODER.decode(version["body"]), version["key"], found, plan)
    for table, rows in found.items():
        if rows:
            await connection.copy_records_to_table(table, records=rows)
