"""The rows of one level as arrays: each row a version of an entity, which held for positions in [position_from, position_to).

One task writes, any number of threads read. Rows are only added at the end; of a row that is there, only the end of its time changes,
from never to a position that no reader asks for yet. So a reader needs no lock: it knows how many rows it may see, and its position.

Rows that ended before the table was put in order (``base_position``) stand first. Who asks for now looks at none of them.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from domain.condition import Level
from projections.columns.column import Column, Encoded, Plain
from projections.columns.dictionary import Values
from projections.columns.growing import Growing
from projections.columns.kept import Kept
from projections.columns.lasting import Lasting

NEVER = np.iinfo(np.int64).max
NOTHING = -1
"""No entity's id."""
LASTING_BYTES, LASTING_BYTES_A_ROW = 64 << 20, 16
"""What a table keeps of conditions that were asked, the larger of the two: each takes a byte a row, and its counts."""
KEPT_AT_LEAST = 3
_KEPT_FRAMES = 3
_PRESENT = -1


class Rows:
    """What is to be added: of each row its entity's id, its time, the ids of what it belongs to, and its columns' values."""

    def __init__(self, ids: Sequence[int], begins: Sequence[int], ends: Sequence[int | None]) -> None:
        self.ids = np.array(ids, np.int64)
        self.begins = np.array(begins, np.int64)
        self.ends = np.array([NEVER if end is None else end for end in ends], np.int64)
        self.belongs: dict[Level, np.ndarray] = {}
        """Ids of entities of a level; NOTHING where there is none."""
        self.columns: dict[str, Any] = {}


    @classmethod
    def of(cls, ids: np.ndarray, begins: np.ndarray, ends: np.ndarray) -> Rows:
        """From arrays; ends are NEVER where they are not known."""
        rows = cls((), (), ())
        rows.ids, rows.begins, rows.ends = ids, begins, ends
        return rows

    @classmethod
    def none(cls, table: Table) -> Rows:
        """No rows, for a table."""
        rows = cls([], [], [])
        rows.belongs = {level: np.empty(0, np.int64) for level in table.belongs}
        rows.columns = {name: () for name in table.columns}
        return rows


class Table:
    """The writer's side. ``entities``: ids, ascending; an entity's place in it is its ordinal."""

    def __init__(self, level: Level) -> None:
        self.level = level
        self.entities = Growing(np.int64)
        self.entity, self.begins, self.ends = Growing(np.int32), Growing(np.int64), Growing(np.int64)
        self.belongs: dict[Level, Growing] = {}
        self.columns: dict[str, Column] = {}
        self.low = 0
        self.base_position = 0
        self.changed_at = 0
        self.may_have_ended = 0
        """At most so many of the rows that are looked at for now have ended."""
        self._standing = Growing(np.int32)
        """Of each entity, the row that came last."""
        self.ended_rows = Growing(np.int32)
        """Rows that were there and have ended, in the order in which they did."""
        self.caches: dict[Any, Any] = {}
        """What readers have worked out of rows that do not change: orders, groups."""
        self.lasting = Kept[Lasting](lambda: max(LASTING_BYTES, LASTING_BYTES_A_ROW * len(self)), KEPT_AT_LEAST)

    def __len__(self) -> int:
        return self.entity.size

    def ordinals(self, ids: np.ndarray) -> np.ndarray:
        """Of entities by id; −1 where there is none."""
        known = self.entities.values
        if not len(known):
            return np.full(len(ids), -1, np.int32)
        places = np.searchsorted(known, ids)
        places[places == len(known)] = 0
        return np.where(known[places] == ids, places, -1).astype(np.int32)

    def append(self, rows: Rows, tables: Mapping[Level, Table]) -> bool:
        """Rows in order of id and time. False when an entity came out of order: everything is to be read anew."""
        new = np.unique(rows.ids[self.ordinals(rows.ids) < 0])
        if len(new):
            if self.entities.size and new[0] < self.entities.values[-1]:
                return False
            self.entities.append(new)
            self._standing.append(np.full(len(new), -1, np.int32))
        ordinals = self.ordinals(rows.ids)
        first = len(self)
        for level, of_level in self.belongs.items():
            of_level.append(tables[level].ordinals(rows.belongs[level]))
        for name, column in self.columns.items():
            column.append(rows.columns[name])
        self.may_have_ended += int(np.count_nonzero(rows.ends != NEVER))
        self.begins.append(rows.begins)
        self.ends.append(rows.ends)
        self.entity.append(ordinals)  # last: how many rows there are
        self._standing.buffer[ordinals] = np.arange(first, len(self), dtype=np.int32)
        return True

    def end(self, ids: np.ndarray, begins: np.ndarray, ends: np.ndarray) -> bool:
        """Rows that are there have ended. False when one is not there: everything is to be read anew."""
        ordinals = self.ordinals(ids)
        if not len(ordinals):
            return True
        if ordinals.min() < 0:
            return False
        rows = self._standing.values[ordinals]
        if (self.begins.values[rows] != begins).any():
            return False
        self.ends.buffer[rows] = ends
        self.ended_rows.append(rows)
        self.may_have_ended += len(ends)
        return True

    def put_in_order(self, position: int, keep: np.ndarray | None = None) -> Table:
        """A table of the rows to keep (all by default): what has ended up to ``position`` first, each part by entity and time.

        Entities keep their ordinals, by which other tables know them, even those that have no row any more.
        """
        rows = np.arange(len(self)) if keep is None else np.flatnonzero(keep)
        entity, begins, ends = self.entity.values[rows], self.begins.values[rows], self.ends.values[rows]
        present = ends > position
        order = np.lexsort((begins, entity, present))
        rows = rows[order]
        made = Table(self.level)
        made.entities = self.entities
        made.entity = Growing(np.int32, entity[order])
        made.begins, made.ends = Growing(np.int64, begins[order]), Growing(np.int64, ends[order])
        made.belongs = {level: Growing(np.int32, ordinals.values[rows]) for level, ordinals in self.belongs.items()}
        made.columns = {name: column.taken(rows) for name, column in self.columns.items()}
        made.low, made.base_position, made.changed_at = int(len(rows) - np.count_nonzero(present)), position, max(self.changed_at, position)
        made.stand()
        return made

    def stand(self) -> None:
        """Works out which row of each entity came last: of one entity, a later version is always further behind."""
        self._standing = Growing.to_fill(np.int32, self.entities.size)
        self._standing.values[:] = -1
        self._standing.values[self.entity.values] = np.arange(len(self), dtype=np.int32)

    def count_ended(self) -> int:
        """How many of the rows that are looked at for now have ended."""
        self.may_have_ended = int(np.count_nonzero(self.ends.values[self.low :] != NEVER))
        return self.may_have_ended

    @property
    def nbytes(self) -> int:
        arrays = (self.entities, self.entity, self.begins, self.ends, self._standing, *self.belongs.values())
        return sum(array.nbytes for array in arrays) + sum(column.nbytes for column in self.columns.values())


