"""The rows of PostgreSQL as what columns are made of: all of them once, then what has begun or ended beyond a position.

Elements are decoded by a struct that knows the columns alone: what is no column is skipped without an object being made for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

import asyncpg
import msgspec
import numpy as np

from domain.condition import Level
from projections.columns.dictionary import Values
from projections.columns.layout import DATE, FLAG, LAID, TEXT
from projections.columns.store import NO_ENDS, Changes, Ends
from projections.columns.table import NOTHING, Rows, Table

ROWS_A_FETCH = 5_000


def statement(level: Level, schema: str, where: str) -> str:
    laid = LAID[level]
    links = list(dict.fromkeys(laid.belongs.values()))
    elements = ["elements"] if laid.has_elements else []
    columns = ", ".join(("id", "position_from", "position_to", *links, *laid.columns, *elements))
    return f"SELECT {columns} FROM {schema}.{level} WHERE {where} ORDER BY id, position_from"


async def all_rows(
    connection: asyncpg.Connection, schema: str, level: Level, tables: Mapping[Level, Table], beyond: int | None = None
) -> AsyncIterator[Rows]:
    """In pieces. ``beyond``: only what began beyond this position. Within a transaction."""
    read: Callable[[Sequence[Any]], Rows] | None = None
    where = "true" if beyond is None else f"position_from > {beyond:d}"
    cursor = await connection.cursor(statement(level, schema, where))
    while records := await cursor.fetch(ROWS_A_FETCH):
        read = read or reader(level, tables)  # which is costly to make, and mostly nothing has changed
        yield await asyncio.to_thread(read, records)


async def ended(connection: asyncpg.Connection, schema: str, level: Level, beyond: int) -> Ends:
    """Ids, begins and ends of versions that were there at the position and have ended since."""
    found = await connection.fetch(
        f"SELECT id, position_from, position_to FROM {schema}.{level} WHERE position_to > {beyond:d} AND position_from <= {beyond:d}"
    )
    array = np.array([tuple(record) for record in found], np.int64).reshape(-1, 3)
    return array[:, 0], array[:, 1], array[:, 2]


async def changes(connection: asyncpg.Connection, schema: str, tables: Mapping[Level, Table], beyond: int) -> AsyncIterator[tuple[Level, Changes]]:
    """Of every level, what has changed beyond the position, in pieces: what belongs to others comes after them."""
    for level in LAID:
        ends = await ended(connection, schema, level, beyond)
        pieces = all_rows(connection, schema, level, tables, beyond)
        first = True
        async for rows in pieces:
            yield level, Changes(ends if first else NO_ENDS, rows)
            first = False
        if first and len(ends[0]):
            yield level, Changes(ends, Rows.none(tables[level]))


def reader(level: Level, tables: Mapping[Level, Table]) -> Callable[[Sequence[Any]], Rows]:
    """How records of the statement become rows of the table."""
    laid, table = LAID[level], tables[level]
    links = list(dict.fromkeys(laid.belongs.values()))
    keys = [name for name in table.columns if name not in laid.columns]
    decode = elements_decoder(keys) if laid.has_elements else None

    def read(records: Sequence[Any]) -> Rows:
        ids, begins, ends, *others = zip(*records, strict=True)
        rows = Rows(ids, begins, ends)
        linked = dict(zip(links, others, strict=False))
        own = dict(zip(laid.columns, others[len(links) :], strict=False))
        for above, link in laid.belongs.items():
            owners = np.array(linked[link], np.int64)
            rows.belongs[above] = owners if level != Level.TAG else np.where(np.array(own["level"]) == above.value, owners, NOTHING)
        for name, kind in laid.columns.items():
            rows.columns[name] = entries(kind, own[name])
        if decode is not None:
            rows.columns.update(decode(others[-1]))
        return rows

    return read


def entries(kind: str, values: Sequence[Any]) -> Sequence[Any]:
    """Of one of our own columns: for a dictionary, each as a tuple."""
    if kind == TEXT:
        return [(value,) if value else () for value in values]
    if kind == DATE:
        return [(value.isoformat(),) if value is not None else () for value in values]
    if kind == FLAG:
        return [() if value is None else (value,) for value in values]
    return values


def elements_decoder(keys: Sequence[str]) -> Callable[[Sequence[str]], dict[str, list[Values]]]:
    """What JSON objects of elements hold under these keys."""
    fields = [(f"element_{n}", tuple[str | int | float, ...], ()) for n in range(len(keys))]
    kept = msgspec.defstruct("Kept", fields, rename={f"element_{n}": key for n, key in enumerate(keys)}, gc=False)
    decode = msgspec.json.Decoder(kept).decode

    def decoded(texts: Sequence[str]) -> dict[str, list[Values]]:
        rows = [decode(text) for text in texts]
        return {key: [getattr(row, name) for row in rows] for key, name in zip(keys, (field[0] for field in fields), strict=True)}

    return decoded
