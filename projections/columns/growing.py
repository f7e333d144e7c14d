"""An array that grows at its end alone, so that readers need no lock.

A reader who knows how many entries there are finds in any later buffer what it found in an earlier one.
"""

from __future__ import annotations

from typing import Any

import numpy as np


class Growing:
    def __init__(self, dtype: Any, first: np.ndarray | None = None) -> None:
        self.buffer: np.ndarray = np.empty(0, dtype) if first is None else np.ascontiguousarray(first, dtype)
        self.size = len(self.buffer)

    @classmethod
    def to_fill(cls, dtype: Any, size: int) -> Growing:
        """So many entries that the caller writes into ``values``, with room for those that come."""
        made = cls(dtype)
        made.buffer, made.size = np.empty(_with_room(size), dtype), size
        return made

    def append(self, values: Any) -> None:
        end = self.size + len(values)
        if end > len(self.buffer):
            grown = np.empty(_with_room(end), self.buffer.dtype)
            grown[: self.size] = self.buffer[: self.size]
            self.buffer = grown
        self.buffer[self.size : end] = values
        self.size = end

    @property
    def values(self) -> np.ndarray:
        return self.buffer[: self.size]

    @property
    def nbytes(self) -> int:
        return self.size * self.buffer.itemsize


def _with_room(size: int) -> int:
    return size + size // 16 + 256
