"""Long arrays a piece at a time. NumPy makes 64-bit indices of smaller codes on the way: of a piece they stay in the processor's cache,
which of ten million rows is three to six times as fast as at once; and memory for them is at hand, where that for large arrays is often
given back to the system and cleared again."""

from __future__ import annotations

import numpy as np

PIECE = 1 << 16


def taken(table: np.ndarray, codes: np.ndarray) -> np.ndarray:
    """The table's entry for each code."""
    found = np.empty(len(codes), table.dtype)
    for start in range(0, len(codes), PIECE):
        found[start : start + PIECE] = table.take(codes[start : start + PIECE])
    return found


def counted(codes: np.ndarray, places: np.ndarray, size: int) -> np.ndarray:
    """How many of these places have each code below ``size``. A code below zero counts as the last."""
    found = np.zeros(size, np.int64)
    step = max(PIECE, size)  # what is added up for each piece is as long as ``size``
    for start in range(0, len(places), step):
        piece = codes.take(places[start : start + step])
        if piece.dtype.kind == "i" and piece.min() < 0:
            piece = np.where(piece < 0, size - 1, piece)
        found += np.bincount(piece, minlength=size)
    return found
