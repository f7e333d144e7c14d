"""Pages in order. The order of all rows by a field is worked out once; what has come or changed since is merged into each page.

A page begins at a key and an id and not at a number, so that the thousandth costs what the first does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cmp_to_key
from typing import Any

import msgspec
import numpy as np

from domain.condition import Value
from projections.cohort.engine import After, Asked, Order, Page
from projections.cohort.fields import Field, field_named
from projections.columns.column import Column, Encoded, Plain
from projections.columns.counting import whole_condition
from projections.columns.dictionary import in_order
from projections.columns.errors import NotAColumn
from projections.columns.moment import Moment
from projections.columns.selection import Selection
from projections.columns.table import NEVER, Frame, Table

FEW = 2_000
"""So few selected rows are put in order themselves."""
BESIDE = 4_000
"""More rows than these beside an order, and it is worked out anew."""
_FIRST_STRIDE = 1024


class _Ordered(msgspec.Struct, frozen=True):
    """``places``: rows [0, done) of the present, in order, as they were at ``position``."""

    places: np.ndarray
    done: int
    position: int
    upper: Table
    upper_done: int


def page(moment: Moment, asked: Asked, first: int, order: Order | None, after: After | None, *, backwards: bool) -> Page:
    """The ``first`` entities beyond ``after``; ``backwards``: before it."""
    level = asked.query.level
    selection = moment.select(level, whole_condition(asked))
    keys = _Keys(moment, selection.frame, field_named(order.field, level) if order is not None else None, order is not None and order.descending)
    cursor = None if after is None else (after.key, keys.ordinal_after(after.id))
    frame = selection.frame
    ordered = None if selection.size <= FEW or frame.low != frame.table.low else _ordered(keys)
    if ordered is None:
        found = _walk(_sorted(selection, keys), None, keys, cursor, first + 1, backwards=backwards)
    else:
        places, beside = _beside(selection, keys, ordered)
        found = _walk(places, selection.mask, keys, cursor, first + 1, backwards=backwards)
        found = _merged(found, beside, keys, cursor, first + 1, backwards=backwards)
    has_more = len(found) > first
    found = (found[-first:] if backwards else found[:first]) if first else []
    return Page(ids=frame.ids_at(found), keys=[keys.of(place)[0] for place in found], has_more=has_more)


class _Keys:
    """What each row of a frame is put in order by: its smallest (descending: largest) value, then its entity's ordinal."""

    def __init__(self, moment: Moment, frame: Frame, field: Field | None, descending: bool) -> None:
        self.frame, self.field, self.descending, self.position = frame, field, descending, moment.position
        self.upper = frame if field is None or field.level == frame.table.level else moment.frame(field.level)
        column = moment.column(field) if field is not None else None
        if field is not None and column is None:
            raise NotAColumn(field.name)
        self.column: Column | None = column
        self._rows = self.upper.row_of() if self.upper is not frame else None

    @property
    def name(self) -> tuple[object, ...]:
        return ("order", self.field.level, self.field.column or self.field.key, self.descending) if self.field is not None else ("order",)

    def of(self, place: int) -> tuple[Value | None, int]:
        """Also of a row that came after the frame."""
        return self._value(place), int(self.frame.table.entity.buffer[self.frame.low + place])

    def _value(self, place: int) -> Value | None:
        if self.column is None:
            return None
        row = self.frame.low + place
        if self._rows is not None:
            at = int(self._rows[self.frame.table.belongs[self.upper.table.level].buffer[row]])
            if at < 0:
                return None
            row = self.upper.low + at
        if isinstance(self.column, Encoded):
            return self.entry(self.column.code_at(row))
        value = self.column.value_at(row)
        return None if value != value else value  # not a number

    def entry(self, code: int) -> Value | None:
        assert isinstance(self.column, Encoded)
        entry = self.column.dictionary.entries[code]
        return (max if self.descending else min)(entry, key=in_order) if entry else None

    def compare(self, one: tuple[Value | None, int], other: tuple[Value | None, int]) -> int:
        (a, m), (b, n) = one, other
        if a != b:
            if a is None or b is None:
                return 1 if a is None else -1
            return -1 if (in_order(a) < in_order(b)) != self.descending else 1
        return (m > n) - (m < n)

    def ordinal_after(self, id_: int) -> Any:
        """Of an entity; of one that is not there, between its neighbours."""
        known = self.frame.table.entities.values
        at = int(np.searchsorted(known, id_))
        return at if at < len(known) and known[at] == id_ else at - 0.5

    def ranks(self, places: np.ndarray | None) -> np.ndarray:
        """Of these places (all: None), numbers that stand in the order of their values; what has none comes last."""
        at = places
        if self._rows is not None:
            owners = self.frame.owner(self.upper.table.level)
            at = self._rows.take(owners if places is None else owners.take(places))
        if isinstance(self.column, Plain):
            values = self.upper.values(self.column)
            values = values if at is None else values.take(np.maximum(at, 0)) if len(values) else np.zeros(len(at))
            found = np.array(values, np.float64)
            if self.descending:
                found = -found
            if at is not None and self._rows is not None:
                found[at < 0] = np.nan
            return found  # NaN is sorted last
        assert isinstance(self.column, Encoded)
        codes = self.upper.codes(self.column)
        codes = codes if at is None else codes.take(np.maximum(at, 0)) if len(codes) else np.zeros(len(at), np.uint8)
        if at is not None and self._rows is not None:
            codes = np.where(at < 0, 0, codes)
        used = np.flatnonzero(np.bincount(codes, minlength=1))
        entries = {code: self.entry(code) for code in used.tolist()}
        distinct = sorted({value for value in entries.values() if value is not None}, key=in_order, reverse=self.descending)
        number = {value: n for n, value in enumerate(distinct)}
        table = np.full(int(used.max(initial=0)) + 1, len(distinct), np.int32)
        for code, value in entries.items():
            if value is not None:
                table[code] = number[value]
        return table.take(codes)


