"""All tables at one position, and the last few positions before it: what the one writer publishes, and readers hold on to."""

from __future__ import annotations

import threading
from collections.abc import Mapping

import numpy as np

from domain.condition import Level
from projections.cohort.errors import PositionUnknown
from projections.cohort.fields import Field
from projections.columns.column import Encoded, Plain
from projections.columns.errors import ColumnsNotReady
from projections.columns.growing import Growing
from projections.columns.layout import INTEGER, LAID, NUMBER
from projections.columns.moment import Moment
from projections.columns.table import Rows, Table, View

KEPT_STATES = 3
"""Readers ask for a position that they were told a moment ago."""
KEPT_MOMENTS = 2
"""Positions of one state that are asked for at the same time."""
MOST_ENDED = 0.25
"""When more of the rows that are looked at for now have ended, the table is put in order."""
FEW_ENDED = 4_000


class State:
    def __init__(self, position: int, views: Mapping[Level, View]) -> None:
        self.position, self.views = position, views
        self._moments: dict[int, Moment] = {}
        self._lock = threading.Lock()

    def at(self, position: int) -> Moment:
        with self._lock:
            found = self._moments.pop(position, None)
            if found is None:
                found = Moment(self.views, position)
                if len(self._moments) >= KEPT_MOMENTS:
                    self._moments.pop(next(iter(self._moments)))
            self._moments[position] = found
        return found


Ends = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Versions that have ended: ids, where they began, where they ended."""
NO_ENDS: Ends = (np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.int64))


class Changes:
    """What a level's rows have become beyond a position: versions that ended, and new ones."""

    def __init__(self, ends: Ends, rows: Rows) -> None:
        self.ends, self.rows = ends, rows

    def __len__(self) -> int:
        return len(self.ends[0]) + len(self.rows.ids)


class Store:
    """Empty until something is published. ``elements``: keys of the elements that are columns, by level."""

    def __init__(self, elements: Mapping[Level, tuple[str, ...]]) -> None:
        self.elements = {level: list(keys) for level, keys in elements.items()}
        self.tables = {level: new_table(level, self.elements.get(level, ())) for level in LAID}
        self._states: tuple[State, ...] = ()

    @property
    def position(self) -> int:
        """Raises ColumnsNotReady."""
        return self._latest().position

    @property
    def is_ready(self) -> bool:
        return bool(self._states)

    def moment(self, position: int) -> Moment:
        """Raises ColumnsNotReady, PositionUnknown."""
        latest, states = self._latest(), self._states
        if position > latest.position:
            raise PositionUnknown(f"position {position} is beyond {latest.position}, up to which the read model has come")
        return next(state for state in states if state.position >= position).at(position)

    def is_column(self, field: Field) -> bool:
        table = self.tables.get(field.level)
        return table is not None and (field.column or field.key) in table.columns

    def add(self, level: Level, change: Changes, position: int) -> bool:
        """Takes in a piece of what is published at this position. False when it does not fit what is here: read all rows anew."""
        table = self.tables[level]
        table.changed_at = position
        return table.end(*change.ends) and table.append(change.rows, self.tables)

    def settle(self, position: int) -> None:
        """Publishes the state at this position, once every piece is there."""
        for level, table in self.tables.items():
            live = len(table) - table.low
            if live > FEW_ENDED and table.may_have_ended > MOST_ENDED * live and table.count_ended() > MOST_ENDED * live:
                self.tables[level] = table.put_in_order(position)
        self.publish(position)

    def publish(self, position: int) -> None:
        """Makes what is in the tables visible."""
        before = self._states[-1].views if self._states else {}
        views: dict[Level, View] = {}
        for level, table in self.tables.items():
            known = before.get(level)
            unchanged = known is not None and known.table is table and known.size == len(table) and known.changed_at == table.changed_at
            views[level] = known if known is not None and unchanged else View(table, position, known)
        self._states = (*self._states[1 - KEPT_STATES :], State(position, views))

    def take_over(self, other: Store) -> None:
        """What was read anew takes the place of what is here."""
        self.elements, self.tables, self._states = other.elements, other.tables, other._states

    def forget_states(self) -> None:
        """So that nobody who asks from now on sees what was before."""
        self._states = self._states[-1:]

    def drop(self, gone: Mapping[Level, np.ndarray], position: int) -> None:
        """Rows that are no more (masks over all rows), their values too where nobody else has them."""
        for level, mask in gone.items():
            if mask.any():
                self.tables[level] = self.tables[level].put_in_order(position, ~mask)
                self.tables[level].changed_at = position
        self.publish(position)
        self.forget_states()

    @property
    def rows(self) -> dict[Level, int]:
        return {level: len(table) for level, table in self.tables.items()}

    @property
    def nbytes(self) -> int:
        """Of the arrays; dictionaries and what is worked out on the way come on top."""
        return sum(table.nbytes for table in self.tables.values())

    def _latest(self) -> State:
        if not self._states:
            raise ColumnsNotReady("the columns are being read: ask again in a moment")
        return self._states[-1]


def new_table(level: Level, elements: tuple[str, ...] | list[str] = ()) -> Table:
    table = Table(level)
    table.belongs = {above: Growing(np.int32) for above in LAID[level].belongs}
    for name, kind in LAID[level].columns.items():
        table.columns[name] = Plain(np.float64) if kind == NUMBER else Plain(np.int64) if kind == INTEGER else Encoded()
    for key in elements:
        table.columns[key] = Encoded()
    return table
