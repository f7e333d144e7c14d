"""Which rows of a frame were asked for, and how many of them have what: never more rows are looked at than half of all."""

from __future__ import annotations

from typing import Any

import numpy as np

from domain.condition import Level
from projections.columns.column import Encoded
from projections.columns.table import Frame


class Selection:
    """A mask over a frame's rows. What is worked out of it is kept with it."""

    def __init__(self, frame: Frame, mask: np.ndarray) -> None:
        self.frame, self.mask = frame, mask
        self.size = int(np.count_nonzero(mask))
        self._rows: np.ndarray | None = None
        self._others: np.ndarray | None = None
        self._flags: dict[Level, np.ndarray] = {}
        self.kept: dict[Any, Any] = {}
        self._per_owner: dict[Level, np.ndarray] = {}

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

    def code_counts(self, column: Encoded) -> np.ndarray:
        """How many of what is selected have each code."""
        codes = self.frame.codes(column)
        size = len(column.dictionary)
        if not self.is_most:
            return np.bincount(codes.take(self.rows), minlength=size)
        totals = column.totals(self.frame.low, self.frame.high)
        counts = np.bincount(codes.take(self.others), minlength=max(size, len(totals)))
        return np.pad(totals, (0, len(counts) - len(totals))) - counts

    def owner_flags(self, level: Level, entities: int) -> np.ndarray:
        """Which entities of a level something selected belongs to; one more entry at the end, for none."""
        found = self._flags.get(level)
        if found is None:
            found = np.zeros(entities + 1, bool)
            found[self.frame.owner(level).take(self.rows)] = True
            found[-1] = False
            self._flags[level] = found
        return found

    def per_owner(self, level: Level, entities: int) -> np.ndarray:
        """How many of what is selected belong to each entity of a level; at the end, to none."""
        found = self._per_owner.get(level)
        if found is None:
            owners = self.frame.owner(level).take(self.rows)
            if len(owners) and owners.min() < 0:
                owners = np.where(owners < 0, entities, owners)
            found = self._per_owner[level] = np.bincount(owners, minlength=entities + 1)
        return found
