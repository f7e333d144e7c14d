"""A column for an element that was none: read beside the others, then put in their order."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import asyncpg
import numpy as np

from domain.condition import Level
from projections.columns.column import Encoded, narrowest
from projections.columns.dictionary import Dictionary
from projections.columns.reading import ROWS_A_FETCH, elements_decoder
from projections.columns.table import Table


class Built:
    """Codes of rows in order of id and time, up to a position."""

    def __init__(self, keys: Sequence[str]) -> None:
        self.keys = list(keys)
        self.dictionaries = {key: Dictionary() for key in keys}
        self.ids: list[np.ndarray] = []
        self.begins: list[np.ndarray] = []
        self.codes: dict[str, list[np.ndarray]] = {key: [] for key in keys}
        self.rows = 0
        self.position = 0

    def add(self, records: Sequence[asyncpg.Record], decode: Callable[[Sequence[str]], dict]) -> None:
        ids, begins, elements = zip(*records, strict=True)
        self.ids.append(np.array(ids, np.int64))
        self.begins.append(np.array(begins, np.int64))
        for key, rows in decode(elements).items():
            self.codes[key].append(self.dictionaries[key].encode(rows))
        self.rows += len(records)
        self.position = max(self.position, int(self.begins[-1].max()))


async def build(connection: asyncpg.Connection, schema: str, level: Level, keys: Sequence[str], heard: Callable[[int], object]) -> Built:
    """From all rows; ``heard`` is told how many are read. Within a transaction."""
    built = Built(keys)
    await _read(connection, schema, level, built, "true", heard)
    return built


async def continued(connection: asyncpg.Connection, schema: str, level: Level, built: Built, position: int) -> Built:
    """With the rows that began since, up to the position."""
    await _read(connection, schema, level, built, f"position_from > {built.position:d} AND position_from <= {position:d}", lambda rows: None)
    return built


async def _read(connection: asyncpg.Connection, schema: str, level: Level, built: Built, where: str, heard: Callable[[int], object]) -> None:
    decode = elements_decoder(built.keys)
    cursor = await connection.cursor(f"SELECT id, position_from, elements FROM {schema}.{level} WHERE {where} ORDER BY id, position_from")
    while records := await cursor.fetch(ROWS_A_FETCH):
        built.add(records, decode)
        heard(built.rows)


def placed(table: Table, built: Built) -> dict[str, Encoded] | None:
    """The columns in the table's order; None when a row of the table was not read."""
    ids, begins = _joined(built.ids), _joined(built.begins)
    by_time = np.lexsort((begins, ids))
    ids, begins = ids[by_time], begins[by_time]
    wanted_ids, wanted_begins = table.entities.values[table.entity.values], table.begins.values
    order = np.lexsort((wanted_begins, wanted_ids))
    wanted_ids, wanted_begins = wanted_ids[order], wanted_begins[order]
    # An entity's versions follow each other on both sides: the nth here is the nth there.
    first_here = np.searchsorted(wanted_ids, wanted_ids, "left")
    places = np.searchsorted(ids, wanted_ids, "left") + np.arange(len(order)) - first_here
    if len(order) and (places.max() >= len(ids) or (ids[places] != wanted_ids).any() or (begins[places] != wanted_begins).any()):
        return None
    made: dict[str, Encoded] = {}
    for key in built.keys:
        dictionary = built.dictionaries[key]
        codes = np.zeros(len(order), narrowest(len(dictionary)))
        codes[order] = _joined(built.codes[key])[by_time][places]
        made[key] = Encoded(dictionary, codes).taken(np.arange(len(order)))
    return made


def _joined(parts: list[np.ndarray]) -> np.ndarray:
    return np.concatenate([np.empty(0, np.int64), *parts])
