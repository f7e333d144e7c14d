"""Values and their codes. A code stands for all the values that an entity has in a field; code 0 for none.

Most entities have one value or none. Where some have several (ImageType, what differs between a series' instances), counts of codes
are folded into counts of values: so counting never looks at values, only at codes.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable, Sequence

import numpy as np

from domain.condition import Value

Values = tuple[Value, ...]
NONE = 0
"""The code of no value."""
_KEPT_TABLES = 64


class Dictionary:
    """Grows only: readers may look up while the one writer adds."""

    def __init__(self, entries: Iterable[Values] = ()) -> None:
        self.entries: list[Values] = [()]
        self.values: list[Value] = []
        """Distinct, in the order in which they came."""
        self.code_of = _Codes(self)
        self.code_of[()] = NONE
        self.several = False
        """Some entry has more than one value."""
        self._place: dict[Value, int] = {}
        self._holding: dict[Value, list[int]] = {}
        self._pairs: list[tuple[int, int]] = []
        """Codes and the places of values that they hold, where some hold several."""
        self._as_arrays = np.empty((0, 2), np.int64)
        self._tables: dict[object, np.ndarray] = {}
        for entry in entries:
            self.code_of[entry]

    def __len__(self) -> int:
        return len(self.entries)

    def encode(self, rows: Sequence[Values]) -> np.ndarray:
        """The codes of rows; what is new is added."""
        return np.fromiter(map(self.code_of.__getitem__, rows), np.int64, len(rows))

    def holding(self, value: Value) -> Sequence[int]:
        """The codes whose entries hold this value."""
        return tuple(self._holding.get(value, ()))

    def table(self, key: object, meets: Callable[[Values], bool]) -> np.ndarray:
        """For each code, whether its entry meets what ``key`` names: asked once for each entry, however often it is looked up."""
        known = self._tables.get(key)
        done, size = len(known) if known is not None else 0, len(self)
        if known is None or done < size:
            more = np.fromiter(map(meets, self.entries[done:size]), bool, size - done)
            known = more if known is None else np.concatenate([known, more])
            if len(self._tables) >= _KEPT_TABLES:
                self._tables.clear()
            self._tables[key] = known
        return known

    def value_counts(self, code_counts: np.ndarray) -> np.ndarray:
        """How many entities hold each value (by its place in ``values``), from how many have each code."""
        if not self.several:
            return code_counts[1:]  # codes and values came together
        pairs = self._as_arrays
        if len(pairs) != len(self._pairs):
            pairs = self._as_arrays = np.array(self._pairs, np.int64)
        codes, places = pairs[:, 0], pairs[:, 1]
        known = codes < len(code_counts)
        return np.bincount(places[known], weights=code_counts[codes[known]]).astype(np.int64)

    def places(self, code: int) -> list[int]:
        """Of an entry's values."""
        return [self._place[value] for value in self.entries[code]]

    def most_frequent(self, value_counts: np.ndarray, size: int) -> list[int]:
        """Places of the values with the highest counts above zero, highest first, equal ones by value."""
        there = np.flatnonzero(value_counts)
        if len(there) > size:
            counts = value_counts[there]
            least = np.partition(counts, len(counts) - size)[len(counts) - size]
            above, equal = there[counts > least], there[counts == least].tolist()
            by_value = heapq.nsmallest(size - len(above), equal, key=lambda place: in_order(self.values[place]))
            there = np.concatenate([above, np.array(by_value, np.int64)])
        return sorted(there.tolist(), key=lambda place: (-int(value_counts[place]), in_order(self.values[place])))

    def _add(self, entry: Values) -> int:
        code = len(self.entries)
        places = []
        for value in dict.fromkeys(entry):
            if value not in self._place:
                self._place[value] = len(self.values)
                self.values.append(value)
            places.append(self._place[value])
            self._holding.setdefault(value, []).append(code)
        self._pairs += [(code, place) for place in places]
        if len(places) != 1 or places[0] != code - 1:
            self.several = True
        self.entries.append(entry)
        return code


class _Codes(dict[Values, int]):
    """Entry → code; an entry that is not there is added when it is looked up."""

    def __init__(self, dictionary: Dictionary) -> None:
        super().__init__()
        self._dictionary = dictionary

    def __missing__(self, entry: Values) -> int:
        self[entry] = code = self._dictionary._add(entry)
        return code


def in_order(value: Value) -> tuple[int, Value]:
    """Numbers before text, text by code point."""
    return (1, value) if isinstance(value, str) else (0, value)
