"""Which rows of a frame were asked for, and how many of them have what: never more rows are looked at than half of all.

Counts of the present go on from one state to the next (projections.columns.lasting): only what came or ended is counted.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from domain.condition import Level
from projections.columns.column import Encoded, Plain
from projections.columns.lasting import Tallies
from projections.columns.pieces import counted
from projections.columns.table import Frame

MOST_CHANGED = 0.125
"""When a larger part of the rows has come or ended, everything is counted again."""


class Selection:
    """``met``: the rows that meet the condition, whether they stand or not; None where all do. What is worked out is kept."""

    def __init__(self, frame: Frame, met: np.ndarray | None, tallies: Tallies | None = None) -> None:
        self.frame, self._met = frame, met
        self._mask: np.ndarray | None = None
        self._rows: np.ndarray | None = None
        self._others: np.ndarray | None = None
        self.tallies = Tallies(frame.high, frame.ended, int(np.count_nonzero(self.mask))) if tallies is None else tallies
        self.kept: dict[Any, Any] = {}

    @property
    def size(self) -> int:
        return self.tallies.size

    @property
    def mask(self) -> np.ndarray:
        if self._mask is None:
            standing = self.frame.everything()
            self._mask = standing if self._met is None else self._met if self.frame.stands is None else self._met & standing
        return self._mask

    @property
    def rows(self) -> np.ndarray:
        """Places of what is selected."""
        if self._rows is None:
            self._rows = np.flatnonzero(self.mask)
        return self._rows

    @property
    def others(self) -> np.ndarray:
        """Places of what is not."""
        if self._others is None:
            self._others = self.frame.invalid if self.size == len(self.frame) - len(self.frame.invalid) else np.flatnonzero(~self.mask)
        return self._others

    @property
    def is_most(self) -> bool:
        return self.size > len(self.frame) // 2

    @property
    def nbytes(self) -> int:
        """Of what it has worked out so far, its counts left aside."""
        return sum(array.nbytes for array in (self._mask, self._rows, self._others) if array is not None)

    def code_counts(self, column: Encoded) -> np.ndarray:
        """How many of what is selected have each code."""
        found = self.tallies.codes.get(column)
        if found is None:
            found = self.tallies.codes[column] = self._code_counts(column)
        return found

    def _code_counts(self, column: Encoded) -> np.ndarray:
        codes = self.frame.codes(column)
        size = len(column.dictionary)
        if not self.is_most:
            return counted(codes, self.rows, size)
        totals = column.totals(self.frame.low, self.frame.high)
        counts = counted(codes, self.others, max(size, len(totals)))
        return np.pad(totals, (0, len(counts) - len(totals))) - counts

    def owner_flags(self, level: Level, entities: int) -> np.ndarray:
        """Which entities of a level something selected belongs to; one more entry at the end, for none."""
        flags = self.per_owner(level, entities) > 0
        flags[-1] = False
        return flags

    def per_owner(self, level: Level, entities: int) -> np.ndarray:
        """How many of what is selected belong to each entity of a level; at the end, to none."""
        found = self.tallies.owners.get(level)
        if found is None or len(found) != entities + 1:
            found = self.tallies.owners[level] = counted(self.frame.owner(level), self.rows, entities + 1)
        return found

    def total(self, column: Plain) -> int:
        """The sum of whole numbers."""
        found = self.tallies.totals.get(column)
        if found is None:
            values = self.frame.values(column)
            found = self.tallies.totals[column] = int((values if self.size == len(self.frame) else values.take(self.rows)).sum())
        return found


def continued(before: Tallies, frame: Frame, met: np.ndarray | None, entities: Callable[[Level], int]) -> Tallies | None:
    """The same counts in a later frame of the same table. None where so much has changed that counting anew is as fast."""
    came = np.arange(before.high - frame.low, len(frame))
    gone = frame.gone_since(before.high, before.ended)
    if len(came) + len(gone) > MOST_CHANGED * len(frame):
        return None
    if frame.stands is not None:
        came = came[frame.stands.take(came)]
    if met is not None:
        came, gone = came[met.take(came)], gone[met.take(gone)]
    made = Tallies(frame.high, frame.ended, before.size + len(came) - len(gone))
    present = set(frame.table.columns.values())
    for column, counts in before.codes.copy().items():
        if column in present:
            made.codes[column] = _recounted(counts, frame.codes(column), len(column.dictionary), came, gone)
    for level, owned in before.owners.copy().items():
        made.owners[level] = _reowned(owned, frame.owner(level), entities(level), came, gone)
    for plain, total in before.totals.copy().items():
        values = frame.values(plain)
        made.totals[plain] = total + int(values.take(came).sum()) - int(values.take(gone).sum())
    return made


def _recounted(counts: np.ndarray, codes: np.ndarray, size: int, came: np.ndarray, gone: np.ndarray) -> np.ndarray:
    if not len(came) and not len(gone):
        return counts
    return np.pad(counts, (0, size - len(counts))) + np.bincount(codes.take(came), minlength=size) - np.bincount(codes.take(gone), minlength=size)


def _reowned(counts: np.ndarray, owners: np.ndarray, entities: int, came: np.ndarray, gone: np.ndarray) -> np.ndarray:
    if not len(came) and not len(gone) and len(counts) == entities + 1:
        return counts
    found = np.zeros(entities + 1, np.int64)
    known = min(len(counts) - 1, entities)  # a reader of an earlier state may know fewer, to whom no row of its belongs
    found[:known], found[-1] = counts[:known], counts[-1]
    np.add.at(found, owners.take(came), 1)  # of no entity: -1, which is the last
    np.subtract.at(found, owners.take(gone), 1)
    return found
