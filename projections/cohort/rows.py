"""Versions of entities as a batch of events reads and changes them: loaded once, written once, whatever many events touch them."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any

import asyncpg
import msgspec

from projections.cohort.tables import ORDINALS

_ENCODE = msgspec.json.Encoder(order="sorted").encode
_DECODE = msgspec.json.decode


class Row(msgspec.Struct, kw_only=True):
    """A standing version. ``is_saved``: it was there before this batch."""

    id: int
    position_from: int
    is_saved: bool
    values: dict[str, Any]


class Table:
    """The standing versions of one table that a batch knows, by what identifies an entity there."""

    def __init__(self, name: str, columns: Sequence[str]) -> None:
        self.name = name
        self.columns = tuple(columns)
        self.standing: dict[Hashable, Row] = {}
        self._ended: list[tuple[int, int, int]] = []
        self._made_and_ended: list[tuple[Any, ...]] = []

    def take(self, key: Hashable, row: Mapping[str, Any]) -> None:
        """A row that stands already."""
        values = {name: row[name] for name in self.columns}
        if "elements" in values:
            values["elements"] = _DECODE(values["elements"])
        self.standing[key] = Row(id=row["id"], position_from=row["position_from"], is_saved=True, values=values)

    def put(self, key: Hashable, values: dict[str, Any], position: int, ordinal: int) -> Row:
        """The entity is like this from here on; ``ordinal`` numbers it in its event, where it is new."""
        before = self.standing.get(key)
        if before is not None and before.values == values:
            return before
        id_ = before.id if before is not None else position * ORDINALS + ordinal
        if before is not None:
            self._close(before, position)
        row = self.standing[key] = Row(id=id_, position_from=position, is_saved=False, values=values)
        return row

    def end(self, key: Hashable, position: int) -> None:
        """There is no such entity from here on."""
        row = self.standing.pop(key, None)
        if row is not None:
            self._close(row, position)

    def _close(self, row: Row, position: int) -> None:
        if row.is_saved:
            self._ended.append((row.id, row.position_from, position))
        elif row.position_from < position:
            self._made_and_ended.append(self._record(row, position))

    async def write(self, connection: asyncpg.Connection) -> None:
        if self._ended:
            await connection.executemany(f"UPDATE {self.name} SET position_to = $3 WHERE id = $1 AND position_from = $2", self._ended)
        made = [*self._made_and_ended, *(self._record(row, None) for row in self.standing.values() if not row.is_saved)]
        if made:
            columns = ("id", "position_from", "position_to", *self.columns)
            await connection.copy_records_to_table(self.name, records=made, columns=columns)

    def new_rows(self) -> Iterator[Row]:
        """That stand now and did not before."""
        return (row for row in self.standing.values() if not row.is_saved)

    def _record(self, row: Row, position_to: int | None) -> tuple[Any, ...]:
        values = row.values
        return (
            row.id,
            row.position_from,
            position_to,
            *(_ENCODE(values[name]).decode() if name == "elements" else values[name] for name in self.columns),
        )
