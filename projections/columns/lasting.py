"""What questions have found of the present, taken over from one state to the next: only rows that came or ended are looked at again.

A row never changes what it says; only its end does. So whether it meets a condition stays as it was, unless that was said of an entity
of another level (the sex of a series' subject) and is said differently now.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping

import numpy as np

from domain.condition import Level
from projections.columns.column import Encoded, Plain
from projections.columns.growing import Growing

Leans = Mapping[tuple[Level, bytes], np.ndarray]
"""By level and part of a condition, what holds of each entity of that level; one more entry at the end, for none."""


class Tallies:
    """Counts over the rows of a frame that stand and meet a condition. ``high``, ``ended``: how far the frame reaches."""

    def __init__(self, high: int, ended: int, size: int) -> None:
        self.high, self.ended, self.size = high, ended, size
        self.codes: dict[Encoded, np.ndarray] = {}
        self.owners: dict[Level, np.ndarray] = {}
        self.totals: dict[Plain, int] = {}

    @property
    def nbytes(self) -> int:
        return sum(counts.nbytes for counts in (*self.codes.copy().values(), *self.owners.copy().values()))


class Lasting:
    """Of one condition: which rows of the present meet it, whether they stand or not (``met``; None: all do), and what was counted of them."""

    def __init__(self, met: np.ndarray | None, leans: Leans) -> None:
        self.tallies: Tallies | None = None
        self._met = None if met is None else Growing(bool, met)
        self._leans = leans
        self._lock = threading.Lock()

    def met(self, size: int, leans: Leans, more: Callable[[np.ndarray], np.ndarray]) -> np.ndarray | None:
        """Of so many rows; ``more`` says it of those that came since. None when what it leans on is said differently now, or all meet it."""
        with self._lock:
            if self._met is None or self._leans.keys() != leans.keys() or not all(_same(flags, leans[key]) for key, flags in self._leans.items()):
                return None
            if self._met.size < size:
                self._met.append(more(np.arange(self._met.size, size)))
                self._leans = leans
            return self._met.buffer[:size]

    def count(self, tallies: Tallies) -> None:
        """The latest are kept."""
        with self._lock:
            if self.tallies is None or tallies.high >= self.tallies.high:
                self.tallies = tallies

    @property
    def nbytes(self) -> int:
        arrays = (*self._leans.values(), *(() if self._met is None else (self._met,)), *(() if self.tallies is None else (self.tallies,)))
        return sum(array.nbytes for array in arrays)


def _same(one: np.ndarray, other: np.ndarray) -> bool:
    """Of the entities that both know."""
    both = min(len(one), len(other)) - 1
    return one is other or bool(np.array_equal(one[:both], other[:both]))
