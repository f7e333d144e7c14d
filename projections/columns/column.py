"""One field of one level: an array with an entry for each row, either codes of a dictionary or numbers as they are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from projections.columns.dictionary import NONE, Dictionary, Values
from projections.columns.growing import Growing

_UNSIGNED = (np.uint8, np.uint16, np.uint32)
_NONE = np.uint8(NONE)


class Coded:
    """Rows whose values are given by places among some entries: what another encoding has made of them."""

    def __init__(self, places: np.ndarray, entries: Sequence[Values]) -> None:
        self.places, self.entries = places, entries

    def __len__(self) -> int:
        return len(self.places)


class Encoded:
    """Codes of a dictionary, in the smallest unsigned integers that hold them; while no row has a value, no array at all."""

    def __init__(self, dictionary: Dictionary | None = None, codes: np.ndarray | Growing | None = None, size: int = 0) -> None:
        self.dictionary = dictionary or Dictionary()
        self._codes = codes if isinstance(codes, Growing) else Growing(np.uint8 if codes is None else codes.dtype, codes)
        self._empty = size
        """So many rows have come while none had a value."""
        self._fit()
        self._totals: tuple[int, int, np.ndarray] | None = None

    def append(self, rows: Sequence[Values] | Coded) -> None:
        codes = self.dictionary.encode(rows.entries).take(rows.places) if isinstance(rows, Coded) else self.dictionary.encode(rows)
        if len(self.dictionary) == 1:
            self._empty += len(rows)
            return
        self._fit()
        self._codes.append(codes)

    def _fit(self) -> None:
        if len(self.dictionary) == 1:
            self._empty, self._codes = self._empty + self._codes.size, Growing(np.uint8)
            return
        if self._empty:
            first, self._empty = np.zeros(self._empty, np.uint8), 0
            self._codes = Growing(np.uint8, first)
        wanted = narrowest(len(self.dictionary))
        if np.dtype(wanted).itemsize > self._codes.buffer.itemsize:
            wider = Growing(wanted, self._codes.values.astype(wanted))
            self._codes = wider

    def codes(self, low: int, high: int) -> np.ndarray:
        found = self._codes.buffer
        return found[low:high] if len(found) else np.broadcast_to(_NONE, high - low)

    def code_at(self, row: int) -> int:
        found = self._codes.buffer
        return int(found[row]) if len(found) else NONE

    @property
    def nbytes(self) -> int:
        return self._codes.nbytes

    @property
    def all_codes(self) -> np.ndarray:
        return self._codes.values if self._codes.size else np.broadcast_to(_NONE, self._empty)

    @property
    def kept(self) -> np.ndarray:
        """What has to be kept to make it again: no codes where no row has a value."""
        return self._codes.values

    def totals(self, low: int, high: int) -> np.ndarray:
        """How many of rows [low, high) have each code. Kept: what has come since is counted beside it."""
        kept = self._totals
        if kept is None or kept[0] != low:
            counts = np.bincount(self.codes(low, high), minlength=len(self.dictionary))
        else:
            _, done, counts = kept
            if done == high:
                return counts
            first, last = sorted((done, high))
            between = np.bincount(self.codes(first, last), minlength=len(counts))
            counts = np.pad(counts, (0, max(0, len(between) - len(counts))))
            counts = counts + between if high > done else counts - between
        if kept is None or kept[0] <= low:  # the present, rather than what was before
            self._totals = low, high, counts
        return counts

    def taken(self, rows: np.ndarray) -> Encoded:
        """Of these rows alone, with a dictionary that holds what they hold and nothing else."""
        if len(self.dictionary) == 1:
            return Encoded(size=len(rows))
        codes = self.all_codes
        used = np.zeros(len(self.dictionary), bool)
        codes = codes.take(rows)
        used[codes] = True
        used[0] = True
        if used.all():
            return Encoded(self.dictionary, codes)
        kept = np.flatnonzero(used)
        if len(kept) == 1:
            return Encoded(size=len(rows))
        renumbered = np.zeros(len(used), np.int64)
        renumbered[kept] = np.arange(len(kept))
        dictionary = Dictionary(self.dictionary.entries[code] for code in kept[1:].tolist())
        return Encoded(dictionary, renumbered.take(codes).astype(narrowest(len(kept))))


class Plain:
    """Numbers as they are; NaN for none."""

    def __init__(self, dtype: Any, values: np.ndarray | Growing | None = None) -> None:
        self._values = values if isinstance(values, Growing) else Growing(dtype, values)

    def append(self, rows: Sequence[float | int | None] | np.ndarray) -> None:
        if isinstance(rows, np.ndarray):
            self._values.append(rows)
        elif self._values.buffer.dtype.kind == "f":
            self._values.append(np.array([np.nan if row is None else row for row in rows], self._values.buffer.dtype))
        else:
            self._values.append(np.array(rows, self._values.buffer.dtype))

    def values(self, low: int, high: int) -> np.ndarray:
        return self._values.buffer[low:high]

    def value_at(self, row: int) -> float | int:
        found: float | int = self._values.buffer[row].item()
        return found

    @property
    def all_values(self) -> np.ndarray:
        return self._values.values

    @property
    def nbytes(self) -> int:
        return self._values.nbytes

    def taken(self, rows: np.ndarray) -> Plain:
        return Plain(self._values.buffer.dtype, self._values.values.take(rows))


Column = Encoded | Plain


def narrowest(size: int) -> Any:
    """The smallest type that holds codes below ``size``."""
    return next(each for each in _UNSIGNED if size <= np.iinfo(each).max + 1)
