"""Rows by value: of ten million findings, those of one structure are found without looking at the others."""

from __future__ import annotations

import numpy as np

from domain.condition import OneOf
from projections.columns.column import Encoded
from projections.columns.layout import LAID
from projections.columns.table import Frame


def group_of(frame: Frame, leaf: OneOf) -> np.ndarray | None:
    """Places of the rows that have one of the values, ascending; None where rows are not grouped by that field."""
    table = frame.table
    column = table.columns.get(leaf.field)
    if leaf.field not in LAID[table.level].grouped or not isinstance(column, Encoded) or frame.low != table.low:
        return None
    done, order, starts = _grouped(frame, leaf.field, column)
    wanted = sorted({code for value in leaf.values for code in column.dictionary.holding(value)})
    parts = [order[starts[code] : starts[code + 1]] for code in wanted if code + 1 < len(starts)]
    since = column.codes(frame.low + done, frame.high)
    parts.append((np.flatnonzero(np.isin(since, wanted)) + done).astype(np.int32))
    found = np.concatenate(parts)
    if len(wanted) > 1:
        found.sort()
    return found[found < len(frame)]


def _grouped(frame: Frame, name: str, column: Encoded) -> tuple[int, np.ndarray, np.ndarray]:
    """How many rows are grouped, their places by code, and where each code's begin."""
    caches, key = frame.table.caches, ("group", name)
    known = caches.get(key)
    if known is None or len(frame) - known[0] > max(100_000, known[0] // 8):
        codes = frame.codes(column)
        order = np.argsort(codes, kind="stable").astype(np.int32)
        starts = np.concatenate([[0], np.cumsum(np.bincount(codes, minlength=len(column.dictionary)))])
        known = caches[key] = (len(frame), order, starts)
    return known