class View:
    """What readers see of a table from one state to the next: so many rows of it."""

    def __init__(self, table: Table, position: int, before: View | None = None) -> None:
        self.table, self.size = table, len(table)
        self.entities = table.entities.size
        self.changed_at = table.changed_at
        self.ended = table.ended_rows.size
        known = before is not None and before.table is table
        self._frames: dict[int, Frame] = {_PRESENT: Frame(self, position, before.at(before.changed_at) if before is not None and known else None)}
        self._lock = threading.Lock()

    def at(self, position: int) -> Frame:
        """What stood at a position up to the state's own."""
        key = _PRESENT if position >= self.changed_at else position
        with self._lock:
            frame = self._frames.get(key)
            if frame is None:
                if len(self._frames) >= _KEPT_FRAMES:
                    self._frames.pop(next(each for each in self._frames if each != _PRESENT))
                frame = self._frames[key] = Frame(self, position)
        return frame


class Frame:
    """The rows of a view that are looked at for a position, [low, high), and which of them stood then."""

    def __init__(self, view: View, position: int, before: Frame | None = None) -> None:
        """``before``: the present of an earlier state of the same table, where this is the present too."""
        table = self.table = view.table
        self.low, self.high, self.entities = (table.low if position >= table.base_position else 0), view.size, view.entities
        self.is_present = position >= view.changed_at
        """And not what stood before the last change."""
        self.ended = view.ended
        self.invalid = self._all_invalid(position) if before is None else self._invalid_since(before, position)
        """Places of rows that do not stand."""
        self.stands: np.ndarray | None = None
        """None where all do."""
        if len(self.invalid):
            self.stands = np.ones(len(self), bool)
            self.stands[self.invalid] = False
        self.kept: dict[Any, Any] = {}
        """What was worked out of this frame, by whoever needed it."""

    def _all_invalid(self, position: int) -> np.ndarray:
        begins, ends = self.table.begins.buffer[self.low : self.high], self.table.ends.buffer[self.low : self.high]
        return np.flatnonzero((begins > position) | (ends <= position))

    def _invalid_since(self, before: Frame, position: int) -> np.ndarray:
        ends = self.table.ends.buffer[before.high : self.high]
        return np.concatenate([before.invalid, self.gone_since(before.high, before.ended), np.flatnonzero(ends <= position) + len(before)])

    def gone_since(self, high: int, ended: int) -> np.ndarray:
        """Places of rows below ``high`` that stood when so many rows had ended, and stand no more."""
        rows = self.table.ended_rows.buffer[ended : self.ended]
        return np.unique(rows[rows < high]).astype(np.int64) - self.low

    def __len__(self) -> int:
        return self.high - self.low

    @property
    def entity(self) -> np.ndarray:
        return self.table.entity.buffer[self.low : self.high]

    def ids_at(self, places: Sequence[int]) -> list[int]:
        """Of the entities of these rows."""
        ids: list[int] = self.table.entities.buffer[self.entity[list(places)]].tolist() if len(places) else []
        return ids

    def owner(self, level: Level) -> np.ndarray:
        """Ordinals of what each row belongs to."""
        return self.table.belongs[level].buffer[self.low : self.high]

    def codes(self, column: Encoded) -> np.ndarray:
        return column.codes(self.low, self.high)

    def values(self, column: Plain) -> np.ndarray:
        return column.values(self.low, self.high)

    def everything(self) -> np.ndarray:
        """A mask of the rows that stand."""
        return np.ones(len(self), bool) if self.stands is None else self.stands

    def row_of(self) -> np.ndarray:
        """Of each entity, the place of the row that stands; −1 where none does. One more entry at the end, for no entity."""
        found = self.kept.get("row_of")
        if found is None:
            found = np.full(self.entities + 1, -1, np.int32)
            if self.stands is None:
                found[self.entity] = np.arange(len(self), dtype=np.int32)
            else:
                rows = np.flatnonzero(self.stands)
                found[self.entity[rows]] = rows
            self.kept["row_of"] = found
        return found


State = Mapping[Level, View]
__all__ = ["NEVER", "Frame", "Rows", "State", "Table", "Values", "View"]