def _sorted(selection: Selection, keys: _Keys) -> np.ndarray:
    found = selection.kept.get(keys.name)
    if found is None:
        rows = selection.rows
        entity = keys.frame.entity.take(rows)
        order = np.argsort(entity) if keys.column is None else np.lexsort((entity, keys.ranks(rows)))
        found = selection.kept[keys.name] = rows[order]
    return np.asarray(found)


def _ordered(keys: _Keys) -> _Ordered | None:
    """The order of all rows of the present, as it was worked out before or now; None when it is of a later position than asked."""
    frame, upper = keys.frame, keys.upper
    caches = frame.table.caches
    known: _Ordered | None = caches.get(keys.name)
    if known is not None and known.upper is not upper.table:
        known = None
    if known is not None and known.position > keys.position and upper is not frame:
        return None
    if known is None or len(frame) - known.done > BESIDE or len(upper) - known.upper_done > BESIDE:
        if keys.column is None:
            order = np.argsort(frame.entity, kind="stable")
        else:
            ranks = keys.ranks(None)
            if ranks.dtype.kind == "f":
                order = np.lexsort((frame.entity, ranks))
            else:
                order = np.argsort(ranks.astype(np.int64) << 32 | frame.entity)
        known = caches[keys.name] = _Ordered(order.astype(np.int32), len(frame), keys.position, upper.table, len(upper))
    return known


def _beside(selection: Selection, keys: _Keys, ordered: _Ordered) -> tuple[np.ndarray, np.ndarray]:
    """The places that stand in order still, and of the selection those that have come or changed since."""
    frame, upper, mask = keys.frame, keys.upper, selection.mask
    places, beside = ordered.places, np.flatnonzero(mask[ordered.done :]) + ordered.done
    if upper is not frame and upper.table.changed_at > ordered.position:
        known = frame.kept.get(keys.name)
        if known is None or known[0] is not upper or known[1] is not ordered:
            changed = np.zeros(upper.entities + 1, bool)
            changed[upper.entity[ordered.upper_done :]] = True
            ends = upper.table.ends.buffer[upper.low : upper.high]
            changed[upper.entity[(ends != NEVER) & (ends > ordered.position)]] = True
            changed[-1] = False
            touched = changed.take(frame.owner(upper.table.level)[: ordered.done])
            left = places[~touched.take(places)] if touched.any() else places
            known = frame.kept[keys.name] = (upper, ordered, np.flatnonzero(touched), left)
        _, _, touched_rows, places = known
        beside = np.concatenate([touched_rows[mask.take(touched_rows)], beside])
    return places, beside


Cursor = tuple[Value | None, Any]


def _walk(places: np.ndarray, mask: np.ndarray | None, keys: _Keys, cursor: Cursor | None, wanted: int, *, backwards: bool) -> list[int]:
    """So many of the places that the mask lets through, beyond the cursor (before it, nearest last)."""
    at = (len(places) if backwards else 0) if cursor is None else _place_of(places, keys, cursor, before=backwards)
    found: list[int] = []
    stride = _FIRST_STRIDE
    while len(found) < wanted and (at > 0 if backwards else at < len(places)):
        part = places[max(0, at - stride) : at] if backwards else places[at : at + stride]
        at = at - len(part) if backwards else at + len(part)
        if mask is not None:
            part = part[part < len(mask)]
            part = part[mask.take(part)]
        missing = wanted - len(found)
        found = part[-missing:].tolist() + found if backwards else found + part[:missing].tolist()
        stride *= 2
    return found


def _place_of(places: np.ndarray, keys: _Keys, cursor: Cursor, *, before: bool) -> int:
    """How many places come up to the cursor, itself included (``before``: itself not)."""
    low, high = 0, len(places)
    limit = 0 if before else 1
    while low < high:
        middle = (low + high) // 2
        if keys.compare(keys.of(int(places[middle])), cursor) < limit:
            low = middle + 1
        else:
            high = middle
    return low


def _merged(found: list[int], beside: np.ndarray, keys: _Keys, cursor: Cursor | None, wanted: int, *, backwards: bool) -> list[int]:
    if not len(beside):
        return found
    keyed: list[tuple[Cursor, int]] = [(keys.of(place), place) for place in beside.tolist()]
    if cursor is not None:
        keyed = [each for each in keyed if (keys.compare(each[0], cursor) < 0 if backwards else keys.compare(each[0], cursor) > 0)]
    keyed += [(keys.of(place), place) for place in found]
    compare: Callable[[Any, Any], int] = lambda one, other: keys.compare(one[0], other[0])  # noqa: E731
    ordered: Sequence[tuple[Cursor, int]] = sorted(keyed, key=cmp_to_key(compare))
    return [place for _, place in (ordered[-wanted:] if backwards else ordered[:wanted])]
