"""What a condition selects at one position: masks over rows, lifted from level to level by the ordinals of what belongs to what.

What is asked of one moment is kept while the moment is: the parts of a page (facets, a histogram, the list) share their condition.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence

import msgspec
import numpy as np

from domain.condition import All, Any, Between, Condition, Contains, Followed, Has, Level, Not, OneOf, Present
from projections.cohort.errors import FieldRefused
from projections.cohort.fields import Field, field_named
from projections.columns.column import Column, Encoded
from projections.columns.errors import NotAColumn
from projections.columns.groups import group_of
from projections.columns.kept import Kept
from projections.columns.predicates import check, met_by_codes, met_by_numbers
from projections.columns.selection import Selection
from projections.columns.table import Frame, View

MASKS_BYTES, SELECTIONS_BYTES, ANSWERS_BYTES = 32 << 20, 96 << 20, 64 << 20
"""What a moment keeps of masks of conditions, of selections, and of what the rows have answered."""
KEPT_AT_LEAST = 3
ANSWERS_AT_LEAST = 256
"""Those of one question must not push each other out."""
_ROW_BYTES = 17
"""Of a selection: a byte a row of its mask, and 16 for each place that it names."""
_ABOVE: Mapping[Level, tuple[Level, ...]] = {
    Level.SUBJECT: (),
    Level.STUDY: (Level.SUBJECT,),
    Level.SERIES: (Level.STUDY, Level.SUBJECT),
    Level.FINDING: (Level.SERIES, Level.STUDY, Level.SUBJECT),
    Level.FACT: (Level.SUBJECT,),
    Level.TAG: (),
}
HELD = frozenset(_ABOVE)
"""Levels that columns know. There are too many instances for that."""
Leaf = OneOf | Between | Present | Contains


class Step(msgspec.Struct, frozen=True):
    """A condition that was looked at: how many rows met it, and how long that took."""

    what: str
    met: int
    milliseconds: float


class Asking(msgspec.Struct, frozen=True):
    """A part of a condition that columns do not know: whoever reads the rows says which entities of the level meet it."""

    level: Level
    condition: Condition


class Moment:
    """``outside``: what the rows have answered, entities' ids in ascending order."""

    def __init__(self, views: Mapping[Level, View], position: int) -> None:
        self.position = position
        self._views = views
        self.outside = Kept[np.ndarray](ANSWERS_BYTES, ANSWERS_AT_LEAST)
        self._masks = Kept[np.ndarray](MASKS_BYTES, KEPT_AT_LEAST)
        self._selections = Kept[Selection](SELECTIONS_BYTES, KEPT_AT_LEAST)

    def frame(self, level: Level) -> Frame:
        return self._views[level].at(self.position)

    def column(self, field: Field) -> Column | None:
        """None where it is not in memory."""
        view = self._views.get(field.level)
        return view.table.columns.get(field.column or field.key) if view is not None else None

    def select(self, level: Level, condition: Condition | None, steps: list[Step] | None = None) -> Selection:
        """The entities of a level that meet a condition. Raises NotAColumn, FieldUnknown, FieldRefused."""
        key = _key(level, condition)
        found = self._selections.get(key)
        if found is None or steps is not None:
            frame = self.frame(level)
            mask = frame.everything()
            if condition is not None:
                mask = self._mask(level, condition, steps) & mask
            found = Selection(frame, mask)
            self._selections.put(key, found, _ROW_BYTES * len(mask))
        return found

    def asks(self, level: Level, condition: Condition | None) -> Iterator[Asking]:
        """What has to be asked outside before the condition can be looked up here."""
        match condition:
            case None:
                return
            case All(of) | Any(of):
                for each in of:
                    yield from self.asks(level, each)
            case Not(of):
                yield from self.asks(level, of)
            case Has() if self._has_path(level, condition.level):
                yield from self.asks(condition.level, condition.where)
            case Followed() if level == Level.SUBJECT:
                yield from self.asks(Level.STUDY, condition.baseline)
                yield from self.asks(Level.STUDY, condition.follow_up)
            case Has() | Followed():
                yield Asking(level, condition)
            case _:
                field = field_named(condition.field, level)
                check(condition, field)
                if self.column(field) is None or (isinstance(condition, Contains) and condition.tolerant):
                    yield Asking(level, condition)

    def _has_path(self, level: Level, other: Level) -> bool:
        if level not in HELD or other not in HELD:
            return False
        if other == Level.TAG:
            return level in (Level.SUBJECT, Level.STUDY, Level.SERIES, Level.FINDING)
        return other in _ABOVE[level] or level in _ABOVE[other] or (other == Level.FACT and Level.SUBJECT in _ABOVE[level] and level != Level.FACT)

    def _mask(self, level: Level, condition: Condition, steps: list[Step] | None = None) -> np.ndarray:
        """Over all rows of the frame, whether they stand or not."""
        key = _key(level, condition)
        found = self._masks.get(key)
        if found is None or steps is not None:
            began = time.perf_counter()
            found = self._met(level, condition, None, steps)
            self._masks.put(key, found, found.nbytes)
            if steps is not None and not isinstance(condition, All | Any | Not):
                standing = self.frame(level).stands
                met = int(np.count_nonzero(found if standing is None else found & standing))
                steps.append(Step(f"{level}: {_words(condition)}", met, 1000 * (time.perf_counter() - began)))
        return found

    def _met(self, level: Level, condition: Condition, rows: np.ndarray | None, steps: list[Step] | None = None) -> np.ndarray:
        """Of these rows of the frame (all: None), which meet the condition."""
        outside = self.outside.get(_key(level, condition)) if len(self.outside) else None
        if outside is not None:
            return self._of_entities(level, outside, rows)
        part = (lambda each: self._mask(level, each, steps)) if rows is None else (lambda each: self._met(level, each, rows))
        match condition:
            case All(of):
                found = np.ones(len(self.frame(level)) if rows is None else len(rows), bool)
                for each in of:
                    found &= part(each)
                return found
            case Any(of):
                found = np.zeros(len(self.frame(level)) if rows is None else len(rows), bool)
                for each in of:
                    found |= part(each)
                return found
            case Not(of):
                return ~part(of)
            case Has():
                return self._has(level, condition, rows)
            case Followed():
                return self._followed(level, condition, rows)
        return self._leaf(level, condition, rows)

    def _leaf(self, level: Level, leaf: Leaf, rows: np.ndarray | None) -> np.ndarray:
        field = field_named(leaf.field, level)
        column = self.column(field)
        if column is None:
            raise NotAColumn(field.name)
        if field.level != level:
            mask = self._mask(field.level, leaf)
            return self._down(level, field.level, mask, rows)
        frame = self.frame(level)
        if isinstance(column, Encoded):
            codes = frame.codes(column)
            return met_by_codes(leaf, column, codes if rows is None else codes.take(rows))
        numbers = frame.values(column)
        return met_by_numbers(leaf, column, numbers if rows is None else numbers.take(rows))

    def _has(self, level: Level, has: Has, rows: np.ndarray | None) -> np.ndarray:
        if has.at_least < 1:
            return np.ones(len(self.frame(level)) if rows is None else len(rows), bool)
        if has.level in _ABOVE[level]:
            if has.at_least > 1:
                return np.zeros(len(self.frame(level)) if rows is None else len(rows), bool)
            mask = np.ones(len(self.frame(has.level)), bool) if has.where is None else self._mask(has.level, has.where)
            return self._down(level, has.level, mask, rows)
        over = level if level in _ABOVE[has.level] or has.level == Level.TAG else Level.SUBJECT
        owners = self.frame(has.level).owner(over).take(self.rows_that_meet(has.level, has.where))
        entities = self.frame(over).entities
        if has.at_least == 1:
            flags = np.zeros(entities + 1, bool)
            flags[owners] = True
        else:
            counts = np.bincount(owners[owners >= 0], minlength=entities + 1)
            flags = counts >= has.at_least
        flags[-1] = False
        frame = self.frame(level)
        places = frame.entity if over == level else frame.owner(over)
        return flags.take(places if rows is None else places.take(rows))

    def rows_that_meet(self, level: Level, condition: Condition | None) -> np.ndarray:
        """Places of the rows that stand and meet it. Where the level's rows are grouped by what is asked for, only those are looked at."""
        frame = self.frame(level)
        for leaf, others in _narrowest_first(condition):
            group = group_of(frame, leaf)
            if group is None:
                continue
            if frame.stands is not None:
                group = group[frame.stands.take(group)]
            for other in others:
                group = group[self._met(level, other, group)]
            return group
        return self.select(level, condition).rows

    def _followed(self, level: Level, asked: Followed, rows: np.ndarray | None) -> np.ndarray:
        if level != Level.SUBJECT:
            raise FieldRefused("a follow-up is asked of subjects")
        frame, studies = self.frame(level), self.frame(Level.STUDY)
        days = self._study_days()
        dated = studies.everything() & (days != _NO_DAY)
        first = np.flatnonzero(dated & self._mask(Level.STUDY, asked.baseline))
        second = np.flatnonzero(dated & self._mask(Level.STUDY, asked.follow_up))
        owner = studies.owner(Level.SUBJECT)
        span = np.int64(1) << 24
        later = np.sort(owner[second].astype(np.int64) * span + days[second])
        least, most = max(asked.at_least_days, -_FARTHEST), min(asked.at_most_days if asked.at_most_days is not None else _FARTHEST, _FARTHEST)
        at = owner[first].astype(np.int64) * span
        low = np.searchsorted(later, at + np.clip(days[first] + least, 0, span - 1), "left")
        high = np.searchsorted(later, at + np.clip(days[first] + most, 0, span - 1), "right")
        counts = high - low
        if least <= 0 <= most:  # not the same study
            itself = np.zeros(len(studies), bool)
            itself[second] = True
            counts = counts - itself[first]
        flags = np.zeros(frame.entities + 1, bool)
        flags[owner[first[counts > 0]]] = True
        flags[-1] = False
        return flags.take(frame.entity if rows is None else frame.entity.take(rows))

    def _study_days(self) -> np.ndarray:
        """Of each study, its date as a number of days."""
        frame = self.frame(Level.STUDY)
        column = frame.table.columns["study_date"]
        assert isinstance(column, Encoded)
        entries = column.dictionary.entries[: len(column.dictionary)]
        days = np.array([np.datetime64(str(entry[0]), "D").astype(np.int64) + _DAY_ZERO if entry else _NO_DAY for entry in entries], np.int64)
        return days.take(frame.codes(column))

    def _down(self, level: Level, above: Level, mask: np.ndarray, rows: np.ndarray | None) -> np.ndarray:
        """What holds of an entity, for the rows that belong to it."""
        upper = self.frame(above)
        flags = np.zeros(upper.entities + 1, bool)
        met = np.flatnonzero(mask if upper.stands is None else mask & upper.stands)
        flags[upper.entity.take(met)] = True
        owners = self.frame(level).owner(above)
        return flags.take(owners if rows is None else owners.take(rows))

    def _of_entities(self, level: Level, ids: np.ndarray, rows: np.ndarray | None) -> np.ndarray:
        frame = self.frame(level)
        flags = np.zeros(frame.entities + 1, bool)
        ordinals = frame.table.ordinals(ids)
        flags[ordinals[(ordinals >= 0) & (ordinals < frame.entities)]] = True
        return flags.take(frame.entity if rows is None else frame.entity.take(rows))

    def answered(self, asking: Asking, ids: np.ndarray) -> None:
        """What the rows said."""
        self.outside.put(_key(asking.level, asking.condition), ids, ids.nbytes)

    def is_answered(self, asking: Asking) -> bool:
        return _key(asking.level, asking.condition) in self.outside


_FARTHEST = 1 << 22
_DAY_ZERO = 1 << 22
_NO_DAY = -1
_ENCODER = msgspec.json.Encoder()


def _key(level: Level, condition: Condition | None) -> bytes:
    return level.encode() + _ENCODER.encode(condition)


def _words(condition: Condition) -> str:
    """What is asked, without the values: they may be of a person."""
    match condition:
        case Has():
            return f"has {condition.level}"
        case Followed():
            return "followed"
        case OneOf() | Between() | Present() | Contains():
            return f"{condition.field} {type(condition).__struct_config__.tag}"
    return str(type(condition).__struct_config__.tag)


def _narrowest_first(condition: Condition | None) -> Iterator[tuple[OneOf, Sequence[Condition]]]:
    """Conditions that may be looked up in a group, with what else has to hold."""
    parts: Sequence[Condition] = condition.of if isinstance(condition, All) else () if condition is None else (condition,)
    for n, part in enumerate(parts):
        if isinstance(part, OneOf):
            yield part, [*parts[:n], *parts[n + 1 :]]
